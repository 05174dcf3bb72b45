"""Draws of the unknown coordinates of a distribution's event, given the others: exact where there is a closed form.

`complete(fn, key, value, known)`: value, known (*event) -> (*event), the known coordinates as they are.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


class NoCompletion(ValueError):
    """A distribution that cannot be drawn from given a part of its event."""


def complete(fn: Any, key: Any, value: Any, known: Any) -> tuple[Any, Any]:
    """The completed event, and whether its law is exact; the distribution has no batch shape."""
    fn = getattr(fn, "bare", fn)  # of one row of a plate
    if hasattr(fn, "complete"):  # autoregressive: drawn in its own order
        return fn.complete(key, value, known), jnp.asarray(fn.exact(known))
    drawn, _ = _given(fn, key, value, known)
    return jnp.where(known, value, drawn).astype(value.dtype), jnp.asarray(True)


@functools.singledispatch
def _given(fn: Any, key: Any, value: Any, known: Any) -> tuple[Any, Any]:
    """A draw given the known part, and the log density of that part: (*batch, *event), (*batch)."""
    raise NoCompletion(
        f"{type(fn).__name__} cannot be drawn given a part of it in closed form.\n"
        "Draw by a Markov chain: pg.fit(fit.condition(...), inference='gibbs') or 'nuts'."
    )


@_given.register(dist.Independent)
@_given.register(dist.ExpandedDistribution)
def _(fn: Any, key: Any, value: Any, known: Any) -> tuple[Any, Any]:
    while isinstance(fn.base_dist, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    if fn.base_dist.event_shape:
        return _given.dispatch(type(fn.base_dist))(fn, key, value, known)
    terms = jnp.where(known, fn.base_dist.log_prob(jnp.where(known, value, 0.0)), 0.0)
    return fn.sample(key), jnp.sum(terms, axis=tuple(range(-fn.event_dim, 0)))


@_given.register
def _(fn: dist.MultivariateNormal, key: Any, value: Any, known: Any) -> tuple[Any, Any]:
    """y drawn, then moved by C_uk C_kk^-1 (value_k - y_k) (Matheron's rule)."""
    drawn, seen = fn.sample(key), known.astype(value.dtype)
    covariance = fn.covariance_matrix
    gram = covariance * seen[:, None] * seen + jnp.diag(1 - seen)
    pull = jnp.linalg.solve(gram, (seen * (value - drawn))[..., None])
    away = seen * (value - fn.loc)
    square = jnp.sum(away * jnp.linalg.solve(gram, away[..., None])[..., 0], axis=-1)
    log_known = -0.5 * (square + jnp.linalg.slogdet(gram)[1] + seen.sum() * math.log(2 * math.pi))
    return drawn + (covariance @ pull)[..., 0], log_known


@_given.register
def _(fn: dist.MixtureSameFamily, key: Any, value: Any, known: Any) -> tuple[Any, Any]:
    """The component by what the known part says of it, then the rest given the component."""
    k_component, k_rest = jax.random.split(key)
    drawn, log_known = _given(fn.component_distribution, k_rest, value, known)
    terms = jnp.log(fn.mixing_distribution.probs) + log_known
    return drawn[jax.random.categorical(k_component, terms)], jax.nn.logsumexp(terms)


class Completed(numpyro.primitives.Messenger):
    """Effect handler: sites known in part are completed; `exact` says of each whether its law is exact."""

    def __init__(self, fn: Any, parts: Any):
        self.parts, self.exact = parts, {}
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] in self.parts and not msg["is_observed"]:
            known, value = self.parts[msg["name"]]
            msg["value"], self.exact[msg["name"]] = complete(msg["fn"], numpyro.prng_key(), value, known)
