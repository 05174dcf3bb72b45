"""The inception score of class probabilities: how sure a classifier is of each row, and how many classes there are.

    IS = exp mean_i KL(p(. | x_i) | mean_j p(. | x_j))

From 1 to the number of classes. A classifier wrong with probability e, uniformly, gives exp(ln K - H) on balanced rows, H the
entropy of its answers. It knows nothing of the data: a generator with one picture a class has the best score.
Salimans et al. 2016 (arXiv:1606.03498).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import xlogy

from probgen.evaluate.samples.result import Measure
from probgen.evaluate.samples.rows import flat


def inception_score(p: Any, splits: int = 10, reference: Any = None, seed: int = 2020) -> Measure:
    """The mean of the scores of `splits` parts of the rows, shuffled; p: (row, class), each row sums to 1.

    The error is the standard error over parts; `more["spread"]` is the standard deviation of one part, which papers print.
    Parts are biased, the more the fewer rows they have. reference: p of rows of data; the score of as many is told as `perfect`.
    ValueError for more parts than rows.
    """
    p = _probabilities(p, "samples")
    check_splits(splits, len(p))
    scores = _of_parts(p, splits, seed)
    known = reference is not None and len(reference) >= len(p)  # with fewer rows the bias would be another
    reference = flat(reference)[: len(p)] if known else None
    spread = float(scores.std(ddof=1)) if splits > 1 else np.nan
    error = spread / np.sqrt(splits) if splits > 1 else _of_one(p)
    parts = f"mean of {splits} parts of {len(p) // splits} rows" if splits > 1 else "all rows at once"
    return Measure(
        name="inception_score", value=float(scores.mean()), error=float(error),
        error_kind=f"standard error over {splits} parts" if splits > 1 else "standard error over rows, delta method",
        perfect=float(_of_parts(_probabilities(reference, "data"), splits, seed).mean()) if known else np.nan,
        perfect_kind="of as many rows of data", better="higher", num_samples=len(p),
        num_reference=len(p) if known else 0, kind=f"{parts}; at most {p.shape[1]}",
        more={"spread": spread, "most": float(p.shape[1])},
    )  # fmt: skip


def check_splits(splits: int, n: int) -> None:
    """ValueError for more parts than rows."""
    if splits < 1 or splits > n:
        raise ValueError(f"splits is {splits} and there are {n} rows; expected 1 to {n} parts, with rows in each.")


def _probabilities(p: Any, name: str) -> np.ndarray:
    p = flat(p, 1, f"class probabilities of {name}")
    if (p < 0).any() or abs(p.sum(1) - 1).max() > 1e-4:
        raise ValueError(f"Class probabilities of {name}: expected (row, class), none below 0, each row summing to 1.")
    return p


def _of_parts(p: np.ndarray, splits: int, seed: int) -> np.ndarray:
    n, p = len(p), p[np.random.RandomState(seed).permutation(len(p))]  # torch-fidelity's order
    return np.array([_score(p[i * n // splits : (i + 1) * n // splits]) for i in range(splits)])


def _score(p: np.ndarray) -> float:
    mean = p.mean(0)
    return float(np.exp(xlogy(p, p).sum(1).mean() - xlogy(mean, mean).sum()))


def _of_one(p: np.ndarray) -> float:
    """The standard error of the score of all rows."""
    mean = p.mean(0)
    influence = (xlogy(p, p) - xlogy(p, np.where(mean > 0, mean, 1.0))).sum(1)
    return float(_score(p) * influence.std(ddof=1) / np.sqrt(len(p))) if len(p) > 1 else np.nan
