"""A transformer that says the next token given those before it: all logits in one pass, draws from kept keys and values.

    p(x) = prod_t p(x_t | x_<t),   logits_t = W norm(h_t),   h_t the blocks' output at W[x_{t-1}] + P_t, each seeing 0 ... t

W, the words, serves inputs and outputs; P are the places. Nothing stands before the first token. The perceptrons are four widths
wide. Shapes: x: (context,), whole numbers as floats; logits: (context, num_words).
Radford, Wu, Child, Luan, Amodei and Sutskever 2019 (GPT-2); weight tying: Press and Wolf 2017 (arXiv:1608.05859).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from probgen.nets.autoregressive import AT_ONCE, check_sizes
from probgen.nets.flows import registered
from probgen.nets.tokens.transformer import Block, Norm, blocks

SMALL = 0.02  # standard deviation of words and places at first
WIDER = 4  # hidden units of a perceptron, over the width
LARGEST = 2**22  # numbers that rows have at once in a block, of attention and hidden: more leave the caches


class NextToken(eqx.Module):
    """The conditionals of the tokens of a row, as `Autoregressive` takes them."""

    words: Any
    places: Any
    blocks: tuple[Block, ...]
    norm: Norm

    def __init__(self, key: Any, num_words: int, context: int, width: int, depth: int, num_heads: int):
        k_words, k_places, k_blocks = jax.random.split(key, 3)
        self.words = SMALL * jax.random.normal(k_words, (num_words, width))
        self.places = SMALL * jax.random.normal(k_places, (context, width))
        self.blocks = blocks(k_blocks, width, depth, num_heads, 0, WIDER)
        self.norm = Norm(width, 0)

    @property
    def shape(self) -> tuple[int]:
        return (len(self.places),)

    @property
    def levels(self) -> int:
        return len(self.words)

    @property
    def orders(self) -> np.ndarray:
        return np.arange(len(self.places), dtype=np.int32)[None]

    def logits(self, x: Any) -> Any:
        """Of every token given those before it, in one pass, of many rows at once: (*row, context, num_words)."""
        before = jnp.concatenate([jnp.full_like(x[..., :1], -1), x[..., :-1]], -1)
        h, nothing = self._times(self._shown(before), self.words) + self.places, jnp.zeros(0)
        seen = jnp.tri(len(self.places), dtype=bool)
        for block in self.blocks:
            h = block(h, nothing, seen)
        return self._times(self.norm(h, nothing), self.words.T)

    def log_prob(self, x: Any) -> Any:
        return _by_rows(self, x) if AT_ONCE.get() else _of_rows(self, x)

    def begin(self) -> Any:
        """What is kept of the tokens before the first: keys and values of every block, (head, context, dim), all zero."""
        heads = self.blocks[0].attention.num_heads
        blank = jnp.zeros((heads, len(self.places), self.words.shape[1] // heads))
        return tuple((blank, blank) for _ in self.blocks)

    def next(self, kept: Any, i: Any, before: Any) -> tuple[Any, Any]:
        """The logits of token i, (num_words,), given the token before it, -1 for none, and what is kept; and what is kept then."""
        h, nothing = (self._shown(before) @ self.words + self.places[i])[None], jnp.zeros(0)
        new = []
        for block, own in zip(self.blocks, kept, strict=True):
            h, own = block.next(h, nothing, own, i)
            new.append(own)
        return self.norm(h, nothing)[0] @ self.words.T, tuple(new)

    def complete(self, key: Any, value: Any, known: Any) -> Any:
        """Token after token, the known as they are, the others by the inverse of their distribution function."""
        uniform = jax.random.uniform(key, self.shape)

        def step(state: Any, at: Any) -> tuple[Any, Any]:
            (kept, before), (i, u, given, there) = state, at
            logits, kept = self.next(kept, i, before)
            token = jnp.where(there, given, drawn(logits, u).astype(value.dtype))
            return (kept, token), token

        nothing = jnp.full((), -1, value.dtype)
        places = jnp.arange(len(self.places), dtype=jnp.int32)
        return lax.scan(step, (self.begin(), nothing), (places, uniform, value, known))[1]

    def _times(self, h: Any, matrix: Any) -> Any:
        """A product with all tokens of all rows in one axis."""
        return (h.reshape(-1, h.shape[-1]) @ matrix).reshape(*h.shape[:-1], -1)

    def _shown(self, x: Any) -> Any:
        """Tokens one-hot, a token of -1 all zero: (*x, num_words)."""
        return (x[..., None] == jnp.arange(len(self.words))).astype(self.words.dtype)


def _of_rows(net: NextToken, x: Any) -> Any:
    """log p of rows (*row, context): (*row,)."""
    return (jax.nn.log_softmax(net.logits(x)) * net._shown(x)).sum((-2, -1))


@jax.custom_batching.custom_vmap
def _by_rows(net: NextToken, x: Any) -> Any:
    """The same of a row, many rows at once under `jax.vmap`; without it, it has no gradient."""
    return _of_rows(net, x)


@_by_rows.def_vmap
def _(size: int, batched: Any, net: NextToken, x: Any) -> tuple[Any, bool]:
    if not any(jax.tree.leaves(batched[0])):
        return _in_parts(net, x), True
    axes = jax.tree.map(lambda there: 0 if there else None, tuple(batched))
    return jax.vmap(_of_rows, axes, axis_size=size)(net, x), True


def _in_parts(net: NextToken, x: Any) -> Any:
    """log p of rows (row, context), part after part where all at once would take too much memory: (row,)."""
    context, width = net.places.shape
    each = context * (net.blocks[0].attention.num_heads * context + WIDER * width)
    count = -(-len(x) * each // LARGEST)
    if count <= 1 or len(x) < 2:
        return _of_rows(net, x)
    size = -(-len(x) // count)
    parts = jnp.pad(x, ((0, -len(x) % size), (0, 0))).reshape(-1, size, context)
    return lax.map(jax.checkpoint(lambda rows: _of_rows(net, rows)), parts).reshape(-1)[: len(x)]


def drawn(logits: Any, uniform: Any) -> Any:
    """The token at which the distribution function passes a uniform number: ()."""
    return jnp.sum(uniform >= jnp.cumsum(jax.nn.softmax(logits))[:-1])


def next_token(name: str, num_words: int, context: int, width: int, depth: int, num_heads: int) -> NextToken:
    """A network for rows of `context` tokens, its parameters registered under a name."""
    check_sizes(num_words=num_words, context=context, width=width, depth=depth, num_heads=num_heads)
    return registered(name, lambda key: NextToken(key, num_words, context, width, depth, num_heads))
