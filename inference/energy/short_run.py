"""Maximum likelihood with Langevin chains from a replay buffer, for neural energies.

    gradient = mean over the batch of df/dtheta - mean over the chains of df/dtheta
    chains:  x' = x + (e^2 / 2) df/dx + t e r,   r ~ N(0, I),   from the buffer, or now and then from noise

Du and Mordatch 2019 (arXiv:1903.08689); Nijkamp, Hill, Zhu and Wu 2019 (arXiv:1904.09770). They take every step at a size
of their choice. Where the density is narrower than about half of e such chains run away, and the energy after them; so both
the steps and the fresh starts are accepted by Metropolis here, at a size that the acceptance sets. At t = 1 this is Tieleman's
PCD with MALA: the chains are the model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from probgen.algorithm import positive
from probgen.inference.energy._score import RealEnergyLearner, added, dot, normals

ACCEPT, GAIN = 0.574, 0.1  # of Langevin steps (Roberts and Rosenthal 1998); of the log step size, for each of them


class Chains(NamedTuple):
    """The buffer's points, {site: (buffer, *event)}, and the size of their Langevin steps."""

    points: Any
    size: Any


@dataclass(frozen=True, kw_only=True)
class ShortRun(RealEnergyLearner):
    """Short-run Langevin with a replay buffer.

    num_chains: chains that a step moves and compares with the batch.
    buffer_size: chains kept, a multiple of num_chains; steps take turns at random.
    num_langevin: Langevin steps of a chain for every learning step.
    step_size: the largest e, in units of the batch's root mean variance.
    adjust: whether Metropolis accepts what the chains do, e falling where fewer than 57 % of the steps are accepted; False
        takes every step at the same size, as the papers do.
    temperature: t; below 1 the chains are colder than the model, and its energies only rank points.
    restart: the share of chains that try to begin anew at every learning step, with independent normal units as wide as the
        data. Few dimensions need it to move between modes. Without adjustment all of them do, and those that are still on
        their way to the model's points bias the gradient: take 0.01 to 0.05 then.
    energy_l2: weight of mean f^2 over batch and chains, which keeps energies near zero (Du and Mordatch).
    The loss is log(|gap| / units of a point + mean square distance of the chains from the data's mean / its variance): 0
        where the chains are like the data, and it runs away where energies or chains do.
    """

    bias: ClassVar[str | None] = "chains that lag behind the parameters: compare log_prob with held-out data"

    spike: ClassVar[float] = 1.5

    learning_rate: float = 1e-2
    num_chains: int = 200
    buffer_size: int = 2000
    num_langevin: int = 10
    step_size: float = 0.1
    adjust: bool = True
    temperature: float = 1.0
    restart: float = 1.0
    energy_l2: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_chains", "buffer_size", "num_langevin", "step_size", "temperature")
        if self.buffer_size % self.num_chains:
            raise ValueError(
                f"buffer_size is {self.buffer_size}; it must be a multiple of num_chains, {self.num_chains}"
            )
        for name in ("restart", "temperature"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")

    def first_chains(self, key: Any, target: Any, parameters: Any, batch: Any) -> Chains:
        return Chains(noise(key, batch, self.buffer_size), self.step_size * spread(batch))

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Chains) -> tuple[Any, Any, Chains]:
        import jax

        k_turn, k_anew, k_move = jax.random.split(key, 3)
        at = self.num_chains * jax.random.randint(k_turn, (), 0, self.buffer_size // self.num_chains)
        points = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, at, self.num_chains), chains.points)
        points = self.restarted(k_anew, target, parameters, points, batch)
        limit = self.step_size * spread(batch)
        points, size = self.moved(k_move, target, parameters, points, chains.size, limit)
        put = lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, at, 0)  # noqa: E731
        (_, gap), gradient = jax.value_and_grad(self.contrast, argnums=1, has_aux=True)(
            target, parameters, batch, points
        )
        return gradient, gap, Chains(jax.tree.map(put, chains.points, points), size)

    def restarted(self, key: Any, target: Any, parameters: Any, points: Any, batch: Any) -> Any:
        """Points of which some begin anew: an independence step of Metropolis, from the noise."""
        import jax

        k_try, k_noise, k_take = jax.random.split(key, 3)
        fresh = noise(k_noise, batch, self.num_chains)
        worth = jax.vmap(lambda x: target.joint(parameters, x) / self.temperature**2 - log_noise(batch, x))
        taken = jax.random.bernoulli(k_try, self.restart, (self.num_chains,))
        return chosen(taken & self.accepted(k_take, worth(fresh) - worth(points)), fresh, points)

    def moved(self, key: Any, target: Any, parameters: Any, points: Any, size: Any, limit: Any) -> tuple[Any, Any]:
        """Points after their Langevin steps, and the size for the next time; the size is at most `limit`."""
        import jax
        import jax.numpy as jnp

        t = self.temperature
        density = jax.vmap(jax.value_and_grad(lambda x: target.joint(parameters, x)))
        square = jax.vmap(lambda r: 0.5 * dot(r, r))

        def one(i: Any, carry: Any) -> Any:
            points, value, slope, size = carry
            k_noise, k_take = jax.random.split(jax.random.fold_in(key, i))
            r = normals(k_noise, points)
            new = added(added(points, size**2 / 2, slope), t * size, r)
            there, pull = density(new)
            back = added(r, size / (2 * t), added(slope, 1.0, pull))  # minus the noise that leads back
            gain = (there - value) / t**2 + square(r) - square(back)
            taken = self.accepted(k_take, gain)
            wider = jnp.exp(GAIN * (jnp.mean(taken) - ACCEPT))
            size = jnp.minimum(size * wider, limit) if self.adjust else size
            return chosen(taken, new, points), jnp.where(taken, there, value), chosen(taken, pull, slope), size

        first = (points, *density(points), jnp.minimum(size, limit) if self.adjust else limit)
        points, _, _, size = jax.lax.fori_loop(0, self.num_langevin, one, first)
        return points, size

    def accepted(self, key: Any, gain: Any) -> Any:
        """Where Metropolis accepts a gain of log density; everywhere without adjustment."""
        import jax
        import jax.numpy as jnp

        return -jax.random.exponential(key, gain.shape) < gain if self.adjust else jnp.full(gain.shape, True)

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
        points = state.chains.points
        away = sum(jnp.sum((points[k] - x.mean(0)) ** 2) / self.buffer_size for k, x in batch.items())
        loss = lambda gap: jnp.log(jnp.abs(gap) / size + away / size / spread(batch) ** 2)  # noqa: E731
        first = lambda: loss(self.contrast(target, state.parameters, batch, points)[1])  # noqa: E731
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


def log_noise(batch: Any, point: Any) -> Any:
    """The log density of one point under `noise`, up to a constant."""
    import jax.numpy as jnp

    sd = {k: jnp.std(x, axis=0) for k, x in batch.items()}
    white = {k: (point[k] - x.mean(0)) / jnp.where(sd[k] > 0, sd[k], 1.0) for k, x in batch.items()}
    return -0.5 * dot(white, white)


def chosen(where: Any, new: Any, old: Any) -> Any:
    """Of each point the new or the old one."""
    import jax
    import jax.numpy as jnp

    pick = lambda a, b: jnp.where(where.reshape(-1, *[1] * (a.ndim - 1)), a, b)  # noqa: E731
    return jax.tree.map(pick, new, old)
