"""A network from pictures to pictures that sees them at several scales (Ronneberger et al. 2015, arXiv:1505.04597).

The sides are halved, then doubled again, and what was seen on the way down at a scale is put beside what comes up at it, so that
fine detail need not pass through the smallest grid, where noise enters. Shapes: (height, width, channel).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.adversarial.generator import centred
from probgen.nets.adversarial.layers import Double, Halve, Same, leak, pixel_norm
from probgen.nets.convolutions import grid
from probgen.nets.flows import registered


class UNet(eqx.Module):
    """(height, width, in), (noise,) -> (height, width, out); filters double with every halving of the sides."""

    first: Same
    down: tuple[Halve, ...]
    middle: Same
    up: tuple[Double, ...]
    last: Same

    def __init__(self, num_in: int, num_out: int, halvings: int, num_filters: int, num_noise: int, *, key: Any):
        k_first, k_middle, k_last, *keys = jax.random.split(key, 3 + 2 * halvings)
        filters = [num_filters * 2**i for i in range(halvings + 1)]
        self.first = Same(num_in, num_filters, key=k_first)
        self.down = tuple(Halve(filters[i], filters[i + 1], key=keys[i]) for i in range(halvings))
        self.middle = Same(filters[-1] + num_noise, filters[-1], key=k_middle)
        backwards = range(halvings - 1, -1, -1)
        wide = lambda i: filters[i + 1] * (1 if i == halvings - 1 else 2)  # noqa: E731, beside it what was seen on the way down
        self.up = tuple(Double(wide(i), filters[i], key=keys[halvings + i]) for i in backwards)
        self.last = Same(2 * num_filters, num_out, key=k_last)

    def seen(self, x: Any) -> list[Any]:
        """What is seen on the way down, the largest grid first: (height / 2^i, width / 2^i, filters 2^i)."""
        found = [self.first(x)]
        for halve in self.down:
            found.append(halve(pixel_norm(leak(found[-1]))))
        return found

    def __call__(self, x: Any, noise: Any = ()) -> Any:
        *beside, x = self.seen(x)
        noise = jnp.broadcast_to(jnp.asarray(noise, x.dtype), (*x.shape[:2], len(noise)))
        x = self.middle(jnp.concatenate([leak(x), noise], -1))
        for double, left in zip(self.up, reversed(beside), strict=True):
            x = jnp.concatenate([double(pixel_norm(leak(x))), left], -1)
        return self.last(leak(x))


def unet(
    name: str, x: Any, height: int, width: int, channels: tuple[int, int], halvings: int, num_filters: int,
    noise: Any = (), low: float = 0.0, high: float = 1.0,
) -> Any:  # fmt: skip
    """Outputs (height, width, out) of a picture from low to high, the network's parameters registered under a name.

    channels: of the picture, where 0 stands for no axis of them, and of the outputs. ValueError for another picture.
    """
    grid(height, width, halvings)
    if jnp.shape(x) != (height, width, *([channels[0]] if channels[0] else [])):
        raise ValueError(
            f"A picture has shape {jnp.shape(x)}; expected {height} by {width} and {channels[0]} channels."
        )
    sizes = (max(channels[0], 1), max(channels[1], 1), halvings, num_filters, len(noise))
    return registered(name, lambda key: UNet(*sizes, key=key))(centred(x, low, high), noise)
