"""The guide of a Pyro program that comes without one: independent normals, their means and scales a perceptron of the row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from probgen.nets.pyro_modules import perceptron, registered


@dataclass(frozen=True)
class Encoder:
    """q(h | x) = N(A u + m(u), s(u)^2),   u = (x - shift) * scale, m and log s a perceptron with one hidden layer.

    sites: names and shapes of what is hidden; rows: keywords of what is seen.
    """

    sites: tuple[tuple[str, tuple[int, ...]], ...]
    rows: tuple[str, ...]
    width: int = 256

    def __call__(self, **data: Any) -> None:
        x = self._flat(data)
        size = sum(math.prod(shape) for _, shape in self.sites)
        shift = pyro.param("encoder shift", lambda: torch.zeros(x.shape[1]))
        scale = pyro.param("encoder scale", lambda: torch.ones(()))
        linear = registered("encoder linear", nn.Linear, x.shape[1], size)
        net = registered("encoder", perceptron, x.shape[1], 2 * size, self.width, 1)
        u = (x - shift) * scale
        mean, log_sd = net(u).chunk(2, -1)
        mean, sd, start = mean + linear(u), nn.functional.softplus(log_sd + 0.5), 0
        with pyro.plate("row", len(x)):
            for name, shape in self.sites:
                stop = start + math.prod(shape)
                q = dist.Normal(mean[:, start:stop].reshape(-1, *shape), sd[:, start:stop].reshape(-1, *shape))
                pyro.sample(name, q.to_event(len(shape)))
                start = stop

    def _flat(self, data: Mapping[str, Any]) -> torch.Tensor:
        return torch.cat([data[k].reshape(len(data[k]), -1).to(torch.get_default_dtype()) for k in self.rows], 1)

    def begin(self, rows: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Where parameters begin that depend on the data: rows come in with mean 0 and, over all, sd 1."""
        x = torch.cat([v.reshape(len(v), -1).float() for v in rows.values()], 1)
        mean = x.mean(0)
        return {"encoder shift": mean, "encoder scale": 1 / ((x - mean).square().mean().sqrt() + 1e-6)}

    @property
    def __name__(self) -> str:
        return "encoder"
