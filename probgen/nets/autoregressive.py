"""Autoregressive distributions of bits and levels: densities in one pass, draws one unit after the other from what is kept.

    p(x) = prod_i p(x_i | x_j for all j before i),   in an order that the network has

A network is a pytree of parameters with the methods of `Vector`, for vectors of bits, or of `probgen.nets.pixels.Picture`.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from numpyro.distributions import Distribution, constraints
from tqdm.auto import tqdm

from probgen import watch
from probgen.distributions.flags import dependent_property

CHUNK = 256  # points that are drawn at once
BLOCK = 14  # of NADE's inputs, from the hidden units before the first of which those of the others are computed at once
AT_ONCE = contextvars.ContextVar("rows at once", default=False)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """While code of one row is traced under `jax.vmap`: networks may then work on all rows in products of whole matrices."""
    token = AT_ONCE.set(True)
    try:
        yield
    finally:
        AT_ONCE.reset(token)


class Autoregressive(Distribution):
    """The distribution that a network's conditionals make, as a NumPyro one."""

    pytree_data_fields = ("net",)

    def __init__(self, net: Any, *, validate_args: bool | None = None):
        self.net = net
        super().__init__((), net.shape, validate_args=validate_args)

    @dependent_property(is_discrete=True)
    def support(self) -> Any:
        levels = self.net.levels
        unit = constraints.boolean if levels == 2 else constraints.integer_interval(0, levels - 1)
        return constraints.independent(unit, len(self.event_shape))

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """log p of points (*batch, *event), in nats: (*batch,)."""
        value = jnp.asarray(value, jnp.result_type(float))
        batch = value.shape[: value.ndim - self.event_dim]
        if not batch:
            return self.net.log_prob(value) if AT_ONCE.get() else _log_prob(self.net, value)
        return _log_probs(self.net, value.reshape(-1, *self.event_shape)).reshape(batch)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """New points, `CHUNK` at once, with a bar where that takes long on a terminal: (*sample_shape, *event)."""
        if not sample_shape:
            return _sample(self.net, key[None])[0]
        count = math.prod(sample_shape)
        keys = jax.random.split(key, count)
        if not isinstance(keys, Tracer) and count > CHUNK:
            keys = jnp.concatenate([keys, keys[: -count % CHUNK]])  # so that one compiled function serves
            parts = tqdm(range(0, count, CHUNK), desc="sample", unit="chunk", delay=1, disable=watch.unseen())
            drawn = jnp.concatenate([_sample(self.net, keys[start : start + CHUNK]) for start in parts])[:count]
        else:
            drawn = _sample(self.net, keys)
        return drawn.reshape(*sample_shape, *self.event_shape)

    def complete(self, key: Any, value: Any, known: Any) -> Any:
        """A draw whose known coordinates keep their value, the others drawn in the network's order given all before them.

        value, known (booleans): arrays of the event's shape; what is not known may be NaN. From p(unknown | known) where
        `exact(known)`; else what is known of later coordinates does not bear on the draws of earlier ones.
        """
        for name, given in (("value", value), ("known", known)):
            if jnp.shape(given) != self.event_shape:
                raise ValueError(
                    f"{name} has shape {jnp.shape(given)}; expected that of one point, {self.event_shape}."
                )
        return _complete(self.net, key, value, jnp.asarray(known, bool))

    def exact(self, known: Any) -> Any:
        """Whether the known coordinates come before all unknown ones, in every order of the network: a boolean, ()."""
        ordered = jnp.broadcast_to(jnp.asarray(known, bool), self.event_shape).reshape(-1)[self.net.orders]
        return (ordered[:, :-1] >= ordered[:, 1:]).all()


@jax.jit
def _log_prob(net: Any, value: Any) -> Any:
    return net.log_prob(value)


@jax.jit
def _log_probs(net: Any, values: Any) -> Any:
    with at_once():
        return jax.vmap(net.log_prob)(values)


@jax.jit
def _complete(net: Any, key: Any, value: Any, known: Any) -> Any:
    value = jnp.where(known, value, 0).astype(jnp.result_type(float))
    return net.complete(key, value, known)


@jax.jit
def _sample(net: Any, keys: Any) -> Any:
    nothing = jnp.zeros(net.shape), jnp.zeros(net.shape, bool)
    return jax.vmap(lambda key: net.complete(key, *nothing))(keys)


def check_sizes(**sizes: int) -> None:
    """ValueError for a setting that is not a whole number of 1 or more."""
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} is {size!r}; expected a whole number, 1 or more.")


def bits_log_prob(logits: Any, x: Any) -> Any:
    """log p of bits given the logits of being 1, in nats, one by one."""
    return x * logits - jax.nn.softplus(logits)


# ---- vectors of bits ---------------------------------------------------------------------------------------------


class Vector(eqx.Module):
    """Conditionals of the bits of a vector (dim,).

    logits: of all bits, given the bits before each, in one pass. The same, a bit at a time: `begin` gives what is kept at first,
    `logit` the logit of coordinate j, the i-th in the order, and `put` what is kept once that bit is known.
    """

    levels = 2

    @property
    def shape(self) -> tuple[int]:
        raise NotImplementedError

    @property
    def orders(self) -> np.ndarray:
        """The orders, all as probable: (order, dim), orders[m, i] the coordinate that comes i-th."""
        return np.arange(self.shape[0], dtype=np.int32)[None]

    def logits(self, x: Any) -> Any:
        raise NotImplementedError

    def begin(self) -> Any:
        raise NotImplementedError

    def logit(self, kept: Any, i: Any, j: Any) -> Any:
        raise NotImplementedError

    def put(self, kept: Any, i: Any, j: Any, bit: Any) -> Any:
        raise NotImplementedError

    def log_prob(self, x: Any) -> Any:
        return bits_log_prob(self.logits(x), x).sum()

    def order(self, key: Any, value: Any, known: Any) -> Any:
        """The order of one draw: (dim,)."""
        return jnp.asarray(self.orders[0])

    def complete(self, key: Any, value: Any, known: Any) -> Any:
        k_order, k_bits = jax.random.split(key)
        order, uniform = self.order(k_order, value, known), jax.random.uniform(k_bits, self.shape)

        def step(kept: Any, at: Any) -> tuple[Any, Any]:
            i, j, u = at
            drawn = (u < jax.nn.sigmoid(self.logit(kept, i, j))).astype(value.dtype)
            bit = jnp.where(known[j], value[j], drawn)
            return self.put(kept, i, j, bit), bit

        bits = lax.scan(step, self.begin(), (jnp.arange(len(order), dtype=jnp.int32), order, uniform))[1]
        return bits if len(self.orders) == 1 else jnp.zeros_like(bits).at[order].set(bits)


class SigmoidBelief(Vector):
    """logit_i = b_i + sum_{j < i} W_ij x_j. W: (dim, dim), of which the part below the diagonal counts; b: (dim,).

    Kept: the sums so far.
    """

    W: Any
    b: Any

    @property
    def shape(self) -> tuple[int]:
        return self.b.shape

    def logits(self, x: Any) -> Any:
        return self.b + jnp.tril(self.W, -1) @ x

    def begin(self) -> Any:
        return self.b

    def logit(self, kept: Any, i: Any, j: Any) -> Any:
        return kept[j]

    def put(self, kept: Any, i: Any, j: Any, bit: Any) -> Any:
        return kept + jnp.where(jnp.arange(len(self.b)) > j, self.W[:, j], 0) * bit


class Nade(Vector):
    """h_i = sigmoid(c + sum_{j < i} W_j x_j), logit_i = b_i + V_i' h_i. W, V: (dim, hidden), b: (dim,), c: (hidden,).

    Kept: c + sum_{j < i} W_j x_j, from which the one pass over a row works as well, in time of dim times hidden.
    """

    W: Any
    V: Any
    b: Any
    c: Any

    @property
    def shape(self) -> tuple[int]:
        return self.b.shape

    def logits(self, x: Any) -> Any:
        """By blocks of inputs, of which the gradient computes the hidden units anew: to keep them all takes twice the time."""
        dim, num_blocks = len(x), -(-len(x) // BLOCK)
        before = jnp.tril(jnp.ones((BLOCK, BLOCK), x.dtype), -1)

        @jax.checkpoint
        def step(kept: Any, at: Any) -> tuple[Any, Any]:
            w, v, bits = at
            return kept + bits @ w, (jax.nn.sigmoid(kept + (before * bits) @ w) * v).sum(-1)

        def blocks(a: Any) -> Any:
            padded = jnp.pad(a, [(0, num_blocks * BLOCK - dim), *[(0, 0)] * (a.ndim - 1)])
            return padded.reshape(num_blocks, BLOCK, *a.shape[1:])

        return self.b + lax.scan(step, self.c, (blocks(self.W), blocks(self.V), blocks(x)))[1].reshape(-1)[:dim]

    def begin(self) -> Any:
        return self.c

    def logit(self, kept: Any, i: Any, j: Any) -> Any:
        return self.b[j] + self.V[j] @ jax.nn.sigmoid(kept)

    def put(self, kept: Any, i: Any, j: Any, bit: Any) -> Any:
        return kept + self.W[j] * bit


class Made(Vector):
    """A perceptron whose weights are masked, so that output j sees no input but those before j: a mixture over its orders.

    weights: (width, dim), then (width, width) for each further hidden layer, at last (dim, width); biases to match. Unit k of
    every hidden layer has a degree, evenly spaced from 1 to dim - 1: it sees the units of the layer below of that degree and
    less, inputs by their place in the order, and output j sees the units of a degree below the place of j. direct: (dim, dim), of
    which output j sees the inputs before it; None for no direct connections.

    Kept: the first layer's sums, the outputs' sums of what they see directly, and the values of the hidden units that are settled.
    A unit is settled when the bit of its degree is known, and is zero until then, which does the work of the masks; every weight
    is used once a draw.
    """

    weights: list[Any]
    biases: list[Any]
    direct: Any = None
    num_orders: int = eqx.field(static=True, default=1)
    natural: bool = eqx.field(static=True, default=True)

    @property
    def shape(self) -> tuple[int]:
        return self.biases[-1].shape

    @property
    def orders(self) -> np.ndarray:
        return _orders(self.shape[0], self.num_orders, self.natural)

    @property
    def degrees(self) -> np.ndarray:
        width, dim = len(self.biases[0]), self.shape[0]
        return (1 + np.arange(width) * max(dim - 1, 1) // width).astype(np.int32)

    def logits(self, x: Any, order: Any = None) -> Any:
        """In the order given, by default the first."""
        place = 1 + np.argsort(self.orders[0] if order is None else order).astype(np.int32)
        degree = self.degrees
        below = [place] + [degree] * (len(self.weights) - 1)
        seen = 0.0 if self.direct is None else jnp.where(place[:, None] > place, self.direct, 0) @ x
        for layer, (W, b) in enumerate(zip(self.weights[:-1], self.biases[:-1], strict=True)):
            x = jax.nn.relu(jnp.where(degree[:, None] >= below[layer], W, 0) @ x + b)
        return jnp.where(place[:, None] > degree, self.weights[-1], 0) @ x + self.biases[-1] + seen

    def log_prob(self, x: Any) -> Any:
        each = [bits_log_prob(self.logits(x, order), x).sum() for order in self.orders]
        return each[0] if len(each) == 1 else jax.nn.logsumexp(jnp.stack(each)) - math.log(len(each))

    def order(self, key: Any, value: Any, known: Any) -> Any:
        """One of the orders, as probable as what is known before the first unknown coordinate of each makes it."""
        if self.num_orders == 1:
            return jnp.asarray(self.orders[0])

        def seen(order: np.ndarray) -> Any:
            first = jnp.cumprod(known[order])[np.argsort(order)]
            return (first * bits_log_prob(self.logits(value, order), value)).sum()

        return jnp.asarray(self.orders)[jax.random.categorical(key, jnp.stack([seen(order) for order in self.orders]))]

    def begin(self) -> Any:
        return self.biases[0], self.biases[-1], [jnp.zeros_like(b) for b in self.biases[:-1]]

    def logit(self, kept: Any, i: Any, j: Any) -> Any:
        return self.weights[-1][j] @ kept[-1][-1] + kept[1][j]

    def put(self, kept: Any, i: Any, j: Any, bit: Any) -> Any:
        sums, seen, values = kept
        sums = sums + self.weights[0][:, j] * bit
        seen = seen if self.direct is None else seen + self.direct[:, j] * bit
        degrees = self.degrees
        size = int(np.bincount(degrees).max())
        starts = np.searchsorted(degrees, 1 + np.arange(self.shape[0]))
        start = jnp.asarray(np.minimum(starts, len(degrees) - size).astype(np.int32))[i]  # the last has no units
        own = lambda array: lax.dynamic_slice_in_dim(array, start, size)  # noqa: E731  of the units of degree i + 1
        settled, total, new = own(jnp.asarray(degrees)) == i + 1, own(sums), []
        for layer, value in enumerate(values):
            if layer:
                total = own(self.weights[layer]) @ new[-1] + own(self.biases[layer])
            fresh = jnp.where(settled, jax.nn.relu(total), own(value))
            new.append(lax.dynamic_update_slice_in_dim(value, fresh, start, 0))
        return sums, seen, new


@functools.lru_cache(maxsize=16)
def _orders(dim: int, count: int, natural: bool) -> np.ndarray:
    """Orders at random, the same every time, the first of them the natural one where that is asked for: (count, dim)."""
    rng = np.random.default_rng(0)
    first = [np.arange(dim)] if natural else []
    return np.stack(first + [rng.permutation(dim) for _ in range(count - len(first))]).astype(np.int32)
