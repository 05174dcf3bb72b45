"""Pyro's distributions of counts and categories where a probability is 0 or 1, or nearly so.

Torch clips probabilities to eps and 1 - eps: what cannot happen costs 36 nats (15.9 in single precision), and outweighs what seldom
does; what is rarer has no slope. Ordered categories far above their predictor are such, too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.ops.special import log_binomial
from torch.nn.functional import logsigmoid


def times_log(count: Any, p: torch.Tensor) -> torch.Tensor:
    """count * log(p), 0 where both are 0; -inf, without a slope, where only p is."""
    return _times(count, p, torch.log, p > 0)


def times_log1m(count: Any, p: torch.Tensor) -> torch.Tensor:
    """count * log(1 - p), 0 where the count is 0 and p is 1; -inf, without a slope, where only p is."""
    return _times(count, -p, torch.log1p, p < 1)


def _times(count: Any, x: torch.Tensor, log: Callable[..., Any], some: torch.Tensor) -> torch.Tensor:
    count = torch.as_tensor(count, dtype=x.dtype, device=x.device)
    logs = torch.where(some, log(torch.where(some, x, 1.0)), 0.0)
    return count * logs + torch.where(some | (count == 0), 0.0, -torch.inf)


class Bernoulli(dist.Bernoulli):
    """The same distribution, exact at 0 and 1."""

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        _check(self, value)
        return times_log(value, self.probs) + times_log1m(1 - value, self.probs)


class Binomial(dist.Binomial):
    """The same distribution, exact at 0 and 1."""

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        _check(self, value)
        orders = log_binomial(self.total_count, value, tol=self.approx_log_prob_tol)
        return orders + times_log(value, self.probs) + times_log1m(self.total_count - value, self.probs)


class Geometric(dist.Geometric):
    """The same distribution, exact at 1."""

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        _check(self, value)
        return times_log(1.0, self.probs) + times_log1m(value, self.probs)


class NegativeBinomial(dist.NegativeBinomial):
    """The same distribution, exact at 0."""

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        _check(self, value)
        n, p = self.total_count, self.probs
        arrivals = torch.lgamma(n + value) - torch.lgamma(1.0 + value) - torch.lgamma(n)
        return arrivals.masked_fill(n + value == 0, 0.0) + times_log(value, p) + times_log1m(n, p)


def _check(fn: Any, value: torch.Tensor) -> None:
    if fn._validate_args:
        fn._validate_sample(value)


def exact(fn: Any) -> Any:
    """The distribution, exact at its edges; itself where nothing is to be changed."""
    if type(fn) in BY_PROBS and _says_probs(fn):
        return _as_kind(fn, BY_PROBS[type(fn)])
    if type(fn) in INFLATED and "gate" in vars(fn):
        return _as_kind(fn, INFLATED[type(fn)])
    if type(fn) is dist.OrderedLogistic:
        fn.__dict__["logits"] = _of_order(fn.cutpoints - fn.predictor[..., None])
    elif type(fn) is dist.Categorical:
        _unclip(fn)
    elif isinstance(fn, dist.OneHotCategorical | dist.Multinomial):
        _unclip(fn._categorical)
    return fn


def _says_probs(fn: Any) -> bool:
    """Whether a distribution is of probabilities, and not of logits with probabilities in its cache."""
    own = vars(fn)
    return "probs" in own and ("logits" not in own or own.get("_param") is own["probs"])


def _unclip(fn: Any) -> None:
    """Logs of probabilities of 0 in the distribution's own cache: Pyro knows enumerated values by the object they are of."""
    if "probs" in vars(fn):
        least = math.log(torch.finfo(fn.logits.dtype).eps)
        fn.__dict__["logits"] = torch.where((fn.logits - least).abs() < 1e-3, times_log(1.0, fn.probs), fn.logits)


def _as_kind(fn: Any, kind: type) -> Any:
    fn = copy.copy(fn)
    fn.__class__ = kind
    return fn


def _of_order(above: torch.Tensor) -> torch.Tensor:
    """Log probabilities of ordered categories, of their ends above the predictor: (..., end) -> (..., end + 1)."""
    low, high = above[..., :-1], above[..., 1:]
    between = logsigmoid(high) + logsigmoid(-low) + times_log(1.0, -torch.expm1(low - high))
    return torch.cat([logsigmoid(above[..., :1]), between, logsigmoid(-above[..., -1:])], -1)


# ---- counts with a gate of their own for 0 -----------------------------------------------------------------------


class _Inflated:
    """log(g + (1 - g) p(0)) by its terms' logs."""

    def log_prob(self: Any, value: torch.Tensor) -> torch.Tensor:
        _check(self, value)
        counted = times_log1m(1.0, self.gate) + self.base_dist.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(times_log(1.0, self.gate), counted), counted)


class ZeroInflatedDistribution(_Inflated, dist.ZeroInflatedDistribution):
    """The same distribution, exact at gates of 0 and 1."""


class ZeroInflatedPoisson(_Inflated, dist.ZeroInflatedPoisson):
    """The same distribution, exact at gates of 0 and 1."""


class ZeroInflatedNegativeBinomial(_Inflated, dist.ZeroInflatedNegativeBinomial):
    """The same distribution, exact at gates of 0 and 1."""


BY_PROBS = {getattr(dist, kind.__name__): kind for kind in (Bernoulli, Binomial, Geometric, NegativeBinomial)}
INFLATED = {
    getattr(dist, kind.__name__): kind
    for kind in (ZeroInflatedDistribution, ZeroInflatedPoisson, ZeroInflatedNegativeBinomial)
}
