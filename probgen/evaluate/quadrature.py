"""log Z of one or two real unknowns by quadrature: a fine grid, and wider boxes about it until nothing is left."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen import runtime
from probgen.fitted import LogProb

QUARTER = 100  # cells of a quarter of an axis of a wider box, of one unknown ten times as many
DOUBLINGS = 12
NEGLIGIBLE, FALLING = 1e-8, 0.95  # of the mass; of one box to the next


def log_z_by_quadrature(
    target: Any, low: float | Sequence[float], high: float | Sequence[float], num: int = 401
) -> LogProb:
    """log Z of a continuous target of one or two unknowns on a grid, in nats.

    low, high: of every unknown; what lies beyond is added, in boxes twice as wide each. num: points of each axis. The standard
    error is the change from every second point to all, and what the last box added. ValueError where the density does not fall off.
    """
    if target.dim > 2:
        raise ValueError(f"Quadrature is for one or two unknowns; this target has {target.dim}. Use AIS.")
    lowest, highest = (np.broadcast_to(end, target.dim).astype(float) for end in (low, high))
    num += 1 - num % 2
    axes = [np.linspace(a, b, num) for a, b in zip(lowest, highest, strict=True)]
    found = _at(target, np.array(list(itertools.product(*axes)))).reshape((num,) * target.dim)
    cell = float(np.log((highest - lowest) / (num - 1)).sum())
    value = _trapezium(found) + cell
    half = _trapezium(found[(slice(None, None, 2),) * target.dim]) + cell + target.dim * np.log(2)
    beyond, rest = _beyond(target, lowest, highest, value)
    return LogProb(
        float(np.logaddexp(value, beyond)), float(abs(value - half)) + rest, f"quadrature on {num} points an axis"
    )


def _trapezium(logs: np.ndarray) -> float:
    """The log of the sum over a grid whose ends count half along every axis."""
    ends = np.zeros(len(logs))
    ends[[0, -1]] = -np.log(2)
    for _ in range(logs.ndim):
        logs = np.logaddexp.reduce(logs + ends, -1)
    return float(logs)


def _beyond(target: Any, low: np.ndarray, high: np.ndarray, inside: float) -> tuple[float, float]:
    """The log of the mass outside of a box, and the share of all that the last wider one has; inside: the log of the mass in it."""
    total = shell = -np.inf
    for _ in range(DOUBLINGS):
        before, (low, high) = shell, ((3 * low - high) / 2, (3 * high - low) / 2)
        shell = _shell(target, low, high)
        if not shell < np.inf:
            break
        total = float(np.logaddexp(total, shell))
        share = float(np.exp(shell - np.logaddexp(inside, total))) if shell > -np.inf else 0.0
        if share < NEGLIGIBLE:
            return total, share
    else:
        if shell - before < np.log(FALLING):
            return total, share
    raise ValueError(
        f"The density does not fall off: as far out as {max(np.abs([*low, *high])):.3g} there is more of it than nearer, so it "
        "has no constant.\nLearn longer, or keep the energy within a normal, as neural_ebm does."
    )


def _shell(target: Any, low: np.ndarray, high: np.ndarray) -> float:
    """The log of the mass in a box but for its central half along every axis, by cells' middles."""
    cells = 4 * (QUARTER if target.dim > 1 else 10 * QUARTER)
    axes = [a + (np.arange(cells) + 0.5) * (b - a) / cells for a, b in zip(low, high, strict=True)]
    central = np.abs(np.arange(cells) + 0.5 - cells / 2) < cells / 4
    outside = ~np.logical_and.reduce(np.meshgrid(*[central] * target.dim, indexing="ij")).ravel()
    found = _at(target, np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, target.dim)[outside])
    return float(np.logaddexp.reduce(np.where(np.isnan(found), -np.inf, found)) + np.log((high - low) / cells).sum())


def _at(target: Any, points: np.ndarray) -> np.ndarray:
    """Log densities at points (point, dim): (point,)."""
    with runtime.jax_scope(target.precision):
        return np.asarray(_densities(target, jnp.asarray(points)), float)


@jax.jit
def _densities(target: Any, points: Any) -> Any:
    return jax.lax.map(target.log_density, points, batch_size=4096)
