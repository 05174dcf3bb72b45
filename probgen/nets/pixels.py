"""Networks that give a picture's pixels one after the other, row by row: PixelCNN, PixelCNN++, and PixelRNN's row LSTM.

A network is written once, as layers that a pass applies: to the whole picture, for densities, or to one row or one pixel, for
draws, from the layers' caches of what they saw in the rows above and to the left. A new pixel so costs the same in a picture
of any size. Two parts follow each other:

    above   sees the rows above a pixel's, and works on a whole row at once
    beside  sees the pixels to the left as well, and what `above` makes of its column, and works pixel by pixel

Shapes: pictures (height, width, channel) inside this file; features (height, width, filter), (width, filter) or (filter,).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from probgen.nets.autoregressive import bits_log_prob

# ---- layers ------------------------------------------------------------------------------------------------------


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


# ---- the conditionals of a picture ---------------------------------------------------------------------------------


class Picture(eqx.Module):
    """Conditionals of the pixels of a picture, in rows from the top, each from the left, and of a pixel's channels.

    net: has `above(x, run) -> features` and `beside(x, features, run) -> outputs`; head: what a pixel's outputs say of it.
    shape: (height, width), or (height, width, channel).
    given: features that are known of every pixel beforehand, (height, width, feature); None for none.
    """

    net: Any
    head: Any = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    given: Any = None

    @property
    def levels(self) -> int:
        return self.head.levels

    @property
    def orders(self) -> np.ndarray:
        return np.arange(math.prod(self.shape), dtype=np.int32)[None]

    def outputs(self, x: Any) -> Any:
        """What the network says of every pixel given those before it: (height, width, output)."""
        x = self._inputs(x.reshape(*self.shape[:2], -1))
        down, right = jnp.pad(x, ((1, 0), (0, 0), (0, 0)))[:-1], jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        down, right = (jnp.concatenate([seen, self._given], -1) for seen in (down, right))
        return self.net.beside(right, self.net.above(down, whole), whole)

    def log_prob(self, x: Any) -> Any:
        return self.head.log_prob(self.outputs(x), x.reshape(*self.shape[:2], -1)).sum()

    def complete(self, key: Any, value: Any, known: Any) -> Any:
        width = self.shape[1]
        value, known = value.reshape(*self.shape[:2], -1), known.reshape(*self.shape[:2], -1)
        layers = self._layers()
        margin = jnp.zeros_like(self._inputs(value)[0, 0])

        def row(state: Any, here: Any) -> tuple[Any, Any]:
            (caches, last), (features, *rest) = state, here
            above, beside = (
                [f.next_row(c) for f, c in zip(*part, strict=True)] for part in zip(layers, caches, strict=True)
            )
            run = Row(above)
            above = self.net.above(jnp.concatenate([last, features], -1), run)
            columns = jnp.arange(width)
            (beside, _), drawn = lax.scan(pixel, (beside, margin), (columns, features, above, *rest))
            return ((run.new, beside), self._inputs(drawn)), drawn

        def pixel(state: Any, here: Any) -> tuple[Any, Any]:
            (caches, left), (column, features, above, *rest) = state, here
            run = Pixel(caches, column)
            drawn = self.head.draw(self.net.beside(jnp.concatenate([left, features]), above, run), *rest)
            return (run.new, self._inputs(drawn)), drawn

        blank = tuple([layer.blank(width) for layer in part] for part in layers)
        state = blank, jnp.zeros((width, len(margin)))
        uniform = jax.random.uniform(key, value.shape)
        return lax.scan(row, state, (self._given, uniform, value, known))[1].reshape(self.shape)

    def _inputs(self, x: Any) -> Any:
        """Values as the network sees them, and a channel of ones, by which pixels are told from the margin."""
        x = self.head.inputs(x)
        return jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1)

    @property
    def _given(self) -> Any:
        return jnp.zeros((*self.shape[:2], 0)) if self.given is None else self.given

    def _layers(self) -> tuple[list[Any], list[Any]]:
        """The layers of both parts, in the order in which they are applied."""
        above, beside = Roll(), Roll()
        x = self._inputs(jnp.zeros((1, self.shape[1], math.prod(self.shape[2:]))))
        x = jnp.concatenate([x, self._given[:1]], -1)
        jax.eval_shape(lambda x: self.net.beside(x, self.net.above(x, above), beside), x)
        return above.layers, beside.layers


# ---- networks ----------------------------------------------------------------------------------------------------


class Gated(eqx.Module):
    """The gated PixelCNN's two stacks: see `models/density/pixelcnn.py`; attention: after them, or None."""

    first: tuple[Conv, Conv]
    layers: list[tuple[Conv, Linear, Conv, Linear, Linear]]
    last: tuple[Linear, Linear]
    attention: Attention | None

    def __init__(
        self, num_channels: int, num_outputs: int, num_layers: int, num_filters: int, kernel: int, first: int,
        attention: Attention | None = None,
    ):  # fmt: skip
        n, half = num_filters, kernel // 2
        self.first = masked(first, num_channels + 1, n)
        self.layers = [
            (
                Conv(half + 1, kernel, n, 2 * n, half),
                Linear(2 * n, 2 * n),
                Conv(1, half + 1, n, 2 * n),
                Linear(n, n),
                Linear(n, n),
            )
            for _ in range(num_layers)
        ]
        self.last = Linear(n, n), Linear(n, num_outputs)
        self.attention = attention

    def above(self, x: Any, run: Any) -> Any:
        v, features = run(self.first[0], x), []
        for down, link, *_ in self.layers:
            sums = run(down, v)
            v = gate(sums)
            features.append(link(sums))
        return features

    def beside(self, x: Any, features: Any, run: Any) -> Any:
        h, skipped = run(self.first[1], x), 0.0
        for (_, _, right, skip, out), seen in zip(self.layers, features, strict=True):
            gated = gate(run(right, h) + seen)
            skipped, h = skipped + skip(gated), h + out(gated)
        if self.attention is not None:
            skipped = skipped + run(self.attention, h)
        return self.last[1](jax.nn.relu(self.last[0](jax.nn.relu(skipped))))


class Embedded(eqx.Module):
    """A network of symbols: it sees a vector for each. table: (symbol, feature)."""

    table: Any
    net: Any

    def _seen(self, x: Any) -> Any:
        symbols, rest = jnp.split(x, [len(self.table)], -1)
        return jnp.concatenate([symbols @ self.table, rest], -1)

    def above(self, x: Any, run: Any) -> Any:
        return self.net.above(self._seen(x), run)

    def beside(self, x: Any, features: Any, run: Any) -> Any:
        return self.net.beside(self._seen(x), features, run)


class Residual(eqx.Module):
    """PixelCNN++'s two streams of gated residual blocks, at one resolution: see `models/density/pixelcnn_pp.py`."""

    first: tuple[Conv, Conv, Conv]
    blocks: list[tuple[Conv, Conv, Linear, Conv, Conv]]
    last: Linear

    def __init__(self, num_channels: int, num_outputs: int, num_blocks: int, num_filters: int):
        n, num_in = num_filters, num_channels + 1
        self.first = Conv(2, 3, num_in, n, 1), Conv(1, 3, num_in, n, 1), Conv(2, 1, num_in, n)
        self.blocks = [
            (
                Conv(2, 3, 2 * n, n, 1), Conv(2, 3, 2 * n, 2 * n, 1, scale=0.1), Linear(2 * n, n),
                Conv(2, 2, 2 * n, n), Conv(2, 2, 2 * n, 2 * n, scale=0.1),
            )
            for _ in range(num_blocks)
        ]  # fmt: skip
        self.last = Linear(2 * n, num_outputs)

    def above(self, x: Any, run: Any) -> Any:
        u = run(self.first[0], x)
        features = [run(self.first[1], x)]
        for one, two, link, *_ in self.blocks:
            u = u + product(run(two, elu(run(one, elu(u)))))
            features.append(link(elu(u)))
        return features

    def beside(self, x: Any, features: Any, run: Any) -> Any:
        u = run(self.first[2], x) + features[0]
        for (*_, one, two), seen in zip(self.blocks, features[1:], strict=True):
            u = u + product(run(two, elu(run(one, elu(u)) + seen)))
        return self.last(elu(u))


class Recurrent(eqx.Module):
    """PixelRNN's layers of row LSTMs with residual connections: see `models/density/pixelrnn.py`."""

    first: tuple[Conv, Conv]
    layers: list[tuple[RowLSTM, Linear]]
    last: tuple[Linear, Linear]

    def __init__(
        self, num_channels: int, num_outputs: int, num_layers: int, num_filters: int, kernel: int, first: int
    ):  # fmt: skip
        n = num_filters
        self.first = masked(first, num_channels + 1, n)
        self.layers = [(RowLSTM(kernel, n), Linear(n, n)) for _ in range(num_layers)]
        self.last = Linear(n, n), Linear(n, num_outputs)

    def above(self, x: Any, run: Any) -> Any:
        return run(self.first[0], x)

    def beside(self, x: Any, features: Any, run: Any) -> Any:
        x = run(self.first[1], x) + features
        for recurrent, up in self.layers:
            x = x + up(run(recurrent, x))
        return self.last[1](jax.nn.relu(self.last[0](jax.nn.relu(x))))


def masked(side: int, num_in: int, num_out: int) -> tuple[Conv, Conv]:
    """The two parts of a square kernel that sees what is above its centre, and what is on its left."""
    half = side // 2
    return Conv(half, side, num_in, num_out, half), Conv(1, half, num_in, num_out)


def at_random(key: Any, net: Any) -> Any:
    """A network as laid out, in which each parameter's standard deviation stands in its place, with normal parameters.

    They are cut from one draw; to compile one for each array takes a minute.
    """
    leaves, tree = jax.tree.flatten(net)
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1])
    return jax.tree.unflatten(tree, [sd * z.reshape(sd.shape) for sd, z in zip(leaves, parts, strict=True)])


def gate(x: Any) -> Any:
    """tanh of the first half of the features times the logistic function of the second."""
    a, b = jnp.split(x, 2, -1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)


def product(x: Any) -> Any:
    """The first half of the features times the logistic function of the second."""
    a, b = jnp.split(x, 2, -1)
    return a * jax.nn.sigmoid(b)


def elu(x: Any) -> Any:
    """elu(x) and elu(-x), side by side."""
    return jax.nn.elu(jnp.concatenate([x, -x], -1))


# ---- heads: what a pixel's outputs say of it -------------------------------------------------------------------------


@dataclass(frozen=True)
class Bit:
    """A pixel is 1 with the probability whose logit is the one output."""

    levels: ClassVar[int] = 2
    num_outputs: ClassVar[int] = 1

    def inputs(self, x: Any) -> Any:
        return 2 * x - 1

    def log_prob(self, outputs: Any, x: Any) -> Any:
        return bits_log_prob(outputs, x)

    def draw(self, outputs: Any, uniform: Any, value: Any, known: Any) -> Any:
        return jnp.where(known, value, (uniform < jax.nn.sigmoid(outputs)).astype(value.dtype))


@dataclass(frozen=True)
class Symbols:
    """A pixel is one of so many symbols, which have no order: the outputs are the logits of each."""

    levels: int

    @property
    def num_outputs(self) -> int:
        return self.levels

    def inputs(self, x: Any) -> Any:
        return jax.nn.one_hot(x[..., 0].astype(int), self.levels)

    def log_prob(self, outputs: Any, x: Any) -> Any:
        return (jax.nn.log_softmax(outputs) * self.inputs(x)).sum(-1)

    def draw(self, outputs: Any, uniform: Any, value: Any, known: Any) -> Any:
        drawn = jnp.sum(uniform >= jnp.cumsum(jax.nn.softmax(outputs))[:-1])
        return jnp.where(known, value, drawn.astype(value.dtype))


@dataclass(frozen=True)
class Logistics:
    """A mixture of logistic distributions cut into levels, a channel's mean moved by the channels before it.

    Values are scaled to [-1, 1]. Outputs: for every component of the mixture the logit of its weight, a mean and a log scale a
    channel, and a coefficient for every pair of channels.
    """

    levels: int
    num_channels: int
    num_components: int

    @property
    def num_outputs(self) -> int:
        return self.num_components * (1 + 2 * self.num_channels + len(self._pairs))

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        return [(c, j) for c in range(self.num_channels) for j in range(c)]

    def _channel(self, outputs: Any, c: int, x: Any) -> tuple[Any, Any]:
        """Means and inverse scales of channel c, given the values x (..., channel) of those before it: (..., component)."""
        n = self.num_channels
        means, log_scales, coefficients = (
            outputs[..., 1 + c],
            outputs[..., 1 + n + c],
            jnp.tanh(outputs[..., 1 + 2 * n :]),
        )
        for i, (of, before) in enumerate(self._pairs):
            if of == c:
                means = means + coefficients[..., i] * self.inputs(x[..., before, None])
        return means, jnp.exp(-jnp.maximum(log_scales, -7.0))

    def inputs(self, x: Any) -> Any:
        return 2 * x / (self.levels - 1) - 1

    def _terms(self, outputs: Any, c: int, x: Any) -> Any:
        """log p of channel c in every component: (..., component).

        sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - e^(b - a)) between the lowest and the highest level.
        """
        means, inverse = self._channel(outputs, c, x)
        level, half = x[..., c, None], 1 / (self.levels - 1)
        away = self.inputs(level) - means
        low, high = level <= 0, level >= self.levels - 1
        below = jnp.where(high, 0.0, jax.nn.log_sigmoid((away + half) * inverse))
        above = jnp.where(low, 0.0, jax.nn.log_sigmoid((half - away) * inverse))
        return below + above + jnp.where(low | high, 0.0, jnp.log(-jnp.expm1(-2 * half * inverse)))

    def _components(self, outputs: Any) -> Any:
        return outputs.reshape(*outputs.shape[:-1], self.num_components, -1)

    def log_prob(self, outputs: Any, x: Any) -> Any:
        outputs = self._components(outputs)
        terms = sum(self._terms(outputs, c, x) for c in range(self.num_channels))
        return jax.nn.logsumexp(jax.nn.log_softmax(outputs[..., 0]) + terms, -1)

    def draw(self, outputs: Any, uniform: Any, value: Any, known: Any) -> Any:
        """By the inverse of the distribution function, a channel after the other: each makes components more or less probable."""
        outputs = self._components(outputs)
        weights, x = outputs[..., 0], jnp.zeros_like(value)
        edges = self.inputs(jnp.arange(self.levels - 1) + 0.5)
        for c in range(self.num_channels):
            means, inverse = self._channel(outputs, c, x)
            below = jax.nn.sigmoid((edges[:, None] - means) * inverse) @ jax.nn.softmax(weights)
            x = x.at[c].set(jnp.where(known[c], value[c], jnp.sum(uniform[c] >= below)))
            weights = weights + self._terms(outputs, c, x)
        return x


# ---- checks ------------------------------------------------------------------------------------------------------


def check_kernels(**sizes: int) -> None:
    """ValueError for a kernel whose side is not odd, 3 or more."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 3 or size % 2 == 0:
            raise ValueError(f"{name} is {size!r}; expected the side of a kernel: an odd number, 3 or more.")


def check_pictures(x: Any, channels: bool = False) -> None:
    """ValueError for rows that are not pictures (row, height, width), or with `channels` (row, height, width, channel)."""
    if x.ndim != 3 and not (channels and x.ndim == 4):
        wanted = "(row, height, width)" + (" or (row, height, width, channel)" if channels else "")
        raise ValueError(f"The data have shape {x.shape}; expected pictures {wanted}. Reshape them.")
