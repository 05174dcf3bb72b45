"""Convolutions that a CPU does fast, forwards and twice backwards, and what halves and doubles the sides of a grid.

All have stride 1, as their transposes then have: JAX's transposed convolutions are slow on a CPU. The gradient of its plain ones
takes up to sixty times as long within a loop, as learning is, so that here they are products of matrices. Halving takes the four
pixels of a square as channels first, doubling makes four pixels of channels last. Shapes: (height, width, channel).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.machine import accelerator
from probgen.nets.convolutions import spread

TINY = 1e-8  # added under roots


def leak(x: Any) -> Any:
    return jax.nn.leaky_relu(x, 0.2)


def pixel_norm(x: Any) -> Any:
    """Every pixel's channels in units of their root mean square (Karras et al. 2018)."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + TINY)


def gathered(x: Any) -> Any:
    """The four pixels of every square as channels: (2 height, 2 width, n) -> (height, width, 4 n)."""
    height, width, _ = x.shape
    return x.reshape(height // 2, 2, width // 2, 2, -1).swapaxes(1, 2).reshape(height // 2, width // 2, -1)


def convolved(x: Any, weight: Any, side: int) -> Any:
    """A convolution without margin: (height + side - 1, width + side - 1, in) -> (height, width, out).

    weight: (out, side^2 in).
    """
    if accelerator():
        return by_convolution(x, weight, side)
    return from_neighbours(x, weight, side) if x.shape[-1] <= len(weight) else to_neighbours(x, weight, side)


def from_neighbours(x: Any, weight: Any, side: int) -> Any:
    """As one product of shifted neighbours side by side: of few channels in."""
    height, width = (s - side + 1 for s in x.shape[:2])
    x = jnp.concatenate([x[:, i : i + width] for i in range(side)], -1)
    return jnp.concatenate([x[i : i + height] for i in range(side)], -1) @ weight.T


def to_neighbours(x: Any, weight: Any, side: int) -> Any:
    """As one product for all neighbours that a pixel counts in, whose parts are added up: of few channels out."""
    (height, width), out = (s - side + 1 for s in x.shape[:2]), len(weight)
    x = x @ weight.reshape(out, side, side, -1).transpose(3, 1, 2, 0).reshape(x.shape[-1], -1)
    x = sum(part[i : i + height] for i, part in enumerate(jnp.split(x, side, -1)))
    return sum(part[:, i : i + width] for i, part in enumerate(jnp.split(x, side, -1)))


def by_convolution(x: Any, weight: Any, side: int) -> Any:
    """By JAX's convolution."""
    kernel = weight.reshape(len(weight), side, side, -1).transpose(1, 2, 3, 0)
    return jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


class Same(eqx.Module):
    """A convolution of side 3, or 1, with a margin of zeros: (height, width, in) -> (height, width, out)."""

    linear: eqx.nn.Linear
    side: int

    def __init__(self, num_in: int, num_out: int, side: int = 3, *, key: Any):
        self.linear, self.side = eqx.nn.Linear(side**2 * num_in, num_out, key=key), side

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        margin = self.side // 2
        x = jnp.pad(x, ((margin,) * 2, (margin,) * 2, (0, 0)))
        return convolved(x, self.linear.weight, self.side) + self.linear.bias


class Halve(eqx.Module):
    """A convolution of side 4 and stride 2: (2 height, 2 width, in) -> (height, width, out)."""

    linear: eqx.nn.Linear

    def __init__(self, num_in: int, num_out: int, *, key: Any):
        self.linear = eqx.nn.Linear(16 * num_in, num_out, key=key)

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        x = gathered(jnp.pad(x, ((1, 1), (1, 1), (0, 0))))
        return convolved(x, self.linear.weight, 2) + self.linear.bias


class Double(eqx.Module):
    """A convolution of side 3 to four times as many channels, which become four pixels: (h, w, in) -> (2 h, 2 w, out)."""

    same: Same

    def __init__(self, num_in: int, num_out: int, *, key: Any):
        self.same = Same(num_in, 4 * num_out, key=key)

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        return spread(self.same(x))
