"""Where draws lie beside rows: regions that are lost, draws where no rows are, copies of rows, values out of range.

All of features (row, dim) in which distances mean something. What a perfect sampler would have is a closed form, or is that of rows
which were held out; nothing is assumed of the data's law.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probgen.evaluate.samples.memorisation import nearest
from probgen.evaluate.samples.prdc import BLOCK, expected_coverage, reaches, squares

CELLS = 5_000_000  # distances that are kept at once
K = 5  # the neighbour that a ball around a row reaches


class Share(NamedTuple):
    """A share, that of a perfect sampler, and the standard error of their difference."""

    value: float
    perfect: float
    error: float


class Copies(NamedTuple):
    """The share of draws that are copies, its standard error, the p-value of none, and how many rows are the draws' nearest."""

    share: float
    error: float
    p_value: float
    distinct: int


def covered(rows: np.ndarray, draws: np.ndarray) -> Share:
    """The share of rows with a draw nearer than their fifth nearest row: "coverage" of Naeem et al. 2020 (arXiv:2002.09797)."""
    closest = nearest(rows, draws)
    value, perfect = float(np.mean(closest <= reaches(rows, K))), expected_coverage(len(rows), len(draws), K)
    error = 1.5 * np.sqrt(perfect * (1 - perfect) * (1 / len(rows) + 1 / len(draws)))  # balls overlap
    return Share(value, perfect, float(error))


def inside(centres: np.ndarray, draws: np.ndarray, held: np.ndarray) -> Share:
    """The share of draws nearer to some row than that row's fifth neighbour, beside that of rows that are no centres.

    "Precision" of Kynkäänniemi et al. 2019 (arXiv:1904.06991).
    """
    reach = reaches(centres, K)
    shares = [float(np.mean(_within(points, centres, reach))) for points in (draws, held)]
    middle = (shares[0] * len(draws) + shares[1] * len(held) + 1) / (len(draws) + len(held) + 2)
    error = np.sqrt(middle * (1 - middle) * (1 / len(draws) + 1 / len(held)))
    return Share(shares[0], shares[1], float(error))


def _within(points: np.ndarray, centres: np.ndarray, reach: np.ndarray) -> np.ndarray:
    blocks = range(0, len(points), BLOCK)
    return np.concatenate([(squares(points[i : i + BLOCK], centres) <= reach).any(1) for i in blocks])


def copies(known: np.ndarray, held: np.ndarray, draws: np.ndarray, seed: int) -> Copies | None:
    """How many draws are copies of rows that were learned from, be they blurred; None where rows repeat.

    The nearest row of a draw that knows nothing of single rows, whatever its law, is one that was learned from as often as these
    are among all rows, e; of a copy it always is. So a share f of copies gives T = f + (1 - f) e. The p-value is of relabelling
    rows at random: draws around one row count as one.
    """
    from scipy.stats import norm

    both = np.concatenate([known, held])
    own = reaches(both[:: 1 + len(both) // 2000], 1)
    if np.mean(own <= 1e-15 * (both * both).sum(1).max()) > 0.01:
        return None
    size = max(1, CELLS // len(both))
    which = np.concatenate([squares(draws[i : i + size], both).argmin(1) for i in range(0, len(draws), size)])
    counts = np.bincount(which, minlength=len(both)) / len(draws)
    e = len(known) / len(both)
    told = float(counts[: len(known)].sum())
    weights = np.sort(counts[counts > 0])
    labels = np.random.default_rng(seed).permuted(np.tile(np.arange(len(both)) < len(known), (400, 1)), axis=1)
    chance = labels[:, : len(weights)] @ weights
    spread = np.sqrt(weights @ weights * e * (1 - e) * (1 - len(weights) / (len(both) + 1)) + 1e-12)
    z = (told - e) / max(float(chance.std()), float(spread) / 2)
    reached = (1 + np.sum(chance >= told - 1e-12)) / 401
    p = float(norm.sf(z)) if reached < 0.01 else float(reached)
    return Copies((told - e) / (1 - e), float(chance.std()) / (1 - e), p, len(weights))


def outside(known: np.ndarray, held: np.ndarray, draws: np.ndarray, apart: np.ndarray) -> Share:
    """The share of values that lie beyond those of known rows by more than a twentieth of their range, and that of held rows.

    apart: for each column the group (column,) whose least and largest value bound it: itself, or the picture that it is a part of.
    """
    low, high = np.full(apart.max() + 1, np.inf), np.full(apart.max() + 1, -np.inf)
    np.minimum.at(low, apart, known.min(0))
    np.maximum.at(high, apart, known.max(0))
    room = 0.05 * (high - low)
    bounds = (low - room)[apart], (high + room)[apart]
    shares = [float(np.mean((points < bounds[0]) | (points > bounds[1]))) for points in (draws, held)]
    return Share(shares[0], shares[1], float(np.sqrt((shares[1] + 1 / held.size) / len(held))))
