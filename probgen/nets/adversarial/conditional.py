"""Networks that know a class: its embedding, norms that it scales and shifts, and a critic that projects on it.

Sources: Brock, Donahue and Simonyan 2019 (BigGAN), Miyato and Koyama 2018 (projection). Their norms are over a batch; here they are
over one picture, so that it does not depend on the others of its batch. Shapes: (height, width, channel).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.adversarial.layers import TINY, Double, Same, leak
from probgen.nets.convolutions import grid
from probgen.nets.flows import registered


class Table(eqx.Module):
    """A vector of each class: (class, size), N(0, 1 / size) at first."""

    rows: Any

    def __init__(self, num_classes: int, size: int, *, key: Any):
        self.rows = jax.random.normal(key, (num_classes, size)) / size**0.5


def embedding(name: str, label: Any, num_classes: int, size: int) -> Any:
    """The vector of a class, registered under a name: (size,)."""
    return registered(name, lambda key: Table(num_classes, size, key=key)).rows[label]


class Norm(eqx.Module):
    """(x - mean) / sd * (1 + A c) + B c: mean and sd over a picture's pixels and channels, one factor and shift a channel of c."""

    factor: eqx.nn.Linear
    shift: eqx.nn.Linear

    def __init__(self, num_channels: int, num_given: int, *, key: Any):
        one, two = jax.random.split(key)
        self.factor = eqx.nn.Linear(num_given, num_channels, use_bias=False, key=one)
        self.shift = eqx.nn.Linear(num_given, num_channels, use_bias=False, key=two)

    def __call__(self, x: Any, c: Any) -> Any:
        x = (x - x.mean()) * jax.lax.rsqrt(x.var() + TINY)
        return x * (1 + self.factor(c)) + self.shift(c)


class Block(eqx.Module):
    """Doubles the sides: two convolutions after conditional norms, beside the grid itself: (h, w, in) -> (2 h, 2 w, out)."""

    norms: tuple[Norm, Norm]
    double: Double
    same: Same
    beside: Same

    def __init__(self, num_in: int, num_out: int, num_given: int, *, key: Any):
        keys = jax.random.split(key, 5)
        self.norms = Norm(num_in, num_given, key=keys[0]), Norm(num_out, num_given, key=keys[1])
        self.double, self.same = Double(num_in, num_out, key=keys[2]), Same(num_out, num_out, key=keys[3])
        self.beside = Same(num_in, num_out, 1, key=keys[4])

    def __call__(self, x: Any, c: Any) -> Any:
        found = self.same(leak(self.norms[1](self.double(leak(self.norms[0](x, c))), c)))
        return found + doubled(self.beside(x))


def doubled(x: Any) -> Any:
    """Every pixel as a square of four: (height, width, n) -> (2 height, 2 width, n)."""
    return jnp.repeat(jnp.repeat(x, 2, 0), 2, 1)


class Conditional(eqx.Module):
    """(noise,), (embedding,) -> (height, width, out): a part of the noise enters at each scale, beside the class."""

    first: eqx.nn.Linear
    blocks: tuple[Block, ...]
    last: Same
    grid: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self, num_noise: int, size: int, places: tuple[int, int], num_out: int, halvings: int, num_filters: int, *, key: Any
    ):  # fmt: skip
        k_first, k_last, *keys = jax.random.split(key, halvings + 2)
        filters = [num_filters * 2**i for i in range(halvings, -1, -1)]
        own, *parts = (len(p) for p in jnp.array_split(jnp.arange(num_noise), halvings + 1))
        self.first = eqx.nn.Linear(own, places[0] * places[1] * filters[0], key=k_first)
        self.blocks = tuple(Block(filters[i], filters[i + 1], parts[i] + size, key=k) for i, k in enumerate(keys))
        self.last, self.grid = Same(filters[-1], num_out, key=k_last), places

    def __call__(self, z: Any, e: Any) -> Any:
        own, *parts = jnp.array_split(z, len(self.blocks) + 1)
        x = self.first(own).reshape(*self.grid, -1)
        for block, part in zip(self.blocks, parts, strict=True):
            x = block(x, jnp.concatenate([part, e]))
        return self.last(leak(x))


def conditional(
    name: str, z: Any, e: Any, height: int, width: int, channels: int, halvings: int, num_filters: int
) -> Any:
    """Outputs (height, width, channel) of noise and a class's vector, parameters registered under a name.

    ValueError for less noise than there are scales.
    """
    if len(z) <= halvings:
        raise ValueError(f"num_latents is {len(z)}; with {halvings} halvings it must be at least {halvings + 1}.")
    sizes = (len(z), len(e), grid(height, width, halvings), max(channels, 1), halvings, num_filters)
    return registered(name, lambda key: Conditional(*sizes, key=key))(z, e)


class Projection(eqx.Module):
    """D = w'h + v + e_label'h of features h: (feature,), () -> ()."""

    linear: eqx.nn.Linear
    table: Table

    def __init__(self, size: int, num_classes: int, *, key: Any):
        one, two = jax.random.split(key)
        self.linear, self.table = eqx.nn.Linear(size, "scalar", key=one), Table(num_classes, size, key=two)

    def __call__(self, h: Any, label: Any) -> Any:
        return self.linear(h) + self.table.rows[label] @ h


def projected(name: str, h: Any, label: Any, num_classes: int) -> Any:
    """A critic's logit of features and a class, its parameters registered under a name: ()."""
    return registered(name, lambda key: Projection(h.size, num_classes, key=key))(h, label)
