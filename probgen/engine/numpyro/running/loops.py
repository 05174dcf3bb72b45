"""What is compiled of a kernel: its start, its steps in a loop, its answer; of one chain and of many."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from probgen.algorithm import Inference
from probgen.engine import thinning


def init(kernel: Inference, target: Any, key: Any) -> Any:
    """The state of one chain before its first step."""
    return kernel.init(key, target)


def chunk(kernel: Inference, target: Any, key: Any, state: Any, start: Any, stop: Any, *, capacity: int) -> Any:
    """Steps start..stop-1 of one chain, at most `capacity`; how a run is cut into chunks changes nothing in it."""
    step = lambda i, s: kernel.step(jax.random.fold_in(key, i), s, target)  # noqa: E731
    if thinning.asked(kernel):
        step = lambda i, s: thinning.step(kernel, key, i, s, target)  # noqa: E731
    _, shapes = jax.eval_shape(step, start, state)
    records = jax.tree.map(lambda a: jnp.zeros((capacity, *a.shape), a.dtype), shapes)

    def body(carry: Any) -> Any:
        i, state, records = carry
        state, info = step(i, state)
        return i + 1, state, jax.tree.map(lambda r, a: r.at[i - start].set(a), records, info)

    def until(end: Any, carry: Any) -> Any:
        return lax.while_loop(lambda carry: carry[0] < end, body, carry)

    def block(carry: Any) -> Any:
        """To the next look, or to the end; a look at every step would copy the state every time."""
        i, state, records = until(jnp.minimum(stop, (carry[0] // kernel.period + 1) * kernel.period), carry)
        info = jax.tree.map(lambda r: r[i - 1 - start], records)
        look = lambda: kernel.look(state, info, target)  # noqa: E731
        state, info = lax.cond(i % kernel.period == 0, look, lambda: (state, info))
        return i, state, jax.tree.map(lambda r, a: r.at[i - 1 - start].set(a), records, info)

    carry = start, state, records
    _, state, records = (
        lax.while_loop(lambda carry: carry[0] < stop, block, carry) if kernel.period else until(stop, carry)
    )
    return state, records


def answer(kernel: Any, target: Any, key: Any, state: Any) -> Any:
    """What a learner reads off its state."""
    return kernel.answer(key, state, target)


def init_at(kernel: Inference, target: Any, key: Any, begin: Any) -> Any:
    """The same, where the chain begins at a given point."""
    target.begin_at = begin
    return kernel.init(key, target)


def init_many_at(kernel: Inference, target: Any, keys: Any, begin: Any) -> Any:
    """`init_at` of all chains at once."""
    return jax.vmap(lambda key, begin: init_at(kernel, target, key, begin))(keys, begin)


def init_many(kernel: Inference, target: Any, keys: Any) -> Any:
    """`init` of all chains at once."""
    return jax.vmap(lambda key: kernel.init(key, target))(keys)


def chunk_many(
    kernel: Inference, target: Any, keys: Any, states: Any, start: Any, stop: Any, *, capacity: int, blocks: int = 1
) -> Any:
    """`chunk` of all chains at once, or of one block after the other."""
    step = jax.vmap(lambda key, state: chunk(kernel, target, key, state, start, stop, capacity=capacity))
    if blocks == 1:
        return step(keys, states)
    count = len(keys)  # said outright: arrays of a state may be empty
    apart = jax.tree.map(lambda a: a.reshape(blocks, count // blocks, *a.shape[1:]), (keys, states))
    return jax.tree.map(lambda a: a.reshape(count, *a.shape[2:]), lax.map(lambda block: step(*block), apart))
