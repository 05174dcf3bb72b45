"""Sizes that a U-Net has in JAX and in torch alike."""

from __future__ import annotations

from collections.abc import Sequence

GROUP = 8  # channels
FREQUENCIES = 16  # of the level
LONGEST, SHORTEST = 64.0, 1.0  # their periods, in units of log sigma / alpha


def check(channels: int, widths: Sequence[int], num_blocks: int, num_classes: int) -> None:
    """Raise ValueError for sizes that no net has; widths: its channels at each side."""
    for name, size in {"channels": channels, "num_blocks": num_blocks, "widths": min(widths, default=0)}.items():
        if size < 1:
            raise ValueError(f"A U-Net's {name} is {size}; it must be at least 1.")
    if num_classes < 0:
        raise ValueError(f"A U-Net's num_classes is {num_classes}; it must be at least 0.")
    if odd := [w for w in widths if w > GROUP and w % GROUP]:
        raise ValueError(f"A U-Net's widths are {tuple(widths)}; {odd[0]} is no multiple of {GROUP}.")
