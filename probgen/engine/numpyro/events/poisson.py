"""Poisson laws of rates of 0 and of large ones.

NumPyro's log p(0) has slope 0 / 0 at a rate of 0. JAX draws in single precision, whatever the rate's: the variance of its draws is
a tenth too small at a rate of 3e6, and 1.4 times the rate at 1e8.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln

LARGE = 1e5  # rates up to which single precision serves


class Poisson(dist.Poisson):
    """log p(0) = -rate has slope -1 at every rate, 0 too; draws have the variance of large rates."""

    def log_prob(self, value: Any) -> Any:
        if self.is_sparse:
            return super().log_prob(value)
        rate, none = jnp.asarray(self.rate, jnp.result_type(float)), jnp.asarray(value) == 0
        return jnp.where(none, -rate, dist.Poisson(jnp.where(none, 1.0, rate), validate_args=False).log_prob(value))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return draws(key, self.rate, sample_shape + self.batch_shape)


def draws(key: Any, rate: Any, shape: tuple[int, ...]) -> Any:
    """Counts of these rates: (*shape)."""
    rate = jnp.broadcast_to(jnp.asarray(rate, jnp.result_type(float)), shape)
    if rate.dtype != jnp.float64:
        return jax.random.poisson(key, rate, shape)
    large = rate > LARGE
    few = jax.random.poisson(key, jnp.where(large, 1.0, rate), shape)
    many = _transformed(jax.random.fold_in(key, 1), jnp.where(large, rate, LARGE), large)
    return jnp.where(large, many.astype(few.dtype), few)


def _transformed(key: Any, rate: Any, asked: Any) -> Any:
    """Transformed rejection (Hoermann 1993, PTRS), where asked for; for rates from 10 on."""
    b = 0.931 + 2.53 * jnp.sqrt(rate)
    a = -0.059 + 0.02483 * b
    scale, fast = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)

    def step(state: Any) -> Any:
        key, done, found = state
        key, *keys = jax.random.split(key, 3)
        u = jax.random.uniform(keys[0], rate.shape, rate.dtype) - 0.5
        v = jax.random.uniform(keys[1], rate.shape, rate.dtype)
        us = 0.5 - jnp.abs(u)
        k = jnp.floor((2 * a / us + b) * u + rate + 0.43)
        ratio = jnp.log(v * scale / (a / us**2 + b))
        inside = (k >= 0) & ~((us < 0.013) & (v > us))
        count = jnp.maximum(k, 0.0)
        slow = inside & (ratio <= count * jnp.log(rate) - rate - gammaln(count + 1))
        taken = ((us >= 0.07) & (v <= fast)) | slow
        return key, done | taken, jnp.where(taken & ~done, k, found)

    _, _, found = jax.lax.while_loop(lambda state: ~jnp.all(state[1]), step, (key, ~asked, jnp.zeros_like(rate)))
    return found
