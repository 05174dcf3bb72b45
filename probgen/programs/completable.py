"""Completable: a point of a diffusion model, known in part; a kind of target beside those of `target`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from probgen.target import Target

KNOWN, VALUE = " known", " value"  # endings of the data of a site that is known in part, which no program is given
DENSE = 128  # numbers that were seen, up to which their covariance is a matrix
OUTSIDE = " outside value"  # ending of the data of a point, where what was seen of it is none of what rows hold: see `outside`
FAR = 0.5  # of the range of rows, that what was seen may be outside of it


def outside(y: np.ndarray, rows: np.ndarray, noise: Any) -> np.ndarray | None:
    """Where numbers (seen,) are outside of those of rows (row, seen): how many, and of the worst itself, the rows' ends, how far.

    Far: in units of the range of all; noise: standard deviations, of which four are no sign of anything. None where all are inside.
    """
    low, high = rows.min(0), rows.max(0)
    whole = max(float(high.max() - low.min()), 1e-12)
    far = (np.maximum(low - y, y - high) - 4 * (0.0 if noise is None else noise)) / whole
    worst = int(np.argmax(far))
    found = np.array([np.sum(far > FAR), y[worst], low[worst], high[worst], far[worst]], float)
    return found if found[0] else None


class Told(NamedTuple):
    """What was seen of a point, as it was given: value with NaN, and the point itself where that was given, or None.

    itself: whether value is the point's own numbers, with or without noise.
    """

    value: np.ndarray
    truth: np.ndarray | None
    itself: bool


class PartlyKnown(Target):
    """The point alone, in the units that the denoiser sees, without the levels of a chain: what the denoiser's algorithms take.

    dim: its size; linear: whether combinations of it were seen, `pg.Linear`, with their own noise; num_seen: how many.
    """

    offers = "PartlyKnown"
    dim: int
    linear: bool
    num_seen: int
    calibration: Callable[[], Mapping[str, Any]] | None = None

    def calibrated(self) -> PartlyKnown:
        """The same with what rows say of the denoiser."""
        raise NotImplementedError

    def told(self) -> Told:
        """What was seen."""
        raise NotImplementedError

    def constrain(self, draws: Any) -> Any:
        """The site at draws (chain, draw, dim): {site: (chain, draw, *event)}."""
        raise NotImplementedError


class Completable(Target):
    """A point known in part, of a program that takes noise from points: what is not known is drawn by the denoiser.

    Other algorithms see the density of the same program, where it has one: such a target is of two kinds.
    """

    offers = "Completable"
    calibration: Callable[[], Mapping[str, Any]] | None = (
        None  # what rows say of the denoiser, by the fit that learned from them
    )

    def alone(self) -> PartlyKnown:
        """The target as the denoiser's algorithms take it; raises Incompatible where its units are not the program's."""
        raise NotImplementedError
