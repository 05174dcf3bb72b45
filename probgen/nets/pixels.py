"""Pictures whose pixels follow one after the other, row by row: densities in one pass, draws and completions from caches.

The networks are those of `pixel_networks`, made of `pixel_layers`; what their outputs say of a pixel is a head's, of `pixel_heads`.
Shapes: pictures (height, width, channel) inside this file.
"""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from probgen.nets.pixel_layers import Pixel, Roll, Row, whole


class Picture(eqx.Module):
    """Conditionals of the pixels of a picture, in rows from the top, each from the left, and of a pixel's channels.

    net: has `above(x, run) -> features` and `beside(x, features, run) -> outputs`; head: what a pixel's outputs say of it.
    shape: (height, width), or (height, width, channel).
    given: features that are known of every pixel beforehand, (height, width, feature); None for none.
    """

    net: Any
    head: Any = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    given: Any = None

    @property
    def levels(self) -> int:
        return self.head.levels

    @property
    def orders(self) -> np.ndarray:
        return np.arange(math.prod(self.shape), dtype=np.int32)[None]

    def outputs(self, x: Any) -> Any:
        """What the network says of every pixel given those before it: (height, width, output)."""
        x = self._inputs(x.reshape(*self.shape[:2], -1))
        down, right = jnp.pad(x, ((1, 0), (0, 0), (0, 0)))[:-1], jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        down, right = (jnp.concatenate([seen, self._given], -1) for seen in (down, right))
        return self.net.beside(right, self.net.above(down, whole), whole)

    def log_prob(self, x: Any) -> Any:
        return self.head.log_prob(self.outputs(x), x.reshape(*self.shape[:2], -1)).sum()

    def complete(self, key: Any, value: Any, known: Any) -> Any:
        width = self.shape[1]
        value, known = value.reshape(*self.shape[:2], -1), known.reshape(*self.shape[:2], -1)
        layers = self._layers()
        margin = jnp.zeros_like(self._inputs(value)[0, 0])

        def row(state: Any, here: Any) -> tuple[Any, Any]:
            (caches, last), (features, *rest) = state, here
            above, beside = (
                [f.next_row(c) for f, c in zip(*part, strict=True)] for part in zip(layers, caches, strict=True)
            )
            run = Row(above)
            above = self.net.above(jnp.concatenate([last, features], -1), run)
            columns = jnp.arange(width)
            (beside, _), drawn = lax.scan(pixel, (beside, margin), (columns, features, above, *rest))
            return ((run.new, beside), self._inputs(drawn)), drawn

        def pixel(state: Any, here: Any) -> tuple[Any, Any]:
            (caches, left), (column, features, above, *rest) = state, here
            run = Pixel(caches, column)
            drawn = self.head.draw(self.net.beside(jnp.concatenate([left, features]), above, run), *rest)
            return (run.new, self._inputs(drawn)), drawn

        blank = tuple([layer.blank(width) for layer in part] for part in layers)
        state = blank, jnp.zeros((width, len(margin)))
        uniform = jax.random.uniform(key, value.shape)
        return lax.scan(row, state, (self._given, uniform, value, known))[1].reshape(self.shape)

    def _inputs(self, x: Any) -> Any:
        """Values as the network sees them, and a channel of ones, by which pixels are told from the margin."""
        x = self.head.inputs(x)
        return jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1)

    @property
    def _given(self) -> Any:
        return jnp.zeros((*self.shape[:2], 0)) if self.given is None else self.given

    def _layers(self) -> tuple[list[Any], list[Any]]:
        """The layers of both parts, in the order in which they are applied."""
        above, beside = Roll(), Roll()
        x = self._inputs(jnp.zeros((1, self.shape[1], math.prod(self.shape[2:]))))
        x = jnp.concatenate([x, self._given[:1]], -1)
        jax.eval_shape(lambda x: self.net.beside(x, self.net.above(x, above), beside), x)
        return above.layers, beside.layers


# ---- checks ------------------------------------------------------------------------------------------------------


def check_kernels(**sizes: int) -> None:
    """ValueError for a kernel whose side is not odd, 3 or more."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 3 or size % 2 == 0:
            raise ValueError(f"{name} is {size!r}; expected the side of a kernel: an odd number, 3 or more.")


def check_pictures(x: Any, channels: bool = False) -> None:
    """ValueError for rows that are not pictures (row, height, width), or with `channels` (row, height, width, channel)."""
    if x.ndim != 3 and not (channels and x.ndim == 4):
        wanted = "(row, height, width)" + (" or (row, height, width, channel)" if channels else "")
        raise ValueError(f"The data have shape {x.shape}; expected pictures {wanted}. Reshape them.")
