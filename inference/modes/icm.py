"""Iterated conditional modes: every unknown at its best value given the rest, block after block, until none changes.

    x_B = argmax f(x_B, x_rest)   for bits x_i = 1 where df/dx_i > 0;  f: the log density

f rises with every change, so that each search ends at a point that no change of one unit betters. Besag 1986
(doi:10.1111/j.2517-6161.1986.tb01412.x).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from probgen.inference.modes._modes import Search, State


class Info(NamedTuple):
    """loss: minus the log density, in nats, averaged over restarts; changed: how many units moved, in all of them."""

    loss: Any
    changed: Any
    converged: Any


@dataclass(frozen=True, kw_only=True)
class ICM(Search):
    """Iterated conditional modes from random points.

    num_steps: at most so many sweeps; a search ends before, when nothing changes.
    tolerance: by how much a real number must move to count as changed, relative to its size or 1.
    """

    num_steps: int = 1000
    num_restarts: int = 100
    tolerance: float = 1e-6

    def kernel(self) -> ICM:
        return replace(self, num_steps=1)

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax
        import jax.numpy as jnp

        from probgen.inference.modes import _modes

        values = jax.vmap(lambda x: _modes.ascend(target, x))(state.values)
        changed = _modes.changed(values, state.values, self.tolerance)
        state = _modes.moved(state, values, jax.vmap(target.joint)(values))
        return state, Info(-jnp.mean(state.log_density), changed, changed == 0)
