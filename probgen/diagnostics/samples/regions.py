"""Where draws lie beside rows: regions that are lost, draws where no rows are, values out of range.

All of features (row, dim) in which distances mean something. What a perfect sampler would have is a closed form, or is that of rows
which were held out; nothing is assumed of the data's law.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probgen.evaluate.samples.copied import copies as copies
from probgen.evaluate.samples.memorisation import nearest
from probgen.evaluate.samples.prdc import BLOCK, expected_coverage, reaches, squares

K = 5  # the neighbour that a ball around a row reaches


class Share(NamedTuple):
    """A share, that of a perfect sampler, and the standard error of their difference."""

    value: float
    perfect: float
    error: float


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
