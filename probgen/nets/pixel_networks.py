"""Networks of pictures: PixelCNN, PixelCNN++, and PixelRNN's row LSTM, written once as layers that a pass applies.

Two parts follow each other:

    above   sees the rows above a pixel's, and works on a whole row at once
    beside  sees the pixels to the left as well, and what `above` makes of its column, and works pixel by pixel
"""

from __future__ import annotations

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from probgen.nets.pixel_layers import Attention, Conv, Linear, RowLSTM


class Gated(eqx.Module):
    """The gated PixelCNN's two stacks: see `models/density/pixelcnn.py`; attention: after them, or None."""

    first: tuple[Conv, Conv]
    layers: list[tuple[Conv, Linear, Conv, Linear, Linear]]
    last: tuple[Linear, Linear]
    attention: Attention | None

    def __init__(
        self, num_channels: int, num_outputs: int, num_layers: int, num_filters: int, kernel: int, first: int,
        attention: Attention | None = None,
    ):  # fmt: skip
        n, half = num_filters, kernel // 2
        self.first = masked(first, num_channels + 1, n)
        self.layers = [
            (
                Conv(half + 1, kernel, n, 2 * n, half),
                Linear(2 * n, 2 * n),
                Conv(1, half + 1, n, 2 * n),
                Linear(n, n),
                Linear(n, n),
            )
            for _ in range(num_layers)
        ]
        self.last = Linear(n, n), Linear(n, num_outputs)
        self.attention = attention

    def above(self, x: Any, run: Any) -> Any:
        v, features = run(self.first[0], x), []
        for down, link, *_ in self.layers:
            sums = run(down, v)
            v = gate(sums)
            features.append(link(sums))
        return features

    def beside(self, x: Any, features: Any, run: Any) -> Any:
        h, skipped = run(self.first[1], x), 0.0
        for (_, _, right, skip, out), seen in zip(self.layers, features, strict=True):
            gated = gate(run(right, h) + seen)
            skipped, h = skipped + skip(gated), h + out(gated)
        if self.attention is not None:
            skipped = skipped + run(self.attention, h)
        return self.last[1](jax.nn.relu(self.last[0](jax.nn.relu(skipped))))


class Around(eqx.Module):
    """Features of every pixel of a grey picture that is known whole: residual convolutions of the square around it."""

    layers: list[Conv]
    last: Linear

    def __init__(self, num_outputs: int, num_layers: int, num_filters: int, kernel: int):
        sizes = [2, *[num_filters] * num_layers]
        self.layers = [Conv(kernel, kernel, a, b, kernel // 2) for a, b in itertools.pairwise(sizes)]
        self.last = Linear(num_filters, num_outputs)

    def __call__(self, grey: Any) -> Any:
        """(height, width) -> (height, width, output)."""
        x = jnp.stack([2 * grey - 1, jnp.ones_like(grey)], -1)
        for i, layer in enumerate(self.layers):
            below = layer.weight.shape[0] // 2
            seen = layer.picture(jnp.pad(x, ((0, below), (0, 0), (0, 0))))[below:]
            x = jax.nn.relu(seen) + (x if i else 0.0)
        return self.last(x)


class Embedded(eqx.Module):
    """A network of symbols: it sees a vector for each. table: (symbol, feature)."""

    table: Any
    net: Any

    def _seen(self, x: Any) -> Any:
        symbols, rest = jnp.split(x, [len(self.table)], -1)
        return jnp.concatenate([symbols @ self.table, rest], -1)

    def above(self, x: Any, run: Any) -> Any:
        return self.net.above(self._seen(x), run)

    def beside(self, x: Any, features: Any, run: Any) -> Any:
        return self.net.beside(self._seen(x), features, run)


class Residual(eqx.Module):
    """PixelCNN++'s two streams of gated residual blocks, at one resolution: see `models/density/pixelcnn_pp.py`."""

    first: tuple[Conv, Conv, Conv]
    blocks: list[tuple[Conv, Conv, Linear, Conv, Conv]]
    last: Linear

    def __init__(self, num_channels: int, num_outputs: int, num_blocks: int, num_filters: int):
        n, num_in = num_filters, num_channels + 1
        self.first = Conv(2, 3, num_in, n, 1), Conv(1, 3, num_in, n, 1), Conv(2, 1, num_in, n)
        self.blocks = [
            (
                Conv(2, 3, 2 * n, n, 1), Conv(2, 3, 2 * n, 2 * n, 1, scale=0.1), Linear(2 * n, n),
                Conv(2, 2, 2 * n, n), Conv(2, 2, 2 * n, 2 * n, scale=0.1),
            )
            for _ in range(num_blocks)
        ]  # fmt: skip
        self.last = Linear(2 * n, num_outputs)

    def above(self, x: Any, run: Any) -> Any:
        u = run(self.first[0], x)
        features = [run(self.first[1], x)]
        for one, two, link, *_ in self.blocks:
            u = u + product(run(two, elu(run(one, elu(u)))))
            features.append(link(elu(u)))
        return features

    def beside(self, x: Any, features: Any, run: Any) -> Any:
        u = run(self.first[2], x) + features[0]
        for (*_, one, two), seen in zip(self.blocks, features[1:], strict=True):
            u = u + product(run(two, elu(run(one, elu(u)) + seen)))
        return self.last(elu(u))


class Recurrent(eqx.Module):
    """PixelRNN's layers of row LSTMs with residual connections: see `models/density/pixelrnn.py`."""

    first: tuple[Conv, Conv]
    layers: list[tuple[RowLSTM, Linear]]
    last: tuple[Linear, Linear]

    def __init__(
        self, num_channels: int, num_outputs: int, num_layers: int, num_filters: int, kernel: int, first: int
    ):  # fmt: skip
        n = num_filters
        self.first = masked(first, num_channels + 1, n)
        self.layers = [(RowLSTM(kernel, n), Linear(n, n)) for _ in range(num_layers)]
        self.last = Linear(n, n), Linear(n, num_outputs)

    def above(self, x: Any, run: Any) -> Any:
        return run(self.first[0], x)

    def beside(self, x: Any, features: Any, run: Any) -> Any:
        x = run(self.first[1], x) + features
        for recurrent, up in self.layers:
            x = x + up(run(recurrent, x))
        return self.last[1](jax.nn.relu(self.last[0](jax.nn.relu(x))))


def masked(side: int, num_in: int, num_out: int) -> tuple[Conv, Conv]:
    """The two parts of a square kernel that sees what is above its centre, and what is on its left."""
    half = side // 2
    return Conv(half, side, num_in, num_out, half), Conv(1, half, num_in, num_out)


def at_random(key: Any, net: Any) -> Any:
    """A network as laid out, in which each parameter's standard deviation stands in its place, with normal parameters.

    They are cut from one draw; to compile one for each array takes a minute.
    """
    leaves, tree = jax.tree.flatten(net)
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1])
    return jax.tree.unflatten(tree, [sd * z.reshape(sd.shape) for sd, z in zip(leaves, parts, strict=True)])


def gate(x: Any) -> Any:
    """tanh of the first half of the features times the logistic function of the second."""
    a, b = jnp.split(x, 2, -1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)


def product(x: Any) -> Any:
    """The first half of the features times the logistic function of the second."""
    a, b = jnp.split(x, 2, -1)
    return a * jax.nn.sigmoid(b)


def elu(x: Any) -> Any:
    """elu(x) and elu(-x), side by side."""
    return jax.nn.elu(jnp.concatenate([x, -x], -1))
