"""Precision, recall, density and coverage of features, from balls around rows that reach their k-th neighbours.

    precision  the share of samples within a ball of the data         recall    the share of data within a ball of the samples
    density    the mean number of balls of data around a sample, / k  coverage  the share of balls of data with a sample in them

Of equal laws density is 1 and coverage 1 - prod_{j=1..k} (N - j) / (M + N - j) on average, for N rows of data and M samples of any
law. A point on the sphere is inside, so that duplicates count. Density can exceed 1, and one outlier among the data
swells precision. Kynkäänniemi et al. 2019 (arXiv:1904.06991); Naeem et al. 2020 (arXiv:2002.09797).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probgen.evaluate.samples.result import Measure
from probgen.evaluate.samples.rows import pair, varied

BLOCK = 1024  # rows whose distances to all others are kept at once
ROUNDING = 1e-12  # of squared distances, relative to the largest squared norm


def prdc(x: Any, y: Any, k: int = 5, strict: bool = False) -> dict[str, Measure]:
    """The four by name, for features of samples x (row, dim) and data y (row, dim).

    k: the neighbour that a ball reaches, the row itself not counted. strict: a point on the sphere is outside, as in the package
    prdc; constant features have precision 0 then. Errors are standard errors over the rows that are counted, the balls fixed.
    """
    x, y = pair(x, y)
    check_neighbours(k, len(x), len(y))
    varied(y, "data")
    centre = y.mean(0)
    x, y = x - centre, y - centre
    slack = ROUNDING * max((x * x).sum(1).max(), (y * y).sum(1).max()) * (-1 if strict else 1)
    reach_x, reach_y = reaches(x, k) + slack, reaches(y, k) + slack
    in_data, covered, in_samples = _counted(x, y, reach_x, reach_y)
    n, m = len(x), len(y)
    sign = "<" if strict else "<="
    shared = {"num_samples": n, "num_reference": m, "better": "higher"}
    told = lambda name, rows, over, **more: Measure(  # noqa: E731
        name=name, value=float(rows.mean()), error=float(rows.std(ddof=1) / np.sqrt(len(rows))),
        error_kind=f"standard error over {over}, balls fixed", kind=f"k={k}, distance {sign} radius", **shared | more,
    )  # fmt: skip
    return {
        "precision": told("precision", in_data > 0, "samples"),
        "recall": told("recall", in_samples, "data"),
        "density": told("density", in_data / k, "samples", perfect=1.0, perfect_kind="exact", better="near"),
        "coverage": told("coverage", covered, "data", perfect=expected_coverage(m, n, k), perfect_kind="exact"),
    }


def check_neighbours(k: int, n: int, m: int) -> None:
    """ValueError where a row has no k-th neighbour."""
    if not 1 <= k < min(n, m):
        raise ValueError(f"k is {k}, and there are {n} samples and {m} rows of data; expected 1 <= k < {min(n, m)}.")


def expected_coverage(num_reference: int, num_samples: int, k: int) -> float:
    """Coverage of samples of the law of the data, on average; it tends to 1 - 2^-k for many rows and as many samples."""
    j = np.arange(1, k + 1)
    return float(1 - np.prod((num_reference - j) / (num_samples + num_reference - j)))


def reaches(x: np.ndarray, k: int) -> np.ndarray:
    """The squared distance of each row to its k-th neighbour, itself not counted: (row,)."""
    found = np.empty(len(x))
    for start in range(0, len(x), BLOCK):
        apart = squares(x[start : start + BLOCK], x)
        apart[np.arange(len(apart)), start + np.arange(len(apart))] = np.inf  # itself
        found[start : start + BLOCK] = np.partition(apart, k - 1, axis=1)[:, k - 1]
    return found


def squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances (row of x, row of y), never below 0."""
    apart = x @ y.T
    apart *= -2
    apart += (x * x).sum(1)[:, None]
    apart += (y * y).sum(1)
    return np.maximum(apart, 0, out=apart)


def _counted(x: np.ndarray, y: np.ndarray, reach_x: np.ndarray, reach_y: np.ndarray) -> tuple[Any, Any, Any]:
    """Balls of data around each sample (n,); whether balls of data have a sample, and data are in a ball of samples (m,)."""
    in_data, closest, in_samples = np.empty(len(x)), np.full(len(y), np.inf), np.zeros(len(y), bool)
    for start in range(0, len(x), BLOCK):
        apart = squares(x[start : start + BLOCK], y)
        in_data[start : start + BLOCK] = (apart <= reach_y).sum(1)
        np.minimum(closest, apart.min(0), out=closest)
        in_samples |= (apart <= reach_x[start : start + BLOCK, None]).any(0)
    return in_data, closest <= reach_y, in_samples
