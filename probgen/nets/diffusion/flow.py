"""A velocity as a flow: a NumPyro transform by an ordinary differential equation, and the density that it gives.

    dx / du = v(x, u),   u from 0 (noise) to 1 (the point)
    log p(x(1)) = log p(x(0)) - int_0^1 div v(x(u), u) du

The divergence is exact, a directional derivative a coordinate, or Hutchinson's mean of e . J e over probes e of random signs, which
stay as they are for a whole solve. Every point has steps of its own, and the error of the log volume is held on its own: one norm
over D + 1 numbers lets it be sqrt(D) times the tolerance. A solve that stopped early is NaN, by what the solver says of it.
Chen et al. 2018 (arXiv:1806.07366); Grathwohl et al. 2019 (arXiv:1810.01367); Kidger 2022 (arXiv:2202.02435).
"""

from __future__ import annotations

import functools
import importlib
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from probgen.nets.diffusion.denoiser import Denoiser

SOLVERS = {"tsit5": "Tsit5", "dopri8": "Dopri8", "heun": "Heun", "euler": "Euler"}  # by their names in Diffrax
MOST_EXACT = 32  # coordinates up to which a divergence is exact unless said


@dataclass(frozen=True)
class Solver:
    """How an equation is solved: in steps that hold the error of each, or in `num_steps` even ones.

    rtol, atol: the error a step may have, relative and absolute; max_steps: after so many a solve gives up, and is NaN.
    Raises ValueError for a name that is not known, a tolerance or a number that is not positive, Euler's without num_steps.
    """

    name: str = "tsit5"
    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 4096
    num_steps: int | None = None

    def __post_init__(self) -> None:
        if self.name not in SOLVERS:
            raise ValueError(f"Unknown solver {self.name!r}. Known: {', '.join(SOLVERS)}.")
        for name in ("rtol", "atol", "max_steps", "num_steps"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"A solver's {name} is positive; got {value}.")
        if self.name == "euler" and self.num_steps is None:
            raise ValueError("Euler's steps have no estimate of their error: give num_steps, or use solver 'tsit5'.")

    def finer(self) -> Solver:
        """The same with half the tolerance, or twice as many steps."""
        if self.num_steps is None:
            return replace(self, rtol=self.rtol / 2, atol=self.atol / 2)
        return replace(self, num_steps=2 * self.num_steps)

    @property
    def unit(self) -> float:
        """What a log volume, which starts from 0, is counted in: a step's error in it may be atol + rtol (1 + |volume|)."""
        return 1.0 if self.num_steps else 1.0 + self.rtol / self.atol

    def check(self, dtype: Any) -> None:
        """Raises ValueError where a tolerance is below what a dtype can hold."""
        least = 4 * float(jnp.finfo(dtype).eps)
        if self.num_steps is None and min(self.rtol, self.atol) < least:
            raise ValueError(
                f"A tolerance of {min(self.rtol, self.atol):.1g} is below what {jnp.dtype(dtype).name} can hold: "
                f"use {least:.1g} or more, or precision='float64'."
            )


@functools.cache
def _diffrax() -> Any:
    """The library, loaded when it is first asked for: that takes as long as all else that a fit loads."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(False):  # as outside of any trace
        return importlib.import_module("diffrax")


def _norm(error: Any) -> Any:
    """The largest root mean square of the parts: the point's, and the log volume's."""
    parts = [jnp.mean(jnp.square(jax.lax.stop_gradient(part))) for part in jax.tree.leaves(error)]
    return jnp.sqrt(jnp.max(jnp.stack(parts)))


def _moving(u: Any, x: Any, args: Any) -> Any:
    return args[0](x, u)


def _carrying(u: Any, state: Any, args: Any) -> Any:
    """The velocity, and the divergence in units of `unit`: () where `directions` are those of the axes, else (probe,)."""
    velocity, directions, exact, unit = args
    push = lambda direction: jax.jvp(lambda x: velocity(x, u), (state[0],), (direction,))  # noqa: E731
    moved, pushed = jax.vmap(push, out_axes=(None, 0))(directions)
    along = jnp.sum((directions * pushed).reshape(len(directions), -1), -1) / unit
    return moved, jnp.sum(along) if exact else along


def _solve(field: Callable[..., Any], state: Any, args: Any, solver: Solver, forward: bool, loose: Any = 1.0) -> Any:
    """Where a state arrives at the other end, its tolerance times `loose`; NaN where the solver stopped before."""
    dtype = jax.tree.leaves(state)[0].dtype
    if solver.num_steps is not None:
        return _evenly(field, state, args, solver, forward)
    solver.check(dtype)
    diffrax = _diffrax()
    start, end = (jnp.asarray(u, dtype) for u in ((0.0, 1.0) if forward else (1.0, 0.0)))
    steps = diffrax.PIDController(solver.rtol * loose, solver.atol * loose, pcoeff=0.4, icoeff=0.3, norm=_norm)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field), getattr(diffrax, SOLVERS[solver.name])(), start, end, None, state, args, stepsize_controller=steps,
        max_steps=solver.max_steps, throw=False,
    )  # fmt: skip
    done = solution.result == diffrax.RESULTS.successful
    return jax.tree.map(lambda y: jnp.where(done, y[-1], jnp.nan), solution.ys)


def _evenly(field: Callable[..., Any], state: Any, args: Any, solver: Solver, forward: bool) -> Any:
    """The same in even steps of a scan, which compiles sooner than an adaptive solve and can be differentiated twice."""
    start, unravel = ravel_pytree(state)
    rows, weights = _tableau(solver.name)
    size = (1.0 if forward else -1.0) / (solver.num_steps or 1)
    slope = lambda u, flat: ravel_pytree(field(u, unravel(flat), args))[0]  # noqa: E731

    def step(flat: Any, i: Any) -> tuple[Any, None]:
        slopes: list[Any] = []
        for row in rows:
            shift = sum((size * float(a) * k for a, k in zip(row, slopes, strict=True)), jnp.zeros_like(flat))
            share = (i + float(row.sum())) / solver.num_steps  # never beyond 1, as a product with the size would be
            slopes.append(slope(share if forward else 1.0 - share, flat + shift))
        return flat + sum(size * float(b) * k for b, k in zip(weights, slopes, strict=True)), None

    times = jnp.arange(solver.num_steps, dtype=start.dtype)
    return unravel(jax.lax.scan(jax.checkpoint(step), start, times)[0])


def _tableau(name: str) -> tuple[list[Any], Any]:
    """What an explicit Runge-Kutta method adds of its slopes, a row a stage, and the weights of a step."""
    if name == "euler":
        return [np.zeros(0)], np.ones(1)
    tableau = getattr(_diffrax(), SOLVERS[name]).tableau
    used = len(np.trim_zeros(tableau.b_sol, "b"))  # the last stage of Tsit5 serves its error alone
    return [np.zeros(0), *tableau.a_lower][:used], tableau.b_sol[:used]


def _explicit(velocity: Callable[[Any, Any], Any], x: Any) -> Callable[[Any, Any], Any]:
    """A velocity whose arrays are its leaves: what a plain function has closed over becomes so."""
    if isinstance(velocity, eqx.Module):
        return cast(Any, velocity)
    return eqx.filter_closure_convert(velocity, x, jnp.zeros((), x.dtype))


def moved(velocity: Callable[[Any, Any], Any], x: Any, solver: Solver, forward: bool = True) -> Any:
    """Where a point (*event) arrives: from noise to the point, or back."""
    return _solve(_moving, x, (_explicit(velocity, x),), solver, forward)


def carried(
    velocity: Callable[[Any, Any], Any],
    x: Any,
    solver: Solver,
    forward: bool = True,
    probes: Any = None,
    loose: Any = 1.0,
) -> tuple[Any, Any]:
    """Where a point (*event) arrives, and log |det| of noise to point: () if exact, else (probe,).

    probes: (probe, *event); None for the exact divergence. loose: what the tolerance is multiplied by.
    """
    exact = probes is None
    directions = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape) if exact else probes.astype(x.dtype)
    state = (x, jnp.zeros(() if exact else (len(probes),), x.dtype))
    args = (_explicit(velocity, x), directions, exact, solver.unit)
    end, volume = _solve(_carrying, state, args, solver, forward, loose)
    return end, (solver.unit if forward else -solver.unit) * volume


def signs(key: Any, num_probes: int, shape: tuple[int, ...]) -> Any:
    """Probes of random signs, whose estimate has the least variance: (probe, *shape)."""
    return jax.random.rademacher(key, (num_probes, *shape), jnp.result_type(float))


def is_exact(exact: bool | None, shape: tuple[int, ...]) -> bool:
    """Whether the divergence of points of a shape is exact: as said, else by the number of coordinates."""
    return math.prod(shape) <= MOST_EXACT if exact is None else exact


class ContinuousFlow(Transform):
    """Noise to point by dx / du = v(x, u), each batch entry by a solve of its own.

    velocity: (x: (*event), u: ()) -> (*event), best an Equinox module; shape: of a point, a number for a vector.
    exact: whether the divergence is; None: up to 32 coordinates. Else it is the mean over `num_probes` probes: those of `seed`,
    the same for every point, so that log_prob is a smooth function that HMC can follow; or, given a `key`, others for every row.
    A solve that stopped early is NaN.
    """

    def __init__(
        self, velocity: Callable[[Any, Any], Any], shape: int | tuple[int, ...], *, solver: Solver | str = Solver(),
        exact: bool | None = None, num_probes: int = 8, seed: int = 0, key: Any = None,
    ):  # fmt: skip
        self.velocity, self.key = velocity, key
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.solver = Solver(solver) if isinstance(solver, str) else solver
        self.exact, self.num_probes, self.seed = is_exact(exact, self.shape), num_probes, seed

    @property
    def domain(self) -> Any:
        return constraints.independent(constraints.real, len(self.shape))

    codomain = domain

    def _rows(self, x: Any) -> tuple[Any, tuple[int, ...]]:
        """Points in rows (row, *event), and the shape of the batch."""
        x = jnp.asarray(x, jnp.result_type(x, jnp.float32))
        batch = x.shape[: x.ndim - len(self.shape)]
        if x.shape[len(batch) :] != self.shape:
            raise ValueError(f"This flow is of points of shape {self.shape}; got an array of shape {x.shape}.")
        return x.reshape(-1, *self.shape), batch

    def _probes(self, count: int) -> tuple[Any, int | None]:
        """The probes of `count` rows, and the axis of rows."""
        if self.exact:
            return None, None
        if self.key is None:
            return signs(jax.random.key(self.seed), self.num_probes, self.shape), None
        return jax.vmap(lambda key: signs(key, self.num_probes, self.shape))(jax.random.split(self.key, count)), 0

    def _move(self, x: Any, forward: bool) -> Any:
        rows, batch = self._rows(x)
        return jax.vmap(lambda row: moved(self.velocity, row, self.solver, forward))(rows).reshape(*batch, *self.shape)

    def carry(self, x: Any, forward: bool = True) -> tuple[Any, Any]:
        """Where points (*batch, *event) arrive, and log |det| of noise to point: (*batch,) if exact, else (*batch, probe)."""
        rows, batch = self._rows(x)
        probes, axis = self._probes(len(rows))
        run = lambda row, probes: carried(self.velocity, row, self.solver, forward, probes)  # noqa: E731
        ends, volumes = jax.vmap(run, (0, axis))(rows, probes)
        return ends.reshape(*batch, *self.shape), volumes.reshape(*batch, *volumes.shape[1:])

    def _volume(self, volumes: Any) -> Any:
        return volumes if self.exact else jnp.mean(volumes, -1)

    def __call__(self, x: Any) -> Any:
        return self._move(x, True)

    def call_with_intermediates(self, x: Any) -> tuple[Any, Any]:
        end, volumes = self.carry(x)
        return end, self._volume(volumes)

    def _inverse(self, y: Any) -> Any:
        """The noise of a point; the solve's log volume is kept while that noise is, since log_prob asks for it next."""
        start, volumes = self.carry(y, False)
        forget = lambda _: self.__dict__.pop("_kept", None)  # noqa: E731
        self._kept = (weakref.ref(start, forget), self._volume(volumes))
        return start

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Any:
        if intermediates is not None:
            return intermediates
        kept = self.__dict__.get("_kept")
        return kept[1] if kept and kept[0]() is x else self._volume(self.carry(x)[1])

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "_kept"}

    def tree_flatten(self) -> tuple[Any, Any]:
        arrays, rest = eqx.partition(self.velocity, eqx.is_array)
        return (arrays, self.key), (rest, self.shape, self.solver, self.exact, self.num_probes, self.seed)

    @classmethod
    def tree_unflatten(cls, aux: Any, leaves: Any) -> ContinuousFlow:
        rest, shape, solver, exact, num_probes, seed = aux
        arrays, key = leaves
        velocity = eqx.combine(arrays, rest)
        return cls(velocity, shape, solver=solver, exact=exact, num_probes=num_probes, seed=seed, key=key)


class ProbabilityFlow(eqx.Module):
    """The velocity in u of a denoiser's probability flow: t = 1 - u (1 - first).

    It takes noise of scale sigma(1) to a point as it is at time `first`, the schedule's own unless said. A schedule with corners,
    on which adaptive steps stumble, gives way to a smooth one of the same path, but for a network that says a velocity: that is in
    its own schedule's time.
    """

    denoiser: Denoiser
    span: float = eqx.field(static=True)

    def __init__(self, denoiser: Denoiser, first: float | None = None) -> None:
        first = denoiser.schedule.first if first is None else first
        self.denoiser = denoiser
        if getattr(denoiser, "kind", "") != "velocity":
            smooth, first = denoiser.schedule.smooth(first)
            self.denoiser = eqx.tree_at(lambda denoiser: denoiser.schedule, denoiser, smooth)
        self.span = 1.0 - first

    @property
    def scale(self) -> Any:
        """The standard deviation of the noise that it starts from: ()."""
        return self.denoiser.schedule.scales(jnp.ones(()))[1]

    def __call__(self, x: Any, u: Any) -> Any:
        return -self.span * self.denoiser.velocity(x, jnp.maximum(1.0 - u * self.span, 1.0 - self.span))


class Density(NamedTuple):
    """log p of every row, and what is not known of it, all (row,).

    solver: by how much it changed when the tolerance was halved; probes: the standard error of the divergence's probes, 0 if exact.
    """

    value: Any
    solver: Any
    probes: Any


@eqx.filter_jit
def density(
    velocity: Callable[..., Any], x: Any, *, given: Any = None, scale: Any = 1.0, solver: Solver = Solver(),
    exact: bool | None = None, num_probes: int = 8, key: Any = None,
) -> Density:  # fmt: skip
    """The density of rows (row, *event) under noise N(0, scale^2) that a velocity has moved.

    given: what a conditional velocity takes as its third argument, (row, ...). value is of the finer solve; rows have probes of
    their own. NaN where a solve stopped early. Raises ValueError for one probe, and for a tolerance below the dtype's precision.
    """
    exact = is_exact(exact, x.shape[1:])
    if not exact and num_probes < 2:
        raise ValueError(f"One probe has no standard error: give num_probes=2 or more; got {num_probes}.")
    keys = jax.random.split(jax.random.key(0) if key is None else key, len(x))

    solver.finer().check(x.dtype)

    def one(row: Any, key: Any, given: Any) -> Density:
        own = velocity if given is None else Given(velocity, given)
        probes = None if exact else signs(key, num_probes, row.shape)
        coarse, fine = _twice(lambda *how: _log_prob(own, row, scale, probes, *how), solver)
        spread = jnp.zeros(()) if exact else jnp.std(fine, ddof=1) / math.sqrt(num_probes)
        return Density(jnp.mean(fine), jnp.abs(jnp.mean(fine) - jnp.mean(coarse)), spread)

    return jax.vmap(one)(x, keys, given)


def _twice(run: Callable[..., Any], solver: Solver) -> Any:
    """What run(solver, loose) gives, and again with half the tolerance or twice the steps; tolerances share one loop."""
    if solver.num_steps is None:
        return jax.vmap(lambda loose: run(solver, loose))(jnp.array([1.0, 0.5]))
    return run(solver, 1.0), run(solver.finer(), 1.0)


def _log_prob(velocity: Callable[[Any, Any], Any], x: Any, scale: Any, probes: Any, solver: Solver, loose: Any) -> Any:
    """log p of a point: (), or one a probe."""
    start, volume = carried(velocity, x, solver, False, probes, loose)
    return jnp.sum(jax.scipy.stats.norm.logpdf(start, scale=scale)) - volume


class Given(eqx.Module):
    """A conditional velocity of one condition."""

    velocity: Callable[[Any, Any, Any], Any]
    given: Any

    def __call__(self, x: Any, u: Any) -> Any:
        return self.velocity(x, u, self.given)
