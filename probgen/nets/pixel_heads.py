"""Heads of networks of pictures: what a pixel's outputs say of it.

log_prob: of a pixel (channel,), or of a picture's pixels at once; draw: a pixel by the inverse of its distribution function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from probgen.nets.autoregressive import bits_log_prob


@dataclass(frozen=True)
class Bit:
    """A pixel is 1 with the probability whose logit is the one output."""

    levels: ClassVar[int] = 2
    num_outputs: ClassVar[int] = 1

    def inputs(self, x: Any) -> Any:
        return 2 * x - 1

    def log_prob(self, outputs: Any, x: Any) -> Any:
        return bits_log_prob(outputs, x)

    def draw(self, outputs: Any, uniform: Any, value: Any, known: Any) -> Any:
        return jnp.where(known, value, (uniform < jax.nn.sigmoid(outputs)).astype(value.dtype))


@dataclass(frozen=True)
class Symbols:
    """A pixel is one of so many symbols, which have no order: the outputs are the logits of each."""

    levels: int

    @property
    def num_outputs(self) -> int:
        return self.levels

    def inputs(self, x: Any) -> Any:
        return jax.nn.one_hot(x[..., 0].astype(int), self.levels)

    def log_prob(self, outputs: Any, x: Any) -> Any:
        return (jax.nn.log_softmax(outputs) * self.inputs(x)).sum(-1)

    def draw(self, outputs: Any, uniform: Any, value: Any, known: Any) -> Any:
        drawn = jnp.sum(uniform >= jnp.cumsum(jax.nn.softmax(outputs))[:-1])
        return jnp.where(known, value, drawn.astype(value.dtype))


@dataclass(frozen=True)
class Logistics:
    """A mixture of logistic distributions cut into levels, a channel's mean moved by the channels before it.

    Values are scaled to [-1, 1]. Outputs: for every component of the mixture the logit of its weight, a mean and a log scale a
    channel, and a coefficient for every pair of channels.
    """

    levels: int
    num_channels: int
    num_components: int

    @property
    def num_outputs(self) -> int:
        return self.num_components * (1 + 2 * self.num_channels + len(self._pairs))

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        return [(c, j) for c in range(self.num_channels) for j in range(c)]

    def _channel(self, outputs: Any, c: int, x: Any) -> tuple[Any, Any]:
        """Means and inverse scales of channel c, given the values x (..., channel) of those before it: (..., component)."""
        n = self.num_channels
        means, log_scales, coefficients = (
            outputs[..., 1 + c],
            outputs[..., 1 + n + c],
            jnp.tanh(outputs[..., 1 + 2 * n :]),
        )
        for i, (of, before) in enumerate(self._pairs):
            if of == c:
                means = means + coefficients[..., i] * self.inputs(x[..., before, None])
        return means, jnp.exp(-jnp.maximum(log_scales, -7.0))

    def inputs(self, x: Any) -> Any:
        return 2 * x / (self.levels - 1) - 1

    def _terms(self, outputs: Any, c: int, x: Any) -> Any:
        """log p of channel c in every component: (..., component)."""
        means, inverse = self._channel(outputs, c, x)
        level = x[..., c, None]
        away = self.inputs(level) - means
        return cut_logistic(away, 1 / (self.levels - 1), inverse, level <= 0, level >= self.levels - 1)

    def _components(self, outputs: Any) -> Any:
        return outputs.reshape(*outputs.shape[:-1], self.num_components, -1)

    def log_prob(self, outputs: Any, x: Any) -> Any:
        outputs = self._components(outputs)
        terms = sum(self._terms(outputs, c, x) for c in range(self.num_channels))
        return jax.nn.logsumexp(jax.nn.log_softmax(outputs[..., 0]) + terms, -1)

    def draw(self, outputs: Any, uniform: Any, value: Any, known: Any) -> Any:
        """By the inverse of the distribution function, a channel after the other: each makes components more or less probable."""
        outputs = self._components(outputs)
        weights, x = outputs[..., 0], jnp.zeros_like(value)
        edges = self.inputs(jnp.arange(self.levels - 1) + 0.5)
        for c in range(self.num_channels):
            means, inverse = self._channel(outputs, c, x)
            below = jax.nn.sigmoid((edges[:, None] - means) * inverse) @ jax.nn.softmax(weights)
            x = x.at[c].set(jnp.where(known[c], value[c], jnp.sum(uniform[c] >= below)))
            weights = weights + self._terms(outputs, c, x)
        return x


def cut_logistic(away: Any, half: float, inverse: Any, low: Any, high: Any) -> Any:
    """log of a logistic's mass within `half` of points that are `away` from its mean; inverse: one over its scale.

    low, high: whether a point is the lowest or the highest level, which has the tail beyond it.
    sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - e^(b - a)) between the two.
    """
    below = jnp.where(high, 0.0, jax.nn.log_sigmoid((away + half) * inverse))
    above = jnp.where(low, 0.0, jax.nn.log_sigmoid((half - away) * inverse))
    return below + above + jnp.where(low | high, 0.0, jnp.log(-jnp.expm1(-2 * half * inverse)))
