"""Small networks in Equinox, smooth in their inputs: functions of one point, for `numpyro.contrib.module.eqx_module`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp


def mlp(key: Any, num_inputs: int, width: int = 128, depth: int = 2) -> eqx.nn.MLP:
    """A multilayer perceptron (num_inputs,) -> (), with `depth` hidden layers of swish units."""
    return eqx.nn.MLP(num_inputs, "scalar", width, depth, activation=jax.nn.swish, key=key)


class ConvNet(eqx.Module):
    """Convolutions of stride 2 with swish units, then a linear sum: (channel, height, width) -> ()."""

    layers: list[eqx.nn.Conv2d]
    last: eqx.nn.Linear

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = jax.nn.swish(layer(x))
        return self.last(jnp.ravel(x))


def conv(key: Any, shape: tuple[int, int, int], widths: tuple[int, ...] = (32, 64)) -> ConvNet:
    """A convolutional network of images (channel, height, width) -> (), with a layer of each width."""
    keys = jax.random.split(key, len(widths) + 1)
    channels, height, width = shape
    layers = []
    for k, count in zip(keys, widths, strict=False):
        layers.append(eqx.nn.Conv2d(channels, count, 3, stride=2, padding=1, key=k))
        channels, height, width = count, (height + 1) // 2, (width + 1) // 2
    return ConvNet(layers, eqx.nn.Linear(channels * height * width, "scalar", key=keys[-1]))
