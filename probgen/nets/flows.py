"""Normalizing flows: FlowJAX's coupling and autoregressive layers, with transformers that keep to a bound, as distributions.

    x = T(u),  u ~ N(0, I),   log p(x) = log N(T^-1(x)) + log|det dT^-1/dx|

Both kinds go from x to u in one pass, which is what likelihoods ask for; an autoregressive flow then draws one coordinate after
the other.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.bijections import AbstractBijection, RationalQuadraticSpline
from flowjax.distributions import StandardNormal, Transformed
from flowjax.flows import coupling_flow, masked_autoregressive_flow
from numpyro.contrib.module import eqx_module
from numpyro.distributions import Distribution, constraints
from paramax import Parameterize


class Flow(Distribution):
    """A FlowJAX distribution of vectors as a NumPyro one."""

    support = constraints.real_vector

    def __init__(self, flow: Transformed, *, validate_args: bool | None = None):
        self.flow = flow
        super().__init__((), flow.shape, validate_args=validate_args)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        return self.flow.sample(key if typed else jax.random.wrap_key_data(key), sample_shape)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        return self.flow.log_prob(value)

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.flow,), ()

    @classmethod
    def tree_unflatten(cls, aux: Any, leaves: Any) -> Any:
        return cls(*leaves)


def coupling(
    name: str, key: Any, dim: int, transformer: AbstractBijection, num_layers: int, width: int, depth: int
) -> Flow:
    """A flow of coupling layers, its parameters registered under a name; dim is 2 or more."""
    if dim < 2:
        raise ValueError(f"A coupling layer needs 2 coordinates or more; the data have {dim}. Use 'maf'.")
    return _registered(name, coupling_flow, key, dim, transformer, num_layers, width, depth)


def autoregressive(
    name: str, key: Any, dim: int, transformer: AbstractBijection, num_layers: int, width: int, depth: int
) -> Flow:
    """A flow of masked autoregressive layers, its parameters registered under a name."""
    return _registered(name, masked_autoregressive_flow, key, dim, transformer, num_layers, width, depth)


def _registered(
    name: str, make: Any, key: Any, dim: int, transformer: Any, num_layers: int, width: int, depth: int
) -> Flow:
    flow = make(
        key, base_dist=StandardNormal((dim,)), transformer=transformer, flow_layers=num_layers, nn_width=width,
        nn_depth=depth, nn_activation=jax.nn.silu,
    )  # fmt: skip
    return Flow(eqx_module(name, flow))


# ---- transformers ------------------------------------------------------------------------------------------------


class BoundedAffine(AbstractBijection):
    """x -> shift + x exp(s), s = bound tanh(raw / bound): the transformer of coupling and autoregressive layers."""

    shift: Any
    raw: Any
    bound: float
    shape: tuple[int, ...] = ()
    cond_shape: None = None

    def __init__(self, bound: float):
        self.shift, self.raw, self.bound = jnp.zeros(()), jnp.zeros(()), bound

    def _log_scale(self) -> Any:
        return self.bound * jnp.tanh(self.raw / self.bound)

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Any, Any]:
        log_scale = self._log_scale()
        return self.shift + x * jnp.exp(log_scale), log_scale.sum()

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Any, Any]:
        log_scale = self._log_scale()
        return (y - self.shift) * jnp.exp(-log_scale), -log_scale.sum()


def smooth_spline(knots: int, interval: float) -> AbstractBijection:
    """A rational-quadratic spline, the identity at first, whose slope is one at the ends of its interval, as outside.

    FlowJAX's own lets the slope jump there; log q then jumps too, and path gradients, blind to a jump, let a guide cut
    off a tail. Slopes are at least 0.05 and bins at least 0.05 wide for the same reason.
    """
    least = 0.05

    def slopes(raw: Any) -> Any:
        inner = least + (1 - least) * jax.nn.softplus(raw + jnp.log(jnp.e - 1))
        return jnp.pad(inner, [(0, 0)] * (inner.ndim - 1) + [(1, 1)], constant_values=1.0)

    spline = RationalQuadraticSpline(knots=knots, interval=interval, min_derivative=least, min_width=least)
    return eqx.tree_at(lambda node: node.derivatives, spline, Parameterize(slopes, jnp.zeros(knots)))
