"""Times of a batch: one for each row, spread out evenly, so that a batch sees every level of noise."""

from __future__ import annotations

from typing import Any


def spread_out(key: Any, shape: tuple[int, ...]) -> Any:
    """(u + i / n) mod 1 for a uniform u, each uniform in [0, 1): an array of a shape. Kingma et al. 2021 (arXiv:2107.00630)."""
    import jax
    import jax.numpy as jnp

    count = 1
    for size in shape:
        count *= size
    start = jax.random.uniform(jax.random.fold_in(key, 7))
    return jnp.mod(start + jnp.arange(count) / count, 1.0).reshape(shape)
