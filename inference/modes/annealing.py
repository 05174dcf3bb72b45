"""Simulated annealing: Gibbs sampling at a rising inverse temperature, until the chain freezes in a mode.

    x ~ p_b(x) proportional to exp(b f(x)),   b = first (last / first)^(t / (num_steps - 1))

The best point of each chain is kept, and at the end climbs to where no change of one unit betters it. With a schedule slow
enough it is the highest mode; no schedule that anyone can wait for warrants that.
Kirkpatrick, Gelatt and Vecchi 1983 (doi:10.1126/science.220.4598.671); Geman and Geman 1984.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from probgen.algorithm import positive
from probgen.inference.modes._modes import Answer, Search, State


class Info(NamedTuple):
    """loss: minus the best log density so far, in nats, averaged over restarts; current: that of the chains now."""

    loss: Any
    current: Any
    inverse_temperature: Any


@dataclass(frozen=True, kw_only=True)
class Annealing(Search):
    """Simulated annealing from random points, all at once.

    num_steps: sweeps, over which the inverse temperature rises geometrically from `first` to `last`.
    first, last: per nat of the log density: chains should move freely at `first` and freeze before `last`.
    """

    num_steps: int = 1000
    first: float = 0.1
    last: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "first")
        if not self.last > self.first:
            raise ValueError(f"last is {self.last}; it must be above first, {self.first}")

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax
        import jax.numpy as jnp

        from probgen.inference.modes import _modes

        share = jnp.minimum(state.step / max(self.num_steps - 1, 1), 1.0)
        b = (self.first * (self.last / self.first) ** share).astype(state.log_density.dtype)
        sweep = lambda k, x: target.sweep(k, x, lambda y: b * target.joint(y))  # noqa: E731
        values = jax.vmap(sweep)(jax.random.split(key, self.num_restarts), state.values)
        state = _modes.moved(state, values, jax.vmap(target.joint)(values))
        return state, Info(-jnp.mean(state.best_density), -jnp.mean(state.log_density), b)

    def answer(self, key: Any, state: State, target: Any) -> Answer:
        import jax

        from probgen.inference.modes import _modes

        best = jax.vmap(lambda x: _modes.settled(target, x))(state.best)
        return super().answer(key, _modes.moved(state, best, jax.vmap(target.joint)(best)), target)
