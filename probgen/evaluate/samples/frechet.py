"""The Fréchet distance of normals with the moments of two sets of features: FID where they are Inception's.

    FID = |mu - nu|^2 + tr S + tr T - 2 tr (S^1/2 T S^1/2)^1/2,      S, T covariances with n - 1 in float64

With S = A'A and T = B'B the last trace is the sum of the singular values of A B', where A and B are the triangular factors of
centred features: real, exact for any number of rows, and for identical sets FID is zero to rounding. FID is biased upwards; see
`bias`. Heusel et al. 2017 (arXiv:1706.08500); Chong and Forsyth 2020, FID-infinity (arXiv:1911.07023).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probgen.data.whole_numbers import generator
from probgen.evaluate.samples.result import Measure
from probgen.evaluate.samples.rows import pair

KIND = "Frechet distance, covariances with n - 1"


def fid(x: Any, y: Any) -> Measure:
    """FID of features of samples x (row, dim) and of data y (row, dim), its standard error, and its bias as `perfect`.

    The error is by the delta method: the spread of the first-order influence of a row. The value as it stands is biased: compare
    only between equal numbers of rows, or see `fid_infinity`.
    """
    x, y = pair(x, y)
    value, error = _distance(x, y)
    few = min(len(x), len(y)) <= x.shape[1]
    kind = KIND + (f"; fewer rows than the {x.shape[1]} features: most of it may be bias" if few else "")
    return Measure(
        name="fid", value=value, error=error, error_kind="standard error over rows, delta method",
        perfect=floor(y, len(x)), perfect_kind="bias for normals with the covariance of the data", better="lower",
        num_samples=len(x), num_reference=len(y), kind=kind,
    )  # fmt: skip


def fid_infinity(x: Any, y: Any, num_sizes: int = 15, smallest: float = 0.3, seed: int = 0) -> Measure:
    """FID extrapolated to endless rows of both: the intercept of a line through FID of parts against 1 / rows.

    num_sizes parts from `smallest` to all rows, without replacement, the same share of both sets. It has little bias, and can
    be below zero. ValueError where a part would have no more than twice as many rows as features: the line would not be straight.
    """
    x, y = pair(x, y)
    n, least = min(len(x), len(y)), 2 * x.shape[1]
    if n < 2 * least:
        raise ValueError(
            f"FID-infinity needs {2 * least} rows or more of {x.shape[1]} features; the smaller set has {n}."
        )
    rng = generator(seed)
    shares = 1 / np.linspace(1, 1 / max(smallest, least / n), num_sizes)
    x, y = x[rng.permutation(len(x))], y[rng.permutation(len(y))]
    values, error = [], np.nan
    for share in shares:
        some = [np.roll(z, rng.integers(len(z)), axis=0)[: max(2, round(share * len(z)))] for z in (x, y)]
        value, spread = _distance(*some)
        values.append(value)
        error = spread if share == 1 else error
    (slope, intercept), covariance = np.polyfit(1 / shares, values, 1, cov="unscaled")
    residual = np.sum((values - intercept - slope / shares) ** 2) / (num_sizes - 2)
    return Measure(
        name="fid_infinity", value=float(intercept), error=float(np.hypot(error, np.sqrt(covariance[1, 1] * residual))),
        error_kind="standard error over rows and of the line", perfect=0.0, perfect_kind="exact", better="lower",
        num_samples=len(x), num_reference=len(y), kind=f"FID extrapolated in 1 / rows of both over {num_sizes} sizes",
        more={"slope": float(slope)},
    )  # fmt: skip


def of_moments(mean: Any, covariance: Any, other_mean: Any, other_covariance: Any) -> float:
    """The distance (squared, as FID) of two normals, from means (dim,) and covariances (dim, dim)."""
    factors = []
    for each in (covariance, other_covariance):
        each = np.atleast_2d(np.asarray(each, float))
        values, vectors = np.linalg.eigh((each + each.T) / 2)
        if values.min() < -1e-8 * max(abs(values).max(), 1e-300):
            raise ValueError(f"A covariance has the eigenvalue {values.min():.3g}; expected none below 0.")
        factors.append(np.sqrt(np.maximum(values, 0))[:, None] * vectors.T)
    shift = np.atleast_1d(np.asarray(mean, float)) - np.atleast_1d(np.asarray(other_mean, float))
    return _combined(shift, *factors)


def bias(covariance: Any, n: int, m: int) -> float:
    """What FID of n and m rows of one normal law is on average, to first order in 1 / n and 1 / m.

        tr S (1/n + 1/m) + 1/2 sum_ij l_i l_j (1 + [i = j]) / (l_i + l_j) (1/(n-1) + 1/(m-1)),   l the eigenvalues of S

    The first term holds for any law. The second needs many more rows than features.
    """
    values = np.maximum(np.linalg.eigvalsh(np.atleast_2d(np.asarray(covariance, float))), 0)
    values = values[values > 1e-12 * max(values.max(), 1e-300)]
    pairs = np.outer(values, values) / np.add.outer(values, values)
    shape = 0.5 * (pairs.sum() + np.trace(pairs))
    return float(values.sum() * (1 / n + 1 / m) + shape * (1 / (n - 1) + 1 / (m - 1)))


def floor(y: np.ndarray, n: int, enough: int = 10) -> float:
    """FID of a perfect sampler of n rows against y (row, dim), on average, if features were normal.

    By `bias` where there are `enough` rows a feature; else from one simulated pair of normals, the bias being large then.
    """
    m, dim = y.shape
    covariance = np.atleast_2d(np.cov(y, rowvar=False))
    if min(n, m) >= enough * dim:
        return bias(covariance, n, m)
    if dim > 512 or n < 2 or m < 2:
        return np.nan
    scales = np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 0))
    rng = np.random.default_rng(0)
    return float(np.mean([_value(*(rng.normal(size=(k, dim)) * scales for k in (n, m))) for _ in range(5)]))


def trace_term(x: np.ndarray, y: np.ndarray) -> float:
    """tr (S^1/2 T S^1/2)^1/2 of the covariances of two sets of rows, as a sum of singular values."""
    return float(np.linalg.svd(_factor(x) @ _factor(y).T, compute_uv=False).sum())


def _value(x: np.ndarray, y: np.ndarray) -> float:
    return _combined(x.mean(0) - y.mean(0), _factor(x), _factor(y))


def _combined(shift: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    singular = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(max(shift @ shift + (a * a).sum() + (b * b).sum() - 2 * singular, 0.0))


def _factor(x: np.ndarray) -> np.ndarray:
    """A with A'A the covariance of rows: (min(row, dim), dim)."""
    return _parts(x)[1]


def _parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates Q (row, rank) of centred rows, and A (rank, dim): Q A sqrt(n - 1) are the rows, A'A is their covariance."""
    centred = x - x.mean(0)
    q, r = np.linalg.qr(centred) if len(x) > x.shape[1] else (np.eye(len(x)), centred)
    return q, r / np.sqrt(len(x) - 1)


def _distance(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """FID and its standard error. The derivative of the sum of singular values of A B' by A is U V' B."""
    (qx, a), (qy, b), shift = _parts(x), _parts(y), x.mean(0) - y.mean(0)
    u, singular, v = np.linalg.svd(a @ b.T, full_matrices=False)
    value = float(max(shift @ shift + (a * a).sum() + (b * b).sum() - 2 * singular.sum(), 0.0))
    variance = 0.0
    for rows, q, other, rotation, sign in ((x, qx, b, u @ v, 1.0), (y, qy, a, (u @ v).T, -1.0)):
        centred = rows - rows.mean(0)
        moved = np.sqrt(len(rows) - 1) * q @ (rotation @ other)  # each row, carried by the optimal map to the other law
        influence = 2 * sign * centred @ shift + (centred * (centred - moved)).sum(1)
        variance += influence.var(ddof=1) / len(rows)
    return value, float(np.sqrt(variance))
