"""Small triangles of a density written out as loops over rows, in place of calls of LAPACK.

    L_ij = (K_ij - sum_k<j L_ik L_jk) / L_jj,   L_jj = (K_jj - sum_k<j L_jk^2)^1/2,   X_i = (B_i - sum_k<i L_ik X_k) / L_ii

A call costs more than the arithmetic of a few rows, and XLA runs a loop around one piece by piece; see `runtime.SMALL_LOOP`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

ROWS = 12  # of a matrix that is written out
SETTINGS = ("left_side", "lower", "transpose_a", "conjugate_a", "unit_diagonal")


def written_out(traced: ClosedJaxpr) -> ClosedJaxpr:
    """The same function, its small Cholesky factors and triangular solves written out; those within loops and branches are left."""
    if not _has(traced.jaxpr):
        return traced
    return jax.make_jaxpr(lambda *values: _run(traced, values))(*traced.in_avals)


def loops(text: str) -> bool:
    """Whether lowered code has loops but those that are written here."""
    parts = text.split("func.func ")
    return any("stablehlo.while" in part and not part.startswith("private @small_") for part in parts)


def _has(jaxpr: Any) -> bool:
    return any(_rule(eqn) or (_inner(eqn) and _has(_inner(eqn).jaxpr)) for eqn in jaxpr.eqns)


def _inner(eqn: Any) -> Any:
    """What a call of compiled code computes; None of another operation."""
    return eqn.params["jaxpr"] if eqn.primitive.name in ("jit", "pjit") else None


def _rule(eqn: Any) -> Callable[..., Any] | None:
    """How an operation on one small matrix of reals is written out."""
    if eqn.primitive.name not in ("cholesky", "triangular_solve"):
        return None
    matrix = eqn.invars[0].aval
    if matrix.ndim != 2 or not 0 < matrix.shape[0] <= ROWS or not jnp.issubdtype(matrix.dtype, jnp.floating):
        return None
    if eqn.primitive.name == "cholesky":
        return small_factor
    return lambda a, b: small_solve(a, b, **eqn.params)


def _run(traced: ClosedJaxpr, values: Sequence[Any]) -> list[Any]:
    jaxpr = traced.jaxpr
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*traced.consts, *values), strict=True))
    read = lambda v: v.val if isinstance(v, Literal) else known[v]  # noqa: E731
    for eqn in jaxpr.eqns:
        given, rule, inner = [read(v) for v in eqn.invars], _rule(eqn), _inner(eqn)
        if rule:
            found = [rule(*given)]
        elif inner and _has(inner.jaxpr):
            found = _run(inner, given)
        else:
            variables = [v for v in eqn.invars if not isinstance(v, Literal)]
            alone = jaxpr.replace(eqns=[eqn], constvars=[], invars=variables, outvars=eqn.outvars)
            found = jaxpr_as_fun(ClosedJaxpr(alone, ()))(*map(read, variables))
        known |= dict(zip(eqn.outvars, found, strict=True))
    return [read(v) for v in jaxpr.outvars]


@jax.jit
def small_factor(matrix: Any) -> Any:
    """The Cholesky factor of a symmetric matrix (n, n), read from its lower triangle; NaN where it is not positive definite."""
    size = len(matrix)
    rows = jnp.arange(size)

    def column(j: Any, carry: Any) -> Any:
        rest, found = carry
        column = jnp.where(rows < j, 0, rest[:, j] / jnp.sqrt(jnp.where(rest[j, j] > 0, rest[j, j], jnp.nan)))
        return rest - column[:, None] * column, found.at[:, j].set(column)

    _, found = jax.lax.fori_loop(0, size, column, (matrix, jnp.zeros_like(matrix)))
    return jnp.where(jnp.isfinite(found[-1, -1]), found, jnp.tril(jnp.full_like(found, jnp.nan)))


@functools.partial(jax.jit, static_argnames=SETTINGS)
def small_solve(
    a: Any, b: Any, *, left_side: bool, lower: bool, transpose_a: bool, conjugate_a: bool, unit_diagonal: bool
) -> Any:
    """X of A X = B, or X A = B, of one triangular matrix of reals: a (n, n), b (n, m) or (m, n)."""
    if not left_side:  # A' X' = B'
        a, b = a.T, b.T
    a = a.T if transpose_a else a
    forward, size, diagonal = lower != (transpose_a != (not left_side)), len(a), jnp.diagonal(a)
    below = jnp.tril(a, -1) if forward else jnp.triu(a, 1)  # the other triangle may hold anything

    def row(step: Any, found: Any) -> Any:
        i = step if forward else size - 1 - step
        value = b[i] - jnp.sum(below[i][:, None] * found, 0)
        return found.at[i].set(value if unit_diagonal else value / diagonal[i])

    found = jax.lax.fori_loop(0, size, row, jnp.zeros_like(b))
    return found if left_side else found.T
