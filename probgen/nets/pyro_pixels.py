"""Pictures of bits one pixel after the other, in torch: masked convolutions in two stacks, and their distribution.

    log p(x) = sum over pixels, row by row, of log p(x_ij | the rows above, the pixels to the left)

The vertical stack sees all rows above, the horizontal one the pixels to the left and the vertical stack, so that nothing in the
field of view is blind. A pixel depends on a window about it alone, of `reach` pixels to all sides: drawing takes time in
proportion to the number of pixels. Van den Oord et al. 2016 (arXiv:1606.05328).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import nn
from torch.distributions import constraints
from torch.nn.functional import pad
from tqdm.auto import tqdm

from probgen import watch


class Layer(nn.Module):
    """One gated layer of both stacks: (row, filter, height, width) twice -> the same.

    first: whether it looks at the picture, and so not at the pixel itself or its row.
    """

    def __init__(self, num_inputs: int, num_filters: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.vertical = nn.Conv2d(num_inputs, 2 * num_filters, (2, 3))
        self.horizontal = nn.Conv2d(num_inputs, 2 * num_filters, (1, 2))
        self.down = nn.Conv2d(2 * num_filters, 2 * num_filters, 1)
        self.out = nn.Conv2d(num_filters, num_filters, 1)

    def forward(self, v: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        back = 2 if self.first else 1  # rows above, columns to the left
        above, left = pad(v, (1, 1, back, 0)), pad(h, (back, 0, 0, 0))
        new_v = self.vertical(above[..., : v.shape[2] + 1, :])
        new_h = self.horizontal(left[..., : h.shape[3] + 1]) + self.down(new_v)
        v, gated = _gate(new_v), self.out(_gate(new_h))
        return v, gated if self.first else h + gated


def _gate(x: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


class Stacks(nn.Module):
    """Logits of all pixels, each given those before it: (row, height, width) -> (row, height, width)."""

    def __init__(self, num_layers: int, num_filters: int) -> None:
        super().__init__()
        for label, size in (("layers", num_layers), ("filters", num_filters)):
            if size < 1:
                raise ValueError(f"num_{label} is {size}; it must be at least 1.")
        inputs = [2, *[num_filters] * (num_layers - 1)]
        self.layers = nn.ModuleList(Layer(n, num_filters, first=i == 0) for i, n in enumerate(inputs))
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(num_filters, num_filters, 1), nn.ReLU(), nn.Conv2d(num_filters, 1, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dtype: Any = self.head[1].weight.dtype
        picture = x.to(dtype).unsqueeze(1)  # beside it, where there is a picture at all
        v = h = torch.cat([picture, torch.ones_like(picture)], 1).contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            v, h = layer(v, h)
        return self.head(h).squeeze(1)


class Pixels(TorchDistribution):
    """Pictures of bits whose net gives the logits of all pixels, each given those before it.

    net: (row, height, width) -> (row, height, width). shape: (height, width). reach: beyond so many pixels above, or to a side,
    nothing changes a logit.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support: Any = constraints.independent(constraints.boolean, 2)

    def __init__(
        self, net: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...], reach: int, batch: Any = ()
    ):
        self.net, self.reach = net, reach
        super().__init__(torch.Size(batch), torch.Size(shape), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Pixels:
        del _instance
        return Pixels(self.net, tuple(self.event_shape), self.reach, batch_shape)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        rows = value.reshape(-1, *self.event_shape)
        logits = self.net(rows)
        terms = -nn.functional.softplus(torch.where(rows > 0.5, -logits, logits))
        return (
            terms.sum((1, 2))
            .reshape(value.shape[:-2])
            .expand(torch.broadcast_shapes(value.shape[:-2], self.batch_shape))
        )

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        shape, (height, width) = (*sample_shape, *self.batch_shape), self.event_shape
        x = torch.zeros(int(torch.Size(shape).numel()), height, width)
        pixels = [(i, j) for i in range(height) for j in range(width)]
        for i, j in tqdm(pixels, desc="sample", unit="pixel", delay=1, disable=watch.unseen()):
            top, left = max(0, i - self.reach), max(0, j - self.reach)
            logits = self.net(x[:, top : i + 1, left : j + self.reach + 1])
            x[:, i, j] = torch.bernoulli(torch.sigmoid(logits[:, i - top, j - left]))
        return x.reshape(*shape, height, width)
