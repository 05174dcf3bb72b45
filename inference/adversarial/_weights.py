"""Weights of networks, by their labels: their largest singular values, their scales, and how far columns are from orthogonal.

A weight is an array with two axes or more, taken as a matrix (outputs, inputs) whose first axis is the outputs', as layers have it.
Sources: Miyato et al. 2018 (spectral norm), Karras et al. 2018 (equalised learning rates), Brock et al. 2019 (orthogonality).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

TINY = 1e-12  # below which a norm counts as that


def _matrix(weight: Any) -> Any:
    return weight.reshape(weight.shape[0], -1)


def _unit(x: Any) -> Any:
    return x / jnp.maximum(jnp.linalg.norm(x), TINY)


def first_vectors(key: Any, parameters: Any) -> dict[str, Any]:
    """A random unit vector (outputs,) for every weight."""
    weights = {k: v for k, v in sorted(parameters.items()) if v.ndim >= 2}
    keys = jax.random.split(key, max(len(weights), 1))
    return {k: _unit(jax.random.normal(keys[i], v.shape[:1], v.dtype)) for i, (k, v) in enumerate(weights.items())}


def iterated(parameters: Any, vectors: Any) -> dict[str, Any]:
    """The vectors after one power iteration; none of it is differentiated."""
    still = {k: jax.lax.stop_gradient(_matrix(parameters[k])) for k in vectors}
    return {k: _unit(w @ _unit(w.T @ vectors[k])) for k, w in still.items()}


def divided(parameters: Any, vectors: Any) -> dict[str, Any]:
    """The parameters, weights with a vector divided by u' W v, which is their largest singular value once u has come to rest."""
    found = dict(parameters)
    for k, u in vectors.items():
        v = jax.lax.stop_gradient(_unit(_matrix(parameters[k]).T @ u))
        found[k] = parameters[k] / jnp.maximum(u @ _matrix(parameters[k]) @ v, TINY)
    return found


def _scale(weight: Any) -> float:
    return math.sqrt(2 * weight.shape[0] / weight.size) if weight.ndim >= 2 else 1.0


def equalised(key: Any, parameters: Any) -> dict[str, Any]:
    """Weights drawn anew from N(0, 2 / inputs), others as they are."""
    keys = jax.random.split(key, max(len(parameters), 1))
    drawn = lambda k, v: _scale(v) * jax.random.normal(k, v.shape, v.dtype) if v.ndim >= 2 else v  # noqa: E731
    return {name: drawn(k, parameters[name]) for k, name in zip(keys, sorted(parameters), strict=True)}


def scaled(updates: Any) -> Any:
    """Steps of weights in units of sqrt(2 / inputs): of Adam, those of weights that are multiplied by it as the network runs."""
    return jax.tree.map(lambda u: u * _scale(u), updates)


def off_diagonal(parameters: Any) -> Any:
    """sum over weights W of |W W' * (1 - I)|^2, W (outputs, inputs): how far from orthogonal the outputs' rows are."""

    def one(weight: Any) -> Any:
        w = _matrix(weight)
        products = w @ w.T
        return jnp.sum((products * (1 - jnp.eye(len(w), dtype=w.dtype))) ** 2)

    return sum((one(w) for w in parameters.values() if w.ndim >= 2), jnp.zeros(()))
