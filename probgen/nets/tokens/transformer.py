"""A small transformer: every token looks at all others, (*row, token, width) -> (*row, token, width).

    h = h + attention(norm(h, e)),   h = h + perceptron(norm(h, e))

norm takes mean and variance out of each token, then scales and shifts by affine maps of e, what all tokens are given: a level of
noise, a class, a prompt; they begin at one and zero. No dropout. Shapes: h: (token, width); e: (num_given,), which may be empty.
Vaswani et al. 2017 (arXiv:1706.03762); Xiong et al. 2020 (arXiv:2002.04745); Peebles and Xie 2023 (arXiv:2212.09748).
"""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.autoregressive import check_sizes
from probgen.nets.flows import registered
from probgen.nets.vae import Affine

SMALL = 1e-5  # added to variances


def affine(key: Any, num_inputs: int, num_outputs: int, scale: float = 1.0) -> Affine:
    """Normal weights of variance scale^2 / num_inputs, no bias at first."""
    weight = jax.random.normal(key, (num_outputs, num_inputs)) * scale / math.sqrt(max(num_inputs, 1))
    return Affine(weight, jnp.zeros(num_outputs))


class Norm(eqx.Module):
    """Every token with mean 0 and variance 1, then scaled and shifted by what is given."""

    given: Affine

    def __init__(self, width: int, num_given: int):
        self.given = Affine(jnp.zeros((2 * width, num_given)), jnp.zeros(2 * width))

    def __call__(self, h: Any, e: Any) -> Any:
        scale, shift = jnp.split(self.given(e), 2)
        h = h - h.mean(-1, keepdims=True)
        return h * jax.lax.rsqrt((h**2).mean(-1, keepdims=True) + SMALL) * (1 + scale) + shift


class Attention(eqx.Module):
    """softmax(q k' / sqrt(dim)) v of several heads, side by side; rows may be many at once, (*row, token, width).

    seen: whether a token may be looked at, (token,), or by each token, (token, token).
    """

    into: Affine
    out: Affine
    num_heads: int = eqx.field(static=True)

    def __init__(self, key: Any, width: int, num_heads: int, scale: float):
        k_into, k_out = jax.random.split(key)
        self.into, self.out = affine(k_into, width, 3 * width), affine(k_out, width, width, scale)
        self.num_heads = num_heads

    def __call__(self, h: Any, seen: Any = None) -> Any:
        q, k, v = self._parted(h)
        return self.out(self._looked(q, k, v, seen))

    def next(self, h: Any, kept: tuple[Any, Any], i: Any) -> tuple[Any, tuple[Any, Any]]:
        """The same of token i alone, (1, width), that sees itself and those before it, whose keys and values are kept.

        kept: both (head, token, dim), filled up to token i - 1; returned filled up to i.
        """
        q, k, v = self._parted(h)
        keys, values = (jax.lax.dynamic_update_slice_in_dim(a, new, i, 1) for a, new in zip(kept, (k, v), strict=True))
        seen = jnp.arange(keys.shape[1]) <= i
        return self.out(self._looked(q, keys, values, seen)), (keys, values)

    def _parted(self, h: Any) -> Any:
        """Queries, keys and values: (3, *row, head, token, dim)."""
        return jnp.moveaxis(self.into(h).reshape(*h.shape[:-1], 3, self.num_heads, -1), (-3, -2), (0, -3))

    def _looked(self, q: Any, k: Any, v: Any, seen: Any) -> Any:
        scores = q @ jnp.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
        scores = scores if seen is None else jnp.where(seen, scores, -1e9)
        found = jnp.moveaxis(jax.nn.softmax(scores) @ v, -3, -2)
        return found.reshape(*found.shape[:-2], -1)


class Perceptron(eqx.Module):
    """One hidden layer, for each token by itself."""

    into: Affine
    out: Affine

    def __init__(self, key: Any, width: int, hidden: int, scale: float):
        k_into, k_out = jax.random.split(key)
        self.into, self.out = affine(k_into, width, hidden), affine(k_out, hidden, width, scale)

    def __call__(self, h: Any) -> Any:
        return self.out(jax.nn.silu(self.into(h)))


class Block(eqx.Module):
    """Attention and a perceptron, each added to what comes in."""

    norms: tuple[Norm, Norm]
    attention: Attention
    perceptron: Perceptron

    def __init__(self, key: Any, width: int, num_heads: int, num_given: int, scale: float, wider: int = 2):
        k_attention, k_perceptron = jax.random.split(key)
        self.norms = Norm(width, num_given), Norm(width, num_given)
        self.attention = Attention(k_attention, width, num_heads, scale)
        self.perceptron = Perceptron(k_perceptron, width, wider * width, scale)

    def __call__(self, h: Any, e: Any, seen: Any = None) -> Any:
        h = h + self.attention(self.norms[0](h, e), seen)
        return h + self.perceptron(self.norms[1](h, e))

    def next(self, h: Any, e: Any, kept: tuple[Any, Any], i: Any) -> tuple[Any, tuple[Any, Any]]:
        """The same of token i alone, (1, width): see `Attention.next`."""
        attended, kept = self.attention.next(self.norms[0](h, e), kept, i)
        h = h + attended
        return h + self.perceptron(self.norms[1](h, e)), kept


def blocks(
    key: Any, width: int, depth: int, num_heads: int, num_given: int, wider: int = 2
) -> tuple[Block, ...]:  # fmt: skip
    """Blocks whose sum has about the variance of one; wider: hidden units of a perceptron, over the width."""
    check_sizes(width=width, depth=depth, num_heads=num_heads)
    if width % num_heads:
        raise ValueError(f"width is {width} and num_heads {num_heads}; expected a multiple of the heads.")
    keys = jax.random.split(key, depth)
    return tuple(Block(k, width, num_heads, num_given, (2 * depth) ** -0.5, wider) for k in keys)


# ---- sentences -----------------------------------------------------------------------------------------------------


class Encoder(eqx.Module):
    """A sentence as a vector: (token,) whole numbers, below 0 for none -> (width,). The empty sentence is zero."""

    words: Any
    places: Any
    blocks: tuple[Block, ...]
    norm: Norm

    def __init__(self, key: Any, num_words: int, num_tokens: int, width: int, depth: int, num_heads: int):
        k_words, k_places, k_blocks = jax.random.split(key, 3)
        self.words = jax.random.normal(k_words, (num_words, width))
        self.places = 0.1 * jax.random.normal(k_places, (num_tokens, width))
        self.blocks = blocks(k_blocks, width, depth, num_heads, 0)
        self.norm = Norm(width, 0)

    def __call__(self, tokens: Any) -> Any:
        seen, nothing = tokens >= 0, jnp.zeros(0)
        h = (tokens[:, None] == jnp.arange(len(self.words))).astype(self.words.dtype) @ self.words + self.places
        for block in self.blocks:
            h = block(h, nothing, seen)
        h = jnp.where(seen[:, None], self.norm(h, nothing), 0.0)
        return h.sum(0) / jnp.maximum(seen.sum(), 1)


def encoder(name: str, num_words: int, num_tokens: int, width: int = 32, depth: int = 1, num_heads: int = 2) -> Encoder:
    """An encoder of sentences of at most so many tokens, its parameters registered under a name."""
    check_sizes(num_words=num_words, num_tokens=num_tokens)
    return registered(name, lambda key: Encoder(key, num_words, num_tokens, width, depth, num_heads))
