"""A small U-Net of pictures, in JAX: what a denoiser says of a noisy picture at a level of noise.

    down:   two residual blocks a side, then a convolution of stride 2, which halves the sides, rounded up
    up:     the nearest pixel enlarges to the side above, a convolution, two residual blocks with what that side was
    block:  x + conv(silu(norm'(conv(silu(norm(x))))),   norm'(h) = (1 + a) norm(h) + b,   a, b of level and label

The net of `probgen.nets.torch_diffusion.unet`, weight for weight. Channels are normed in groups of 8; attention, if any, at the
smallest side. Shapes: x: (height, width) or (height, width, channel); level: (), log sigma / alpha; label: (), from 0; below 0
for "no label". Ho et al. 2020 (arXiv:2006.11239); Ronneberger et al. 2015 (arXiv:1505.04597).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.nn import silu

from probgen.machine import accelerator
from probgen.nets.flows import registered
from probgen.nets.pictures.sizes import FREQUENCIES, GROUP, LONGEST, SHORTEST, check

SMALL = 1e-5  # added to a variance


class Conv(eqx.Module):
    """A convolution with a margin of zeros: (height, width, in) -> (height / stride, width / stride, out), sides rounded up."""

    weight: Any  # (side, side, in, out)
    bias: Any  # (out,)
    stride: int = eqx.field(static=True)

    def __init__(self, num_in: int, num_out: int, side: int = 3, stride: int = 1, *, key: Any, zero: bool = False):
        self.weight, self.bias = _begun(key, (side, side, num_in, num_out), zero)
        self.stride = stride

    def __call__(self, x: Any) -> Any:
        margin = [(side // 2, side // 2) for side in self.weight.shape[:2]]
        if accelerator():
            strides, form = (self.stride, self.stride), ("NHWC", "HWIO", "NHWC")
            found = jax.lax.conv_general_dilated(x[None], self.weight, strides, margin, dimension_numbers=form)[0]
            return found + self.bias
        side, (height, width), step = self.weight.shape[0], x.shape[:2], self.stride
        x = jnp.pad(x, (*margin, (0, 0)))  # as a product of matrices: see nets.adversarial.layers
        seen = [x[i : i + height : step, j : j + width : step] for i in range(side) for j in range(side)]
        return jnp.concatenate(seen, -1) @ self.weight.reshape(-1, self.weight.shape[-1]) + self.bias


class Linear(eqx.Module):
    """(in,) -> (out,)."""

    weight: Any  # (in, out)
    bias: Any  # (out,)

    def __init__(self, num_in: int, num_out: int, *, key: Any):
        self.weight, self.bias = _begun(key, (num_in, num_out))

    def __call__(self, x: Any) -> Any:
        return x @ self.weight + self.bias


class Norm(eqx.Module):
    """Each group of channels with mean 0 and variance 1 over a picture, then scaled and shifted: (height, width, channel)."""

    scale: Any
    shift: Any

    def __init__(self, channels: int):
        self.scale, self.shift = jnp.ones(channels), jnp.zeros(channels)

    def __call__(self, x: Any) -> Any:
        groups = x.reshape(*x.shape[:2], max(1, x.shape[2] // GROUP), -1)
        mean, variance = (f(groups, (0, 1, 3), keepdims=True) for f in (jnp.mean, jnp.var))
        return ((groups - mean) * jax.lax.rsqrt(variance + SMALL)).reshape(x.shape) * self.scale + self.shift


class Level(eqx.Module):
    """Level and label -> (width,)."""

    first: Linear
    second: Linear
    label: Any  # (num_classes + 1, width), the last for "no label"; None without classes

    def __init__(self, width: int, num_classes: int, *, key: Any):
        one, two, three = jax.random.split(key, 3)
        self.first, self.second = Linear(2 * FREQUENCIES, width, key=one), Linear(width, width, key=two)
        self.label = jax.random.normal(three, (num_classes + 1, width)) if num_classes else None

    def __call__(self, level: Any, label: Any) -> Any:
        angle = 2 * jnp.pi * level * jnp.geomspace(1 / LONGEST, 1 / SHORTEST, FREQUENCIES)
        h = self.second(silu(self.first(jnp.concatenate([jnp.sin(angle), jnp.cos(angle)]))))
        if self.label is None:
            return silu(h)
        label = jnp.asarray(-1 if label is None else label, int)
        return silu(h + jnp.where(label < 0, self.label[-1], self.label[:-1][jnp.maximum(label, 0)]))


class Block(eqx.Module):
    """A residual block: (height, width, inputs), (width,) -> (height, width, outputs)."""

    norm: Norm
    conv: Conv
    norm2: Norm
    conv2: Conv
    level: Linear
    skip: Conv | None

    def __init__(self, inputs: int, outputs: int, width: int, *, key: Any):
        one, two, three, four = jax.random.split(key, 4)
        self.norm, self.norm2 = Norm(inputs), Norm(outputs)
        self.conv, self.conv2 = Conv(inputs, outputs, key=one), Conv(outputs, outputs, key=two, zero=True)
        self.level = Linear(width, 2 * outputs, key=three)
        self.skip = Conv(inputs, outputs, 1, key=four) if inputs != outputs else None

    def __call__(self, x: Any, level: Any) -> Any:
        scale, shift = jnp.split(self.level(level), 2)
        h = self.norm2(self.conv(silu(self.norm(x))))
        return (x if self.skip is None else self.skip(x)) + self.conv2(silu((1 + scale) * h + shift))


class Attention(eqx.Module):
    """Every pixel looks at all: (height, width, channel) -> the same."""

    norm: Norm
    ask: Conv
    out: Conv

    def __init__(self, channels: int, *, key: Any):
        one, two = jax.random.split(key)
        self.norm = Norm(channels)
        self.ask, self.out = Conv(channels, 3 * channels, 1, key=one), Conv(channels, channels, 1, key=two, zero=True)

    def __call__(self, x: Any) -> Any:
        q, k, v = jnp.split(self.ask(self.norm(x)).reshape(-1, 3 * x.shape[2]), 3, -1)  # (pixel, channel)
        return x + self.out((jax.nn.softmax(q @ k.T / math.sqrt(x.shape[2])) @ v).reshape(x.shape))


class UNet(eqx.Module):
    """The net of pictures of some channels; widths: its channels at each side, the largest side first."""

    level: Level
    enter: Conv
    down: tuple[tuple[Block, ...], ...]
    halve: tuple[Conv, ...]
    look: Attention | None
    enlarge: tuple[Conv, ...]
    up: tuple[tuple[Block, ...], ...]
    norm: Norm
    leave: Conv

    def __init__(
        self, channels: int = 1, widths: Sequence[int] = (16, 32, 64), num_blocks: int = 2, num_classes: int = 0,
        attention: bool = False, *, key: Any,
    ):  # fmt: skip
        check(channels, widths, num_blocks, num_classes)
        keys = map(lambda i: jax.random.fold_in(key, i), itertools.count())
        width, before = 4 * widths[0], (widths[0], *widths[:-1])
        blocks = lambda n, m: tuple(Block(m if i else n, m, width, key=next(keys)) for i in range(num_blocks))  # noqa: E731
        self.level, self.enter = Level(width, num_classes, key=next(keys)), Conv(channels, widths[0], key=next(keys))
        self.down = tuple(blocks(n, m) for n, m in zip(before, widths, strict=True))
        self.halve = tuple(Conv(n, n, 3, 2, key=next(keys)) for n in widths[:-1])
        self.look = Attention(widths[-1], key=next(keys)) if attention else None
        self.enlarge = tuple(Conv(m, n, key=next(keys)) for n, m in itertools.pairwise(widths))
        self.up = tuple(blocks(2 * n, n) for n in widths[:-1])
        self.norm, self.leave = Norm(widths[0]), Conv(widths[0], channels, key=next(keys), zero=True)

    def __call__(self, x: Any, level: Any, label: Any = None) -> Any:
        level, seen = self.level(level, label), []
        h = self.enter(x[:, :, None] if x.ndim == 2 else x)
        for i, blocks in enumerate(self.down):
            if i:
                seen.append(h)
                h = self.halve[i - 1](h)
            h = _through(blocks, h, level)
        h = h if self.look is None else self.look(h)
        for conv, blocks in zip(reversed(self.enlarge), reversed(self.up), strict=True):
            skip = seen.pop()
            h = conv(_enlarged(h, skip.shape))
            h = _through(blocks, jnp.concatenate([h, skip], -1), level)
        return self.leave(silu(self.norm(h))).reshape(x.shape)


def pictured(
    name: str, channels: int, label: Any = None, width: int = 16, halvings: int = 2, num_blocks: int = 2, num_classes: int = 0,
    attention: bool = False,
) -> Callable[[Any, Any], Any]:  # fmt: skip
    """A U-Net of pictures, registered under a name, for a row with its label: (x, level) -> an array like x.

    channels: 0 where pictures have no axis of them. width: the net's channels at the largest side, twice as many after each of
    `halvings`.
    """
    widths = tuple(width * 2**i for i in range(halvings + 1))
    sizes = (max(channels, 1), widths, num_blocks, num_classes if label is not None else 0, attention)
    net = registered(name, lambda key: _made(sizes, key))
    return net if label is None else eqx.Partial(net, label=label)


@eqx.filter_jit
def _made(sizes: tuple[Any, ...], key: Any) -> UNet:
    """The net of sizes; in one piece, for each shape of weights would be compiled by itself."""
    return UNet(*sizes, key=key)


def _through(blocks: Sequence[Block], h: Any, level: Any) -> Any:
    for block in blocks:
        h = block(h, level)
    return h


def _enlarged(h: Any, shape: Sequence[int]) -> Any:
    """Every pixel twice along both sides, cut to the sides of a shape."""
    return h.repeat(2, 0).repeat(2, 1)[: shape[0], : shape[1]]


def _begun(key: Any, shape: Sequence[int], zero: bool = False) -> tuple[Any, Any]:
    """Weights and biases uniform within one over the root of the number of inputs, or zeros."""
    if zero:
        return jnp.zeros(shape), jnp.zeros(shape[-1])
    one, two = jax.random.split(key)
    most = 1 / math.sqrt(math.prod(shape[:-1]))
    return jax.random.uniform(one, shape, minval=-most, maxval=most), jax.random.uniform(
        two, shape[-1:], minval=-most, maxval=most
    )
