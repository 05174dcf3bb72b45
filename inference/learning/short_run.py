"""Maximum likelihood with Langevin chains from a replay buffer, for neural energies.

    gradient = mean over the batch of df/dtheta - mean over the chains of df/dtheta
    chains:  x' = x + (e^2 / 2) df/dx + t e r,   r ~ N(0, I),   from the buffer, or now and then from noise

Du and Mordatch 2019 (arXiv:1903.08689); Nijkamp, Hill, Zhu and Wu 2019 (arXiv:1904.09770). Tieleman's PCD with Langevin
steps: at t = 1, and steps that are small against the density's width, the chains are the model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.algorithm import positive
from probgen.inference.learning._score import RealEnergyLearner


@dataclass(frozen=True, kw_only=True)
class ShortRun(RealEnergyLearner):
    """Short-run Langevin with a replay buffer.

    num_chains: chains that a step moves and compares with the batch.
    buffer_size: chains kept, a multiple of num_chains; steps take turns at random.
    num_langevin: Langevin steps of a chain for every learning step.
    step_size: e, in units of the batch's root mean variance.
    temperature: t; below 1 the chains are colder than the model, and its energies only rank points.
    restart: the share of chains that begin anew, with independent normal units as wide as the data; those that are still
        on their way to the model's points bias the gradient.
    energy_l2: weight of mean f^2 over batch and chains, which keeps energies near zero (Du and Mordatch).
    The loss is log(|gap| / units of a point + mean square distance of the chains from the data's mean / its variance): 0
        where the chains are like the data, and it runs away where energies or chains do.
    """

    bias: ClassVar[str | None] = "chains that are not long enough, unadjusted: compare log_prob with held-out data"

    learning_rate: float = 1e-2
    num_chains: int = 200
    buffer_size: int = 2000
    num_langevin: int = 20
    step_size: float = 0.1
    temperature: float = 1.0
    restart: float = 0.01
    energy_l2: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_chains", "buffer_size", "num_langevin", "step_size")
        if self.buffer_size % self.num_chains:
            raise ValueError(
                f"buffer_size is {self.buffer_size}; it must be a multiple of num_chains, {self.num_chains}"
            )
        for name in ("restart", "temperature"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")

    def first_chains(self, key: Any, target: Any, parameters: Any, batch: Any) -> Any:
        return noise(key, batch, self.buffer_size)

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        import jax

        k_turn, k_anew, k_noise, k_move = jax.random.split(key, 4)
        at = self.num_chains * jax.random.randint(k_turn, (), 0, self.buffer_size // self.num_chains)
        points = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, at, self.num_chains), chains)
        anew = jax.random.bernoulli(k_anew, self.restart, (self.num_chains,))
        points = chosen(anew, noise(k_noise, batch, self.num_chains), points)
        points = self.moved(k_move, target, parameters, points, self.step_size * spread(batch))
        chains = jax.tree.map(lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, at, 0), chains, points)
        (_, gap), gradient = jax.value_and_grad(self.contrast, argnums=1, has_aux=True)(
            target, parameters, batch, points
        )
        return gradient, gap, chains

    def moved(self, key: Any, target: Any, parameters: Any, points: Any, size: Any) -> Any:
        """Points after their Langevin steps of a size."""
        import jax

        from probgen.inference.learning._score import added, normals, score

        slopes = jax.vmap(lambda x: score(target, parameters, x))

        def one(i: Any, points: Any) -> Any:
            pushed = added(points, size**2 / 2, slopes(points))
            return added(pushed, self.temperature * size, normals(jax.random.fold_in(key, i), points))

        return jax.lax.fori_loop(0, self.num_langevin, one, points)

    def contrast(self, target: Any, parameters: Any, batch: Any, points: Any) -> tuple[Any, Any]:
        """Mean f over the chains minus over the batch, with the penalty, and the gap."""
        import jax
        import jax.numpy as jnp

        f = jax.vmap(lambda x: target.joint(parameters, x))
        data, model = f(batch), f(points)
        gap = jnp.mean(data) - jnp.mean(model)
        return self.energy_l2 * (jnp.mean(data**2) + jnp.mean(model**2)) - gap, gap

    def monitor(self, key: Any, target: Any, state: Any, batch: Any, gap: Any) -> Any:
        import jax
        import jax.numpy as jnp

        size = sum(v.size for v in target.visible)
        away = sum(jnp.sum((state.chains[k] - x.mean(0)) ** 2) / self.buffer_size for k, x in batch.items())
        loss = lambda gap: jnp.log(jnp.abs(gap) / size + away / size / spread(batch) ** 2)  # noqa: E731
        first = lambda: loss(self.contrast(target, state.parameters, batch, state.chains)[1])  # noqa: E731
        return jax.lax.cond(state.step == 0, first, lambda: 0.5 * state.loss + 0.5 * loss(gap))


def spread(batch: Any) -> Any:
    """The root of the mean variance of a batch's units."""
    import jax.numpy as jnp

    variances = [jnp.var(x, axis=0).ravel() for x in batch.values()]
    return jnp.sqrt(jnp.mean(jnp.concatenate(variances)))


def noise(key: Any, batch: Any, count: int) -> Any:
    """Independent normal units with the means and sds of a batch: {site: (count, *event)}."""
    import jax
    import jax.numpy as jnp

    points = {}
    for k, (name, x) in zip(jax.random.split(key, len(batch)), batch.items(), strict=True):
        drawn = jax.random.normal(k, (count, *x.shape[1:]), x.dtype)
        points[name] = jnp.mean(x, axis=0) + jnp.std(x, axis=0) * drawn
    return points


def chosen(where: Any, new: Any, old: Any) -> Any:
    """Of each point the new or the old one."""
    import jax
    import jax.numpy as jnp

    pick = lambda a, b: jnp.where(where.reshape(-1, *[1] * (a.ndim - 1)), a, b)  # noqa: E731
    return jax.tree.map(pick, new, old)
