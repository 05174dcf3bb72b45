"""A normal distribution cut into levels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from probgen.distributions.discretised import Discretised


class DiscretisedNormal(Discretised):
    """p(k) = Phi((k + 1/2 - loc) / scale) - Phi((k - 1/2 - loc) / scale), DDPM's decoder. Ho et al. 2020 (arXiv:2006.11239)."""

    noise = staticmethod(jax.random.normal)

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
