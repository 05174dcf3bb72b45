"""Gibbs steps of finite unknowns in turn with Hamiltonian steps of the reals, for `gibbs`.

    k ~ p(k | z, y),   then z by an HMC transition that leaves p(z | k, y) as it is

Both leave p(k, z | y) as it is, and so does one after the other. Neal 2011 (arXiv:1206.1901), section 5.

The scales of p(z | k, y) may differ by orders of magnitude from one k to the next (an effect that is in the model, or is not), so
that no one step size suits. A trajectory that is rejected is tried again with a finer step, by delayed rejection:

    z2 at step e / 16 is accepted with probability min(1, p(z2, r2) (1 - a(z2, r2)) / (p(z, r) (1 - a(z, r))))

a(.) the probability that a trajectory at step e from there is accepted. Modi, Barnett and Carpenter 2023 (arXiv:2110.00610).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from probgen.inference.mcmc import _adaptation
from probgen.inference.mcmc._hamiltonian import ENERGY_ERROR, Point, leapfrog
from probgen.inference.mcmc._hamiltonian import State as Chain
from probgen.inference.mcmc.hmc import HMC

FINER = 16


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
    return Turn(indices, Chain._make((nothing, *given.value_and_grad(nothing), ())))


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
    reals, *told = _move(k_reals, reals, given, hmc)
    return Turn(indices, reals), Info(target.point(indices, reals.z), reals.log_density, *told)


# ---- the reals ---------------------------------------------------------------------------------------------------


class End(NamedTuple):
    """Where a trajectory ends, and its energy there, infinite where that is no number."""

    point: Point
    log_density: Any
    gradient: Any
    energy: Any


def _move(key: Any, chain: Chain, target: Any, hmc: HMC) -> tuple[Chain, Any, Any, Any, Any]:
    """The next state, and acceptance probability, step size, steps, and whether both trajectories diverged."""
    ops, xp, warmup = target.ops, target.ops.xp, chain.warmup
    k_length, k_momentum, k_accept = ops.split(key, 3)
    step_size = _adaptation.current_step_size(xp, warmup, hmc.num_warmup)
    length = hmc.trajectory_length * (0.5 + ops.uniform(k_length))
    count = xp.clip(xp.ceil(length / step_size), 1, hmc.max_steps).astype(xp.int32)
    r = ops.normal(k_momentum, chain.z.shape)
    begin = End(
        Point(chain.z, r, warmup.metric.pull(chain.gradient)), chain.log_density, chain.gradient,
        0.5 * (r @ r) - chain.log_density,
    )  # fmt: skip
    uniform = ops.uniform(k_accept, (2,))
    first = _trajectory(target, warmup.metric, begin, step_size, count)
    a1 = _accepted(xp, begin.energy - first.energy)
    at_once = uniform[0] < a1
    again = xp.where(at_once, 0, count)
    second = _trajectory(target, warmup.metric, begin, step_size / FINER, FINER * again)
    back = second._replace(point=second.point._replace(r=-second.point.r))
    ghost = _trajectory(target, warmup.metric, back, step_size, again)
    left = 1 - _accepted(xp, second.energy - ghost.energy)
    ratio = xp.exp(xp.minimum(begin.energy - second.energy, 50.0)) * left / xp.maximum(1 - a1, 1e-30)
    a2 = xp.minimum(xp.where(xp.isnan(ratio), 0.0, ratio), 1.0)
    end = _choose(ops, at_once, first, _choose(ops, uniform[1] < a2, second, begin))
    warmup = _adaptation.advance(ops, hmc, warmup, end.point.z, end.gradient, a1)
    accept = a1 + (1 - a1) * xp.where(at_once, 1.0, a2)
    worst = xp.minimum(first.energy, xp.where(at_once, xp.inf, second.energy)) - begin.energy
    steps = count + (FINER + 1) * again
    moved = Chain(end.point.z, end.log_density, end.gradient, warmup)
    return moved, accept, step_size, steps, worst > ENERGY_ERROR


def _trajectory(target: Any, metric: Any, begin: End, step_size: Any, count: Any) -> End:
    """`count` leapfrog steps."""
    ops, xp = target.ops, target.ops.xp

    def move(carry: Any) -> Any:
        i, point, _, _ = carry
        return (i + 1, *leapfrog(target, metric, point, step_size))

    first = (xp.int32(0), begin.point, begin.log_density, begin.gradient)
    _, point, log_density, gradient = ops.while_loop(lambda c: c[0] < count, move, first)
    energy = 0.5 * (point.r @ point.r) - log_density
    return End(point, log_density, gradient, xp.where(xp.isnan(energy), xp.inf, energy))


def _accepted(xp: Any, gain: Any) -> Any:
    """The probability that a trajectory is accepted whose energy falls by `gain`; none from nowhere to nowhere."""
    return xp.where(xp.isnan(gain), 0.0, xp.exp(xp.minimum(gain, 0.0)))


def _choose(ops: Any, condition: Any, new: End, old: End) -> End:
    point = Point(*(ops.where(condition, a, b) for a, b in zip(new.point, old.point, strict=True)))
    return End(point, *(ops.where(condition, a, b) for a, b in zip(new[1:], old[1:], strict=True)))
