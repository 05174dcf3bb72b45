"""A draw of a distribution as a function of standard normal noise e: smooth, and monotone where it can be.

    x = F^-1(Phi(e)),   one e for each coordinate;   x = loc + L e

By F^-1 the upper tail ends where 1 - Phi(e) rounds to 0 in the number type; families that are met often are written by logs of
the upper tail, and have no such end. A distribution without a quantile function is drawn by a key that is a hash of its noise:
right, but anew whenever its noise moves at all; its name goes into `tape.anew`.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import erfinv, log_ndtr, ndtr, ndtri

from probgen.engine.numpyro.events import quantiles
from probgen.engine.numpyro.one_row import First
from probgen.engine.numpyro.wrapped import innermost
from probgen.nets.flows import Flow

Shape = tuple[int, ...]


def value(fn: Any, shape: Shape, tape: Any) -> Any:
    """A value of a site, of batch and event shape together; tape: gives noise, `normals(shape)`, and keys, `key(name)`."""
    bare = innermost(fn)
    kind = _smooth.dispatch(type(bare))
    if kind is not _smooth.dispatch(object):
        return _smooth(bare, shape, tape)
    if type(bare).icdf is not dist.Distribution.icdf and not bare.event_shape and not _is_whole(bare):
        return _by_quantile(bare, shape, tape)
    return _by_key(fn, bare, shape, tape)


def _is_whole(fn: Any) -> bool:
    return bool(getattr(fn.support, "is_discrete", False))


def _by_quantile(fn: Any, shape: Shape, tape: Any) -> Any:
    e = tape.normals(shape)
    u = jnp.clip(ndtr(e), jnp.finfo(e.dtype).tiny, 1 - jnp.finfo(e.dtype).epsneg)
    return fn.icdf(u)


def _by_key(fn: Any, bare: Any, shape: Shape, tape: Any) -> Any:
    """Drawn by keys: of one number a coordinate, where its parameters can be told apart, each by its own."""
    names = list(bare.arg_constraints)
    if bare.event_shape or not names or any(not hasattr(bare, name) for name in names):
        sample_shape = shape[: len(shape) - len(fn.shape())]
        return fn.sample(tape.key(type(bare).__name__), sample_shape)
    given = [jnp.broadcast_to(jnp.asarray(getattr(bare, name)), shape).ravel() for name in names]
    keys = tape.keys(math.prod(shape), type(bare).__name__)

    def one(key: Any, *each: Any) -> Any:
        return type(bare)(**dict(zip(names, each, strict=True)), validate_args=False).sample(key)

    return jax.vmap(one)(keys, *given).reshape(shape)


@functools.singledispatch
def _smooth(fn: Any, shape: Shape, tape: Any) -> Any:
    """The value of a family that is written here."""
    raise NotImplementedError(type(fn).__name__)


@_smooth.register(dist.Delta)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return jnp.broadcast_to(fn.v, shape)


@_smooth.register(dist.Normal)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return fn.loc + fn.scale * tape.normals(shape)


@_smooth.register(dist.HalfNormal)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    """|x| of a standard normal x: its upper tail is twice the normal's."""
    e = tape.normals(shape)
    tail = jnp.maximum(0.5 * ndtr(-e), jnp.finfo(e.dtype).tiny)
    return fn.scale * jnp.where(e < 0, math.sqrt(2) * erfinv(ndtr(e)), -ndtri(tail))


@_smooth.register(dist.Uniform)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return fn.low + (fn.high - fn.low) * ndtr(tape.normals(shape))


@_smooth.register(dist.Exponential)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return -log_ndtr(-tape.normals(shape)) / fn.rate


@_smooth.register(dist.Weibull)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return fn.scale * (-log_ndtr(-tape.normals(shape))) ** (1 / fn.concentration)


@_smooth.register(dist.Gumbel)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return fn.loc - fn.scale * jnp.log(-log_ndtr(tape.normals(shape)))


@_smooth.register(dist.Logistic)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    e = tape.normals(shape)
    return fn.loc + fn.scale * (log_ndtr(e) - log_ndtr(-e))


@_smooth.register(dist.Laplace)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    e = tape.normals(shape)
    return fn.loc - fn.scale * jnp.sign(e) * (math.log(2) + log_ndtr(-jnp.abs(e)))


@_smooth.register(dist.Cauchy)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    e = tape.normals(shape)
    return fn.loc + fn.scale * jnp.sign(e) / jnp.tan(jnp.pi * _tail(jnp.abs(e)))


@_smooth.register(dist.HalfCauchy)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    e = tape.normals(shape)
    far = jnp.tan(0.5 * jnp.pi * _tail(jnp.abs(e)))
    return fn.scale * jnp.where(e < 0, far, 1 / far)


def _tail(e: Any) -> Any:
    """Phi(-e), above 0."""
    return jnp.maximum(ndtr(-e), jnp.finfo(e.dtype).tiny)


@_smooth.register(dist.Gamma)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return quantiles.gamma(fn.concentration, tape.normals(shape)) / fn.rate


@_smooth.register(dist.StudentT)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    spread = jnp.sqrt(quantiles.gamma(0.5 * fn.df, tape.normals(shape)) / (0.5 * fn.df))
    return fn.loc + fn.scale * tape.normals(shape) / spread


@_smooth.register(dist.Beta)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    """A share of two gammas."""
    a, b = (quantiles.gamma(c, tape.normals(shape)) for c in (fn.concentration1, fn.concentration0))
    return a / (a + b)


@_smooth.register(dist.Dirichlet)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    each = quantiles.gamma(fn.concentration, tape.normals(shape))
    return each / jnp.sum(each, -1, keepdims=True)


@_smooth.register(dist.Poisson)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return _whole(quantiles.poisson(fn.rate, tape.normals(shape)))


@_smooth.register(dist.GammaPoisson)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    """A Poisson number of a gamma rate; negative binomials are that."""
    rate = quantiles.gamma(fn.concentration, tape.normals(shape)) / fn.rate
    return _whole(quantiles.poisson(rate, tape.normals(shape)))


@_smooth.register(dist.BinomialProbs)
@_smooth.register(dist.BinomialLogits)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return _whole(quantiles.binomial(fn.total_count, fn.probs, tape.normals(shape)))


@_smooth.register(dist.GeometricProbs)
@_smooth.register(dist.GeometricLogits)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return _whole(jnp.floor(log_ndtr(-tape.normals(shape)) / jnp.log1p(-fn.probs)))


def _whole(found: Any) -> Any:
    return found.astype(jnp.int64 if jax.config.read("jax_enable_x64") else jnp.int32)


@_smooth.register(dist.MultivariateNormal)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    e = tape.normals(shape)
    return fn.loc + jnp.squeeze(fn.scale_tril @ e[..., None], -1)


@_smooth.register(dist.LowRankMultivariateNormal)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    wide = tape.normals((*shape[:-1], fn.cov_factor.shape[-1]))
    return fn.loc + jnp.squeeze(fn.cov_factor @ wide[..., None], -1) + jnp.sqrt(fn.cov_diag) * tape.normals(shape)


@_smooth.register(dist.GaussianRandomWalk)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return jnp.cumsum(tape.normals(shape) * jnp.asarray(fn.scale)[..., None], -1)


@_smooth.register(dist.TransformedDistribution)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    base = fn.base_dist
    found = value(
        base, (*shape[: len(shape) - fn.event_dim], *base.shape()[len(base.shape()) - base.event_dim :]), tape
    )
    for transform in fn.transforms:
        found = transform(found)
    return found


@_smooth.register(Flow)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    base: Any = fn.flow.base_dist
    if type(fn) is not Flow or type(base).__name__ not in ("StandardNormal", "Normal"):
        return fn.sample(tape.key(type(fn).__name__), shape[: len(shape) - len(fn.shape())])
    count = math.prod(shape[: len(shape) - len(fn.event_shape)])
    e = tape.normals((count, *fn.event_shape))
    if type(base).__name__ == "Normal":
        e = base.bijection.transform(e)
    return jax.vmap(lambda u: fn.bijection.transform(u, fn.condition))(e).reshape(shape)


@_smooth.register(First)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    """A row of a batch of one."""
    at = len(shape) - len(fn.shape())
    return jnp.squeeze(value(fn.rows, (*shape[:at], 1, *shape[at:]), tape), at)


@_smooth.register(dist.BernoulliProbs)
@_smooth.register(dist.BernoulliLogits)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return _whole(ndtr(-tape.normals(shape)) < fn.probs)


@_smooth.register(dist.CategoricalProbs)
@_smooth.register(dist.CategoricalLogits)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return _category(fn.probs, tape.normals(shape))


def _category(probs: Any, e: Any) -> Any:
    """The least class of which the classes up to it have the share Phi(e); by the tail that is small, which has all digits."""
    e = e[..., None]
    below = jnp.cumsum(probs, -1)[..., :-1]
    beyond = jnp.flip(jnp.cumsum(jnp.flip(probs, -1), -1), -1)[..., 1:]
    return jnp.sum(jnp.where(e < 0, ndtr(e) > below, ndtr(-e) < beyond), -1)


@_smooth.register(dist.DiscreteUniform)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    count = fn.high - fn.low + 1
    return fn.low + jnp.minimum(jnp.floor(count * ndtr(tape.normals(shape))).astype(jnp.result_type(count)), count - 1)


@_smooth.register(dist.MixtureSameFamily)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    """A component for each category, and the one of the category that is drawn."""
    parts = fn.component_distribution
    batch = shape[: len(shape) - fn.event_dim]
    event = shape[len(batch) :]
    which = _category(fn.mixing_distribution.probs, tape.normals(batch))
    each = value(parts, (*batch, fn.mixture_size, *event), tape)
    index = which.reshape(*batch, 1, *(1,) * len(event))
    return jnp.squeeze(jnp.take_along_axis(each, index, axis=len(batch)), len(batch))
