"""Layers of networks that give a picture's pixels one after the other, and the passes that apply them.

A layer works on the whole picture, on one row or on one pixel, from its cache of what it saw in the rows above and to the left; a
new pixel so costs the same in a picture of any size.
Shapes: features (height, width, filter), (width, filter) or (filter,).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax


class Conv(eqx.Module):
    """A convolution that ends in its own row: `weight.shape[0]` rows, the last of them its own, columns from `left` to the left.

    weight: (rows, columns, in, out), bias: (out,). Cache: the last rows of inputs, with a margin of zeros: (rows, width + columns
    - 1, in). The neighbours of a pixel side by side, times one matrix: for a picture, a row and a pixel alike.
    """

    weight: Any
    bias: Any
    left: int = eqx.field(static=True)

    def __init__(self, rows: int, columns: int, num_in: int, num_out: int, left: int | None = None, scale: float = 1.0):
        self.weight = jnp.full((rows, columns, num_in, num_out), scale / (rows * columns * num_in) ** 0.5)
        self.bias = jnp.zeros(num_out)
        self.left = columns - 1 if left is None else left

    def picture(self, x: Any) -> Any:
        """(height, width, in) -> (height, width, out)."""
        rows, columns = self.weight.shape[:2]
        return self._dot(jnp.pad(x, ((rows - 1, 0), (self.left, columns - 1 - self.left), (0, 0))), *x.shape[:2])

    def blank(self, width: int) -> Any:
        rows, columns, num_in = self.weight.shape[:3]
        return jnp.zeros((rows, width + columns - 1, num_in))

    def next_row(self, cache: Any) -> Any:
        return jnp.concatenate([cache[1:], jnp.zeros_like(cache[:1])])

    def row(self, cache: Any, x: Any) -> tuple[Any, Any]:
        """A row x (width, in) -> (width, out), and the cache with it."""
        cache = lax.dynamic_update_slice(cache, x[None], (cache.shape[0] - 1, self.left, 0))
        return self._dot(cache, 1, len(x))[0], cache

    def pixel(self, cache: Any, column: Any, x: Any) -> tuple[Any, Any]:
        """A pixel x (in,) -> (out,), and the cache with it."""
        cache = lax.dynamic_update_slice(cache, x[None, None], (cache.shape[0] - 1, self.left + column, 0))
        return self.at(cache, column), cache

    def at(self, cache: Any, column: Any) -> Any:
        seen = lax.dynamic_slice_in_dim(cache, column, self.weight.shape[1], 1)
        return self._dot(seen, 1, 1)[0, 0]

    def _dot(self, padded: Any, height: int, width: int) -> Any:
        rows, columns, _, num_out = self.weight.shape
        seen = [padded[i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
        return jnp.concatenate(seen, -1) @ self.weight.reshape(-1, num_out) + self.bias


class RowLSTM(eqx.Module):
    """A recurrent layer down the rows, whose gates are convolutions of the input's row and of the row of states above.

        o, f, i, g = sigma(K_is * x_r + K_ss * h_{r-1}),   c_r = f c_{r-1} + i g,   h_r = o tanh(c_r)

    sigma is the logistic function for o, f and i, tanh for g. Cache: that of K_is; h and c of the row above and of the own.
    """

    inputs: Conv
    states: Conv

    def __init__(self, columns: int, num_filters: int):
        side = columns // 2
        self.inputs = Conv(1, side + 1, num_filters, 4 * num_filters)
        self.states = Conv(1, 2 * side + 1, num_filters, 4 * num_filters, side)

    def gated(self, gates: Any, c: Any) -> tuple[Any, Any]:
        o, f, i, g = jnp.split(gates, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    def picture(self, x: Any) -> Any:
        def step(above: Any, gates: Any) -> tuple[Any, Any]:
            h, c = self.gated(gates + self.states.picture(above[0][None])[0], above[1])
            return (h, c), h

        none = jnp.zeros(x.shape[1:])
        return lax.scan(step, (none, none), self.inputs.picture(x))[1]

    def blank(self, width: int) -> Any:
        h = self.states.blank(width)
        c = jnp.zeros((2, width, h.shape[-1]))
        return self.inputs.blank(width), jnp.concatenate([h, h]), c

    def next_row(self, cache: Any) -> Any:
        inputs, h, c = cache
        return self.inputs.next_row(inputs), h[::-1], c[::-1]  # the own row is written over

    def pixel(self, cache: Any, column: Any, x: Any) -> tuple[Any, Any]:
        inputs, h, c = cache
        gates, inputs = self.inputs.pixel(inputs, column, x)
        new_h, new_c = self.gated(gates + self.states.at(h[:1], column), c[0, column])
        h = lax.dynamic_update_slice(h, new_h[None, None], (1, self.states.left + column, 0))
        return new_h, (inputs, h, lax.dynamic_update_slice(c, new_c[None, None], (1, column, 0)))


class Linear(eqx.Module):
    """The same map of every pixel's features: (..., in) -> (..., out)."""

    weight: Any
    bias: Any

    def __init__(self, num_in: int, num_out: int):
        self.weight, self.bias = jnp.full((num_in, num_out), num_in**-0.5), jnp.zeros(num_out)

    def __call__(self, x: Any) -> Any:
        return x @ self.weight + self.bias


class Attention(eqx.Module):
    """Every pixel looks at its own features and those of all before it: sum_j softmax_j(q_i' k_j / sqrt(n)) v_j in every head.

    n: a head's features. Queries and keys see the pixel's features and its place, (height, width, filter). Cache: keys and values
    of the pixels so far, and their number.
    Vaswani et al. 2017 (arXiv:1706.03762); of pictures: Chen et al. 2018 (arXiv:1712.09763).
    """

    query: Linear
    key: Linear
    value: Linear
    place: Any
    num_heads: int = eqx.field(static=True)

    def __init__(self, shape: tuple[int, int], num_filters: int, num_heads: int):
        if num_heads < 1 or num_filters % num_heads:
            raise ValueError(
                f"{num_filters} filters cannot be shared by {num_heads} heads; use as many heads as divide them."
            )
        self.query, self.key, self.value = (Linear(num_filters, num_filters) for _ in range(3))
        self.place, self.num_heads = jnp.ones((*shape, num_filters)), num_heads

    def picture(self, x: Any) -> Any:
        at = x + self.place[: len(x)]
        seen = self._heads(self.key(at)), self._heads(self.value(x))
        places = jnp.arange(len(seen[0]))
        return self._looked(self._heads(self.query(at)), *seen, places).reshape(x.shape)

    def blank(self, width: int) -> Any:
        del width
        none = self._heads(jnp.zeros_like(self.place))
        return none, none, jnp.int32(0)

    def next_row(self, cache: Any) -> Any:
        return cache

    def pixel(self, cache: Any, column: Any, x: Any) -> tuple[Any, Any]:
        del column
        keys, values, i = cache
        at = x + self.place.reshape(-1, len(x))[i]
        keys, values = keys.at[i].set(self._heads(self.key(at))[0]), values.at[i].set(self._heads(self.value(x))[0])
        return self._looked(self._heads(self.query(at)), keys, values, i[None])[0], (keys, values, i + 1)

    def _heads(self, x: Any) -> Any:
        """(..., filter) -> (pixel, head, feature)."""
        return x.reshape(-1, self.num_heads, x.shape[-1] // self.num_heads)

    def _looked(self, queries: Any, keys: Any, values: Any, places: Any) -> Any:
        """What the queries of some places see: (place, filter)."""
        scores = jnp.einsum("ihn,jhn->hij", queries, keys) / queries.shape[-1] ** 0.5
        before = jnp.arange(len(keys)) <= places[:, None]
        weights = jax.nn.softmax(jnp.where(before, scores, -jnp.inf))
        return jnp.einsum("hij,jhn->ihn", weights, values).reshape(len(places), -1)


# ---- passes: what applies layers, in the order in which a network names them ---------------------------------------


def whole(layer: Any, x: Any) -> Any:
    """Of the whole picture, nothing kept."""
    return layer.picture(x)


class Roll:
    """Of the whole picture, too, to have the list of the layers."""

    def __init__(self) -> None:
        self.layers: list[Any] = []

    def __call__(self, layer: Any, x: Any) -> Any:
        self.layers.append(layer)
        return layer.picture(x)


class Row:
    """Of one row, with the layers' caches, old and new."""

    def __init__(self, caches: Iterable[Any]):
        self.old, self.new = iter(caches), []

    def __call__(self, layer: Any, x: Any) -> Any:
        return self._kept(layer.row(next(self.old), x))

    def _kept(self, result: tuple[Any, Any]) -> Any:
        self.new.append(result[1])
        return result[0]


class Pixel(Row):
    """Of the pixel in a column."""

    def __init__(self, caches: Iterable[Any], column: Any):
        super().__init__(caches)
        self.column = column

    def __call__(self, layer: Any, x: Any) -> Any:
        return self._kept(layer.pixel(next(self.old), self.column, x))
