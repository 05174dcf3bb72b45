"""Random changes of pictures in torch: the twin of `probgen.inference.adversarial._augment`, which says what they are.

Shapes: (row, height, width) or (row, height, width, channel).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch


def changed(
    seed: int, points: Mapping[str, torch.Tensor], sites: tuple[str, ...], kind: str
) -> dict[str, torch.Tensor]:
    """Points {site: (row, *event)} with their pictures changed; the same seed changes every batch alike."""
    found = dict(points)
    if kind == "none":
        return found
    for name in sites:
        if points[name].dim() >= 3:
            generator = torch.Generator().manual_seed(seed)
            found[name] = _pictures(generator, points[name], kind)
    return found


def _pictures(generator: torch.Generator, x: torch.Tensor, kind: str) -> torch.Tensor:
    starts = [_draw(generator, x, 2 * max(1, side // 8) + 1) for side in x.shape[1:3]]
    centres = [_draw(generator, x, side) for side in x.shape[1:3]]
    x = translated(x, *starts) if kind in ("translation", "both") else x
    return cut(x, *centres) if kind in ("cutout", "both") else x


def _draw(generator: torch.Generator, x: torch.Tensor, end: int) -> torch.Tensor:
    return torch.randint(0, end, (len(x),), generator=generator).to(x.device)


def translated(x: torch.Tensor, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Every picture from its own corner (row,), (row,) of itself within margins of zeros, an eighth of each side."""
    height, width = x.shape[1:3]
    above, left = (max(1, side // 8) for side in (height, width))
    padded = torch.nn.functional.pad(x, (*(0, 0) * (x.dim() - 3), left, left, above, above))
    i = (down[:, None] + torch.arange(height, device=x.device))[:, :, None]
    j = (right[:, None] + torch.arange(width, device=x.device))[:, None, :]
    return padded[torch.arange(len(x), device=x.device)[:, None, None], i, j]


def cut(x: torch.Tensor, *centres: torch.Tensor) -> torch.Tensor:
    """Pictures that are zero in a square of half their sides around centres (row,), (row,)."""
    far = [
        (torch.arange(side, device=x.device) - c[:, None]).abs() > side // 4
        for side, c in zip(x.shape[1:3], centres, strict=True)
    ]
    outside = far[0][:, :, None] | far[1][:, None, :]
    return x * outside.reshape(*outside.shape, *(1,) * (x.dim() - 3))
