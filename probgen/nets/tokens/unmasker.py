"""Networks that say what is under the mask: units of which some are shown -> logits of all.

Units are gathered into tokens, the squares of a picture or pieces of a vector, which see each other by attention or, cheaper, by a
perceptron across tokens ("mixer"); a token says the logits of all its units at once. Shapes: z: (unit,), the mask being num_values;
share: (), of the units that are masked; given: (num_given,); logits: (unit,) for bits, else (unit, num_values).
Tolstikhin et al. 2021 (MLP-Mixer, arXiv:2105.01601).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.autoregressive import check_sizes
from probgen.nets.flows import registered
from probgen.nets.tokens.transformer import Norm, Perceptron, affine, blocks
from probgen.nets.vae import Affine

Mixing = Literal["attention", "mixer"]
TIMES = 2  # numbers that tell how much is masked


class Mixer(eqx.Module):
    """A perceptron across tokens and one across their width, each added to what comes in."""

    norms: tuple[Norm, Norm]
    across: Perceptron
    within: Perceptron

    def __init__(self, key: Any, num_tokens: int, width: int, num_given: int, scale: float):
        k_across, k_within = jax.random.split(key)
        self.norms = Norm(width, num_given), Norm(width, num_given)
        self.across = Perceptron(k_across, num_tokens, 2 * num_tokens, scale)
        self.within = Perceptron(k_within, width, 2 * width, scale)

    def __call__(self, h: Any, e: Any) -> Any:
        h = h + self.across(self.norms[0](h, e).T).T
        return h + self.within(self.norms[1](h, e))


class Unmasker(eqx.Module):
    """(z, share, given) -> logits. shape: of a point, (unit,) or (height, width); piece: of a token, along every axis."""

    into: Affine
    places: Any
    blocks: tuple[Any, ...]
    norm: Norm
    out: Affine
    shape: tuple[int, ...] = eqx.field(static=True)
    piece: int = eqx.field(static=True)
    num_values: int = eqx.field(static=True)

    def __init__(
        self, key: Any, shape: tuple[int, ...], num_values: int, piece: int, width: int, depth: int, num_heads: int,
        num_given: int, mixing: str,
    ):  # fmt: skip
        k_into, k_places, k_blocks = jax.random.split(key, 3)
        units, tokens = piece ** len(shape), math.prod(shape) // piece ** len(shape)
        self.shape, self.piece, self.num_values, outputs = shape, piece, num_values, num_values - (num_values == 2)
        self.into = affine(k_into, units * num_values, width)
        self.places = 0.1 * jax.random.normal(k_places, (tokens, width))
        if mixing == "attention":
            self.blocks = blocks(k_blocks, width, depth, num_heads, TIMES + num_given)
        else:
            keys, scale = jax.random.split(k_blocks, depth), (2 * depth) ** -0.5
            self.blocks = tuple(Mixer(k, tokens, width, TIMES + num_given, scale) for k in keys)
        self.norm = Norm(width, TIMES + num_given)
        self.out = Affine(jnp.zeros((units * outputs, width)), jnp.zeros(units * outputs))

    def __call__(self, z: Any, share: Any, given: Any = None) -> Any:
        e = jnp.stack([share, jnp.log(share + 0.01)])
        e = e if given is None else jnp.concatenate([e, given])
        shown = (z[:, None] == jnp.arange(self.num_values)).astype(self.places.dtype)  # of what is masked all zero
        h = self.into(self.gathered(shown)) + self.places
        for block in self.blocks:
            h = block(h, e)
        return self.parted(self.out(self.norm(h, e)))

    def gathered(self, seen: Any) -> Any:
        """Units as tokens: (unit, n) -> (token, n units of it)."""
        if len(self.shape) == 1:
            return seen.reshape(self.shape[0] // self.piece, -1)
        height, width = (side // self.piece for side in self.shape)
        squares = seen.reshape(height, self.piece, width, self.piece, -1)
        return jnp.swapaxes(squares, 1, 2).reshape(height * width, -1)

    def parted(self, said: Any) -> Any:
        """Back: (token, n units of it) -> (unit, n), or (unit,) where n is 1."""
        if len(self.shape) == 2:
            height, width = (side // self.piece for side in self.shape)
            said = jnp.swapaxes(said.reshape(height, width, self.piece, self.piece, -1), 1, 2)
        units = math.prod(self.shape)
        return said.reshape(units) if self.num_values == 2 else said.reshape(units, self.num_values)


def unmasker(
    name: str, shape: tuple[int, ...], num_values: int = 2, piece: int = 2, width: int = 64, depth: int = 3,
    mixing: str = "mixer", num_heads: int = 4, num_given: int = 0,
) -> Unmasker:  # fmt: skip
    """A network of points of a shape, its parameters registered under a name; ValueError for sides that pieces do not fill."""
    check_sizes(piece=piece, width=width, depth=depth)
    if mixing not in ("attention", "mixer"):
        raise ValueError(f"mixing is {mixing!r}; known: attention, mixer")
    if len(shape) not in (1, 2) or any(side % piece for side in shape):
        raise ValueError(f"A point has shape {shape} and piece is {piece}; expected one or two sides that it divides.")
    make = lambda key: Unmasker(key, shape, num_values, piece, width, depth, num_heads, num_given, mixing)  # noqa: E731
    return registered(name, make)
