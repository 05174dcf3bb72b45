"""Learning by the maximum mean discrepancy between rows and draws, without a critic (Li et al. 2015, Dziugaite et al. 2015).

    MMD^2 = E k(x, y) - 2 E k(x, x') + E k(x', y'),   x, y data, x', y' drawn, all independent

k(x, y) is a mean over `scales` of Gaussian kernels exp(-|x - y|^2 / (2 s^2)), s in units of the median distance between rows of the
batch. The estimate has no bias (pairs of a point with itself are left out), so that it can be below zero. Gretton et al. 2012.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.inference.adversarial._distance import centred
from probgen.inference.adversarial._draws import ByDistance


@dataclass(frozen=True, kw_only=True)
class MMD(ByDistance):
    """Kernel learning by Adam.

    scales: widths of the kernels, in median distances between rows.
    """

    scales: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales or not all(s > 0 for s in self.scales):
            raise ValueError(f"scales is {self.scales}; expected numbers above 0")

    def prepare(self, target: Any) -> Any:
        rows = target.num_rows - self.held_rows(target.num_rows)
        if min(self.batch_size, rows) < 2:
            raise ValueError(
                f"mmd compares pairs of rows of a batch: batch_size is {self.batch_size}, of {rows} rows; at least 2 of each."
            )
        return super().prepare(target)

    def distance(self, words: Any, x: Any, y: Any) -> Any:
        x, y = centred(x, y)
        between = squares(words, x, x)
        median = _median(words, between) ** 0.5
        widths = [s * median for s in self.scales]
        return mmd_squared(words, between, squares(words, x, y), squares(words, y, y), widths)


def _median(words: Any, between: Any) -> Any:
    """Of squared distances between different points: ()."""
    count = len(between)
    ranked = words.sort(between.reshape(-1))  # the first `count` are of points with themselves
    return words.clip(ranked[count + (count * count - count) // 2], 1e-12)


def squares(words: Any, x: Any, y: Any) -> Any:
    """Squared distances: (x, y)."""
    return words.clip((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0.0)


def mmd_squared(words: Any, xx: Any, xy: Any, yy: Any, widths: Any) -> Any:
    """The unbiased estimate, by squared distances (row, row), the mean over kernels of these widths: ()."""

    def mean(between: Any, width: Any, apart: bool) -> Any:
        k, count = words.exp(-between / (2 * width**2)), len(between)
        return (k.sum() - words.trace(k)) / (count * (count - 1)) if apart else k.mean()

    terms = [mean(xx, s, True) - 2 * mean(xy, s, False) + mean(yy, s, True) for s in widths]
    return sum(terms) / len(terms)
