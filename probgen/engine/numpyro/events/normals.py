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
from jax.scipy.special import log_ndtr, ndtr, ndtri

from probgen.engine.numpyro.targets.draws import innermost
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


@_smooth.register
def _(fn: dist.Delta, shape: Shape, tape: Any) -> Any:
    return jnp.broadcast_to(fn.v, shape)


@_smooth.register
def _(fn: dist.Normal, shape: Shape, tape: Any) -> Any:
    return fn.loc + fn.scale * tape.normals(shape)


@_smooth.register
def _(fn: dist.HalfNormal, shape: Shape, tape: Any) -> Any:
    return fn.scale * _upper(jnp.log(2.0), tape.normals(shape))


def _upper(shift: Any, e: Any) -> Any:
    """The normal quantile whose upper tail is that of e less `shift` in logs: |x| of a standard normal x, for log 2."""
    tail = jnp.exp(log_ndtr(-e) - shift)
    return -ndtri(jnp.maximum(tail, jnp.finfo(e.dtype).tiny))


@_smooth.register
def _(fn: dist.Uniform, shape: Shape, tape: Any) -> Any:
    return fn.low + (fn.high - fn.low) * ndtr(tape.normals(shape))


@_smooth.register
def _(fn: dist.Exponential, shape: Shape, tape: Any) -> Any:
    return -log_ndtr(-tape.normals(shape)) / fn.rate


@_smooth.register
def _(fn: dist.Weibull, shape: Shape, tape: Any) -> Any:
    return fn.scale * (-log_ndtr(-tape.normals(shape))) ** (1 / fn.concentration)


@_smooth.register
def _(fn: dist.Gumbel, shape: Shape, tape: Any) -> Any:
    return fn.loc - fn.scale * jnp.log(-log_ndtr(tape.normals(shape)))


@_smooth.register
def _(fn: dist.Logistic, shape: Shape, tape: Any) -> Any:
    e = tape.normals(shape)
    return fn.loc + fn.scale * (log_ndtr(e) - log_ndtr(-e))


@_smooth.register(dist.Cauchy)
@_smooth.register(dist.Laplace)
@_smooth.register(dist.StudentT)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    """Symmetric families: both tails by the lower one, which has all digits."""
    e = tape.normals(shape)
    lower = fn.icdf(jnp.maximum(ndtr(-jnp.abs(e)), jnp.finfo(e.dtype).tiny))
    return jnp.where(e > 0, 2 * fn.loc - lower, lower)


@_smooth.register
def _(fn: dist.HalfCauchy, shape: Shape, tape: Any) -> Any:
    tail = jnp.maximum(ndtr(-tape.normals(shape)), jnp.finfo(tape.dtype).tiny)
    return fn.scale / jnp.tan(0.5 * jnp.pi * tail)


@_smooth.register
def _(fn: dist.MultivariateNormal, shape: Shape, tape: Any) -> Any:
    e = tape.normals(shape)
    return fn.loc + jnp.squeeze(fn.scale_tril @ e[..., None], -1)


@_smooth.register
def _(fn: dist.LowRankMultivariateNormal, shape: Shape, tape: Any) -> Any:
    wide = tape.normals((*shape[:-1], fn.cov_factor.shape[-1]))
    return fn.loc + jnp.squeeze(fn.cov_factor @ wide[..., None], -1) + jnp.sqrt(fn.cov_diag) * tape.normals(shape)


@_smooth.register
def _(fn: dist.GaussianRandomWalk, shape: Shape, tape: Any) -> Any:
    return jnp.cumsum(tape.normals(shape) * jnp.asarray(fn.scale)[..., None], -1)


@_smooth.register
def _(fn: dist.TransformedDistribution, shape: Shape, tape: Any) -> Any:
    base = fn.base_dist
    found = value(
        base, (*shape[: len(shape) - fn.event_dim], *base.shape()[len(base.shape()) - base.event_dim :]), tape
    )
    for transform in fn.transforms:
        found = transform(found)
    return found


@_smooth.register
def _(fn: Flow, shape: Shape, tape: Any) -> Any:
    if type(fn) is not Flow or type(fn.flow.base_dist).__name__ not in ("StandardNormal", "Normal"):
        return fn.sample(tape.key(type(fn).__name__), shape[: len(shape) - len(fn.shape())])
    count = math.prod(shape[: len(shape) - len(fn.event_shape)])
    e = tape.normals((count, *fn.event_shape))
    if type(fn.flow.base_dist).__name__ == "Normal":
        e = fn.flow.base_dist.bijection.transform(e)
    return jax.vmap(lambda u: fn.bijection.transform(u, fn.condition))(e).reshape(shape)


@_smooth.register(dist.BernoulliProbs)
@_smooth.register(dist.BernoulliLogits)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return (ndtr(-tape.normals(shape)) < fn.probs).astype(jnp.int64 if jax.config.jax_enable_x64 else jnp.int32)


@_smooth.register(dist.CategoricalProbs)
@_smooth.register(dist.CategoricalLogits)
def _(fn: Any, shape: Shape, tape: Any) -> Any:
    return _category(fn.probs, tape.normals(shape))


def _category(probs: Any, e: Any) -> Any:
    return jnp.sum(ndtr(e)[..., None] > jnp.cumsum(probs, -1)[..., :-1], -1)


@_smooth.register
def _(fn: dist.DiscreteUniform, shape: Shape, tape: Any) -> Any:
    count = fn.high - fn.low + 1
    return fn.low + jnp.minimum(jnp.floor(count * ndtr(tape.normals(shape))).astype(jnp.result_type(count)), count - 1)


@_smooth.register
def _(fn: dist.MixtureSameFamily, shape: Shape, tape: Any) -> Any:
    """A component for each category, and the one of the category that is drawn."""
    parts = fn.component_distribution
    batch = shape[: len(shape) - fn.event_dim]
    event = shape[len(batch) :]
    which = _category(fn.mixing_distribution.probs, tape.normals(batch))
    each = value(parts, (*batch, fn.mixture_size, *event), tape)
    index = which.reshape(*batch, 1, *(1,) * len(event))
    return jnp.squeeze(jnp.take_along_axis(each, index, axis=len(batch)), len(batch))
