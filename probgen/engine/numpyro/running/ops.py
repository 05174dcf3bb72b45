"""The array words in which a Markov kernel is written once for both engines, in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


class Ops:
    """The array words in which a Markov kernel is written once for both engines."""

    xp = jnp
    while_loop = staticmethod(lax.while_loop)
    cond = staticmethod(lax.cond)
    map = staticmethod(lax.map)
    fold_in = staticmethod(jax.random.fold_in)
    split = staticmethod(jax.random.split)
    normal = staticmethod(jax.random.normal)
    uniform = staticmethod(jax.random.uniform)
    exponential = staticmethod(jax.random.exponential)
    popcount = staticmethod(lax.population_count)
    where = staticmethod(jnp.where)
    cholesky = staticmethod(jnp.linalg.cholesky)  # NaN where the matrix is not positive definite
    key = staticmethod(jax.random.key)

    @staticmethod
    def each(function: Callable[[Any], Any], points: Any) -> Any:
        """A function of one point at many."""
        return jax.vmap(function)(points)

    @staticmethod
    def put(array: Any, index: Any, value: Any) -> Any:
        """The array with one entry replaced."""
        return array.at[index].set(value)

    @staticmethod
    def stream(key: Any) -> Callable[[Any], Any]:
        """The i-th uniform number of a stream, as a function of i."""
        return lambda i: jax.random.uniform(jax.random.fold_in(key, i))


OPS = Ops()
