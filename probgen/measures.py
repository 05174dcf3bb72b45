"""Base measures for energies: the counting measure on bits and levels, and Lebesgue measure, each with log density 0.

v = numpyro.sample("v", bits(784), obs=v)
numpyro.factor("energy", v @ b)           # the log density of the program is v @ b, up to its constant
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints

from probgen.distributions.flags import dependent_property


class Measure(Distribution):
    """A measure with log density 0 over one event of a given shape."""

    levels = 0  # of a finite support
    base: Any = constraints.real

    def __init__(self, shape: tuple[int, ...] = (), *, validate_args: bool | None = None):
        super().__init__((), tuple(shape), validate_args=validate_args)

    @dependent_property(is_discrete=False)
    def support(self) -> Any:
        return constraints.independent(self.base, len(self.event_shape)) if self.event_shape else self.base

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        return jnp.zeros(jnp.shape(value)[: jnp.ndim(value) - len(self.event_shape)])

    def enumerate_support(self, expand: bool = True) -> Any:
        """All values of a single unit, (levels,)."""
        if self.event_shape or not self.levels:
            raise NotImplementedError("Only single bits and levels are enumerated.")
        return jnp.arange(self.levels)

    def tree_flatten(self) -> tuple[Any, Any]:
        return (), (self._event_shape,)

    @classmethod
    def tree_unflatten(cls, aux: Any, leaves: Any) -> Any:
        return cls(*aux)


class Reals(Measure):
    """Lebesgue measure on R^shape. It has no draws of its own."""

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return jax.random.normal(key, (*sample_shape, *self.event_shape))  # where chains start; not from the measure


class Bits(Measure):
    """The counting measure on {0, 1}^shape; its draws are uniform."""

    levels, base, has_enumerate_support = 2, constraints.boolean, True

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return jax.random.bernoulli(key, shape=(*sample_shape, *self.event_shape)).astype(jnp.result_type(float))


class Levels(Measure):
    """The counting measure on {0, ..., levels - 1}^shape; its draws are uniform."""

    has_enumerate_support = True

    def __init__(self, levels: int, shape: tuple[int, ...] = (), *, validate_args: bool | None = None):
        self.levels, self.base = levels, constraints.integer_interval(0, levels - 1)
        super().__init__(shape, validate_args=validate_args)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return jax.random.randint(key, (*sample_shape, *self.event_shape), 0, self.levels)

    def tree_flatten(self) -> tuple[Any, Any]:
        return (), (self.levels, self._event_shape)


def bits(*shape: int) -> Bits:
    """The counting measure on arrays of zeros and ones of a shape."""
    return Bits(shape)


def levels(count: int, *shape: int) -> Levels:
    """The counting measure on arrays of the integers 0 to count - 1 of a shape."""
    return Levels(count, shape)


def reals(*shape: int) -> Reals:
    """Lebesgue measure on arrays of real numbers of a shape."""
    return Reals(shape)
