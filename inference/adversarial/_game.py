"""A game of two: a critic learns to tell data from draws, the program learns from its slope. What all such learners share.

    for each step of the program: `critic_steps` steps of the critic on fresh rows and draws, then one of the program

What differs, the two losses, is in the learners' own files. Shapes: rows {site: (row, *event)}, logits (row,), or of a critic of
patches (row, height, width), over all of which losses are means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.algorithm import positive
from probgen.inference.adversarial._draws import FromDraws, State, flat, rows_of
from probgen.target import CRITIC


class Critic(NamedTuple):
    """The critic's parameters, its optimiser's state, and for every weight the vectors of its largest singular value."""

    parameters: Any
    optimiser: Any
    vectors: Any
    turn: Any


@dataclass(frozen=True)
class Play:
    """What losses are written with. judge: points -> logits (row,); key: of what is random in one; done: the share of all steps."""

    judge: Any
    key: Any
    sites: tuple[str, ...]
    done: Any = 0.0

    def mean(self, x: Any) -> Any:
        return x.mean()

    def softplus(self, x: Any) -> Any:
        import jax

        return jax.nn.softplus(x)

    def relu(self, x: Any) -> Any:
        import jax

        return jax.nn.relu(x)

    def square_slope(self, points: Any) -> Any:
        """The squared norm of the critic's gradient, over all axes of a row, or of the rows that are judged at once: (row,).

        Of a critic of patches, the gradient of their mean.
        """
        import jax

        own = {k: points[k] for k in self.sites}
        judge = lambda p: (said := self.judge({**points, **p})).reshape(len(said), -1).mean(1)  # noqa: E731
        logits, pull = jax.vjp(judge, own)
        (slopes,) = pull(jax.numpy.ones_like(logits))
        count = len(logits)
        return sum((s.reshape(count, -1) ** 2).sum(1) for s in slopes.values())

    def between(self, real: Any, fake: Any) -> Any:
        """Points anywhere on the lines from draws to rows, with the rows' inputs."""
        import jax

        count = len(fake[self.sites[0]])
        share = jax.random.uniform(self.key, (count,))

        def mix(a: Any, b: Any) -> Any:
            weight = share.reshape(-1, *(1,) * (a.ndim - 1)).astype(b.dtype)
            return weight * a + (1 - weight) * b

        return {k: mix(real[k], v) if k in self.sites else v for k, v in fake.items()}


@dataclass(frozen=True, kw_only=True)
class Game(FromDraws):
    """Settings of all learners against a critic, beside those of `FromDraws`.

    critic_steps: of the critic for one of the program.
    critic_rate: the critic's learning rate, in learning rates of the program ("two time scales", Heusel et al. 2017).
    spectral_norm: whether every weight of the critic is divided by its largest singular value (Miyato et al. 2018), by one power
        iteration a step.
    pack: rows that the critic judges at once (Lin et al. 2018).
    augment: the same random change of rows and of draws, in both players' steps (Zhao et al. 2020): "none", "translation" by an
        eighth of a picture's sides, "cutout" of a square of half its sides, or "both".
    reconstruction: weight of mean |x - x'|, x a row and x' the draw for its inputs (Isola et al. 2017); 100 there.
    orthogonal: weight of |W' W - diagonal|^2 over the program's weights (Brock et al. 2019); 1e-4 there.
    equalised: whether weights begin at N(0, 2 / inputs) and move in steps of that scale (Karras et al. 2018).
    simultaneous: whether both move at once, from where both are; else the program answers the critic's move.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro", "pyro")

    critic_steps: int = 1
    critic_rate: float = 1.0
    spectral_norm: bool = False
    pack: int = 1
    augment: Literal["none", "translation", "cutout", "both"] = "none"
    reconstruction: float = 0.0
    orthogonal: float = 0.0
    equalised: bool = False
    simultaneous: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "critic_steps", "critic_rate", "pack")
        for name in ("orthogonal", "reconstruction"):
            if not getattr(self, name) >= 0:  # NaN as well
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.augment not in ("none", "translation", "cutout", "both"):
            raise ValueError(f"augment is {self.augment!r}; known: none, translation, cutout, both")

    # ---- the two losses

    def critic_loss(self, play: Play, real: Any, fake: Any) -> Any:
        """What the critic minimises: ()."""
        raise NotImplementedError

    def model_loss(self, play: Play, real: Any, fake: Any) -> Any:
        """What the program minimises: ()."""
        raise NotImplementedError

    def bound_critic(self, parameters: Any) -> Any:
        """The critic's parameters within their bounds, after a step."""
        return parameters

    # ---- the kernel

    def on(self, engine: str) -> Any:
        if engine == "numpyro":
            return self
        from probgen.inference.adversarial._torch._game import Kernel

        return Kernel(self)

    def against(self, target: Any, critic: Any, count: int) -> Any:
        if count % self.pack:
            raise ValueError(
                f"pack is {self.pack}, which does not divide a batch of {count} rows: change batch_size or pack."
            )
        if self.augment != "none" and not any(len(v.shape) > 1 for v in target.visible):
            raise ValueError(f"augment={self.augment!r} is for pictures, with two axes or three; rows have none.")
        if self.reconstruction and not target.inputs:
            raise ValueError(
                f"reconstruction is {self.reconstruction:g}, and rows have no inputs of which a draw could be their own: use 0."
            )
        return target.judged_by(critic, self.pack)

    def first(self, key: Any, parameters: Any) -> Any:
        from probgen.inference.adversarial import _weights

        return _weights.equalised(key, parameters) if self.equalised else dict(parameters)

    def first_rival(self, key: Any, target: Any) -> Critic:
        import jax
        import jax.numpy as jnp

        from probgen.inference.adversarial import _weights

        k_net, k_vectors = jax.random.split(key)
        parameters = self.first(k_net, target.critic_initial(k_net))
        parameters = self.bound_critic(parameters | self._begun(target, parameters))
        vectors = _weights.first_vectors(k_vectors, parameters) if self.spectral_norm else {}
        return Critic(parameters, self.rule().init(parameters), vectors, jnp.int32(0))

    def _begun(self, target: Any, parameters: Any) -> dict[str, Any]:
        """Those of the critic's parameters that begin where a fit ended."""
        starts = target.starts
        return {k: starts[k + CRITIC] for k in parameters if k + CRITIC in starts}

    def faced(self, before: Critic, after: Critic) -> Critic:
        return before if self.simultaneous else after

    def of_rival(self, rival: Critic) -> dict[str, Any]:
        from probgen.inference.adversarial import _weights

        return {k + CRITIC: v for k, v in _weights.divided(rival.parameters, rival.vectors).items()}

    def prepared(self, k_rows: Any, k_rival: Any, state: State, target: Any, rate: Any) -> Any:
        import jax
        import jax.numpy as jnp

        def turn(carry: Any, i: Any) -> Any:
            rival, order = carry
            order, batch = rows_of(jax.random.fold_in(k_rows, i), order, rival.turn, self.batch_size, target)
            rival, told = self._train(jax.random.fold_in(k_rival, i), rival, target, state.parameters, batch, rate)
            return (rival, order), (batch, told)

        if self.critic_steps == 1:
            (rival, order), (batch, told) = turn((state.rival, state.order), 0)
            return order, batch, rival, told
        (rival, order), (batches, told) = jax.lax.scan(turn, (state.rival, state.order), jnp.arange(self.critic_steps))
        return order, jax.tree.map(lambda x: x[-1], batches), rival, jax.tree.map(lambda x: x[-1], told)

    def _train(
        self, key: Any, rival: Critic, target: Any, parameters: Any, batch: Any, rate: Any
    ) -> tuple[Critic, Any]:
        """One step of the critic, and its loss before."""
        import jax

        from probgen.engine.numpyro.targets.draws import of_rows
        from probgen.inference.adversarial import _weights

        k_draw, k_play = jax.random.split(key)
        fake = of_rows(target, k_draw, parameters, batch)
        vectors = _weights.iterated(rival.parameters, rival.vectors)
        done = rival.turn / (self.num_steps * self.critic_steps)
        loss = lambda p: self.critic_loss(self._play(k_play, target, p, vectors, done), batch, fake)  # noqa: E731
        found, slope = jax.value_and_grad(loss)(rival.parameters)
        updates, optimiser = self.rule().update(slope, rival.optimiser)
        moved = self.bound_critic(self.moved(rival.parameters, updates, rate * self.critic_rate))
        return Critic(moved, optimiser, vectors, rival.turn + 1), found

    def looked_at(self, key: Any, state: State, target: Any, rows: Any) -> Any:
        import jax.numpy as jnp

        from probgen.engine.numpyro.targets.draws import of_rows

        size = len(rows[target.visible[0].name]) // self.pack * self.pack
        rows = {k: v[:size] for k, v in rows.items()}
        play = self._play(key, target, state.rival.parameters, state.rival.vectors)
        real, fake = play.judge(rows), play.judge(of_rows(target, key, state.parameters, rows))
        middle = 0.0 if self.has_middle else 0.5 * (real.mean() + fake.mean())
        right = 0.5 * jnp.mean(real > middle) + 0.5 * jnp.mean(fake < middle)
        return right.astype("float32"), jnp.sqrt(play.square_slope(rows).mean()).astype("float32")

    @property
    def has_middle(self) -> bool:
        """Whether a logit of 0 is where the critic cannot tell; else only differences of its logits mean something."""
        return True

    def loss_of_draws(self, key: Any, target: Any, rival: Critic, parameters: Any, batch: Any) -> Any:
        import jax

        from probgen.engine.numpyro.targets.draws import of_rows

        k_draw, k_play = jax.random.split(key)
        fake = of_rows(target, k_draw, parameters, batch)
        loss = self.model_loss(self._play(k_play, target, rival.parameters, rival.vectors), batch, fake)
        if not self.reconstruction:
            return loss
        return loss + self.reconstruction * abs(flat(target, batch) - flat(target, fake)).mean()

    def regularised(self, gradient: Any, parameters: Any) -> Any:
        import jax

        from probgen.inference.adversarial import _weights

        if not self.orthogonal:
            return gradient
        penalty = jax.grad(_weights.off_diagonal)(parameters)
        return jax.tree.map(lambda g, p: g + self.orthogonal * p, gradient, penalty)

    def moved(self, parameters: Any, updates: Any, rate: Any) -> Any:
        from probgen.inference.adversarial import _weights

        scaled = _weights.scaled(updates) if self.equalised else updates
        return super().moved(parameters, scaled, rate)

    def _play(self, key: Any, target: Any, critic: Any, vectors: Any, done: Any = 0.0) -> Play:
        import jax

        from probgen.inference.adversarial import _augment, _weights

        k_augment, k_play = jax.random.split(key)
        own = _weights.divided(critic, vectors)
        sites = tuple(v.name for v in target.visible)
        changed = lambda points: _augment.changed(k_augment, points, sites, self.augment)  # noqa: E731
        return Play(lambda points: target.logits(own, changed(points)), k_play, sites, done)
