"""Layers of multiscale flows of pictures, each with its inverse and its log-Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from flowjax.bijections import AbstractBijection
from flowjax.utils import get_ravelled_pytree_constructor
from jax.scipy.linalg import solve_triangular
from paramax import unwrap

from probgen.nets.convolutions import Conv

Shape = tuple[int, int, int]


class Squeeze(eqx.Module):
    """2 x 2 pixels into four times the channels: (height, width, channel) -> (height / 2, width / 2, 4 channel)."""

    shape: Shape

    def transform(self, x: Any) -> Any:
        return self.transform_and_log_det(x)[0]

    def transform_and_log_det(self, x: Any) -> tuple[Any, Any]:
        height, width, channel = self.shape
        x = x.reshape(height // 2, 2, width // 2, 2, channel)
        return x.transpose(0, 2, 1, 3, 4).reshape(squeezed(self.shape)), 0.0

    def inverse_and_log_det(self, y: Any) -> tuple[Any, Any]:
        height, width, channel = self.shape
        y = y.reshape(height // 2, width // 2, 2, 2, channel)
        return y.transpose(0, 2, 1, 3, 4).reshape(self.shape), 0.0


class ActNorm(AbstractBijection):
    """y = (x - mean) / scale, channel by channel; the identity unless `measured`."""

    mean: Any
    log_scale: Any
    shape: tuple[int, ...]
    cond_shape: None = None

    def __init__(self, shape: Shape):
        self.mean, self.log_scale, self.shape = jnp.zeros(shape[2]), jnp.zeros(shape[2]), shape

    def measured(self, batch: Any) -> ActNorm:
        """With the means and standard deviations of a batch: (row, *shape)."""
        pixels = batch.reshape(-1, self.shape[2])
        log_scale = jnp.log(jnp.maximum(pixels.std(0), 1e-3))  # a channel that is constant in the batch may vary later
        return eqx.tree_at(lambda node: (node.mean, node.log_scale), self, (pixels.mean(0), log_scale))

    def _log_det(self) -> Any:
        return -self.shape[0] * self.shape[1] * self.log_scale.sum()

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Any, Any]:
        return (x - self.mean) * jnp.exp(-self.log_scale), self._log_det()

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Any, Any]:
        return y * jnp.exp(self.log_scale) + self.mean, -self._log_det()


class Mix(AbstractBijection):
    """An invertible 1 x 1 convolution, y = P L (U + diag(s)) x in every pixel, with P and the signs of s fixed."""

    order: Any
    positive: Any
    lower: Any
    upper: Any
    log_diagonal: Any
    shape: tuple[int, ...]
    cond_shape: None = None

    def __init__(self, shape: Shape, order: Any, lower: Any, upper: Any):
        self.order, self.lower, self.upper = jnp.asarray(order), jnp.asarray(lower), jnp.asarray(np.triu(upper, 1))
        self.positive = jnp.asarray(np.diag(upper) > 0)
        self.log_diagonal, self.shape = jnp.log(jnp.abs(jnp.asarray(np.diag(upper)))), shape

    def _factors(self) -> tuple[Any, Any]:
        lower = jnp.tril(self.lower, -1) + jnp.eye(len(self.lower))
        diagonal = jnp.where(self.positive, 1, -1) * jnp.exp(self.log_diagonal)
        return lower, jnp.triu(self.upper, 1) + jnp.diag(diagonal)

    def _log_det(self) -> Any:
        return self.shape[0] * self.shape[1] * self.log_diagonal.sum()

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Any, Any]:
        lower, upper = self._factors()
        return x @ (lower @ upper)[self.order].T, self._log_det()

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Any, Any]:
        lower, upper = self._factors()
        columns = y[..., jnp.argsort(self.order)].reshape(-1, len(lower)).T
        columns = solve_triangular(upper, solve_triangular(lower, columns, lower=True, unit_diagonal=True))
        return columns.T.reshape(self.shape), -self._log_det()


class Halves(AbstractBijection):
    """A coupling of channels: the first half stays, the second goes through a transformer whose parameters it decides."""

    net: Any
    transformer: Callable[[Any], Any]
    shape: tuple[int, ...]
    cond_shape: None = None

    def __init__(self, key: Any, shape: Shape, width: int, transformer: AbstractBijection):
        self.transformer, count = get_ravelled_pytree_constructor(transformer, eqx.is_inexact_array)
        first, self.shape = shape[2] // 2, shape
        self.net = Net(key, first, width, (shape[2] - first, count))

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Any, Any]:
        return self._coupled(x, "transform_and_log_det")

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Any, Any]:
        return self._coupled(y, "inverse_and_log_det")

    def _coupled(self, x: Any, direction: str) -> tuple[Any, Any]:
        kept, moved = jnp.split(x, 2, axis=-1)
        moved, log_det = each(self.transformer, self.net(kept), moved, direction)
        return jnp.concatenate([kept, moved], axis=-1), log_det.sum()


class Masked(AbstractBijection):
    """A coupling by a mask: what is in it stays, all else goes through a transformer whose parameters it decides."""

    net: Any
    mask: Any
    transformer: Callable[[Any], Any]
    shape: tuple[int, ...]
    cond_shape: None = None

    def __init__(self, key: Any, mask: Any, width: int, transformer: AbstractBijection):
        self.transformer, count = get_ravelled_pytree_constructor(transformer, eqx.is_inexact_array)
        self.net = Net(key, mask.shape[2], width, (mask.shape[2], count))
        self.mask, self.shape = jnp.asarray(mask), mask.shape

    def transform_and_log_det(self, x: Any, condition: Any = None) -> tuple[Any, Any]:
        return self._coupled(x, "transform_and_log_det")

    def inverse_and_log_det(self, y: Any, condition: Any = None) -> tuple[Any, Any]:
        return self._coupled(y, "inverse_and_log_det")

    def _coupled(self, x: Any, direction: str) -> tuple[Any, Any]:
        moved, log_det = each(self.transformer, self.net(jnp.where(self.mask, x, 0)), x, direction)
        return jnp.where(self.mask, x, moved), jnp.where(self.mask, 0, log_det).sum()


def each(transformer: Callable[[Any], Any], parameters: Any, x: Any, direction: str) -> tuple[Any, Any]:
    """What transformers of one number make of every element of x, and log determinants; parameters: (*x.shape, parameter)."""
    one = lambda own, x: getattr(unwrap(transformer(own)), direction)(x)  # noqa: E731
    y, log_det = jax.vmap(one)(parameters.reshape(-1, parameters.shape[-1]), x.ravel())
    return y.reshape(x.shape), log_det.reshape(x.shape)


class Net(eqx.Module):
    """Convolutions 3 x 3, 1 x 1, 3 x 3 of `width` channels with rectifiers; the last alone where width is 0. It begins at zero.

    (height, width, inputs) -> (height, width, *outputs): channels, and parameters of each.
    """

    layers: list[Conv]
    outputs: tuple[int, int]

    def __init__(self, key: Any, inputs: int, width: int, outputs: tuple[int, int]):
        k_first, k_second, k_last = jax.random.split(key, 3)
        last = Conv(width or inputs, outputs[0] * outputs[1], 3, key=k_last)
        last = jax.tree.map(lambda p: 0 * p if eqx.is_array(p) else p, last)
        inner = [Conv(inputs, width, 3, key=k_first), Conv(width, width, 1, key=k_second)] if width else []
        self.layers, self.outputs = [*inner, last], outputs

    def __call__(self, x: Any) -> Any:
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        x = self.layers[-1](x)
        return x.reshape(*x.shape[:2], *self.outputs)


def squeezed(shape: Shape) -> Shape:
    """The shape behind a squeeze."""
    return shape[0] // 2, shape[1] // 2, 4 * shape[2]


def checkerboard(shape: Shape) -> np.ndarray:
    """True on every other pixel."""
    return np.broadcast_to(np.indices(shape[:2]).sum(0)[..., None] % 2 == 0, shape)


def halves(shape: Shape) -> np.ndarray:
    """True on the first half of the channels."""
    return np.broadcast_to(np.arange(shape[2]) < shape[2] // 2, shape)


def rotation(size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random rotation as rows' order, a lower and an upper triangle: Q = (L U)[order]."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    found: Any = scipy.linalg.lu(q)
    p, lower, upper = found
    return p.argmax(1), lower, upper
