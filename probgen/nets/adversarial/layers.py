"""Convolutions that a CPU does fast, forwards and twice backwards, and what halves and doubles the sides of a grid.

All have stride 1, as their transposes then have: JAX's transposed convolutions are slow on a CPU. Small grids are a product of
matrices of shifted neighbours side by side, which is faster there. Halving takes the four pixels of a square as channels first,
doubling makes four pixels of channels last. Shapes: (height, width, channel).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.convolutions import spread

SMALL = 100  # pixels up to which a product is faster, measured on two cores
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


def product(x: Any, weight: Any, side: int) -> Any:
    """A convolution without margin as one product: (height + side - 1, width + side - 1, in) -> (height, width, out).

    weight: (out, side^2 in).
    """
    height, width = (s - side + 1 for s in x.shape[:2])
    x = jnp.concatenate([x[:, i : i + width] for i in range(side)], -1)
    return jnp.concatenate([x[i : i + height] for i in range(side)], -1) @ weight.T


def convolved(x: Any, weight: Any, side: int) -> Any:
    """The same by JAX's convolution."""
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
        how = product if x.shape[0] * x.shape[1] <= SMALL or self.side == 1 else convolved
        return how(jnp.pad(x, ((margin,) * 2, (margin,) * 2, (0, 0))), self.linear.weight, self.side) + self.linear.bias


class Halve(eqx.Module):
    """A convolution of side 4 and stride 2: (2 height, 2 width, in) -> (height, width, out)."""

    linear: eqx.nn.Linear

    def __init__(self, num_in: int, num_out: int, *, key: Any):
        self.linear = eqx.nn.Linear(16 * num_in, num_out, key=key)

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        x = gathered(jnp.pad(x, ((1, 1), (1, 1), (0, 0))))
        how = product if x.shape[0] * x.shape[1] <= SMALL else convolved
        return how(x, self.linear.weight, 2) + self.linear.bias


class Double(eqx.Module):
    """A convolution of side 3 to four times as many channels, which become four pixels: (h, w, in) -> (2 h, 2 w, out)."""

    same: Same

    def __init__(self, num_in: int, num_out: int, *, key: Any):
        self.same = Same(num_in, 4 * num_out, key=key)

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        return spread(self.same(x))
