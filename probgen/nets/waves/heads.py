"""Heads of networks of sound: what the outputs say of the next sample, a whole number from 0 to levels - 1.

log_prob: of outputs (..., output) and samples (...), in nats; draw: from outputs (output,) and uniforms (num_uniforms,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from probgen.nets.pixel_heads import cut_logistic

TINY = 1e-7  # of a uniform number, from both ends


@dataclass(frozen=True)
class Classes:
    """Every level has a probability of its own: the outputs are the logits."""

    levels: int
    num_uniforms: ClassVar[int] = 1

    @property
    def num_outputs(self) -> int:
        return self.levels

    def log_prob(self, outputs: Any, x: Any) -> Any:
        return jnp.where(jnp.arange(self.levels) == x[..., None], jax.nn.log_softmax(outputs), 0.0).sum(-1)

    def draw(self, outputs: Any, uniform: Any) -> Any:
        return jnp.sum(uniform[0] >= jnp.cumsum(jax.nn.softmax(outputs))[:-1])


@dataclass(frozen=True)
class Mixture:
    """A mixture of logistics cut into levels, the lowest and the highest with their tails.

    centre, spread: of the data, in levels; means and scales are in units of the spread, scales at least a twentieth of a level.
    Outputs: of each component the logit of its weight, its mean and its log scale.
    """

    levels: int
    num_components: int
    centre: float
    spread: float
    num_uniforms: ClassVar[int] = 2

    @property
    def num_outputs(self) -> int:
        return 3 * self.num_components

    def _parts(self, outputs: Any) -> tuple[Any, Any, Any]:
        """Logits, means and scales, these in levels: (..., component) each."""
        logits, means, log_scales = jnp.split(outputs, 3, -1)
        scales = jnp.maximum(self.spread * jnp.exp(log_scales), 0.05)
        return logits, self.centre + self.spread * means, scales

    def log_prob(self, outputs: Any, x: Any) -> Any:
        logits, means, scales = self._parts(outputs)
        x = x[..., None]
        terms = cut_logistic(x - means, 0.5, 1 / scales, x <= 0, x >= self.levels - 1)
        return jax.nn.logsumexp(jax.nn.log_softmax(logits) + terms, -1)

    def draw(self, outputs: Any, uniform: Any) -> Any:
        """A component, a number of its logistic, and the level that it is in."""
        logits, means, scales = self._parts(outputs)
        one = jnp.arange(self.num_components) == jnp.sum(uniform[0] >= jnp.cumsum(jax.nn.softmax(logits))[:-1])
        u = jnp.clip(uniform[1], TINY, 1 - TINY)
        drawn = jnp.where(one, means + scales * (jnp.log(u) - jnp.log1p(-u)), 0.0).sum()
        return jnp.clip(jnp.round(drawn), 0, self.levels - 1)
