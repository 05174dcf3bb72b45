"""NumPyro's distributions of counts and categories where a probability is 0 or 1, or nearly so.

NumPyro clips probabilities of events to 1 - eps, and to the smallest number: what cannot happen costs 36 nats (15.9 in single
precision) or 708, and outweighs what seldom does. Its slopes of logits at 0 are 0 or 1, those of gates at 0 and 1 are NaN, and
ordered categories that are 37 logits above their predictor have no density.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import betaln, gammaln


def times_log(count: Any, p: Any) -> Any:
    """count * log(p), 0 where both are 0; -inf, without a slope, where only p is."""
    return _times(count, p, jnp.log, p > 0)


def times_log1m(count: Any, p: Any) -> Any:
    """count * log(1 - p), 0 where the count is 0 and p is 1; -inf, without a slope, where only p is."""
    return _times(count, -jnp.asarray(p), jnp.log1p, p < 1)


def _times(count: Any, x: Any, log: Any, some: Any) -> Any:
    inside = jnp.where(some, x, 1.0)
    return count * jnp.where(some, log(inside), 0.0) + jnp.where(some | (count == 0), 0.0, -jnp.inf)


def _orders(n: Any, k: Any) -> Any:
    """Log of how many orders k successes among n have."""
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _real(value: Any) -> Any:
    return jnp.asarray(value, jnp.result_type(float))


class BernoulliProbs(dist.BernoulliProbs):
    """The same distribution, exact at 0 and 1."""

    def log_prob(self, value: Any) -> Any:
        value = _real(value)
        return times_log(value, self.probs) + times_log1m(1 - value, self.probs)


class BernoulliLogits(dist.BernoulliLogits):
    """The same distribution, with its slope at 0."""

    def log_prob(self, value: Any) -> Any:
        return _real(value) * self.logits - jax.nn.softplus(self.logits)


class BinomialProbs(dist.BinomialProbs):
    """The same distribution, exact at 0 and 1."""

    def log_prob(self, value: Any) -> Any:
        n, k = _real(self.total_count), _real(value)
        return _orders(n, k) + times_log(k, self.probs) + times_log1m(n - k, self.probs)


class BinomialLogits(dist.BinomialLogits):
    """The same distribution, with its slope at 0."""

    def log_prob(self, value: Any) -> Any:
        n, k, x = _real(self.total_count), _real(value), _real(self.logits)
        return _orders(n, k) + k * jax.nn.log_sigmoid(x) + (n - k) * jax.nn.log_sigmoid(-x)


class GeometricProbs(dist.GeometricProbs):
    """The same distribution, exact at 1."""

    def log_prob(self, value: Any) -> Any:
        return times_log(1.0, self.probs) + times_log1m(_real(value), self.probs)


class _Arrivals:
    """Poisson, of a gamma law of rates that may be large: log(1 + 1 / rate) keeps its digits."""

    def log_prob(self: Any, value: Any) -> Any:
        a, rate, value = _real(self.concentration), _real(self.rate), _real(value)
        return -betaln(a, value + 1) - jnp.log(a + value) - a * jnp.log1p(1 / rate) - value * jnp.log1p(rate)


class GammaPoisson(_Arrivals, dist.GammaPoisson):
    """The same distribution, near a Poisson law, too."""


class NegativeBinomial2(_Arrivals, dist.NegativeBinomial2):
    """The same distribution, near a Poisson law, too."""


class OrderedLogistic(dist.OrderedLogistic):
    """The same distribution, categories far from the predictor by their logs."""

    def log_prob(self, value: Any) -> Any:
        cutpoints: Any = self.cutpoints
        above = cutpoints - self.predictor[..., None]
        gap = above[..., :-1] - above[..., 1:]
        between = jax.nn.log_sigmoid(above[..., 1:]) + jax.nn.log_sigmoid(-above[..., :-1])
        between = between + times_log(1.0, -jnp.expm1(gap))
        ends = jax.nn.log_sigmoid(above[..., :1]), jax.nn.log_sigmoid(-above[..., -1:])
        logits = jnp.concatenate([ends[0], between, ends[1]], -1)
        return dist.CategoricalLogits(logits, validate_args=False).log_prob(jnp.asarray(value).astype(int))


# ---- counts with a gate of their own for 0 -----------------------------------------------------------------------


class _Inflated:
    """log(g + (1 - g) p(0)) by its terms' logs."""

    def log_prob(self: Any, value: Any) -> Any:
        counted = times_log1m(1.0, self.gate) + self.base_dist.log_prob(value)
        return jnp.where(value == 0, jnp.logaddexp(times_log(1.0, self.gate), counted), counted)


class _Hurdle:
    """The terms' slopes at gates of 0 and 1."""

    def _log_gate(self: Any) -> Any:
        return times_log(1.0, self.gate)

    def _log_one_minus_gate(self: Any) -> Any:
        return times_log1m(1.0, self.gate)


class ZeroInflatedProbs(_Inflated, dist.ZeroInflatedProbs):
    """The same distribution, exact at gates of 0 and 1."""


class ZeroInflatedPoisson(_Inflated, dist.ZeroInflatedPoisson):
    """The same distribution, exact at gates of 0 and 1."""


class HurdleProbs(_Hurdle, dist.HurdleProbs):
    """The same distribution, exact at gates of 0 and 1."""


class HurdlePoisson(_Hurdle, dist.HurdlePoisson):
    """The same distribution, exact at gates of 0 and 1."""


KINDS = {
    getattr(dist, written.__name__): written
    for written in (
        BernoulliProbs, BernoulliLogits, BinomialProbs, BinomialLogits, GeometricProbs, GammaPoisson, NegativeBinomial2,
        OrderedLogistic, ZeroInflatedProbs, ZeroInflatedPoisson, HurdleProbs, HurdlePoisson,
    )
}  # fmt: skip
