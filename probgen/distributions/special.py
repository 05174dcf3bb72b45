"""Roots of one unknown, and digamma with its inverse: what maximum likelihood of gammas and Dirichlets asks for. For jit and vmap.

Minka 2000, Estimating a Dirichlet distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import digamma

EULER = 0.5772156649015329


def root(f: Callable[[Any], Any], like: Any, num_steps: int = 40, low: float = -25.0, high: float = 30.0) -> Any:
    """Where f, which is positive to the left of its root and negative to the right, is zero; elementwise, of the shape of `like`.

    Newton's steps in log x, with the middle of the bracket [exp low, exp high] where a step would leave it. Without a root in
    there the end that is nearer to it is found.
    """

    def step(_: Any, carry: Any) -> Any:
        u, left, right = carry
        value, slope = jax.jvp(lambda u: f(jnp.exp(u)), (u,), (jnp.ones_like(u),))
        left, right = jnp.where(value > 0, u, left), jnp.where(value > 0, right, u)
        new = u - value / slope
        return jnp.where((new > left) & (new < right), new, 0.5 * (left + right)), left, right

    like = jnp.asarray(like)
    begin = (jnp.zeros_like(like), jnp.full_like(like, low), jnp.full_like(like, high))
    return jnp.exp(lax.fori_loop(0, num_steps, step, begin)[0])


@jax.custom_jvp
def psi(x: Any) -> Any:
    """The digamma function of x > 0, whose derivative here compiles to little."""
    return digamma(x)


@jax.custom_jvp
def inverse_psi(y: Any) -> Any:
    """x with digamma(x) = y, by Newton's steps from Minka's start."""
    start = jnp.where(y >= -2.22, jnp.exp(jnp.maximum(y, -2.22)) + 0.5, -1 / (jnp.minimum(y, -2.22) + EULER))
    return lax.fori_loop(0, 6, lambda _, x: x - (psi(x) - y) / trigamma(x), start)


def trigamma(x: Any) -> Any:
    """The derivative of digamma at x > 0, to about 1e-12 of it: a recurrence and Stirling's series."""
    z = 1 / (x + 8)
    w = z * z
    series = z + w / 2 + z * w * (1 / 6 - w * (1 / 30 - w * (1 / 42 - w * (1 / 30 - w * 5 / 66))))
    return sum((x + i) ** -2.0 for i in range(8)) + series


@psi.defjvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    return psi(*primals), trigamma(*primals) * tangents[0]


@inverse_psi.defjvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    x = inverse_psi(*primals)
    return x, tangents[0] / trigamma(x)


def log_minus_digamma(a: Any) -> Any:
    """log a - digamma(a) for a > 0, without cancellation where a is large."""
    small, z = jnp.minimum(a, 16.0), jnp.maximum(a, 16.0) ** -2.0
    series = 1 / 12 - z * (1 / 120 - z * (1 / 252 - z * (1 / 240 - z * (1 / 132 - z * 691 / 32760))))
    return jnp.where(a < 16, jnp.log(small) - psi(small), 0.5 * jnp.sqrt(z) + z * series)
