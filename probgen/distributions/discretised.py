"""Distributions of reals cut into levels: what they share, and the logistic."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from numpyro.distributions import Distribution, constraints

from probgen.distributions.flags import dependent_property


class Discretised(Distribution):
    """Integers 0 ... levels - 1: the mass of loc + scale e between half-integers, the outer levels with its tails.

    loc: (*batch,), in levels; scale: (*batch,), above 0. A kind says how e is drawn, `noise`, and its `log_prob`.
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
        """The centre, within the levels."""
        return jnp.clip(self.loc, 0, self.levels - 1)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        x = self.loc + self.scale * self.noise(key, (*sample_shape, *self.batch_shape))
        return lax.stop_gradient(jnp.clip(jnp.round(x), 0, self.levels - 1))

    @staticmethod
    def noise(key: Any, shape: tuple[int, ...]) -> Any:
        """Draws of e."""
        raise NotImplementedError


class DiscretisedLogistic(Discretised):
    """p(k) = sigma((k + 1/2 - loc) / scale) - sigma((k - 1/2 - loc) / scale). Kingma et al. 2016 (arXiv:1606.04934)."""

    noise = staticmethod(jax.random.logistic)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - e^(b - a)) between the lowest and the highest level."""
        low, high = value <= 0, value >= self.levels - 1
        below = jnp.where(high, 0.0, jax.nn.log_sigmoid((value + 0.5 - self.loc) / self.scale))
        above = jnp.where(low, 0.0, jax.nn.log_sigmoid((self.loc - value + 0.5) / self.scale))
        return below + above + jnp.where(low | high, 0.0, jnp.log(-jnp.expm1(-1 / self.scale)))
