"""Convolutional networks between pictures and grids, and the prior of a grid of codes, their parameters registered under a name.

Shapes: pictures and grids (height, width, channel).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro

from probgen.nets.autoregressive import Autoregressive, check_sizes
from probgen.nets.flows import registered
from probgen.nets.pixel_heads import Symbols
from probgen.nets.pixel_layers import Attention
from probgen.nets.pixel_networks import Embedded, Gated, at_random
from probgen.nets.pixels import Picture

relu, leaky = eqx.nn.Lambda(jax.nn.relu), eqx.nn.Lambda(lambda x: jax.nn.leaky_relu(x, 0.2))


class Conv(eqx.Module):
    """A convolution of odd or even side, as the neighbours of a pixel side by side times one matrix, which is fast on a CPU.

    (height, width, in) -> (height / stride, width / stride, out), with a margin of zeros. linear: (side^2 in) -> (out).
    """

    linear: Any
    side: int
    stride: int

    def __init__(self, num_in: int, num_out: int, side: int, stride: int = 1, *, key: Any):
        self.linear = eqx.nn.Linear(side**2 * num_in, num_out, key=key)
        self.side, self.stride = side, stride

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        (height, width, _), n, step = x.shape, self.side, self.stride
        margin = ((n - step) // 2, n - step - (n - step) // 2)
        x = jnp.pad(x, (margin, margin, (0, 0)))
        seen = [x[i : i + height : step, j : j + width : step] for i in range(n) for j in range(n)]
        return jnp.concatenate(seen, -1) @ self.linear.weight.T + self.linear.bias


class Block(eqx.Module):
    """x + C2 relu(C1 relu(x)), C1 a convolution of side 3, C2 of side 1."""

    wide: Conv
    narrow: Conv

    def __init__(self, num_filters: int, *, key: Any):
        one, two = jax.random.split(key)
        self.wide, self.narrow = Conv(num_filters, num_filters, 3, key=one), Conv(num_filters, num_filters, 1, key=two)

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        return x + self.narrow(jax.nn.relu(self.wide(jax.nn.relu(x))))


def down(name: str, num_in: int, num_out: int, halvings: int, num_filters: int, num_blocks: int) -> Any:
    """A network that halves a picture's sides so many times: (height, width, num_in) -> (height / 2^n, width / 2^n, num_out)."""

    def make(key: Any) -> Any:
        keys, layers = iter(jax.random.split(key, halvings + num_blocks + 2)), []
        for i in range(halvings):
            layers += [Conv(num_filters if i else num_in, num_filters, 4, 2, key=next(keys)), relu]
        layers.append(Conv(num_filters if halvings else num_in, num_filters, 3, key=next(keys)))
        layers += [Block(num_filters, key=next(keys)) for _ in range(num_blocks)]
        return eqx.nn.Sequential([*layers, relu, Conv(num_filters, num_out, 1, key=next(keys))])

    return registered(name, make)


def up(name: str, num_in: int, num_out: int, doublings: int, num_filters: int, num_blocks: int) -> Any:
    """A network that doubles them: (height, width, num_in) -> (height * 2^n, width * 2^n, num_out)."""

    def make(key: Any) -> Any:
        keys = iter(jax.random.split(key, doublings + num_blocks + 2))
        layers = [Conv(num_in, num_filters, 3, key=next(keys))]
        layers += [Block(num_filters, key=next(keys)) for _ in range(num_blocks)]
        for _ in range(doublings):
            layers += [relu, Conv(num_filters, 4 * num_filters, 3, key=next(keys)), eqx.nn.Lambda(spread)]
        return eqx.nn.Sequential([*layers, relu, Conv(num_filters, num_out, 1, key=next(keys))])

    return registered(name, make)


class Judge(eqx.Module):
    """A picture's logit and features, of which the logit is a linear function: (height, width) -> (), (feature,)."""

    layers: Any
    last: eqx.nn.Linear

    def __call__(self, x: Any) -> tuple[Any, Any]:
        features = self.layers(x[..., None]).ravel()
        return self.last(features)[0], features


def judge(name: str, height: int, width: int, halvings: int, num_filters: int) -> Judge:
    """A critic that halves a picture's sides so many times, with twice as many filters each time."""
    rows, columns = grid(height, width, halvings)

    def make(key: Any) -> Any:
        *keys, k_last = jax.random.split(key, halvings + 1)
        layers, filters = [], [1] + [num_filters * 2**i for i in range(halvings)]
        for i, k in enumerate(keys):
            layers += [Conv(filters[i], filters[i + 1], 4, 2, key=k), leaky]
        return Judge(eqx.nn.Sequential(layers), eqx.nn.Linear(rows * columns * filters[-1], 1, key=k_last))

    return registered(name, make)


def spread(x: Any) -> Any:
    """The four parts of every pixel's channels as four pixels: (height, width, 4 n) -> (2 height, 2 width, n)."""
    height, width, _ = x.shape
    return x.reshape(height, width, 2, 2, -1).swapaxes(1, 2).reshape(2 * height, 2 * width, -1)


def grid(height: int, width: int, halvings: int) -> tuple[int, int]:
    """Height and width after so many halvings; ValueError where they do not come out whole."""
    check_sizes(height=height, width=width, halvings=halvings)
    if height % 2**halvings or width % 2**halvings:
        raise ValueError(
            f"Pictures of {height} by {width} cannot be halved {halvings} times; pad or crop them, or use fewer halvings."
        )
    return height // 2**halvings, width // 2**halvings


def pixelcnn(
    name: str, shape: tuple[int, int], num_codes: int, num_layers: int, num_filters: int, given: Any = None,
    num_heads: int = 0,
) -> Autoregressive:  # fmt: skip
    """The gated PixelCNN's distribution of a grid (height, width) of codes; see `models/density/pixelcnn.py`.

    given: features that are known of every place beforehand, (height, width, feature). num_heads: of the attention to all places
    before that follows the convolutions; 0 for none.
    """
    num_in = num_filters + (0 if given is None else given.shape[2])

    def layout() -> Embedded:
        table = jnp.ones((num_codes, num_filters))
        attention = Attention(shape, num_filters, num_heads) if num_heads else None
        return Embedded(table, Gated(num_in, num_codes, num_layers, num_filters, 3, 5, attention))

    net = numpyro.param(name, lambda key: at_random(key, layout()))
    return Autoregressive(Picture(net, Symbols(num_codes), shape, given))
