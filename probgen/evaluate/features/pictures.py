"""Pictures on one scale for all scores: 0 to 1, in float64, (row, height, width, channel); and one filter that resizes them.

Bytes are divided by 255, floats are taken to lie in `value_range`. What of samples lies outside is clipped, and the share told.
The filter is Pillow's bicubic (a = -1/2), stretched when it shrinks a picture so that nothing aliases; it computes in floats,
and does not round to bytes: what clean-fid calls "clean". Parmar, Zhang and Zhu 2022 (arXiv:2104.11222).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

SMALLEST = 4  # pixels of a side
FAR = 10.0  # widths of the range outside of which samples are on another scale
SCALES = (0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)
PAST, SHORT = 0.05, 0.25  # of a scale's width, by which values may reach past its ends, or fall short of them
LOW = 0.05  # share of the values that lie where only one of two scales reaches
TO: dict[tuple[tuple[float, float], tuple[float, float]], str] = {
    ((-1, 1), (0, 1)): "({} + 1) / 2", ((0, 255), (0, 1)): "{} / 255", ((0, 1), (-1, 1)): "2 * {} - 1",
    ((0, 255), (-1, 1)): "{} / 127.5 - 1", ((0, 1), (0, 255)): "255 * {}", ((-1, 1), (0, 255)): "127.5 * ({} + 1)",
}  # fmt: skip


def are_pictures(shape: tuple[int, ...]) -> bool:
    """Whether rows of this event shape are pictures: (height, width), or with 1 or 3 channels, last or first."""
    if len(shape) == 2:
        return min(shape) >= SMALLEST
    return len(shape) == 3 and (shape[2] in (1, 3) or shape[0] in (1, 3)) and sorted(shape)[1] >= SMALLEST


def with_channels(x: np.ndarray) -> np.ndarray:
    """(row, height, width, channel), of pictures without channels or with channels first."""
    if x.ndim == 3:
        return x[..., None]
    return np.moveaxis(x, 1, -1) if x.shape[-1] not in (1, 3) and x.shape[1] in (1, 3) else x


def scaled(x: np.ndarray, value_range: tuple[float, float], name: str, strict: bool) -> tuple[np.ndarray, float]:
    """Rows as floats from 0 to 1, and the share of values that were clipped.

    strict: of data, which are never clipped: ValueError where they leave the range. The same for samples on another scale.
    """
    if x.dtype == np.uint8:
        if x.max() <= 1 < len(x):
            raise ValueError(
                f"{name} are bytes no larger than {x.max()}, black if 255 is white; pass zeros and ones as floats."
            )
        return x / 255.0, 0.0
    low, high = (float(v) for v in value_range)
    if not low < high:
        raise ValueError(f"value_range is ({low:g}, {high:g}); expected low < high.")
    y = (np.asarray(x, float) - low) / (high - low)
    slack = 1e-6
    outside = (y < -slack) | (y > 1 + slack)
    if strict and outside.any():
        raise ValueError(
            f"{name} has values from {x.min():g} to {x.max():g}; value_range is ({low:g}, {high:g}).\n"
            "Say which values are black and white, for example value_range=(-1, 1)."
        )
    if abs(y - 0.5).max() > FAR:
        raise ValueError(
            f"{name} has values from {x.min():g} to {x.max():g}, on another scale than value_range=({low:g}, {high:g}).\n"
            "Divide them by 255, or pass bytes."
        )
    return np.clip(y, 0, 1), float(outside.mean())


def scale_of(x: np.ndarray) -> tuple[float, float] | None:
    """Which of `SCALES` values fill: near both of its ends, past neither; None for another range. Bytes are from 0 to 255."""
    if x.dtype == np.uint8 and x.max() > 1:
        return SCALES[2]
    low, high = float(x.min()), float(x.max())
    for a, b in SCALES:
        past, short = PAST * (b - a), SHORT * (b - a)
        if a - past <= low <= a + short and b - short <= high <= b + past:
            return a, b
    return None


def apart(x: np.ndarray, own: tuple[float, float] | None, name: str) -> str:
    """Why values are taken to be on another scale than `own`, and what to do; nothing where they are not.

    They are where they fill another one of `SCALES`, a wider one with a twentieth of them or more where the narrow one does not
    reach: draws that reach somewhat beyond black or white, with noise or without, do not.
    """
    found = scale_of(x)
    if found is None or own not in SCALES or found == own:
        return ""
    beyond = x < -SHORT if found[0] < 0 else x > 2
    if found[1] - found[0] > own[1] - own[0] and beyond.mean() < LOW:
        return ""
    told = TO[found, own].format(name)
    return (
        f"{name} have values from {x.min():.3g} to {x.max():.3g}, as on a scale from {found[0]:g} to {found[1]:g}; that of the "
        f"data is {own[0]:g} to {own[1]:g}.\nPass {told}. Where they are right as they are, bring both to 0 to 1 and clip them."
    )


def resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pictures (row, h, w, channel) as (row, height, width, channel), by the filter above; not clipped."""
    down, across = _weights(x.shape[1], height), _weights(x.shape[2], width)
    return np.einsum("ah,nhwc,bw->nabc", down, x, across, optimize=True)


@functools.lru_cache
def _weights(size: int, new: int) -> np.ndarray:
    """Of each new pixel, the weights of the old ones, (new, size)."""
    scale, table = size / new, np.zeros((new, size))
    stretch = max(scale, 1.0)
    for i in range(new):
        centre = (i + 0.5) * scale
        first, last = max(int(centre - 2 * stretch + 0.5), 0), min(int(centre + 2 * stretch + 0.5), size)
        weights = _cubic((np.arange(first, last) - centre + 0.5) / stretch)
        table[i, first:last] = weights / weights.sum()
    return table


def _cubic(t: Any, a: float = -0.5) -> np.ndarray:
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = (((t - 5) * t + 8) * t - 4) * a
    return np.where(t < 1, near, np.where(t < 2, far, 0.0))
