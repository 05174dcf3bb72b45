"""Critics of pictures: convolutions that halve the sides, and what they say at the end.

Shapes: pictures (height, width, channel) from -1 to 1.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.adversarial.layers import Halve
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
