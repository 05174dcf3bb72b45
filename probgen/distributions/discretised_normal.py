"""A normal distribution, and a mixture of normals, cut into levels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from numpyro.distributions import Distribution, constraints

from probgen.distributions.discretised import Discretised
from probgen.distributions.flags import dependent_property


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


class DiscretisedMixture(Distribution):
    """p(k) = sum_j w_j p_j(k), every p_j a `DiscretisedNormal`: NumPyro's mixtures take no supports that have numbers of their own.

    log_weights, loc, scale: (*batch, component), the weights not normalised.
    """

    arg_constraints = {"log_weights": constraints.real_vector}  # noqa: RUF012
    reparametrized_params: Any = ()
    pytree_data_fields = ("log_weights", "each")

    def __init__(self, log_weights: Any, loc: Any, scale: Any, levels: int = 256, *, validate_args: bool | None = None):
        self.log_weights, self.each = jax.nn.log_softmax(log_weights), DiscretisedNormal(loc, scale, levels)
        super().__init__(jnp.shape(log_weights)[:-1], validate_args=validate_args)

    @dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return self.each.support

    @property
    def mean(self) -> Any:
        return jnp.sum(jnp.exp(self.log_weights) * self.each.mean, -1)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        return jax.nn.logsumexp(self.log_weights + self.each.log_prob(jnp.expand_dims(value, -1)), -1)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        k_which, k_each = jax.random.split(key)
        which = jax.random.categorical(k_which, self.log_weights, shape=(*sample_shape, *self.batch_shape))
        return jnp.take_along_axis(self.each.sample(k_each, sample_shape), which[..., None], -1)[..., 0]
