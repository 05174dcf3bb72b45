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
from numpyro.primitives import Messenger

from probgen.distributions import families


class NoCompletion(ValueError):
    """A distribution that cannot be drawn from given a part of its event."""


def complete(fn: Any, key: Any, value: Any, known: Any) -> tuple[Any, Any]:
    """The completed event, and whether its law is exact; the distribution has no batch shape."""
    fn, value = getattr(fn, "bare", fn), jnp.where(known, value, 0)  # of one row of a plate
    if hasattr(fn, "complete"):  # autoregressive: drawn in its own order
        return fn.complete(key, value, known), fn.exact(known)
    drawn, _ = _given(fn, key, value, known)
    return jnp.where(known, value, drawn).astype(value.dtype), jnp.asarray(True)


def _given(fn: Any, key: Any, value: Any, known: Any) -> tuple[Any, Any]:
    """A draw given the known part, and the log density of that part: (*batch, *event), (*batch)."""
    bare = families.unwrapped(fn)
    whole = (*fn.batch_shape, *fn.event_shape)
    if bare.event_shape:
        drawn, terms = _bare(bare, key, value, known, whole[: len(whole) - bare.event_dim])
    else:  # independent coordinates
        drawn = fn.sample(key)
        terms = jnp.broadcast_to(jnp.where(known, bare.log_prob(value), 0.0), whole)
    return drawn, jnp.sum(terms, axis=tuple(range(bare.event_dim - fn.event_dim, 0)))


@functools.singledispatch
def _bare(fn: Any, key: Any, value: Any, known: Any, batch: tuple[int, ...]) -> tuple[Any, Any]:
    """The same of a distribution whose coordinates depend on each other, for a batch of it."""
    raise NoCompletion(
        f"{type(fn).__name__} cannot be drawn given a part of it in closed form.\n"
        "Draw by a Markov chain: pg.fit(fit.condition(...), inference='gibbs') or 'nuts'."
    )


@_bare.register
def _(fn: dist.MultivariateNormal, key: Any, value: Any, known: Any, batch: tuple[int, ...]) -> tuple[Any, Any]:
    """y drawn, then moved by C_uk C_kk^-1 (value_k - y_k) (Matheron's rule)."""
    whole: Any = fn.expand(batch)
    drawn, seen = whole.sample(key), known.astype(value.dtype)
    loc, covariance = families.unwrapped(whole).loc, families.unwrapped(whole).covariance_matrix
    gram = covariance * seen[..., :, None] * seen[..., None, :] + (1 - seen)[..., None] * jnp.eye(seen.shape[-1])
    solved = lambda away: jnp.linalg.solve(gram, (seen * away)[..., None])  # noqa: E731
    away = seen * (value - loc)
    square = jnp.sum(away * solved(away)[..., 0], axis=-1)
    log_known = -0.5 * (square + jnp.linalg.slogdet(gram)[1] + seen.sum(-1) * math.log(2 * math.pi))
    return drawn + (covariance @ solved(value - drawn))[..., 0], jnp.broadcast_to(log_known, batch)


@_bare.register
def _(fn: dist.MixtureSameFamily, key: Any, value: Any, known: Any, batch: tuple[int, ...]) -> tuple[Any, Any]:
    """The component by what the known part says of it, then the rest given the component."""
    if batch:
        raise NoCompletion("A batch of mixtures cannot be drawn given a part of it in closed form: use a plate.")
    k_component, k_rest = jax.random.split(key)
    drawn, log_known = _given(fn.component_distribution, k_rest, value, known)
    mixing: Any = fn.mixing_distribution
    terms = jnp.log(mixing.probs) + log_known
    return drawn[jax.random.categorical(k_component, terms)], jax.nn.logsumexp(terms)


class Completed(Messenger):
    """Effect handler: sites known in part are completed; `exact` says of each whether its law is exact."""

    def __init__(self, fn: Any, parts: Any):
        self.parts, self.exact = parts, {}
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "sample" and msg["name"] in self.parts and not msg["is_observed"]:
            known, value = self.parts[msg["name"]]
            msg["value"], self.exact[msg["name"]] = complete(msg["fn"], numpyro.prng_key(), value, known)
