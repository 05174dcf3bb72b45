"""Whether a classifier tells draws from rows: a two-sample test whose effect has a unit, the share of points that it gets right.

Half of the rows and of the draws teach a logistic regression on

    log distances to the nearest rows and to the nearest draws of that half, coordinates, their squares and products,

the other half is told apart by it. Where both are of one law that half's labels can be swapped: of all ways to do so the p-value
counts those that do as well (Lopez-Paz and Oquab 2017, arXiv:1610.06545). A share a of points told right means that the laws are at
least 2 a - 1 apart in total variation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probgen.data.whole_numbers import generator
from probgen.evaluate.samples.prdc import squares

NEIGHBOURS = 1, 3, 10
RIDGE = 3.0  # on standardised features
POINTS_A_FEATURE = 8
FEW = 100  # rows; of fewer, draws that have lost one of two modes are missed in a fifth of the tests, and milder faults in most
PRODUCTS = 10  # leading coordinates whose products are features


class Told(NamedTuple):
    """The share of `count` points that is told right, its p-value, and the share's standard error."""

    share: float
    p_value: float
    error: float
    count: int

    @property
    def least(self) -> float:
        """The share that a classifier has to tell right for p < 0.005 in four of five such tests, by the normal's quantiles."""
        return min(1.0, 0.5 + (2.576 + 0.842) * 0.5 / self.count**0.5)


def told_apart(rows: np.ndarray, draws: np.ndarray, seed: int, paired: bool = False) -> Told:
    """The test on features (row, dim) of as many rows and draws; paired: draw i is given the inputs of row i."""
    count = len(rows)
    order = generator(seed).permutation(count)
    taught, asked = order[: count // 2], order[count // 2 :]
    known = _rotated(np.concatenate([rows[taught], draws[taught]]), np.concatenate([rows[asked], draws[asked]]))
    local = _local(known[0], known[1], len(taught), paired)
    features = [_few(a, b, 2 * len(taught)) for a, b in zip(local, known, strict=True)]
    mean, spread = features[0].mean(0), features[0].std(0)
    features = [np.clip((f - mean) / np.where(spread > 0, spread, 1.0), -10, 10) for f in features]
    weights = _logistic(features[0], np.repeat([1.0, 0.0], len(taught)))
    said = _with_one(features[1]) @ weights > 0
    return _counted(said[: len(asked)], said[len(asked) :], paired)


def too_few(told: Told, sure: float) -> str:
    """Why nothing can be concluded from laws that were not told apart; nothing where they were, or rows are enough."""
    if told.p_value < sure or told.count >= FEW:
        return ""
    return (
        f"{told.count} rows are too few to tell: so many tell only laws that are {2 * told.least - 1:.0%} apart in total variation "
        "or more, four times in five"
    )


def _counted(rows: np.ndarray, draws: np.ndarray, paired: bool) -> Told:
    """What is said of rows and of draws (point,), True for a row."""
    from scipy.stats import binom, hypergeom

    size, hits = len(rows), int(rows.sum())
    share = (hits + size - int(draws.sum())) / (2 * size)
    if paired:  # under the null the two of a pair can be swapped
        apart = int((rows != draws).sum())
        p = binom.sf(int((rows & ~draws).sum()) - 1, apart, 0.5)
    else:
        p = hypergeom.sf(hits - 1, 2 * size, size, hits + int(draws.sum()))
    return Told(share, float(p), float(np.sqrt(max(share * (1 - share), 0.25 / size) / (2 * size))), 2 * size)


def _rotated(taught: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both along the principal axes of the first, the widest first."""
    mean = taught.mean(0)
    _, _, axes = np.linalg.svd(taught - mean, full_matrices=False)
    return (taught - mean) @ axes.T, (asked - mean) @ axes.T


def _local(taught: np.ndarray, asked: np.ndarray, half: int, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """Log distances to near rows less those to near draws, and both together: (point, feature)."""
    near = [k for k in NEIGHBOURS if k < half]
    apart = squares(taught, taught)
    at = np.arange(len(taught))
    apart[at, at] = np.inf
    if paired:  # the twin in the other class, as no point of the other half has one
        apart[at, (at + half) % (2 * half)] = np.inf
    floor = 1e-6 * max(float(np.median(apart[np.isfinite(apart)])), 1e-300)

    def told(apart: np.ndarray) -> np.ndarray:
        sides = [np.partition(side, [k - 1 for k in near], axis=1) for side in (apart[:, :half], apart[:, half:])]
        logs = [np.log(np.stack([side[:, k - 1] for k in near], 1) + floor) for side in sides]
        return np.concatenate([logs[0] - logs[1], (logs[0] + logs[1])[:, -1:]], 1)

    return told(apart), told(squares(asked, taught))


def _few(local: np.ndarray, z: np.ndarray, count: int) -> np.ndarray:
    """As many features as so many points can teach: local ones, coordinates, squares, products."""
    lead = z[:, :PRODUCTS]
    i, j = np.triu_indices(lead.shape[1], 1)
    each = np.stack([z, z**2], 2).reshape(len(z), -1)  # a coordinate, its square, the next
    found = np.concatenate([local, each, lead[:, i] * lead[:, j]], 1)
    return found[:, : max(local.shape[1] + 2, count // POINTS_A_FEATURE)]


def _logistic(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights, the intercept's first, of a logistic regression with a ridge, by Newton's steps."""
    x = _with_one(x)
    ridge = np.full(x.shape[1], RIDGE)
    ridge[0] = 1e-6
    weights = np.zeros(x.shape[1])
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (p - labels) + ridge * weights
        step = np.linalg.solve((x.T * (p * (1 - p) + 1e-9)) @ x + np.diag(ridge), slope)
        step *= min(1.0, 5.0 / max(float(abs(step).max()), 1e-300))
        weights = weights - step
        if abs(step).max() < 1e-6:
            break
    return weights


def _with_one(x: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(x), 1)), x], 1)
