"""The critic of rows that comes with none of its own, in torch: the twin of `critic`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from probgen.nets.pyro_modules import registered


@dataclass(frozen=True)
class Critic:
    """D(x), (row,): three hidden layers of leaky relus for vectors; for pictures, convolutions that halve the sides.

    rows: keywords of what is seen; a picture is an array with two axes of at least 8, or three, the last its channels. Other
    arrays, such as inputs, are seen beside it at the last layer.
    """

    rows: tuple[str, ...]
    width: int = 128
    num_filters: int = 32

    def __call__(self, **data: Any) -> Any:
        arrays = [torch.as_tensor(data[k]).to(torch.get_default_dtype()) for k in self.rows]
        pictures = [x[..., None] if x.dim() == 3 else x for x in arrays if _is_picture(x)]
        flat = [x.flatten(1) if x.dim() > 1 else x[:, None] for x in arrays if not _is_picture(x)]
        if pictures:
            x = pictures[0].movedim(-1, 1)  # a view whose channels are last in memory, as they are
            net = registered("critic pictures", convolutions, tuple(x.shape[1:]), self.num_filters)
            flat = [*flat, net(x).flatten(1), *(x.flatten(1) for x in pictures[1:])]
        seen = torch.cat(flat, 1)
        return registered("critic", leaky_perceptron, seen.shape[1], 1, self.width, 1 if pictures else 3)(seen)[:, 0]

    @property
    def __name__(self) -> str:
        return "critic"


def _is_picture(x: torch.Tensor) -> bool:
    return x.dim() == 4 or (x.dim() == 3 and min(x.shape[1:]) >= 8)


def convolutions(shape: tuple[int, int, int], num_filters: int) -> nn.Module:
    """Pictures (row, channel, height, width) -> features, by convolutions of side 4 that halve the sides up to three times."""
    halvings = max(n for n in range(4) if all(side % 2**n == 0 and side >= 2**n for side in shape[1:]))
    layers: list[nn.Module] = []
    before = shape[0]
    for i in range(max(halvings, 1)):
        layers += [
            nn.Conv2d(before, num_filters * 2**i, 4, 2, 1) if halvings else nn.Conv2d(before, num_filters, 3, 1, 1)
        ]
        layers.append(nn.LeakyReLU(0.2))
        before = num_filters * 2**i
    return nn.Sequential(*layers)


def leaky_perceptron(num_inputs: int, num_outputs: int, width: int, depth: int) -> nn.Module:
    """A perceptron (row, num_inputs) -> (row, num_outputs) with `depth` hidden layers of leaky relus."""
    sizes = [num_inputs, *[width] * depth, num_outputs]
    layers: list[nn.Module] = []
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.LeakyReLU(0.2)] if i else []
        layers.append(nn.Linear(n, m))
    return nn.Sequential(*layers)
