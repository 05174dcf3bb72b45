"""What the Metropolis-adjusted samplers of Hamiltonian kind share: state, info, settings, and one trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.algorithm import Sampler
from probgen.inference.mcmc import _adaptation
from probgen.target import Continuous

ENERGY_ERROR = 1000.0  # a larger one, in nats, is a divergence


class State(NamedTuple):
    """A chain's position with its log density and gradient, and its warm-up."""

    z: Any
    log_density: Any
    gradient: Any
    warmup: _adaptation.Warmup


class Info(NamedTuple):
    """What one transition tells, in ArviZ's words; n_steps counts gradient evaluations."""

    z: Any
    lp: Any
    acceptance_rate: Any
    step_size: Any
    n_steps: Any
    diverging: Any
    energy: Any


class Point(NamedTuple):
    """A phase-space point on a trajectory: position, whitened momentum, whitened gradient."""

    z: Any
    r: Any
    pulled: Any


@dataclass(frozen=True, kw_only=True)
class Adapted(Sampler[Continuous]):
    """A gradient-based sampler whose step size and metric are learned during warm-up.

    target_accept: mean acceptance probability that the step size aims at; None is 0.8, and 0.97 where warm-up finds the
        curvature uneven.
    metric: "dense", "low_rank", "diagonal", or "auto": dense up to 40 dimensions, low rank beyond.
    start: "pathfinder", or "uniform" for the best of a few draws from U(-2, 2).
    """

    density_alone: ClassVar[bool] = True

    target_accept: float | None = None
    metric: Literal["auto", "dense", "low_rank", "diagonal"] = "auto"
    start: Literal["pathfinder", "uniform"] = "pathfinder"

    def __post_init__(self) -> None:
        super().__post_init__()
        _adaptation.check(self)

    def first_step(self, dim: int) -> float:
        """The step size to begin with, in whitened units."""
        return dim**-0.25

    def acceptance(self, xp: Any, uneven: Any) -> Any:
        """The mean acceptance probability to aim at: as set, else 0.8, or 0.97 where the curvature is uneven."""
        return self.target_accept if self.target_accept is not None else xp.where(uneven, 0.97, 0.8)

    def init(self, key: Any, target: Continuous) -> State:
        z, warmup = _adaptation.begin(key, target, self)
        return State(z, *target.value_and_grad(z), warmup)


def leapfrog(target: Any, metric: Any, point: Point, step_size: Any) -> tuple[Point, Any, Any]:
    """One leapfrog step in whitened momentum; the new point with its log density and gradient."""
    r = point.r + 0.5 * step_size * point.pulled
    z = point.z + step_size * metric.push(r)
    log_density, gradient = target.value_and_grad(z)
    pulled = metric.pull(gradient)
    return Point(z, r + 0.5 * step_size * pulled, pulled), log_density, gradient


def metropolis(key: Any, target: Any, state: State, step_size: Any, num_steps: Any) -> tuple[State, Any, Any, Any]:
    """A trajectory of num_steps leapfrog steps from fresh momentum, accepted or not; see `settled`."""
    ops, xp, metric = target.ops, target.ops.xp, state.warmup.metric
    k_momentum, k_accept = ops.split(key, 2)
    r = ops.normal(k_momentum, state.z.shape)

    def move(carry: Any) -> Any:
        i, point, _, _ = carry
        return (i + 1, *leapfrog(target, metric, point, step_size))

    first = (xp.int32(0), Point(state.z, r, metric.pull(state.gradient)), state.log_density, state.gradient)
    _, *end = ops.while_loop(lambda c: c[0] < num_steps, move, first)
    return settled(target, state, r, end, ops.uniform(k_accept))


def settled(
    target: Any, state: State, r: Any, end: Any, uniform: Any, adjust: Any = True
) -> tuple[State, Any, Any, Any]:
    """The chain after a trajectory with momentum r at its start; unadjusted, it goes to its end wherever that is finite.

    uniform may be None where it is known beforehand that nothing is adjusted.
    Returns the next state, the acceptance probability, whether the trajectory diverged, and the energy there.
    """
    ops, xp = target.ops, target.ops.xp
    point, log_density, gradient = end
    energy, new = 0.5 * (r @ r) - state.log_density, 0.5 * (point.r @ point.r) - log_density
    gain = ops.where(xp.isnan(new), -xp.inf, energy - new)
    accept = xp.exp(xp.minimum(gain, 0.0))
    finite = xp.isfinite(gain)
    taken = finite if uniform is None else ops.where(adjust, uniform < accept, finite)
    keep = lambda new, old: ops.where(taken, new, old)  # noqa: E731
    moved = State(
        keep(point.z, state.z), keep(log_density, state.log_density), keep(gradient, state.gradient), state.warmup
    )
    return moved, accept, gain < -ENERGY_ERROR, keep(new, energy)


def langevin(
    key: Any, target: Any, state: State, step_size: Any, thinning: int, adjust: Any = True
) -> tuple[State, Any, Any, Any]:
    """`thinning` trajectories of one step each; the acceptance is their mean, and it diverges where all of them do.

    adjust: False itself for steps that are all unadjusted, which draw no uniforms.
    """
    ops, xp, metric = target.ops, target.ops.xp, state.warmup.metric
    zero = state.log_density * 0
    k_momentum, k_accept = ops.split(key, 2)
    momenta = ops.normal(k_momentum, (thinning, *state.z.shape))
    uniforms = None if adjust is False else ops.uniform(k_accept, (thinning,))

    def move(carry: Any) -> Any:
        i, state, total, divergent, _ = carry
        begin = Point(state.z, momenta[i], metric.pull(state.gradient))
        end = leapfrog(target, metric, begin, step_size)
        uniform = None if uniforms is None else uniforms[i]
        state, accept, diverging, energy = settled(target, state, begin.r, end, uniform, adjust)
        return i + 1, state, total + accept, xp.logical_and(divergent, diverging), energy

    first = (xp.int32(0), state, zero, xp.bool_(True), zero)
    _, state, total, diverging, energy = ops.while_loop(lambda c: c[0] < thinning, move, first)
    return state, total / thinning, diverging, energy
