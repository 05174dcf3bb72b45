"""Critics of pictures: convolutions that halve the sides, and what they say at the end.

Shapes: pictures (height, width, channel) from -1 to 1.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.adversarial.layers import Halve, Same
from probgen.nets.convolutions import leaky
from probgen.nets.flows import registered


def trunk(num_in: int, halvings: int, num_filters: int, key: Any) -> eqx.nn.Sequential:
    """Convolutions of side 4 that halve the sides, with twice as many filters each time."""
    layers, filters = [], [num_in] + [num_filters * 2**i for i in range(halvings)]
    for i, k in enumerate(jax.random.split(key, halvings)):
        layers += [Halve(filters[i], filters[i + 1], key=k), leaky]
    return eqx.nn.Sequential(layers)


def features(name: str, x: Any, halvings: int, num_filters: int) -> Any:
    """A picture's features: (feature,)."""
    return registered(name, lambda key: trunk(x.shape[-1], halvings, num_filters, key))(x).ravel()


def score(name: str, seen: Any, width: int = 0) -> Any:
    """A number of features (feature,): linear, or through one hidden layer."""
    depth = 1 if width else 0
    net = registered(name, lambda key: eqx.nn.MLP(seen.size, "scalar", max(width, 1), depth, leaky, key=key))
    return net(jnp.ravel(seen))


def patches(name: str, x: Any, num_filters: int) -> Any:
    """A logit for every patch of a picture, which overlap: (height / 2, width / 2)."""

    def make(key: Any) -> eqx.nn.Sequential:
        k_down, k_wide, k_last = jax.random.split(key, 3)
        wide = Same(num_filters, 2 * num_filters, key=k_wide)
        return eqx.nn.Sequential(
            [Halve(x.shape[-1], num_filters, key=k_down), leaky, wide, leaky, Same(2 * num_filters, 1, 1, key=k_last)]
        )

    return registered(name, make)(x)[..., 0]


def summed(name: str, x: Any, halvings: int, num_filters: int) -> Any:
    """A picture's features, summed over places: (feature,)."""
    return registered(name, lambda key: trunk(x.shape[-1], halvings, num_filters, key))(x).sum((0, 1))
