"""Quantiles of gamma, Poisson and binomial laws at Phi(e), both tails with all digits: NumPyro has none without another package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.scipy.special import betainc, gammainc, gammaincc, gammaln, ndtr, ndtri

NEWTON = 16  # steps, of which a few are needed but in far tails


def gamma(concentration: Any, e: Any) -> Any:
    """x of which a gamma law of rate 1 has the share Phi(e) below: shapes are broadcast.

    Newton's steps in log x on the normal scale, where the law is nearly straight, from Wilson and Hilferty's start (1931).
    """
    a, e = jnp.broadcast_arrays(jnp.asarray(concentration, jnp.result_type(e)), e)
    root = 1 - 1 / (9 * a) + e / (3 * jnp.sqrt(a))
    low = (jnp.log(_positive(ndtr(e))) + gammaln(a + 1)) / a  # of the lower tail of small a
    t = jnp.where(root > 0.1, jnp.log(a) + 3 * jnp.log(jnp.maximum(root, 0.1)), low)

    def step(_: int, t: Any) -> Any:
        x = jnp.exp(t)
        below, above = gammainc(a, x), gammaincc(a, x)
        z = jnp.where(below < 0.5, ndtri(_positive(below)), -ndtri(_positive(above)))
        log_slope = a * t - x - gammaln(a) + 0.5 * z**2 + 0.9189385332046727
        return t - jnp.clip((z - e) * jnp.exp(-log_slope), -2.0, 2.0)

    return jnp.exp(lax.fori_loop(0, NEWTON, step, t))


def _positive(p: Any) -> Any:
    return jnp.maximum(p, jnp.finfo(p.dtype).tiny)


def poisson(rate: Any, e: Any) -> Any:
    """The least k of which P(X > k) <= Phi(-e)."""
    rate, e = jnp.broadcast_arrays(jnp.asarray(rate, jnp.result_type(e)), e)
    far = jnp.ceil(rate + 40 * jnp.sqrt(rate) + 200)
    return _least(lambda k: gammainc(k + 1, rate), far, e)


def binomial(count: Any, share: Any, e: Any) -> Any:
    """The same, of `count` trials."""
    n, p, e = jnp.broadcast_arrays(jnp.asarray(count, jnp.result_type(e)), jnp.asarray(share, jnp.result_type(e)), e)
    beyond = lambda k: jnp.where(k >= n, 0.0, betainc(k + 1, jnp.maximum(n - k, 1e-6), p))  # noqa: E731
    return _least(beyond, n, e)


def _least(beyond: Callable[[Any], Any], far: Any, e: Any) -> Any:
    """The least whole k in [0, far] with beyond(k) <= Phi(-e), by halving."""
    tail = ndtr(-e)

    def going(ends: tuple[Any, Any]) -> Any:
        return jnp.any(ends[1] - ends[0] > 1)

    def half(ends: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = ends
        middle = jnp.floor(0.5 * (low + high))
        good = beyond(jnp.maximum(middle, 0)) <= tail
        wide = high - low > 1
        return jnp.where(wide & ~good, middle, low), jnp.where(wide & good, middle, high)

    return lax.while_loop(going, half, (jnp.full_like(far, -1.0), far))[1]
