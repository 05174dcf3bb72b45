"""Gibbs steps of finite unknowns in turn with Hamiltonian steps of the reals, for `gibbs`.

    k ~ p(k | z, y),   then z by an HMC transition that leaves p(z | k, y) as it is

Both leave p(k, z | y) as it is, and so does one after the other. Neal 2011 (arXiv:1206.1901), section 5.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from probgen.inference.mcmc._hamiltonian import State as Chain
from probgen.inference.mcmc.hmc import HMC


class Turn(NamedTuple):
    """Indices of the finite unknowns, and the chain of the reals given them."""

    indices: Any
    reals: Chain

    @property
    def log_density(self) -> Any:
        return self.reals.log_density


class Info(NamedTuple):
    """The point as one array, its log density up to a constant in nats, and of the step of the reals what HMC tells."""

    z: Any
    lp: Any
    acceptance_rate: Any
    step_size: Any
    n_steps: Any
    diverging: Any


class FiniteInfo(NamedTuple):
    """The same where there are no reals."""

    z: Any
    lp: Any


def begin(key: Any, target: Any, hmc: HMC) -> Turn:
    """The state of a chain before its first step."""
    k_finite, k_reals = target.ops.split(key, 2)
    indices = target.begin(k_finite)
    given = target.given(indices)
    if target.reals:
        return Turn(indices, hmc.init(k_reals, given))
    nothing = target.ops.xp.zeros(0)
    return Turn(indices, Chain(nothing, *given.value_and_grad(nothing), ()))


def step(key: Any, state: Turn, target: Any, hmc: HMC, thinning: int) -> tuple[Turn, Any]:
    """`thinning` rounds of both; the warm-up of the reals counts the last one."""
    import jax

    def extra(i: Any, state: Turn) -> Turn:
        new, _ = _round(target.ops.fold_in(key, i), state, target, hmc)
        return Turn(new.indices, new.reals._replace(warmup=state.reals.warmup))

    state = jax.lax.fori_loop(1, thinning, extra, state) if thinning > 1 else state
    return _round(target.ops.fold_in(key, 0), state, target, hmc)


def _round(key: Any, state: Turn, target: Any, hmc: HMC) -> tuple[Turn, Any]:
    k_finite, k_reals = target.ops.split(key, 2)
    indices = target.sweep_finite(k_finite, state.indices, state.reals.z)
    given = target.given(indices)
    value, gradient = given.value_and_grad(state.reals.z)
    reals = state.reals._replace(log_density=value, gradient=gradient)
    if not target.reals:
        return Turn(indices, reals), FiniteInfo(target.point(indices, reals.z), value)
    reals, info = hmc.step(k_reals, reals, given)
    point = target.point(indices, reals.z)
    told = Info(point, info.lp, info.acceptance_rate, info.step_size, info.n_steps, info.diverging)
    return Turn(indices, reals), told
