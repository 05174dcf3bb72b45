"""Small networks in Equinox, smooth in their inputs: functions of one point, for `numpyro.contrib.module.eqx_module`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax


def mlp(key: Any, num_inputs: int, width: int = 128, depth: int = 2) -> eqx.nn.MLP:
    """A multilayer perceptron (num_inputs,) -> (), with `depth` hidden layers of swish units."""
    return eqx.nn.MLP(num_inputs, "scalar", width, depth, activation=jax.nn.swish, key=key)
