"""A normal distribution cut into levels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import log_ndtr
from numpyro.distributions import Distribution, constraints

from probgen.distributions.flags import dependent_property


class DiscretisedNormal(Distribution):
    """Integers 0 ... levels - 1: the mass of a normal between half-integers, the outer levels with its tails.

    p(k) = Phi((k + 1/2 - loc) / scale) - Phi((k - 1/2 - loc) / scale)

    loc: (*batch,), in levels; scale: (*batch,), above 0. The decoder of DDPM: Ho et al. 2020 (arXiv:2006.11239).
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    reparametrized_params: Any = ()
    pytree_aux_fields = ("levels",)

    def __init__(self, loc: Any, scale: Any, levels: int = 256, *, validate_args: bool | None = None):
        if levels < 2:
            raise ValueError(f"levels is {levels}; expected 2 or more.")
        self.loc, self.scale = jnp.broadcast_arrays(loc, scale)
        self.levels = levels
        super().__init__(jnp.shape(self.loc), validate_args=validate_args)

    @dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.levels - 1)

    @property
    def mean(self) -> Any:
        """The normal's centre, within the levels."""
        return jnp.clip(self.loc, 0, self.levels - 1)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        x = self.loc + self.scale * jax.random.normal(key, (*sample_shape, *self.batch_shape))
        return lax.stop_gradient(jnp.clip(jnp.round(x), 0, self.levels - 1))

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """log (Phi(b) - Phi(a)), on the side of the mean where both are small."""
        right = value > self.loc
        near = jnp.where(right, self.loc - value, value - self.loc)
        high, low = (near + 0.5) / self.scale, (near - 0.5) / self.scale
        all_below = jnp.where(right, value >= self.levels - 1, value <= 0)  # the tail beyond is the level's too
        all_above = jnp.where(right, value <= 0, value >= self.levels - 1)
        top = jnp.where(all_above, 0.0, log_ndtr(high))
        apart = jnp.where(all_below, -1.0, log_ndtr(low) - top)
        less = jnp.where(all_below, 0.0, jnp.log(-jnp.expm1(jnp.minimum(apart, -1e-30))))
        return top + less
