"""The rows of a batch over the processes of one fit: XLA gives each its share, and sums what a step takes the mean of.

Every array lies whole in every process; the rows of a batch alone are cut, by a mark on them where a step is traced (`cut`). From
there XLA's partitioner works out who computes what and where gradients are summed, so that a step is written as for one process,
what it draws is the same, and so is its result, up to the order of sums. All processes run the same code in step.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_cuts: ContextVar[bool] = ContextVar("cuts", default=False)


@functools.cache
def _mesh() -> Mesh:
    """All devices of all processes."""
    return Mesh(np.array(jax.devices()), ("row",))


def everywhere() -> NamedSharding:
    """How an array lies that every device has whole."""
    return NamedSharding(_mesh(), PartitionSpec())


def is_everywhere(leaf: Any) -> bool:
    """Whether an array lies on devices of several processes."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def placed(tree: Any) -> Any:
    """The same arrays, whole on every device of all processes, each of which gives the same ones."""
    return jax.tree.map(_placed, tree)


def _placed(leaf: Any) -> Any:
    if is_everywhere(leaf):
        return leaf
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_placed(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, everywhere(), lambda part: host[part])


@contextmanager
def cutting(asked: bool) -> Iterator[None]:
    """For the time of the block, the batches of steps that are traced are cut, where that is asked for."""
    token = _cuts.set(asked)
    try:
        yield
    finally:
        _cuts.reset(token)


def cut(batch: Any) -> Any:
    """Rows {name: (row, ...)}, of which each device has a share inside `cutting`."""
    return (
        jax.lax.with_sharding_constraint(batch, NamedSharding(_mesh(), PartitionSpec("row"))) if _cuts.get() else batch
    )
