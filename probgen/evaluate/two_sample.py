"""How far two distributions are apart, from tables of their masses or from draws of each.

    total variation 1/2 sum |p - q|,   KL sum p log p/q,   JS 1/2 KL(p, m) + 1/2 KL(q, m) with m = (p + q) / 2
    W_r = min over couplings of E[|x - y|^r]^(1/r),   MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)

Tables are of cells of a grid: `histograms` makes them from two sets of draws, `masses` from a density. Divergences between
histograms are above the true ones by about cells / (2 draws): compare with two halves of one set. Draws are (draw, dim), or
(draw,) in one dimension, and independent. Units: nats, or those of the draws.
Gretton et al. 2012 (JMLR 13:723); Székely and Rizzo 2013 (doi:10.1016/j.jspi.2013.03.018); Bonneel et al. 2015, sliced W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from probgen.data.inputs import refuse_masked
from probgen.data.whole_numbers import generator
from probgen.evaluate.samples.rows import same_columns

LARGEST = 10_000  # draws of both sets together whose distances are kept in memory
ASSIGNED = 3000  # draws of each set that are assigned exactly


class Estimate(NamedTuple):
    """A number, its Monte Carlo standard error, and what kind of number it is."""

    value: float
    stderr: float
    kind: str


class TwoSample(NamedTuple):
    """A statistic that is zero on average where both sets come from one distribution, and its p-value by permutations."""

    value: float
    p_value: float
    kind: str


# ---- tables ------------------------------------------------------------------------------------------------------


def total_variation(p: Any, q: Any) -> float:
    """Between two tables of masses or counts of one shape: 0 to 1."""
    p, q = _tables(p, q)
    return float(0.5 * abs(p - q).sum())


def kl(p: Any, q: Any) -> float:
    """KL(p | q) of two tables, in nats; infinite where q is zero and p is not."""
    p, q = _tables(p, q)
    on = p > 0
    with np.errstate(divide="ignore"):
        return float(np.sum(p[on] * (np.log(p[on]) - np.log(q[on]))))


def js(p: Any, q: Any) -> float:
    """Jensen and Shannon's divergence of two tables, in nats: 0 to log 2."""
    p, q = _tables(p, q)
    return 0.5 * kl(p, p + q) + 0.5 * kl(q, p + q)


def histograms(
    x: Any, y: Any, bins: int = 20, limits: Sequence[tuple[float, float]] | None = None
) -> tuple[Any, Any, Any]:
    """Counts of two sets of draws in the cells of one grid, (bins, ...), and its edges; at most three dimensions.

    limits: (low, high) of every dimension, by default of both sets together; draws outside are not counted.
    """
    x, y = _draws(x, y)
    if x.shape[1] > 3:
        raise ValueError(f"Draws have {x.shape[1]} dimensions; a grid has at most 3. Use sliced_wasserstein or mmd.")
    both = np.concatenate([x, y])
    limits = list(zip(both.min(0), both.max(0), strict=True)) if limits is None else list(limits)
    p, edges = np.histogramdd(x, bins, limits)
    return p, np.histogramdd(y, bins, limits)[0], edges


def masses(log_prob: Callable[[Any], Any], edges: Sequence[Any], fine: int = 8) -> np.ndarray:
    """The masses of a density in the cells of a grid, by the midpoint rule on `fine` parts of every side.

    log_prob: (point, dim) -> (point,), in nats. Not normalised: what is missing from 1 lies outside the grid.
    """
    sides = [_midpoints(np.asarray(edge, float), fine) for edge in edges]
    grid = np.stack(np.meshgrid(*(at for at, _ in sides), indexing="ij"), -1)
    values = np.exp(np.asarray(log_prob(grid.reshape(-1, len(sides))), float)).reshape(grid.shape[:-1])
    for axis, (_, widths) in enumerate(sides):
        values = np.moveaxis(np.moveaxis(values, axis, -1) * widths, -1, axis)
    shape = [n for at, _ in sides for n in (len(at) // fine, fine)]
    return values.reshape(shape).sum(axis=tuple(range(1, 2 * len(sides), 2)))


def kl_of_draws(log_p: Any, log_q: Any) -> Estimate:
    """KL(p | q) from the log densities of both at draws of p: (draw,) and (draw,), in nats."""
    ratios = np.asarray(log_p, float) - np.asarray(log_q, float)
    if ratios.ndim != 1 or len(ratios) < 2:
        raise ValueError(f"log_p - log_q has shape {ratios.shape}; expected two draws or more: (draw,).")
    return Estimate(float(ratios.mean()), float(ratios.std(ddof=1) / np.sqrt(len(ratios))), "Monte Carlo estimate")


# ---- transport ---------------------------------------------------------------------------------------------------


def wasserstein(x: Any, y: Any, order: float = 1) -> float:
    """W_order between two sets of draws, exact: by sorting in one dimension, by assignment in more.

    In more dimensions both sets must have the same number of draws, at most 3000. It does not go to zero quickly: between two
    sets of n draws of one distribution it is of the order n^(-1 / dim).
    """
    x, y = _draws(x, y)
    if x.shape[1] == 1:
        return _by_sorting(np.sort(x[:, 0]), np.sort(y[:, 0]), order)
    if len(x) != len(y) or len(x) > ASSIGNED:
        raise ValueError(
            f"There are {len(x)} and {len(y)} draws; an assignment needs as many of each, at most {ASSIGNED}.\n"
            "Thin them, or use sliced_wasserstein."
        )
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    costs = cdist(x, y) ** order
    return float(costs[linear_sum_assignment(costs)].mean() ** (1 / order))


def sliced_wasserstein(x: Any, y: Any, order: float = 1, num_directions: int = 200, seed: int = 0) -> Estimate:
    """The mean over directions of W_order^order between projections, to the power 1 / order; exact in one dimension."""
    x, y = _draws(x, y)
    if x.shape[1] == 1:
        return Estimate(wasserstein(x, y, order), 0.0, "exact")
    directions = generator(seed).normal(size=(num_directions, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    costs = np.array([_by_sorting(np.sort(x @ u), np.sort(y @ u), order) ** order for u in directions])
    mean, error = costs.mean(), costs.std(ddof=1) / np.sqrt(num_directions)
    value = float(mean ** (1 / order))
    slope = value / (order * mean) if mean > 0 else 0.0
    return Estimate(value, float(error * slope), f"Monte Carlo estimate over {num_directions} directions")


def _by_sorting(x: np.ndarray, y: np.ndarray, order: float) -> float:
    """Of sorted draws: the distance of their quantile functions, which are constant between the steps of either."""
    levels = np.union1d(np.arange(1, len(x)) / len(x), np.arange(1, len(y)) / len(y))
    levels = np.concatenate([[0.0], levels, [1.0]])
    middles, widths = 0.5 * (levels[1:] + levels[:-1]), np.diff(levels)
    quantile = lambda values: values[np.minimum((middles * len(values)).astype(int), len(values) - 1)]  # noqa: E731
    return float((abs(quantile(x) - quantile(y)) ** order @ widths) ** (1 / order))


# ---- tests -------------------------------------------------------------------------------------------------------


def mmd(x: Any, y: Any, bandwidth: float | None = None, num_permutations: int = 1000, seed: int = 0) -> TwoSample:
    """The unbiased estimate of MMD^2 under the kernel exp(-|x - y|^2 / (2 bandwidth^2)), and whether it is above zero.

    bandwidth: by default the median distance of the draws of both sets.
    """
    x, y = _draws(x, y)
    apart = _distances(x, y)
    if bandwidth is None:
        bandwidth = float(np.median(apart[np.triu_indices(len(apart), 1)]))
    if not bandwidth > 0:
        raise ValueError(
            f"bandwidth is {bandwidth}; it must be above 0. (The median distance is 0 where most draws are equal.)"
        )
    kernel = np.exp(-0.5 * (apart / bandwidth) ** 2)
    kind = f"unbiased estimate of MMD^2, Gaussian kernel of bandwidth {bandwidth:.3g}"
    return _permuted(kernel, len(x), num_permutations, seed, kind)


def energy_distance(x: Any, y: Any, num_permutations: int = 1000, seed: int = 0) -> TwoSample:
    """The unbiased estimate of 2 E|x - y| - E|x - x'| - E|y - y'|, and whether it is above zero; the kernel is -|x - y|."""
    x, y = _draws(x, y)
    return _permuted(-_distances(x, y), len(x), num_permutations, seed, "unbiased estimate of the energy distance")


def _permuted(kernel: np.ndarray, n: int, num_permutations: int, seed: int, kind: str) -> TwoSample:
    """The statistic of a kernel matrix whose first n rows are one set, and the share of relabellings that reach it."""
    total, m = len(kernel), len(kernel) - n
    kernel = kernel - np.diag(np.diag(kernel))
    rng = generator(seed)
    labels = np.zeros((total, num_permutations + 1))
    labels[:n, 0] = 1
    for column in range(1, num_permutations + 1):
        labels[rng.permutation(total)[:n], column] = 1
    within = np.einsum("ij,ij->j", labels, kernel @ labels)
    cross = kernel.sum(1) @ labels - within
    others = kernel.sum() - within - 2 * cross
    values = within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * cross / (n * m)
    reached = np.sum(values[1:] >= values[0] - 1e-12 * abs(values[0]))
    return TwoSample(float(values[0]), float((1 + reached) / (1 + num_permutations)), kind)


# ---- parts -------------------------------------------------------------------------------------------------------


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of all draws of both sets, (draw, draw)."""
    from scipy.spatial.distance import pdist, squareform

    if min(len(x), len(y)) < 2:
        raise ValueError(f"There are {len(x)} and {len(y)} draws; expected two or more of each.")
    if len(x) + len(y) > LARGEST:
        raise ValueError(f"There are {len(x)} and {len(y)} draws; at most {LARGEST} together. Thin them.")
    return squareform(pdist(np.concatenate([x, y])))


def _tables(p: Any, q: Any) -> tuple[np.ndarray, np.ndarray]:
    found = []
    for name, table in (("p", np.asarray(p, float)), ("q", np.asarray(q, float))):
        if not (np.isfinite(table).all() and (table >= 0).all() and table.sum() > 0):
            raise ValueError(f"{name} is no table of masses: expected finite numbers, none below 0, not all 0.")
        found.append(table / table.sum())
    if found[0].shape != found[1].shape:
        raise ValueError(f"p has shape {found[0].shape}, q {found[1].shape}; expected the cells of one grid.")
    return found[0], found[1]


def _draws(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    refuse_masked("x", x)
    refuse_masked("y", y)
    same_columns(x, y, ("x", "y"))
    found = []
    for name, draws in (("x", np.asarray(x, float)), ("y", np.asarray(y, float))):
        draws = draws.reshape(len(draws), -1) if draws.ndim else draws
        if draws.ndim == 0 or draws.size == 0:
            raise ValueError(f"{name} has shape {draws.shape}; expected draws: (draw, dim).")
        if not np.isfinite(draws).all():
            raise ValueError(
                f"{name} has NaN or infinite values, the first in draw {np.argwhere(~np.isfinite(draws))[0][0]}."
            )
        found.append(draws)
    if found[0].shape[1] != found[1].shape[1]:
        raise ValueError(f"x has {found[0].shape[1]} dimensions, y {found[1].shape[1]}.")
    return found[0], found[1]


def _midpoints(edges: np.ndarray, fine: int) -> tuple[np.ndarray, np.ndarray]:
    """Midpoints of the parts of the cells between edges, and the parts' widths."""
    widths = np.repeat(np.diff(edges) / fine, fine)
    return np.repeat(edges[:-1], fine) + (np.tile(np.arange(fine), len(edges) - 1) + 0.5) * widths, widths
