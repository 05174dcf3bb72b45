"""Quantiles of gamma, Poisson and binomial laws at Phi(e), both tails with all digits: NumPyro has none without another package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.scipy.special import betainc, gammainc, gammaincc, gammaln, ndtr, ndtri

NEWTON = 16  # steps, of which a few are needed but in far tails
LARGE = 500  # variance of counts from which expansions are exact to a count in a thousand, and special functions lose digits
MANY = 5000  # trials, beyond which the incomplete beta function of float32 loses digits


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
    """The least k of which P(X <= k) >= Phi(e).

    Large rates by Giles' expansion in 1 / sqrt(rate) (2016, doi:10.1145/2699466), where the incomplete gamma
    function has no digits left.
    """
    rate, e = jnp.broadcast_arrays(jnp.asarray(rate, jnp.result_type(e)), e)
    large = rate > LARGE
    far = jnp.where(large, 0.0, jnp.ceil(rate + 40 * jnp.sqrt(rate) + 200))
    few = _least(lambda k: gammaincc(k + 1, rate), lambda k: gammainc(k + 1, rate), far, e)
    sd = jnp.sqrt(jnp.maximum(rate, LARGE))
    shift = sd * e + 1 / 3 + e**2 / 6 - (e / 36 + e**3 / 72) / sd + (-8 / 405 + 7 * e**2 / 810 + e**4 / 270) / sd**2
    return jnp.where(large, jnp.maximum(jnp.floor(rate + shift), 0), few)


def binomial(count: Any, share: Any, e: Any) -> Any:
    """The same, of `count` trials; of shares above a half by what is left."""
    n, p, e = jnp.broadcast_arrays(jnp.asarray(count, jnp.result_type(e)), jnp.asarray(share, jnp.result_type(e)), e)
    found = _successes(n, jnp.minimum(p, 1 - p), jnp.where(p > 0.5, -e, e))
    return jnp.where(p > 0.5, n - found, found)


def _successes(n: Any, p: Any, e: Any) -> Any:
    """Of a share of at most a half; of a large variance by Cornish and Fisher's expansion (1938), with Sheppard's correction."""
    variance = n * p * (1 - p)
    large = variance > LARGE
    few = _least(*_shares_of_trials(n, p), jnp.where(large, 0.0, n), e)
    sd, skew = jnp.sqrt(jnp.maximum(variance, LARGE)), 1 - 2 * p
    curved = (1 - 6 * p * (1 - p)) * (e**3 - 3 * e) / 24 - skew**2 * (2 * e**3 - 5 * e) / 36 - e / 24
    shift = 0.5 + sd * e + skew * (e**2 - 1) / 6 + curved / sd
    return jnp.where(large, jnp.clip(jnp.floor(n * p + shift), 0, n), few)


def _shares_of_trials(n: Any, p: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """P(X <= k) and P(X > k) of `n` trials.

    Of more trials than the incomplete beta function has digits for, those of a Poisson law of rate (2 n - k) p / (2 - p)
    (Bol'shev 1963), whose error is of the order of (k / n)^2.
    """
    many = n > (MANY if jnp.finfo(n.dtype).bits == 32 else jnp.inf)
    rate = lambda k: jnp.maximum(2 * n - k, 0) * p / (2 - p)  # noqa: E731
    less = lambda k: jnp.maximum(n - k, 1e-6)  # noqa: E731
    below = lambda k: jnp.where(many, gammaincc(k + 1, rate(k)), betainc(less(k), k + 1, 1 - p))  # noqa: E731
    beyond = lambda k: jnp.where(many, gammainc(k + 1, rate(k)), betainc(k + 1, less(k), p))  # noqa: E731
    return lambda k: jnp.where(k >= n, 1.0, below(k)), lambda k: jnp.where(k >= n, 0.0, beyond(k))


def _least(below: Callable[[Any], Any], beyond: Callable[[Any], Any], far: Any, e: Any) -> Any:
    """The least whole k in [0, far] with below(k) >= Phi(e), by halving; by the tail that is small, which has all digits."""
    lower, upper = ndtr(e), ndtr(-e)

    def going(ends: tuple[Any, Any]) -> Any:
        return jnp.any(ends[1] - ends[0] > 1)

    def half(ends: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = ends
        middle = jnp.floor(0.5 * (low + high))
        k = jnp.maximum(middle, 0)
        good = jnp.where(e < 0, below(k) >= lower, beyond(k) <= upper)
        wide = high - low > 1
        return jnp.where(wide & ~good, middle, low), jnp.where(wide & good, middle, high)

    return lax.while_loop(going, half, (jnp.full_like(far, -1.0), far))[1]
