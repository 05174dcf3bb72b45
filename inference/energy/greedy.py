"""Greedy layer-wise training: every layer of a stack is an RBM of what the layers below make of the data.

    for l = 1, 2, ...: RBM (x, h) with log p = x' W_l h + a' x + c_l' h,  x = sigmoid(W_l-1' ... sigmoid(W_1' v + c_1))
    by contrastive divergence; its visible bias a is b for the first layer and c_l-1 above

A new layer raises a lower bound on the likelihood of a deep belief network, where it starts as the transposed layer below.
In a deep Boltzmann machine a layer will be driven from above and from below. Trained alone it has half of that, so its weights
count twice, upward in all layers but the last, downward in all but the first.
Hinton, Osindero and Teh 2006 (doi:10.1162/neco.2006.18.7.1527); Bengio, Lamblin, Popovici and Larochelle 2007; deep Boltzmann
machines: Salakhutdinov and Hinton 2009 (proceedings.mlr.press/v5/salakhutdinov09a.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from probgen.engine.numpyro.sums.energy import NotConditional
from probgen.inference.energy._energy import EnergyLearner


@dataclass(frozen=True, kw_only=True)
class Greedy(EnergyLearner):
    """Layer-wise training of programs with weights W1 (visible, hidden1), W2 (hidden1, hidden2), ..., biases b, c1, c2, ...

    num_steps: for all layers together, an equal share for each.
    num_sweeps: of contrastive divergence.
    The loss is the cross-entropy of a unit of the layer in training against its reconstruction, in nats.
    """

    loss_of: ClassVar[str] = "loss"
    bias: ClassVar[str | None] = "layers are trained one by one, each by contrastive divergence"

    num_steps: int = 10_000
    num_sweeps: int = 1
    decay: Literal["linear", "cosine", "constant"] = "constant"

    def prepare(self, target: Any) -> Any:

        shapes = {k: v.shape for k, v in target.first_shapes().items()}
        depth = layers(shapes)
        biases = [shapes.get(name, (-1,)) for name in visible_biases(depth)] + [shapes.get(f"c{depth}", (-1,))]
        sizes = [shapes[f"W{i + 1}"] for i in range(depth)]
        expected = [(a,) for a, _ in sizes] + [(s[1],) for s in sizes[-1:]]
        if not sizes or biases != expected or len(target.visible) != 1:
            raise ValueError(
                f"greedy needs parameters b, W1, c1, W2, c2, ... of a stack of layers; the program has {shapes}.\n"
                "Use inference='pcd' for other energies."
            )
        if not _plain(target):
            raise ValueError(
                "greedy needs b to be the log odds of the visible bits where all hidden ones are 0, which it is not.\n"
                "Leave out what its units are centred at, or use inference='pcd'."
            )
        try:
            return target.blocked()  # undirected
        except NotConditional:
            return target

    def first_chains(self, key: Any, target: Any, parameters: Any, batch: Any) -> Any:
        """The step, and the hidden biases with which each layer infers its units."""
        import jax.numpy as jnp

        depth = layers(parameters)
        return {"step": jnp.int32(0), "biases": [parameters[f"c{i + 1}"] for i in range(depth)]}

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        import jax
        import jax.numpy as jnp

        depth = layers(parameters)
        both = bool(target.structure.blocks)
        x = batch[target.visible[0].name].reshape(len(next(iter(batch.values()))), -1)
        layer = jnp.minimum(chains["step"] * depth // self.num_steps, depth - 1)
        branches = [lambda i=i: self._layer(i, key, parameters, chains["biases"], x, both) for i in range(depth)]
        gradient, loss = jax.lax.switch(layer, branches)
        own = [jnp.where(layer == i, parameters[f"c{i + 1}"], old) for i, old in enumerate(chains["biases"])]
        return gradient, loss, {"step": chains["step"] + 1, "biases": own}

    def _layer(self, i: int, key: Any, parameters: Any, biases: Any, x: Any, both: bool) -> tuple[Any, Any]:
        """The gradient and the reconstruction's cross-entropy of the RBM of one layer; rows x: (row, visible).

        both: whether weights count twice where a layer has neighbours on both sides.
        """
        import jax
        import jax.numpy as jnp

        twice = 2 if both else 1
        up, down = twice if i < len(biases) - 1 else 1, twice if i else 1
        for k in range(i):
            x = jax.nn.sigmoid(twice * x @ parameters[f"W{k + 1}"] + biases[k])
        names = f"W{i + 1}", visible_biases(i + 1)[-1], f"c{i + 1}"
        W, a, c = (parameters[name] for name in names)
        h = jax.nn.sigmoid(up * x @ W + c)
        y, g = x, h
        for k in jax.random.split(key, self.num_sweeps):
            k_hidden, k_visible = jax.random.split(k)
            means = jax.nn.sigmoid(jax.random.bernoulli(k_hidden, g).astype(W.dtype) @ (down * W.T) + a)
            y = jax.random.bernoulli(k_visible, means).astype(W.dtype)
            g = jax.nn.sigmoid(up * y @ W + c)
        found = (y.T @ g - x.T @ h) / len(x), jnp.mean(y - x, axis=0), jnp.mean(g - h, axis=0)
        logits = down * h @ W.T + a
        loss = jnp.mean(jax.nn.softplus(logits) - x * logits)
        return {k: jnp.zeros_like(v) for k, v in parameters.items()} | dict(zip(names, found, strict=True)), loss

    def monitor(self, key: Any, target: Any, state: Any, batch: Any, gap: Any) -> Any:
        return gap


def _plain(target: Any) -> bool:
    """Whether the visible bits' log odds are b where all hidden units are 0, at random parameters."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from probgen import runtime

    with runtime.jax_scope(target.precision):
        rng, shapes = np.random.default_rng(0), target.first_shapes()
        parameters = {k: jnp.asarray(rng.normal(size=v.shape), target.precision) for k, v in shapes.items()}
        (visible,) = target.visible
        zero = {v.name: jnp.zeros(v.shape) for v in target.hidden} | {k: target.arrays[k][0] for k in target.inputs}
        f = lambda v: target.joint(parameters, {**zero, visible.name: v})  # noqa: E731
        slope = jax.grad(f)(jnp.zeros(visible.shape))
        return bool(jnp.allclose(slope.ravel(), parameters["b"], atol=1e-3))


def layers(parameters: Any) -> int:
    """How many of W1, W2, ... there are in a row."""
    return next(i for i in range(len(parameters) + 1) if f"W{i + 1}" not in parameters)


def visible_biases(depth: int) -> list[str]:
    """Names of the visible biases of the layers' RBMs."""
    return ["b", *(f"c{i}" for i in range(1, depth))]
