"""KID: the squared MMD of two sets of features under the kernel (x.y / dim + 1)^3, by a U-statistic.

    KID = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_ij k(x_i, y_j)

It is unbiased, so small negative values are as good as zero. For normals with mean zero it is 3 |S - T|_F^2 / dim^2 on average.
What depends on one of the two points alone cancels in the statistic. With features far from 0 it is nearly all of the kernel, and
rounding would be all of the answer, so it is left out: with the mean c of all features, x = c + u, a = c.u / dim, p = u.v / dim,

    k(x, y) = 6 s a a' + 3 a a' (a + a') + 3 A^2 p + 3 A p^2 + p^3 + f(u) + f(v),     s = c.c / dim + 1,  A = s + a + a'

Bińkowski et al. 2018 (arXiv:1801.01401).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from probgen.evaluate.samples.result import Measure
from probgen.evaluate.samples.rows import pair

MOST = 1e45  # a feature, whose sixth power is a float
BLOCK = 256  # rows whose kernel with all others is kept at once


def kid(x: Any, y: Any, subsets: int | None = None, size: int | None = None, seed: int = 2020) -> Measure:
    """KID of features of samples x (row, dim) and data y (row, dim).

    By default of all rows at once; the error is the jackknife's over rows of both sets.
    subsets, size: the mean over so many subsets of so many rows of each set, as the paper and others have it (100 of 1000). The
        error is then the standard deviation of one subset's value, which says how noisy `size` rows are and not how
        uncertain the mean is: subsets share rows. ValueError where a subset is larger than a set.
    """
    x, y = pair(x, y)
    largest = float(max(abs(x).max(), abs(y).max()))
    if not largest < MOST:
        raise ValueError(
            f"Features are as large as {largest:.2g}, and KID is of their sixth power: expected below {MOST:.0e}.\n"
            "Divide both by one number; or pass net=, a function of rows whose features are near 1."
        )
    if subsets is None and size is None:
        value, error = _of_all(x, y)
        told = {"error": error, "error_kind": "standard error over rows, jackknife", "kind": "all rows at once"}
    else:
        subsets, size = 100 if subsets is None else subsets, 1000 if size is None else size
        check_subsets(subsets, size, len(x), len(y))
        values = _of_subsets(x, y, subsets, size, seed)
        value = float(values.mean())
        kind = f"mean over {subsets} subsets of {size} rows"
        told = {"error": float(values.std()), "error_kind": "standard deviation over subsets", "kind": kind}
    return Measure(
        name="kid", value=value, perfect=0.0, perfect_kind="exact", better="lower",
        num_samples=len(x), num_reference=len(y), **told,
    )  # fmt: skip


def on_scale(y: np.ndarray) -> list[str]:
    """A note where features are so large, or so small, that the kernel is all of one power of them."""
    size = float(np.sqrt(np.mean(np.square(y))))
    if 0.01 <= size <= 100:
        return []
    power = "sixth power of them" if size > 100 else "squared distance of means"
    return [f"KID has no unit of its own: features are {size:.2g} in the root mean square, for which it is a {power}"]


def check_subsets(subsets: int, size: int, n: int, m: int) -> None:
    """ValueError for a subset larger than a set, or fewer than two rows."""
    if subsets < 1 or size < 2:
        raise ValueError(f"subsets is {subsets} and size {size}; expected 1 subset or more, of 2 rows or more.")
    if size > min(n, m):
        raise ValueError(
            f"KID's subsets have size={size} rows, but there are {n} samples and {m} rows of data.\n"
            "Give a smaller size, more rows, or neither subsets nor size: all rows at once."
        )


def _of_subsets(x: np.ndarray, y: np.ndarray, subsets: int, size: int, seed: int) -> np.ndarray:
    """The statistic of subsets without replacement; the same rows as torch-fidelity's for the same seed."""
    rng = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        a, b = (z[rng.choice(len(z), size, replace=False)] for z in (x, y))
        values[i] = _of_all(a, b)[0]
    return values


def _of_all(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The U-statistic of all rows, and its jackknife error."""
    n, m = len(x), len(y)
    kernel = Kernel(0.5 * (x.mean(0) + y.mean(0)))
    seen, other = kernel.read(x), kernel.read(y)
    xx, yy = (kernel.sums(z, z)[0] - kernel.own(z) for z in (seen, other))
    xy, yx = kernel.sums(seen, other)
    within_x, within_y, across = xx.sum() / (n * (n - 1)), yy.sum() / (m * (m - 1)), 2 * xy.sum() / (n * m)
    value = within_x + within_y - across
    if min(n, m) < 3:
        return float(value), np.nan
    without_x = (xx.sum() - 2 * xx) / ((n - 1) * (n - 2)) - 2 * (xy.sum() - xy) / ((n - 1) * m)
    without_y = (yy.sum() - 2 * yy) / ((m - 1) * (m - 2)) - 2 * (yx.sum() - yx) / ((m - 1) * n)
    variance = (n - 1) * without_x.var() + (m - 1) * without_y.var()
    return float(value), float(np.sqrt(variance))


class Read(NamedTuple):
    """Features less the common mean, u (row, dim), and a = c.u / dim (row,)."""

    u: np.ndarray
    a: np.ndarray


class Kernel:
    """The kernel without what depends on one point alone; see above."""

    def __init__(self, centre: np.ndarray) -> None:
        self.centre, self.s = centre, float(centre @ centre / len(centre) + 1)

    def read(self, x: np.ndarray) -> Read:
        u = x - self.centre
        return Read(u, u @ self.centre / len(self.centre))

    def own(self, x: Read) -> np.ndarray:
        """Of each row with itself: (row,)."""
        p = (x.u * x.u).sum(1) / len(self.centre)
        return self._crossed(p, 2 * x.a + self.s) + 3 * x.a**2 * (2 * self.s + 2 * x.a)

    def sums(self, x: Read, y: Read) -> tuple[np.ndarray, np.ndarray]:
        """Of each row of x with all of y, and of each of y with all of x: (row of x,), (row of y,)."""
        of_x, of_y = self._products(x.a, y.a), self._products(y.a, x.a)
        for i in range(0, len(x.u), BLOCK):
            rows = slice(i, i + BLOCK)
            p = x.u[rows] @ (y.u / len(self.centre)).T
            block = self._crossed(p, x.a[rows, None] + (y.a + self.s))
            of_x[rows] += block.sum(1)
            of_y += block.sum(0)
        return of_x, of_y

    def _crossed(self, p: np.ndarray, a: np.ndarray) -> np.ndarray:
        """3 A^2 p + 3 A p^2 + p^3, with few arrays of that size."""
        found = a + p
        found *= a
        found *= 3
        found += p * p
        found *= p
        return found

    def _products(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """sum_j 3 a_i b_j (2 s + a_i + b_j): (row of a,)."""
        return 3 * a * ((2 * self.s + a) * b.sum() + (b * b).sum())
