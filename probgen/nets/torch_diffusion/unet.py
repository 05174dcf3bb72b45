"""A small U-Net of pictures, in torch: what a denoiser says of noisy pictures at given levels of noise.

    down:   two residual blocks a side, then a convolution of stride 2, which halves the sides, rounded up
    up:     the nearest pixel enlarges to the side above, a convolution, two residual blocks with what that side was
    block:  x + conv(silu(norm'(conv(silu(norm(x))))),   norm'(h) = (1 + a) norm(h) + b,   a, b of level and label

Groups of channels are normed, 8 channels each, so that no row changes another. Attention, if any, at the smallest side. A level is
log sigma / alpha, seen by its sines and cosines. Shapes: x: (row, height, width) or (row, height, width, channel); level: (row,);
label: (row,), from 0; below 0 for "no label".
Ho et al. 2020 (arXiv:2006.11239); Ronneberger et al. 2015 (arXiv:1505.04597). Enlarged by the nearest pixel: transposed
convolutions cost twice as much on a CPU, and leave checkerboards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

from probgen.nets.pictures.sizes import FREQUENCIES, GROUP, LONGEST, SHORTEST, check
from probgen.nets.pyro_modules import registered


class Level(nn.Module):
    """Level and label of a row -> (row, width)."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2 * FREQUENCIES, width), nn.Linear(width, width)
        self.label = nn.Embedding(num_classes + 1, width) if num_classes else None

    def forward(self, level: Tensor, label: Tensor | None) -> Tensor:
        steps = torch.linspace(math.log(1 / LONGEST), math.log(1 / SHORTEST), FREQUENCIES).to(level)
        angle = 2 * math.pi * level[:, None] * steps.exp()
        h = self.second(silu(self.first(torch.cat([angle.sin(), angle.cos()], 1))))
        if self.label is None or label is None:
            return silu(h)
        table = self.label.weight
        return silu(h + torch.where(label[:, None] < 0, table[-1], table[:-1][label.clamp(min=0)]))


class Block(nn.Module):
    """A residual block: (row, inputs, height, width), (row, width) -> (row, outputs, height, width)."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.norm, self.norm2 = _norm(inputs), _norm(outputs)
        self.conv, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.level = nn.Linear(width, 2 * outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        _zero(self.conv2)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.level(level)[:, :, None, None].chunk(2, 1)
        h = self.conv(silu(self.norm(x)))
        return self.skip(x) + self.conv2(silu(torch.addcmul(shift, self.norm2(h), 1 + scale)))


class Attention(nn.Module):
    """Every pixel looks at all: (row, channel, height, width) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.ask, self.out = (
            _norm(channels),
            nn.Conv2d(channels, 3 * channels, 1),
            nn.Conv2d(channels, channels, 1),
        )
        _zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.ask(self.norm(x)).flatten(2).mT.chunk(3, -1)  # (row, pixel, channel)
        return x + self.out(scaled_dot_product_attention(q, k, v).mT.reshape(x.shape))


class UNet(nn.Module):
    """The net of pictures of some channels; widths: its channels at each side, the largest side first."""

    def __init__(
        self, channels: int = 1, widths: Sequence[int] = (16, 32, 64), num_blocks: int = 2, num_classes: int = 0,
        attention: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        check(channels, widths, num_blocks, num_classes)
        width = 4 * widths[0]
        self.level, self.enter = Level(width, num_classes), nn.Conv2d(channels, widths[0], 3, padding=1)
        self.num_classes = num_classes
        before = (widths[0], *widths[:-1])
        self.down = nn.ModuleList(_blocks(n, m, num_blocks, width) for n, m in zip(before, widths, strict=True))
        self.halve = nn.ModuleList(nn.Conv2d(n, n, 3, 2, 1) for n in widths[:-1])
        self.look = Attention(widths[-1]) if attention else nn.Identity()
        self.enlarge = nn.ModuleList(nn.Conv2d(m, n, 3, padding=1) for n, m in itertools.pairwise(widths))
        self.up = nn.ModuleList(_blocks(2 * n, n, num_blocks, width) for n in widths[:-1])
        self.norm, self.leave = _norm(widths[0]), nn.Conv2d(widths[0], channels, 3, padding=1)
        _zero(self.leave)

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        if label is None and self.num_classes:
            label = torch.full_like(level, -1, dtype=torch.int64)
        grey = x.dim() == 3
        h = x.unsqueeze(1) if grey else x.movedim(-1, 1)
        h = self.enter(h).contiguous(memory_format=torch.channels_last)
        level, seen = self.level(level, label), []
        for i, blocks in enumerate(self.down):
            if i:
                seen.append(h)
                h = self.halve[i - 1](h)
            h = _through(blocks, h, level)
        h = self.look(h)
        for conv, blocks in zip(reversed(self.enlarge), reversed(self.up), strict=True):
            skip = seen.pop()
            h = conv(interpolate(h, skip.shape[2:]))
            h = _through(blocks, torch.cat([h, skip], 1), level)
        h = self.leave(silu(self.norm(h)))
        return h.squeeze(1) if grey else h.movedim(1, -1)


def pictured(
    name: str, shape: Sequence[int], label: Tensor | None = None, width: int = 16, halvings: int = 2, num_blocks: int = 2,
    num_classes: int = 0, attention: bool = False,
) -> Callable[[Tensor, Tensor], Tensor]:  # fmt: skip
    """A U-Net of pictures of a shape, registered under a name, for rows with labels: (x, level) -> rows like x.

    width: its channels at the largest side, twice as many after each of `halvings`.
    """
    if len(shape) not in (2, 3):
        raise ValueError(
            f"x has rows of shape {tuple(shape)}; expected pictures, (height, width) or (height, width, channel)."
        )
    widths = tuple(width * 2**i for i in range(halvings + 1))
    channels = int(shape[2]) if len(shape) == 3 else 1
    net = registered(name, UNet, channels, widths, num_blocks, num_classes if label is not None else 0, attention)
    return lambda x, level: net((x, level) if label is None else (x, level, label))


def _through(blocks: nn.Module, h: Tensor, level: Tensor) -> Tensor:
    for block in blocks.children():
        h = block(h, level)
    return h


def _blocks(inputs: int, outputs: int, count: int, width: int) -> nn.ModuleList:
    return nn.ModuleList(Block(inputs if i == 0 else outputs, outputs, width) for i in range(count))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // GROUP), channels)


def _zero(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
