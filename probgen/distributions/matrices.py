"""The log density of normal vectors from a matrix, with its derivative in closed form: products in place of solves.

    log N(r | 0, K) = -r' P r / 2 - log det K / 2 - n log(2 pi) / 2,     P = K^-1, a = P r
    d log N = a' dK a / 2 - tr(P dK) / 2 - a' dr,     d a = P (dr - dK a),     d P = -P dK P,     d log det P = tr(K dP)

JAX differentiates through the Cholesky factor, by two triangular solves and a product of full matrices, 4 n^3 operations; the
inverse by halves and its square take 4/3 n^3, most of them in products. Many small matrices are factored side by side, an entry
of all at once: on a CPU a call of LAPACK for each of them takes longer than the arithmetic. A matrix that is not positive
definite gives NaN, as it does in JAX.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.scipy.linalg import solve_triangular

BLOCK = 32  # rows up to which a matrix is inverted by one solve, and squared in one product
SMALL = 6  # rows up to which many matrices are factored side by side,
MANY = 32  # from so many on


@jax.custom_jvp
def log_density(covariance: Any, deviation: Any) -> Any:
    """log N(r | 0, K) in nats: (*batch, n) -> (*batch,); K is one (n, n) for all, or one for each (*batch, n, n)."""
    return _whitened(covariance, deviation)[0]


def _log_density_rule(primals: Any, tangents: Any) -> tuple[Any, Any]:
    change, moved = tangents
    if isinstance(change, SymbolicZero):  # of a covariance that depends on no unknown
        value, pull = _pulled(*primals)
        return value, -jnp.sum(pull * moved, -1)
    value, pull, precision = _solved(*primals)
    moved = None if isinstance(moved, SymbolicZero) else moved
    return value, _change(pull, precision, change, moved)


log_density.defjvp(_log_density_rule, symbolic_zeros=True)


@jax.custom_jvp
def _solved(covariance: Any, deviation: Any) -> tuple[Any, Any, Any]:
    """The log density, P r and P."""
    if _side_by_side(covariance):
        return _solved_side_by_side(covariance, deviation)
    value, white, root = _whitened(covariance, deviation)
    return value, _each(root, white, trans=1), _square(_inverse(root))


@_solved.defjvp
def _solved_rule(primals: Any, tangents: Any) -> tuple[Any, Any]:
    found = _, pull, precision = _solved(*primals)
    change, moved = _symmetric(tangents[0]), tangents[1]
    inner = moved - _times(pull, change)
    return found, (
        _change(pull, precision, change, moved),
        _times(inner, precision),
        -_product(_product(precision, change), precision),
    )


@jax.custom_jvp
def _pulled(covariance: Any, deviation: Any) -> tuple[Any, Any]:
    """The log density and P r."""
    if _side_by_side(covariance):
        return _solved_side_by_side(covariance, deviation)[:2]
    value, white, root = _whitened(covariance, deviation)
    return value, _each(root, white, trans=1)


@_pulled.defjvp
def _pulled_rule(primals: Any, tangents: Any) -> tuple[Any, Any]:
    found, change = jax.jvp(_solved, primals, tangents)
    return found[:2], change[:2]


def log_density_of_precision(precision: Any, deviation: Any) -> Any:
    """log N(r | 0, P^-1) in nats: (*batch, n) -> (*batch,); P is one (n, n) for all, or one for each (*batch, n, n)."""
    precision = _symmetric(precision)
    quadratic = jnp.sum(_times(deviation, precision) * deviation, -1)
    return -0.5 * quadratic + 0.5 * _log_det(precision) - 0.5 * deviation.shape[-1] * math.log(2 * math.pi)


@jax.custom_jvp
def _log_det(matrix: Any) -> Any:
    return 2 * _log_diagonal(jnp.linalg.cholesky(matrix))


def _log_det_rule(primals: Any, tangents: Any) -> tuple[Any, Any]:
    if isinstance(tangents[0], SymbolicZero):
        value = _log_det(*primals)
        return value, jnp.zeros_like(value)
    value, inverse = _inverted(*primals)
    return value, jnp.sum(inverse * tangents[0], (-2, -1))


_log_det.defjvp(_log_det_rule, symbolic_zeros=True)


@jax.custom_jvp
def _inverted(matrix: Any) -> tuple[Any, Any]:
    """The log of the determinant and the inverse."""
    root = jnp.linalg.cholesky(matrix)
    return 2 * _log_diagonal(root), _square(_inverse(root))


@_inverted.defjvp
def _inverted_rule(primals: Any, tangents: Any) -> tuple[Any, Any]:
    value, inverse = _inverted(*primals)
    change = _symmetric(tangents[0])
    moved = -_product(_product(inverse, change), inverse)
    return (value, inverse), (jnp.sum(inverse * change, (-2, -1)), moved)


def log_density_of_root(root: Any, deviation: Any) -> Any:
    """log N(r | 0, L L') in nats of many vectors: (*batch, n) -> (*batch,); L is one lower triangle (n, n) for all."""
    return _of(_each(root, deviation), _log_diagonal(root))


def _change(pull: Any, precision: Any, change: Any, moved: Any) -> Any:
    """How the log density changes with the covariance and the deviation."""
    quadratic = jnp.sum(_times(pull, change) * pull, -1)
    found = 0.5 * (quadratic - jnp.sum(precision * change, (-2, -1)))
    return found if moved is None else found - jnp.sum(pull * moved, -1)


def _product(a: Any, b: Any) -> Any:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _times(x: Any, matrix: Any) -> Any:
    """x' M of every vector: (*batch, n)."""
    return _product(x, matrix) if matrix.ndim == 2 else jnp.sum(x[..., :, None] * matrix, -2)


def _symmetric(matrix: Any) -> Any:
    return (matrix + jnp.matrix_transpose(matrix)) / 2


def _of(white: Any, log_det: Any) -> Any:
    return -0.5 * jnp.sum(jnp.square(white), -1) - (log_det + 0.5 * white.shape[-1] * math.log(2 * math.pi))


# ---- by LAPACK -----------------------------------------------------------------------------------------------------------


def _whitened(covariance: Any, deviation: Any) -> tuple[Any, Any, Any]:
    """The log density, L^-1 r and the Cholesky factor L, which is None where matrices are factored side by side."""
    if _side_by_side(covariance):
        root = None
        columns, rows = _columns(covariance, deviation), deviation.shape[:-1]
        white = jnp.stack([column[-1] for column in columns], -1).reshape(deviation.shape)
        log_det = jnp.sum(jnp.log(jnp.stack([column[0] for column in columns])), 0).reshape(rows)
    else:
        root = jnp.linalg.cholesky(covariance)
        white = _each(root, deviation)
        log_det = _log_diagonal(root)
    return _of(white, log_det), white, root


def _log_diagonal(root: Any) -> Any:
    return jnp.sum(jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)), -1)


def _each(root: Any, x: Any, trans: int = 0) -> Any:
    """L^-1 x, or L^-T x, of every vector: (*batch, n)."""
    if root.ndim > 2 or x.ndim == 1:
        return solve_triangular(root, x[..., None], lower=True, trans=trans)[..., 0]
    inverse = _inverse(root)  # a solve of many vectors turns them about
    return _product(x, inverse if trans else inverse.T)


def _inverse(root: Any) -> Any:
    """L^-1 by halves."""
    size = root.shape[-1]
    if size <= BLOCK:
        return solve_triangular(root, jnp.broadcast_to(jnp.eye(size, dtype=root.dtype), root.shape), lower=True)
    half = size // 2
    first, last = _inverse(root[..., :half, :half]), _inverse(root[..., half:, half:])
    below = -_product(last, _product(root[..., half:, :half], first))
    return _joined(first, jnp.zeros_like(jnp.matrix_transpose(below)), below, last)


def _square(lower: Any) -> Any:
    """M' M of a lower triangular matrix M, by halves."""
    size, turned = lower.shape[-1], jnp.matrix_transpose(lower)
    if size <= BLOCK:
        return _product(turned, lower)
    half = size // 2
    below, last = lower[..., half:, :half], lower[..., half:, half:]
    across = _product(turned[..., half:, half:], below)
    first = _square(lower[..., :half, :half]) + _product(turned[..., :half, half:], below)
    return _joined(first, jnp.matrix_transpose(across), across, _square(last))


def _joined(a: Any, b: Any, c: Any, d: Any) -> Any:
    return jnp.concatenate([jnp.concatenate([a, b], -1), jnp.concatenate([c, d], -1)], -2)


# ---- many small ones side by side -----------------------------------------------------------------------------------------


def _side_by_side(covariance: Any) -> bool:
    return covariance.shape[-1] <= SMALL and math.prod(covariance.shape[:-2]) >= MANY


def _columns(covariance: Any, deviation: Any) -> list[Any]:
    """The columns of the Cholesky factors from the diagonal on, each with its number of L^-1 r below: (rows, matrix)."""
    size = covariance.shape[-1]
    entries = jnp.moveaxis(_symmetric(covariance).reshape(-1, size, size), 0, -1)
    last = jnp.moveaxis(deviation.reshape(-1, size), 0, -1)
    found: list[Any] = []
    for j in range(size):
        column = jnp.concatenate([entries[j:, j], last[j : j + 1]])
        for k, before in enumerate(found):
            column = column - before[j - k :] * before[j - k]
        found.append(column / jnp.sqrt(jnp.where(column[0] > 0, column[0], jnp.nan)))
    return found


def _solved_side_by_side(covariance: Any, deviation: Any) -> tuple[Any, Any, Any]:
    """The log density, P r and P."""
    columns, size = _columns(covariance, deviation), covariance.shape[-1]
    rows: list[Any] = []  # of L^-1: (size, matrix)
    for i in range(size):
        row = jnp.zeros_like(columns[0][:-1]).at[i].set(1)
        for k in range(i):
            row = row - columns[k][i - k] * rows[k]
        rows.append(row / columns[i][0])
    white = [column[-1] for column in columns]
    pull = sum(row * value for row, value in zip(rows, white, strict=True))
    precision = sum(row[:, None] * row for row in rows)
    value = _of(jnp.stack(white, -1), sum(jnp.log(column[0]) for column in columns))
    back = jnp.moveaxis(precision, -1, 0).reshape(covariance.shape)
    return value.reshape(deviation.shape[:-1]), jnp.moveaxis(pull, -1, 0).reshape(deviation.shape), back
