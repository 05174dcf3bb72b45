"""Real numbers cut into levels, and the guide that undoes it.

    x = floor(levels y),    y = (x + sigmoid(v)) / levels,   v ~ q(v | x)

With y drawn from any density p(y) of reals, log P(x) = log of the integral of p over the box of x >= E_q [log p(y) - log q(y | x)].
Uniform dequantisation is the logistic q(v); a flow that sees x is variational dequantisation. Theis, van den Oord and Bethge 2016
(arXiv:1511.01844); Ho, Chen, Srinivas, Duan and Abbeel 2019 (arXiv:1902.00275).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from numpyro.distributions import Distribution, constraints

from probgen.distributions.flags import dependent_property

SLACK = 1e-3  # of a level, for rounding


class Quantised(Distribution):
    """Integers 0 ... levels - 1: the level that each real number is in, with certainty.

    y: (*batch,), in units in which the levels share [0, 1); below and above are the outer levels.
    """

    arg_constraints = {"y": constraints.real}  # noqa: RUF012
    reparametrized_params: Any = ()
    pytree_aux_fields = ("levels",)

    def __init__(self, y: Any, levels: int = 256, *, validate_args: bool | None = None):
        if levels < 2:
            raise ValueError(f"levels is {levels}; expected 2 or more.")
        self.y, self.levels = jnp.asarray(y), levels
        super().__init__(jnp.shape(self.y), validate_args=validate_args)

    @dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.levels - 1)

    @property
    def mean(self) -> Any:
        return lax.stop_gradient(jnp.clip(jnp.floor(self.levels * self.y), 0, self.levels - 1))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return jnp.broadcast_to(self.mean, (*sample_shape, *self.batch_shape))

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """0 in the box of the value, minus infinity elsewhere."""
        at = self.levels * self.y
        above = (at >= value - SLACK) | (value <= 0)
        below = (at <= value + 1 + SLACK) | (value >= self.levels - 1)
        return jnp.where(above & below, 0.0, -jnp.inf)


class Dequantised(Distribution):
    """Reals in the box of integers x: (x + sigmoid(v)) / levels.

    x: (dim,), integers 0 ... levels - 1. noise: the distribution of v, an event of reals (dim,); a logistic gives uniform noise.
    """

    reparametrized_params: Any = ()

    def __init__(self, x: Any, noise: Distribution, levels: int = 256, *, validate_args: bool | None = None):
        if noise.event_shape != jnp.shape(x):
            raise ValueError(f"noise has events of shape {noise.event_shape}; x has shape {jnp.shape(x)}.")
        self.x, self.noise, self.levels = jnp.asarray(x, jnp.result_type(float)), noise, levels
        super().__init__((), jnp.shape(x), validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> Any:
        return constraints.independent(constraints.real, self.event_dim)

    @property
    def mean(self) -> Any:
        """The middle of the box."""
        return (self.x + 0.5) / self.levels

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.sample_with_intermediates(key, sample_shape)[0]

    def sample_with_intermediates(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draws, and the noise of each with its log density."""
        v, inner = self.noise.sample_with_intermediates(key, sample_shape)
        log_q = self.noise.log_prob(v, inner) if inner else self.noise.log_prob(v)
        return (self.x + jax.nn.sigmoid(v)) / self.levels, [v, log_q]

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        if intermediates:
            v, log_q = intermediates
        else:
            u = jnp.clip(self.levels * value - self.x, 1e-6, 1 - 1e-6)
            v = jnp.log(u) - jnp.log1p(-u)
            log_q = self.noise.log_prob(v)
        steep = jax.nn.log_sigmoid(v) + jax.nn.log_sigmoid(-v) - jnp.log(self.levels)
        return log_q - steep.sum(tuple(range(-self.event_dim, 0)))
