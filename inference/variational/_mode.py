"""The climb to a mode of the log density in unconstrained space: BFGS from the best end of Pathfinder's paths.

Nocedal and Wright 2006, "Numerical Optimization", chapters 3 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from probgen.algorithm import Learner, positive
from probgen.data.points import AtPoints
from probgen.inference.mcmc import _start
from probgen.inference.variational import _curvature
from probgen.target import Continuous

HALVINGS = 40  # of a step, before the line search gives up
TINY = 1e-30  # of a squared length, so that nothing is divided by zero


class State(NamedTuple):
    """A point with its log density and gradient, and an estimate of the inverse of the negative Hessian there."""

    z: Any
    value: Any
    gradient: Any
    inverse: Any
    stuck: Any  # line searches in a row that found no way up
    converged: Any


class Info(NamedTuple):
    """loss: minus the log density in nats; distance: to the mode, in sds of the normal that fits there."""

    loss: Any
    distance: Any
    converged: Any


@dataclass(frozen=True, kw_only=True)
class Climb(Learner[Continuous]):
    """Settings of the climb.

    num_steps: at most so many quasi-Newton steps.
    tolerance: distance to the mode, in sds, at which the climb has converged; where rounding forbids it, the climb ends
        when no step goes up.
    """

    begins_anywhere: ClassVar[bool] = True
    needs_matrix: ClassVar[bool] = True  # the inverse Hessian, also of many unknowns

    num_steps: int = 1000
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tolerance")

    def kernel(self) -> Climb:
        return replace(self, num_steps=1)

    def init(self, key: Any, target: Continuous) -> State:
        xp = target.ops.xp
        if target.points:
            return self._at_points(key, target)
        start = _start.find(key, target, "pathfinder")
        ends = xp.concatenate([start.ends, start.z[None]])
        values = target.log_density_batch(ends)
        z = ends[xp.argmax(xp.where(xp.isfinite(values), values, -xp.inf))]
        value, gradient = target.value_and_grad(z)
        inverse = start.covariance
        if inverse.ndim == 1:  # of many unknowns no path was followed, and all scales are said to be 1
            inverse = _curvature.begun(xp, inverse * _widest(target, z, gradient), self.needs_matrix)
        return State(z, value, gradient, inverse, xp.int32(0), xp.bool_(False))

    def _at_points(self, key: Any, target: Continuous) -> State:
        """The start with parameters where the program says that they begin, and unknowns at their mode there."""
        ops, xp = target.ops, target.ops.xp
        k_points, k_start = ops.split(key, 2)
        unknowns = AtPoints(target, target.first_points(k_points))
        u = xp.zeros(0, unknowns.theta.dtype)
        if unknowns.dim:
            start = _start.find(k_start, unknowns, "pathfinder")
            ends = xp.concatenate([start.ends, start.z[None]])
            values = unknowns.log_density_batch(ends)
            u = ends[xp.argmax(xp.where(xp.isfinite(values), values, -xp.inf))]
        z = unknowns.whole(u)
        value, gradient = target.value_and_grad(z)
        return State(
            z, value, gradient, _curvature.steepest(xp, gradient, self.needs_matrix), xp.int32(0), xp.bool_(False)
        )

    def step(self, key: Any, state: State, target: Continuous) -> tuple[State, Info]:
        xp = target.ops.xp
        state = target.ops.cond(state.converged, lambda s: s, lambda s: self._rise(s, target), state)
        return state, Info(-state.value, xp.sqrt(xp.abs(_decrement(target, state))), state.converged)

    def _rise(self, state: State, target: Continuous) -> State:
        """A quasi-Newton step; where none goes up steepest ascent is next, and if that fails too this is the end."""
        ops, xp = target.ops, target.ops.xp
        z, value, gradient, moved = _search(target, state)
        learned = _curvature.updated(ops, state.inverse, z - state.z, state.gradient - gradient)
        inverse = ops.where(moved, learned, _curvature.steepest(xp, gradient, self.needs_matrix))
        stuck = xp.where(moved, 0, state.stuck + 1)
        new = State(z, value, gradient, inverse, stuck, stuck == 2)
        near = lambda s: xp.logical_and(moved, _decrement(target, s) < self.tolerance**2)  # noqa: E731
        new = ops.cond(near(new), lambda s: _looked(target, s), lambda s: s, new)
        return new._replace(converged=xp.logical_or(stuck == 2, near(new)))


def _decrement(target: Continuous, state: State) -> Any:
    """Newton's decrement g' H g: the squared distance to the mode, in sds."""
    return state.gradient @ _curvature.times(target.ops, state.inverse, state.gradient)


def _looked(target: Continuous, state: State) -> State:
    """The state whose estimate knows the curvature along the gradient, by one more gradient beside z.

    An estimate that has not seen a direction says nothing of how far the mode is along it: where scales differ, steps of a
    millionth may be all that it asks for while the mode is many sds away. Now g' H g is at least |g|^2 over that curvature.
    """
    spread = target.ops.xp.abs(_decrement(target, state) / (state.gradient @ state.gradient + TINY)) ** 0.5
    s, y = _beside(target, state.z, state.gradient, 0.1 * spread)
    return state._replace(inverse=_curvature.updated(target.ops, state.inverse, s, y))


def _beside(target: Continuous, z: Any, gradient: Any, length: Any) -> tuple[Any, Any]:
    """A step along the gradient, of this length and beyond rounding, and the fall of the gradient along it: (dim,) each."""
    xp = target.ops.xp
    least = (1e-6 if z.dtype == xp.float64 else 1e-3) * (1 + xp.abs(z).max())
    s = gradient * xp.where(length > least, length, least) / xp.sqrt(gradient @ gradient + TINY)
    there = target.value_and_grad(z + s)[1]
    return s, target.ops.where(xp.all(xp.isfinite(there)), gradient - there, gradient * 0)


def _widest(target: Continuous, z: Any, gradient: Any) -> Any:
    """The square of the scale along the gradient, where that is above 1, else 1: what a first step may count on."""
    xp = target.ops.xp
    s, y = _beside(target, z, gradient, gradient @ gradient * 0)
    found = (s @ s) / xp.where(s @ y > 0, s @ y, s @ s + TINY)
    return xp.where(found > 1, found, found * 0 + 1)


def _search(target: Continuous, state: State) -> tuple[Any, Any, Any, Any]:
    """Halve the step until the density rises enough (Armijo); z, value, gradient, and whether it did."""
    ops, xp = target.ops, target.ops.xp
    direction = _curvature.times(ops, state.inverse, state.gradient)
    slope = state.gradient @ direction

    def falls_short(trial: Any) -> Any:
        halvings, length, _, value, gradient = trial
        good = xp.logical_and(value > state.value + 1e-4 * length * slope, xp.all(xp.isfinite(gradient)))
        return xp.logical_and(halvings < HALVINGS, xp.logical_not(good))

    def halve(trial: Any) -> Any:
        halvings, length, *_ = trial
        z = state.z + 0.5 * length * direction
        return (halvings + 1, 0.5 * length, z, *target.value_and_grad(z))

    z = state.z + direction
    first = (xp.int32(0), slope * 0 + 1.0, z, *target.value_and_grad(z))
    halvings, _, z, value, gradient = ops.while_loop(falls_short, halve, first)
    moved = halvings < HALVINGS
    pick = lambda new, old: ops.where(moved, new, old)  # noqa: E731
    return pick(z, state.z), pick(value, state.value), pick(gradient, state.gradient), moved


def covariance_root(target: Continuous, state: State) -> Any:
    """A lower triangular root of the inverse of the negative Hessian at a mode: (dim, dim).

    The Hessian is that of the whitened density, by central differences of its gradient, where every scale is about one.
    NaN where it is not negative definite, for then no normal fits.
    """
    ops, xp = target.ops, target.ops.xp
    white = ops.cholesky((state.inverse + state.inverse.T) / 2)
    width = 1e-4 if white.dtype == xp.float64 else 1e-2
    points = xp.concatenate([state.z + width * white.T, state.z - width * white.T])
    gradients = target.gradient_batch(points) @ white
    precision = (gradients[target.dim :] - gradients[: target.dim]) / (2 * width)
    half = xp.linalg.solve(ops.cholesky((precision + precision.T) / 2), white.T)
    return ops.cholesky(half.T @ half)
