"""The guide of a program that comes without one: independent normals, their means and scales a perceptron of the row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.module import eqx_module


@dataclass(frozen=True)
class Encoder:
    """q(h | x) = N(A u + m(u), s(u)^2),   u = (x - shift) * scale, m and log s a perceptron with one hidden layer.

    sites: names and shapes of what is hidden; rows: keywords of what is seen.
    """

    sites: tuple[tuple[str, tuple[int, ...]], ...]
    rows: tuple[str, ...]
    width: int = 256

    def __call__(self, **data: Any) -> None:
        x = jnp.concatenate([jnp.ravel(data[k]).astype(jnp.result_type(float)) for k in self.rows])
        shift: Any = numpyro.param("encoder shift", jnp.zeros(x.shape))
        scale: Any = numpyro.param("encoder scale", jnp.ones(()))
        size = sum(math.prod(shape) for _, shape in self.sites)
        key: Any = numpyro.prng_key()
        k_linear, k_net = jax.random.split(key)
        linear: Any = eqx_module("encoder linear", eqx.nn.Linear(x.size, size, key=k_linear))
        net: Any = eqx_module("encoder", eqx.nn.MLP(x.size, 2 * size, self.width, 1, key=k_net))
        u = (x - shift) * scale
        mean, log_sd = jnp.split(net(u), 2)
        mean, sd, start = mean + linear(u), jax.nn.softplus(log_sd + 0.5), 0
        for name, shape in self.sites:
            stop = start + math.prod(shape)
            q = dist.Normal(mean[start:stop].reshape(shape), sd[start:stop].reshape(shape))
            numpyro.sample(name, q.to_event(len(shape)))
            start = stop

    def begin(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Where parameters begin that depend on the data: rows come in with mean 0 and, over all, sd 1."""
        x = jnp.concatenate([arrays[k].reshape(len(arrays[k]), -1).astype(float) for k in self.rows], axis=1)
        mean = x.mean(0)
        return {"encoder shift": mean, "encoder scale": 1 / (jnp.sqrt(((x - mean) ** 2).mean()) + 1e-6)}

    @property
    def __name__(self) -> str:
        return "encoder"
