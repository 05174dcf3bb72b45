"""The density of rows that a velocity has moved, in torch: an equation solved with its error held, the log volume's apart.

    dz / dt = v(z, t),   log p(z_a) = log p(z_b) + int_a^b div v(z_t, t) dt

The divergence is exact, a directional derivative a coordinate, or Hutchinson's mean of e . J e over probes of random signs, which
stay as they are for a whole solve. All rows take the same steps, the error of the worst of them held: of its point, and of its log
volume by itself. Dormand and Prince 1980 (doi:10.1016/0771-050X(80)90013-3), order five; Chen et al. 2018 (arXiv:1806.07366);
Grathwohl et al. 2019 (arXiv:1810.01367).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
MOST_EXACT = 32  # coordinates up to which a divergence is exact unless said
_AT = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_OF = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_APART = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@dataclass(frozen=True)
class Solver:
    """How an equation is solved: in steps that hold the error of each.

    rtol, atol: the error a step may have, relative and absolute; max_steps: after so many a solve gives up, and is NaN.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 4096

    def __post_init__(self) -> None:
        for name in ("rtol", "atol", "max_steps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"A solver's {name} is positive; got {getattr(self, name)}.")

    def finer(self) -> Solver:
        """The same with half the tolerance."""
        return replace(self, rtol=self.rtol / 2, atol=self.atol / 2)

    def check(self, dtype: torch.dtype) -> None:
        """Raises ValueError where a tolerance is below what the dtype can hold."""
        least = 4 * torch.finfo(dtype).eps
        if min(self.rtol, self.atol) < least:
            kind = str(dtype).removeprefix("torch.")
            raise ValueError(
                f"A tolerance of {min(self.rtol, self.atol):.1g} is below what {kind} can hold: use {least:.1g} or more, "
                "or precision='float64'."
            )


def moved(velocity: Velocity, z: Tensor, start: float, end: float, solver: Solver) -> Tensor:
    """Where rows (row, *event) arrive; NaN where the solver stopped before."""
    return _solve(lambda t, state: (velocity(state[0], t),), (z,), start, end, solver)[0]


def carried(
    velocity: Velocity, z: Tensor, start: float, end: float, solver: Solver, probes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Where rows arrive, and the integral of the divergence on the way: (row,) if exact, else (row, probe).

    probes: (probe, row, *event); None for the exact divergence.
    """
    volume = z.new_zeros(len(z) if probes is None else (len(z), len(probes)))

    def both(t: Tensor, state: Any) -> Any:
        return _with_divergence(velocity, state[0], t, probes)

    return _solve(both, (z, volume), start, end, solver)  # pyright: ignore[reportReturnType]


def signs(num_probes: int, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Probes of random signs, whose estimate has the least variance: (probe, row, *event)."""
    drawn = torch.randint(0, 2, (num_probes, *like.shape), generator=generator)
    return (2 * drawn - 1).to(like)


def is_exact(exact: bool | None, shape: Any) -> bool:
    """Whether the divergence of rows of a shape is exact: as said, else by the number of coordinates."""
    return math.prod(shape) <= MOST_EXACT if exact is None else exact


def _with_divergence(velocity: Velocity, z: Tensor, t: Tensor, probes: Tensor | None) -> tuple[Tensor, Tensor]:
    """The velocity, and its divergence: (row,), or an estimate a probe, (row, probe)."""
    outer = torch.is_grad_enabled()
    with torch.enable_grad():
        z = z if outer and z.requires_grad else z.detach().requires_grad_()
        said = velocity(z, t)
        if probes is None:
            flat = said.flatten(1)
            slopes = (
                torch.autograd.grad(flat[:, i].sum(), z, create_graph=outer, retain_graph=True)[0].flatten(1)[:, i]
                for i in range(flat.shape[1])
            )
            found: Any = sum(slopes)
        else:
            found = torch.stack([_along(said, z, e, outer) for e in probes], 1)
    return (said, found) if outer else (said.detach(), found.detach())


def _along(said: Tensor, z: Tensor, probe: Tensor, outer: bool) -> Tensor:
    (pulled,) = torch.autograd.grad(said, z, probe, create_graph=outer, retain_graph=True)
    return (pulled * probe).flatten(1).sum(1)


def _solve(field: Any, state: tuple[Tensor, ...], start: float, end: float, solver: Solver) -> tuple[Tensor, ...]:
    """The state at the end, by steps of Dormand and Prince; NaN where they were more than allowed."""
    solver.check(state[0].dtype)
    direction, t, h = math.copysign(1.0, end - start), start, 0.05 * abs(end - start)
    time = lambda t: state[0].new_tensor(t)  # noqa: E731
    first = field(time(t), state)
    for _ in range(solver.max_steps):
        h = min(h, abs(end - t))
        slopes = [first]
        for at, weights in zip(_AT[1:], _OF[1:], strict=True):
            ahead = _ahead(state, slopes, weights, direction * h)
            slopes.append(field(time(t + direction * h * at), ahead))
        size = _size(slopes, state, ahead, h, solver)
        if size <= 1:
            t, state, first = t + direction * h, ahead, slopes[-1]
            if abs(end - t) <= 1e-12 * abs(end - start):
                return state
        if not math.isfinite(size) and h < 1e-9:
            break
        h *= min(5.0, max(0.2, 0.9 * size**-0.2)) if math.isfinite(size) and size > 0 else 0.2 if size else 5.0
    return tuple(torch.full_like(x, torch.nan) for x in state)


def _ahead(state: Any, slopes: Any, weights: Any, h: float) -> tuple[Tensor, ...]:
    moves = [(w, slope) for w, slope in zip(weights, slopes, strict=True) if w]
    return tuple(x + h * sum(w * slope[i] for w, slope in moves) for i, x in enumerate(state))


@torch.no_grad()
def _size(slopes: Any, state: Any, ahead: Any, h: float, solver: Solver) -> float:
    """The largest error of a row, its point's and each of its volumes', in units of what it may be."""
    worst = 0.0
    for i, (x, y) in enumerate(zip(state, ahead, strict=True)):
        error: Any = h * sum(w * slope[i] for w, slope in zip(_APART, slopes, strict=True) if w)
        ratio = error / (solver.atol + solver.rtol * torch.maximum(x.abs(), y.abs()))
        rows = ratio.flatten(1).square().mean(1).sqrt() if i == 0 else ratio.abs()
        found = float(rows.max()) if rows.numel() else 0.0
        worst = max(worst, found) if math.isfinite(found) else math.inf
    return worst


class Density(NamedTuple):
    """log p of every row, and what is not known of it, all (row,).

    solver: by how much it changed when the tolerance was halved; probes: the standard error of the divergence's probes, 0 if exact.
    """

    value: Tensor
    solver: Tensor
    probes: Tensor


@torch.no_grad()
def density(
    velocity: Velocity, z: Tensor, first: float, scale: Any, solver: Solver = Solver(), exact: bool | None = None,
    num_probes: int = 8, generator: torch.Generator | None = None,
) -> Density:  # fmt: skip
    """The density of rows at time `first` under noise N(0, scale^2) at time 1 that a velocity has moved.

    value is of the finer solve; rows have probes of their own. NaN where a solve stopped early.
    """
    exact = is_exact(exact, z.shape[1:])
    probes = None if exact else signs(num_probes, z, generator)
    coarse, fine = (log_prob(velocity, z, first, scale, how, probes) for how in (solver, solver.finer()))
    if exact:
        return Density(fine, (fine - coarse).abs(), torch.zeros_like(fine))
    spread = fine.std(1) / math.sqrt(num_probes) if num_probes > 1 else torch.full_like(fine[:, 0], torch.nan)
    return Density(fine.mean(1), (fine.mean(1) - coarse.mean(1)).abs(), spread)


def log_prob(velocity: Velocity, z: Tensor, first: float, scale: Any, solver: Solver, probes: Tensor | None) -> Tensor:
    """log p of rows: (row,), or one a probe, (row, probe)."""
    end, volume = carried(velocity, z, first, 1.0, solver, probes)
    scale = torch.as_tensor(scale).to(z)
    at_end = (-0.5 * (end / scale) ** 2 - torch.log(scale) - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)
    return (at_end if probes is None else at_end[:, None]) + volume
