"""The outcome of simulation-based calibration: ranks, whether they are uniform, the verdict."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probgen.diagnostics import Finding, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_NULL = 4000  # simulated uniform samples behind a p-value
WARN, FAIL = 0.01, 0.001  # false-alarm rates


@dataclass(frozen=True)
class SBC:
    """The outcome of simulation-based calibration.

    names: scalars, the last of them the joint log density; ranks: (simulation, scalar), from 0 to num_ranked.
    p_values: (scalar,), of uniformity, each by itself. ess: (simulation, scalar), effective numbers of thinned draws.
    failures: what went wrong in simulations that are left out.
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    num_ranked: int
    p_values: np.ndarray
    ess: np.ndarray
    failures: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """Uniform ranks, no failed simulations, thinned draws that are nearly independent."""
        return Verdict((self._uniform(), self._failed(), self._thinned()))

    def __bool__(self) -> bool:
        return bool(self.verdict)

    def __str__(self) -> str:
        return str(self.verdict)

    def _repr_html_(self) -> str:
        return self.verdict._repr_html_()

    def _uniform(self) -> Finding:
        """Whether the truth's rank among the draws is any rank equally often, of every unknown and of the log density."""
        worst = int(np.argmin(self.p_values))
        value = float(min(1.0, self.p_values[worst] * len(self.names)))
        status = "pass" if value >= WARN else "warn" if value >= FAIL else "fail"
        shape = "" if status == "pass" else f": {_shape(self._uniforms()[:, worst])}"
        message = (
            f"smallest p-value of uniform ranks {value:.2g} ({self.names[worst]}{shape}), {len(self.names)} scalars at "
            f"once, {len(self.ranks)} simulations; at least {WARN}"
        )
        remedy = "sbc.plot() shows the ranks; longer chains or another inference if they say too narrow or biased"
        return Finding("uniform", status, value, WARN, message, remedy)

    def _failed(self) -> Finding:
        """How many simulations could not be fitted."""
        total = len(self.ranks) + len(self.failures)
        share = len(self.failures) / total
        first = f"; the first: {self.failures[0]}" if self.failures else ""
        message = f"{len(self.failures)} of {total} simulations could not be fitted and are left out{first}"
        remedy = "a narrower prior: its draws give data that cannot be fitted"
        status = "pass" if not share else "warn" if share <= 0.05 else "fail"
        return Finding("failed", status, share, 0.0, message, remedy)

    def _thinned(self) -> Finding:
        """Whether the draws that the truth is ranked among are nearly independent."""
        typical = np.median(self.ess, axis=0)
        value, worst = float(typical.min() / self.num_ranked), self.names[int(typical.argmin())]
        message = f"of {self.num_ranked} thinned draws {value:.0%} are effective ({worst}); at least 50 %"
        remedy = "a larger num_samples: ranks among dependent draws are not uniform even for the right posterior"
        return Finding("thinned", "pass" if value >= 0.5 else "warn", value, 0.5, message, remedy)

    def _uniforms(self) -> np.ndarray:
        return uniforms(self.ranks, self.num_ranked)

    def plot(self) -> Figure:
        """Distribution functions of the ranks minus that of even ones, with the band that holds 95 % of them.

        An arch above the line: the truth lies low among the draws, they are biased upwards; below it, downwards. First
        above and then below: the draws are too narrow; the other way round, too wide. At most 24 scalars, worst first.
        """
        from probgen.pictures.draws import MOST
        from probgen.pictures.style import BAD, COLOURS, INK, grid, style

        worst = np.argsort(self.p_values, kind="stable")[:MOST]
        uniforms = self._uniforms()
        points, low, high = _band(len(uniforms))
        with style():
            picture, panels = grid(len(worst), min(4, len(worst)), 1.7)
            for panel, i in zip(panels, worst, strict=True):
                share = np.searchsorted(np.sort(uniforms[:, i]), points, side="right") / len(uniforms)
                outside = bool(((share < low) | (share > high)).any())
                panel.fill_between(points, low - points, high - points, color=INK, alpha=0.12, lw=0, step="mid")
                panel.plot(points, share - points, color=BAD if outside else COLOURS[0], lw=1.2)
                panel.axhline(0, color=INK, lw=0.5)
                panel.set_title(f"{self.names[i]}, p = {self.p_values[i]:.2g}")
        return picture


# ---- uniformity --------------------------------------------------------------------------------------------------


def uniforms(ranks: np.ndarray, num_ranked: int) -> np.ndarray:
    """Ranks from 0 to num_ranked spread evenly over their intervals in [0, 1]."""
    return (ranks + np.random.default_rng(0).uniform(size=ranks.shape)) / (num_ranked + 1)


def _shape(uniform: np.ndarray) -> str:
    """In words, how a sample (simulation,) departs from the uniform distribution: shifted, too narrow or too wide."""
    count = len(uniform)
    shift = (uniform.mean() - 0.5) * np.sqrt(12 * count)
    spread = (uniform.var() - 1 / 12) * np.sqrt(180 * count)
    if abs(shift) > abs(spread):
        return "the draws are too low" if shift > 0 else "the draws are too high"
    return "the draws are too narrow" if spread > 0 else "the draws are too wide"


def uniformity(uniform: np.ndarray) -> np.ndarray:
    """p-values that each column of (simulation, scalar) is a sample of the uniform distribution: (scalar,)."""
    count = len(uniform)
    null = _null(count)
    levels = _levels(uniform.T)
    rare = null[len(null) // 100]  # below it the distribution of levels is linear to within a few per cent
    empirical = np.searchsorted(null, levels, side="right") / len(null)
    return np.where(levels < rare, 0.01 * levels / rare, np.minimum(1.0, empirical))


def _points(count: int) -> np.ndarray:
    size = min(count, 100)
    return np.arange(1, size) / size


@functools.lru_cache(maxsize=8)
def _tails(count: int) -> tuple[np.ndarray, np.ndarray]:
    """P(Binomial(count, point) <= k) and P(... >= k), each (point, k)."""
    from scipy.stats import binom

    k, points = np.arange(count + 1), _points(count)[:, None]
    return binom.cdf(k, count, points), binom.sf(k - 1, count, points)


def _levels(uniform: np.ndarray) -> np.ndarray:
    """The smallest two-sided pointwise level along the distribution function of each row of (sample, simulation)."""
    points, (below, above) = _points(uniform.shape[1]), _tails(uniform.shape[1])
    counts = np.stack([np.searchsorted(row, points, side="right") for row in np.sort(uniform, axis=1)])
    at = np.arange(len(points))
    return 2 * np.minimum(below[at, counts], above[at, counts]).min(axis=1)


@functools.lru_cache(maxsize=8)
def _null(count: int) -> np.ndarray:
    """Sorted levels of uniform samples."""
    return np.sort(_levels(np.random.default_rng(0).uniform(size=(NUM_NULL, count))))


def _band(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, and the simultaneous 95 % band of the distribution function of a uniform sample there."""
    from scipy.stats import binom

    level, points = np.quantile(_null(count), 0.05), _points(count)
    return points, binom.ppf(level / 2, count, points) / count, binom.isf(level / 2, count, points) / count
