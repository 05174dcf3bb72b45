"""Logarithms of both tails of NumPyro's distributions of one number, however far out; censored and truncated ones by them.

NumPyro takes the log of 1 - F(x), with F at most 1 - eps: a row that is censored from above weighs at most 15.9 nats in single
precision, 36 in double, and from there on has no slope, so that the posterior is that of the other rows. Its density of a normal
between two ends that are 5.4 or 8.3 standard deviations above the mean is infinite, for the share between them is 1 - 1.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import betainc, gammainc, gammaincc, gammaln, log_ndtr, logsumexp
from numpyro.distributions.util import log1mexp

from probgen.engine.numpyro.wrapped import innermost

TERMS = 60  # of the series and the continued fraction of far tails of a gamma law
SMALL = 1e-20  # probabilities below which those are taken


def log_tails(fn: Any, x: Any) -> tuple[Any, Any]:
    """log P(X <= x) and log P(X > x), in nats.

    Those of a distribution without a line of its own here are of its `cdf`, and -inf where it has no digits left.
    """
    return _tails(innermost(fn), x)


@functools.singledispatch
def _tails(fn: Any, x: Any) -> tuple[Any, Any]:
    return _logs(fn.cdf(x))


def _logs(below: Any) -> tuple[Any, Any]:
    """Of the probability below; without a slope where it is 0 or 1, instead of NaN."""
    some = (below > 0) & (below < 1)
    inside = jnp.where(some, below, 0.5)
    far = lambda at, log: jnp.where(some, log, jnp.where(at, -jnp.inf, 0.0))  # noqa: E731
    return far(below <= 0, jnp.log(inside)), far(below >= 1, jnp.log1p(-inside))


def _of_hazard(total: Any) -> tuple[Any, Any]:
    """P(X > x) = exp(-total), the cumulative hazard."""
    return log1mexp(-total), -total


@_tails.register(dist.Exponential)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    return _of_hazard(fn.rate * x)


@_tails.register(dist.Weibull)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    return _of_hazard((x / fn.scale) ** fn.concentration)


@_tails.register(dist.Gompertz)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    return _of_hazard(fn.concentration * jnp.expm1(fn.rate * x))


@_tails.register(dist.Normal)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    z = (x - fn.loc) / fn.scale
    return log_ndtr(z), log_ndtr(-z)


@_tails.register(dist.HalfNormal)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    above = math.log(2) + log_ndtr(-x / fn.scale)
    return log1mexp(above), above


@_tails.register(dist.Logistic)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    z = (x - fn.loc) / fn.scale
    return jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)


@_tails.register(dist.Laplace)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    z = (x - fn.loc) / fn.scale
    near, far = jnp.log1p(-0.5 * jnp.exp(-jnp.abs(z))), -math.log(2) - jnp.abs(z)
    return jnp.where(z > 0, near, far), jnp.where(z > 0, far, near)


@_tails.register(dist.SoftLaplace)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    z = (x - fn.loc) / fn.scale
    return _log_of_arctan(z), _log_of_arctan(-z)


def _log_of_arctan(z: Any) -> Any:
    far = z < -15  # where arctan(exp(z)) is exp(z)
    return math.log(2 / math.pi) + jnp.where(
        far, z, jnp.log(jnp.arctan(jnp.exp(jnp.where(far, 0.0, jnp.minimum(z, 40.0)))))
    )


@_tails.register(dist.Gumbel)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    z = (x - fn.loc) / fn.scale
    below, far = -jnp.exp(-z), z > 15  # where 1 - exp(-exp(-z)) is exp(-z) but for its square
    return below, jnp.where(far, -z + 0.5 * below, log1mexp(jnp.where(far, -1.0, below)))


@_tails.register(dist.Cauchy)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    z = (x - fn.loc) / fn.scale
    return jnp.log(jnp.arctan2(1.0, -z) / jnp.pi), jnp.log(jnp.arctan2(1.0, z) / jnp.pi)


@_tails.register(dist.HalfCauchy)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    z = x / fn.scale
    return jnp.log(2 / jnp.pi * jnp.arctan(z)), jnp.log(2 / jnp.pi * jnp.arctan2(1.0, z))


@_tails.register(dist.StudentT)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    z = (x - fn.loc) / fn.scale
    tail = 0.5 * betainc(0.5 * fn.df, 0.5, fn.df / (fn.df + z**2))
    near, far = jnp.log1p(-tail), jnp.log(tail)
    return jnp.where(z > 0, near, far), jnp.where(z > 0, far, near)


@_tails.register(dist.Gamma)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    return _of_gamma(fn.concentration, fn.rate * x)


@_tails.register(dist.Poisson)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    return _of_gamma(jnp.floor(x) + 1, fn.rate)[::-1]


@_tails.register(dist.TransformedDistribution)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    sign: Any = 1
    for transform in reversed(fn.transforms):
        sign, x = sign * transform.sign, transform.inv(x)
    below, above = log_tails(fn.base_dist, x)
    return jnp.where(sign < 0, above, below), jnp.where(sign < 0, below, above)


@_tails.register(dist.MixtureSameFamily)
def _(fn: Any, x: Any) -> tuple[Any, Any]:
    below, above = log_tails(fn.component_distribution, jnp.asarray(x)[..., None])
    weights = jnp.log(fn.mixing_distribution.probs)
    return logsumexp(weights + below, axis=-1), logsumexp(weights + above, axis=-1)


def _of_gamma(a: Any, x: Any) -> tuple[Any, Any]:
    """Of a gamma law of rate 1: far tails by their series and by Legendre's continued fraction (DLMF 8.7.1 and 8.9.2)."""
    a, x = jnp.broadcast_arrays(jnp.asarray(a, jnp.result_type(float)), jnp.asarray(x, jnp.result_type(float)))
    return _far(gammainc, _log_series, x < a, a, x), _far(gammaincc, _log_fraction, x > a, a, x)


def _far(near: Any, log_far: Any, beyond: Any, a: Any, x: Any) -> Any:
    p = near(a, x)
    far = beyond & (p < SMALL) & (x > 0)
    apart = log_far(jnp.where(far, a, 1.0), jnp.where(far, x, 1.0))
    return jnp.where(far, apart, jnp.log(jnp.where(far, 1.0, p)))


def _log_series(a: Any, x: Any) -> Any:
    term = total = jnp.ones_like(x)
    for n in range(1, TERMS):
        term = term * x / (a + n)
        total = total + term
    return a * jnp.log(x) - x - gammaln(a + 1) + jnp.log(total)


def _log_fraction(a: Any, x: Any) -> Any:
    below = x
    for n in range(TERMS, 0, -1):
        below = x + (n - a) / (1 + n / below)
    return a * jnp.log(x) - x - gammaln(a) - jnp.log(below)


# ---- censored and truncated distributions ------------------------------------------------------------------------


def log_between(fn: Any, low: Any, high: Any) -> Any:
    """log P(low < X <= high), in nats, by the tail that is smaller."""
    (below_low, above_low), (below_high, above_high) = log_tails(fn, low), log_tails(fn, high)
    upper = above_low < below_high
    larger, smaller = jnp.where(upper, above_low, below_high), jnp.where(upper, above_high, below_low)
    some = (smaller > -jnp.inf) & (smaller < larger)
    rest = jnp.where(some, log1mexp(jnp.where(some, smaller - larger, -1.0)), 0.0)
    return jnp.where(low < high, larger + rest, -jnp.inf)


class LeftCensored(dist.LeftCensoredDistribution):
    """The same distribution, censored rows by their tails."""

    def log_prob(self, value: Any) -> Any:
        below, _ = log_tails(self.base_dist, value)
        return jnp.where(self.censored, below, self.base_dist.log_prob(value))


class RightCensored(dist.RightCensoredDistribution):
    """The same distribution, censored rows by their tails."""

    def log_prob(self, value: Any) -> Any:
        _, above = log_tails(self.base_dist, value)
        return jnp.where(self.censored, above, self.base_dist.log_prob(value))


class IntervalCensored(dist.IntervalCensoredDistribution):
    """The same distribution, each row by the tail that it is in."""

    def log_prob(self, value: Any) -> Any:
        left, right, between, outside, point = self._get_censoring_masks(value)
        inner: Any = self.support
        some = inner.feasible_like(value[..., 0])
        low, high = jnp.where(left, some, value[..., 0]), jnp.where(right, some, value[..., 1])
        found = log_between(self.base_dist, jnp.where(between, low, some), jnp.where(between, high, some))
        (below_low, above_low), (below_high, above_high) = (
            log_tails(self.base_dist, low),
            log_tails(self.base_dist, high),
        )
        cases = (
            (left, below_high),
            (right, above_low),
            (outside, jnp.logaddexp(below_low, above_high)),
            (point, self.base_dist.log_prob(low)),
        )
        for rows, log_prob in cases:
            found = jnp.where(rows, log_prob, found)
        return found


class LeftTruncated(dist.LeftTruncatedDistribution):
    """The same distribution, of a share of the whole that may be small."""

    def log_prob(self, value: Any) -> Any:
        return self.base_dist.log_prob(value) - log_tails(self.base_dist, self.low)[1]


class RightTruncated(dist.RightTruncatedDistribution):
    """The same distribution, of a share of the whole that may be small."""

    def log_prob(self, value: Any) -> Any:
        return self.base_dist.log_prob(value) - log_tails(self.base_dist, self.high)[0]


class TwoSidedTruncated(dist.TwoSidedTruncatedDistribution):
    """The same distribution, of a share of the whole that may be small."""

    def log_prob(self, value: Any) -> Any:
        return self.base_dist.log_prob(value) - log_between(self.base_dist, self.low, self.high)


KINDS = {
    dist.LeftCensoredDistribution: LeftCensored,
    dist.RightCensoredDistribution: RightCensored,
    dist.IntervalCensoredDistribution: IntervalCensored,
    dist.LeftTruncatedDistribution: LeftTruncated,
    dist.RightTruncatedDistribution: RightTruncated,
    dist.TwoSidedTruncatedDistribution: TwoSidedTruncated,
}
for _own, _written in KINDS.items():
    _written.__name__ = _own.__name__
