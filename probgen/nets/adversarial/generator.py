"""Generators of pictures: from a vector to a small grid, whose sides are doubled until it is a picture.

Pixel norm stands where the sources have batch norm, under which a picture would depend on the others of its batch.
Shapes: (height, width, channel).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax

from probgen.nets.adversarial.layers import Double, Same, leak, pixel_norm
from probgen.nets.convolutions import grid
from probgen.nets.flows import registered


def ranged(f: Any, low: float, high: float, channels: int) -> Any:
    """Outputs (height, width, n) as a picture from low to high: (height, width), or with its channels."""
    f = low + (high - low) * jax.nn.sigmoid(f)
    return f if channels else f[..., 0]


def centred(x: Any, low: float, high: float) -> Any:
    """A picture from low to high as networks see it, from -1 to 1: (height, width, channel)."""
    x = 2 * (x - low) / (high - low) - 1
    return x if x.ndim == 3 else x[..., None]


class Generator(eqx.Module):
    """(inputs,) -> (height, width, outputs), halving its filters with every doubling of the sides."""

    first: eqx.nn.Linear
    doublings: tuple[Double, ...]
    last: Same
    grid: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self, num_inputs: int, grid: tuple[int, int], num_outputs: int, halvings: int, num_filters: int, *, key: Any
    ):
        k_first, k_last, *keys = jax.random.split(key, halvings + 2)
        filters = [num_filters * 2**i for i in range(halvings, -1, -1)]
        self.first = eqx.nn.Linear(num_inputs, grid[0] * grid[1] * filters[0], key=k_first)
        self.doublings = tuple(Double(a, b, key=k) for a, b, k in zip(filters[:-1], filters[1:], keys, strict=True))
        self.last, self.grid = Same(filters[-1], num_outputs, key=k_last), grid

    def __call__(self, z: Any) -> Any:
        x = self.first(z).reshape(*self.grid, -1)
        for double in self.doublings:
            x = double(pixel_norm(leak(x)))
        return self.last(pixel_norm(leak(x)))


def generator(
    name: str, num_inputs: int, height: int, width: int, channels: int, halvings: int, num_filters: int
) -> Generator:
    """A generator whose parameters are registered under a name; channels: 0 stands for one."""
    places = grid(height, width, halvings)
    return registered(name, lambda key: Generator(num_inputs, places, max(channels, 1), halvings, num_filters, key=key))
