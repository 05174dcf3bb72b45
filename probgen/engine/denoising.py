"""What is asked of learned programs with a denoiser: draws by a sampler, bounds, densities, errors by level of noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from probgen.algorithm import Incompatible
from probgen.engine import load
from probgen.fitted import LogProb
from probgen.target import Arrays, Diffused

CHAINS = "The program has {} chains: {}. Learn their bound by inference='svi'."
SCALED = "The chain {!r} has a scale or a mask: the KL of a part of it is no bound. Leave that out."
RISES = """The schedule's log SNR does not fall with time: it rises after t = {:.3g}.
Time runs from 0, the point, to 1, noise: alpha / sigma must fall all the way."""
NO_LINE = """The guide puts noise on another function of {!r} than a line, coordinate by coordinate.
Such a chain has its own draws, sampler='own', and its bound, method='bound', alone; or transform the data before."""


LOOSE = 1e-4  # a tolerance above it is told


def rough(solver: Any) -> str:
    """A program's own solver in words where it holds its error loosely, or not at all; else empty."""
    if num_steps := getattr(solver, "num_steps", None):
        return f"{solver.name}, {num_steps} steps"
    loosest = max(solver.rtol, solver.atol)
    return f"tolerance {loosest:g}" if loosest > LOOSE else ""


class Draw(NamedTuple):
    """How points are drawn: the sampler, evaluations of the network, guidance, the share of noise of a start, its grid of times."""

    sampler: str
    num_steps: int
    guidance: float = 1.0
    level: float | None = None
    times: str | None = None


def own_draws(
    target: Diffused, answer: Arrays, rows: Arrays, count: int, seed: int, num_steps: int | None = None
) -> dict[str, np.ndarray]:
    """The program run forward: {site: (count, *event)}; rows: inputs by keyword, (count, *event).

    num_steps: levels of a chain of tokens, instead of its own.
    """
    return _of(target).own_draws(target, answer, rows, count, seed, num_steps)


def draws(
    target: Diffused, answer: Arrays, rows: Arrays, count: int, seed: int, draw: Draw, start: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Points by a sampler: {site: (count, *event)}; start: points to begin at, (count, *event)."""
    return _of(target).draws(target, answer, rows, count, seed, draw, start)


def jumped(
    target: Diffused, answer: Arrays, rows: Arrays, count: int, seed: int, learner: str, num_steps: int
) -> dict[str, np.ndarray]:
    """Points in so many evaluations of a network that has learned to jump: {site: (count, *event)}; learner: its word."""
    return _of(target).jumped(target, answer, rows, count, seed, learner, num_steps)


def bound(target: Diffused, answer: Arrays, rows: Arrays, num_draws: int, seed: int) -> LogProb:
    """A lower bound on log p of rows by levels of the chain, in nats: (row,)."""
    return _of(target).bound(target, answer, rows, num_draws, seed)


def density(target: Diffused, answer: Arrays, rows: Arrays, seed: int) -> LogProb:
    """The density of the probability flow at rows, in nats: (row,)."""
    return _of(target).density(target, answer, rows, seed)


def between(target: Diffused, answer: Arrays, rows: Arrays, pair: np.ndarray, num_points: int) -> dict[str, np.ndarray]:
    """Points between two, (2, *event), by way of their noise: {site: (num_points, *event)}."""
    return _of(target).between(target, answer, rows, pair, num_points)


def moved(target: Diffused, answer: Arrays, rows: Arrays, x: np.ndarray, where: str) -> np.ndarray:
    """Points "to noise" by the probability flow, or noise "to points": (row, *event); rows: inputs by keyword, (row, *event)."""
    found = getattr(_of(target), "moved_rows", None)
    if found is None:
        raise Incompatible(
            f"Points are moved through their noise of NumPyro programs; this is a {target.engine} program."
        )
    return found(target, answer, rows, x, where)


def losses(target: Diffused, answer: Arrays, rows: Arrays, num_levels: int, seed: int) -> Mapping[str, np.ndarray]:
    """The network's error by level of noise; see `DiffusionFit.losses`."""
    return _of(target).losses(target, answer, rows, num_levels, seed)


def schedule(target: Diffused, answer: Arrays, num_times: int) -> Mapping[str, np.ndarray]:
    """times, alpha, sigma and log_snr: (time,)."""
    return _of(target).schedule(target, answer, num_times)


def paths(
    target: Diffused, answer: Arrays, rows: Arrays, count: int, seed: int, draw: Draw
) -> Mapping[str, np.ndarray]:
    """Times (step,), falling, and z at each, (count, step, *event)."""
    return _of(target).paths(target, answer, rows, count, seed, draw)


def calibration(target: Diffused, answer: Arrays) -> Mapping[str, np.ndarray]:
    """What rows say of the denoiser by level of noise: log_snr, gain, slope, offset, missed."""
    return _of(target).calibration(target, answer)


def columns(target: Diffused, function: Callable[..., Any], points: np.ndarray) -> np.ndarray:
    """A user's function of one point, in the words of the engine, of many: (point, *event) -> (point, *value)."""
    return _of(target).columns(function, points)


def _of(target: Diffused) -> Any:
    """The engine's module of these."""
    return load(target.engine).denoising
