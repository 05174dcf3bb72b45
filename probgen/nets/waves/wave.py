"""A stretch of sound after a context: its density in one pass, draws a sample at a time from what the layers keep."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from probgen.data.values.sounds import field_of


class Wave(eqx.Module):
    """Conditionals of the samples (length,), whole numbers from 0 to levels - 1, given `net.field` samples before them.

    net: a `Dilated`; head: what its outputs say of the next sample. context: (place,), of which the last `net.field` are seen.
        Where one of them is beyond the levels, densities and draws are NaN.
    centre, spread: what the network's inputs are counted from and in, in levels.
    """

    net: Any
    context: Any
    head: Any = eqx.field(static=True)
    length: int = eqx.field(static=True)
    centre: float = eqx.field(static=True)
    spread: float = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int]:
        return (self.length,)

    @property
    def levels(self) -> int:
        return self.head.levels

    @property
    def orders(self) -> np.ndarray:
        return np.arange(self.length, dtype=np.int32)[None]

    def outputs(self, x: Any) -> Any:
        """What the network says of every sample given those before it: (length, output)."""
        return self.net(jnp.concatenate([self._before(), self._inputs(x[:-1])]))

    def log_prob(self, x: Any) -> Any:
        return self.head.log_prob(self.outputs(x), x).sum()

    def complete(self, key: Any, value: Any, known: Any) -> Any:
        before, uniform = self._before(), jax.random.uniform(key, (self.length, self.head.num_uniforms))

        def step(state: Any, at: Any) -> tuple[Any, Any]:
            (kept, last), (t, uniform, value, known) = state, at
            outputs, kept = self.net.step(kept, t, last)
            drawn = jnp.where(known, value, self.head.draw(outputs, uniform).astype(value.dtype))
            return (kept, self._inputs(drawn)), drawn

        times = jnp.arange(self.length, dtype=jnp.int32)
        drawn = lax.scan(step, (self.net.begin(before[:-1]), before[-1]), (times, uniform, value, known))[1]
        return jnp.where(jnp.isnan(before).any(), jnp.nan, drawn)

    def _before(self) -> Any:
        """The context as the network sees it, NaN where it is no level: (field,)."""
        seen = self.context[-self.net.field :]
        return self._inputs(jnp.where((seen >= 0) & (seen <= self.levels - 1), seen, jnp.nan))

    def _inputs(self, x: Any) -> Any:
        return (x - self.centre) / self.spread


def check_context(context: Any, num_blocks: int, num_layers: int) -> None:
    """ValueError for a context that is shorter than the field."""
    field, places = field_of(num_blocks, num_layers), context.shape[-1]
    if places < field:
        raise ValueError(
            f"The context has {places} samples; with num_blocks={num_blocks} and num_layers={num_layers} the network sees {field} "
            "before each.\nPass at least that many: rows(x, rate, num_blocks=..., num_layers=...) of the model cuts windows so."
        )
