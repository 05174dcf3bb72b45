"""Copies: the share of draws that are rows which were learned from, be they blurred, by which rows are the draws' nearest.

The nearest row of a draw that knows nothing of single rows, whatever its law, is one that was learned from as often as these are
among all rows, e; of a copy it always is. So a share f of copies gives T = f + (1 - f) e. Distances to the nearest row alone
(`memorisation.nearness`) take draws that are less spread than the data for copies, and miss copies among draws that are off it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probgen.data.whole_numbers import generator
from probgen.evaluate.samples.prdc import reaches, squares

CELLS = 5_000_000  # distances that are kept at once


class Copies(NamedTuple):
    """The share of draws that are copies, its standard error, the p-value of none, and how many rows are the draws' nearest."""

    share: float
    error: float
    p_value: float
    distinct: int


def copies(known: np.ndarray, held: np.ndarray, draws: np.ndarray, seed: int) -> Copies | None:
    """How many draws are copies of known rows rather than of held ones, all (row, dim); None where rows repeat.

    The p-value is of relabelling rows at random: draws around one row count as one.
    """
    from scipy.stats import norm

    both = np.concatenate([known, held])
    centre = both.mean(0)
    both, draws = both - centre, draws - centre
    own = reaches(both[:: 1 + len(both) // 2000], 1)
    if np.mean(own <= 1e-15 * (both * both).sum(1).max()) > 0.01:
        return None
    size = max(1, CELLS // len(both))
    which = np.concatenate([squares(draws[i : i + size], both).argmin(1) for i in range(0, len(draws), size)])
    counts = np.bincount(which, minlength=len(both)) / len(draws)
    e = len(known) / len(both)
    told = float(counts[: len(known)].sum())
    weights = np.sort(counts[counts > 0])
    labels = generator(seed).permuted(np.tile(np.arange(len(both)) < len(known), (400, 1)), axis=1)
    chance = labels[:, : len(weights)] @ weights
    spread = np.sqrt(weights @ weights * e * (1 - e) * (1 - len(weights) / (len(both) + 1)) + 1e-12)
    z = (told - e) / max(float(chance.std()), float(spread) / 2)
    reached = (1 + np.sum(chance >= told - 1e-12)) / 401
    p = float(norm.sf(z)) if reached < 0.01 else float(reached)
    return Copies((told - e) / (1 - e), float(chance.std()) / (1 - e), p, len(weights))
