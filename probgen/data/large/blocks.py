"""What is computed of all draws, a block at a time; of few draws there is one block, and nothing is different."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probgen.data.large import scratch
from probgen.data.large.stored import Stored, numbers_at_once

FEWER = 2**23  # numbers of draws beyond which what needs no more of them looks at every second, third, ... one


def sites(
    of: Callable[[np.ndarray], Mapping[str, np.ndarray]], z: Any, width: int, folder: Path | None
) -> dict[str, np.ndarray]:
    """`of` at draws z (chain, draw, dim): arrays (chain, draw, *event), in scratch where z is on disk.

    width: numbers that `of` gives of one draw. Blocks are the same for z in memory and on disk, and all of one shape, so that code
    is compiled once and bits do not depend on where the draws are.
    """
    size, total = numbers_at_once(z.shape[0] * max(z.shape[2], width)), z.shape[1]
    if total <= size and not isinstance(z, Stored):
        return dict(of(z))
    found: dict[str, np.ndarray] = {}
    for start in range(0, total, size):
        block = np.asarray(z[:, start : start + size])
        count = block.shape[1]
        whole = np.pad(block, ((0, 0), (0, size - count), (0, 0)), mode="edge") if count < size < total else block
        for key, value in of(whole).items():
            if key not in found:
                found[key] = _empty((z.shape[0], total, *value.shape[2:]), value.dtype, isinstance(z, Stored), folder)
            found[key][:, start : start + count] = value[:, :count]
            scratch.release(found[key])
    return found


def _empty(shape: tuple[int, ...], dtype: Any, on_disk: bool, folder: Path | None) -> np.ndarray:
    """An array (chain, draw, *event); on disk every scalar's chains lie one after the other, as they will be read."""
    if not on_disk:
        return np.empty(shape, dtype)
    chains, draws, *event = shape
    return np.moveaxis(scratch.array((*event, chains, draws), dtype, folder), (-2, -1), (0, 1))


def by_scalar(of: Callable[[np.ndarray], Any], draws: np.ndarray) -> np.ndarray:
    """`of` of scalars (scalar, chain, draw): (scalar,)."""
    size = numbers_at_once(draws.shape[1] * draws.shape[2])
    parts = []
    for start in range(0, max(1, len(draws)), size):
        parts.append(np.asarray(of(draws[start : start + size])))
        scratch.release(draws)
    return np.concatenate(parts)


def _pieces(values: Any) -> Iterator[tuple[int, np.ndarray]]:
    """An array (chain, draw, *event) in pieces that are whole draws or whole scalars: where their draws begin, and the piece."""
    if isinstance(values, Stored):
        yield from values.blocks(numbers_at_once(values.size // max(1, values.shape[1])))
        return
    flat = values.reshape(*values.shape[:2], -1)
    size = numbers_at_once(flat.shape[0] * flat.shape[1])
    for start in range(0, flat.shape[2], size):
        yield 0, flat[..., start : start + size]
        scratch.release(values)


def not_finite(values: Any) -> tuple[int, np.ndarray]:
    """How many numbers of (chain, draw, *event) are NaN or infinite, and in which draws: (chain, draw)."""
    count, where = 0, np.zeros(values.shape[:2], bool)
    for start, piece in _pieces(values):
        bad = ~np.isfinite(piece)
        count += int(bad.sum())
        where[:, start : start + piece.shape[1]] |= bad.reshape(*bad.shape[:2], -1).any(axis=2)
    return count, where


def still(z: Any) -> np.ndarray:
    """Whether each draw of z (chain, draw, dim) equals the one before it: (chain, draw - 1)."""
    found, size = [], numbers_at_once(z.shape[0] * z.shape[2])
    for start in range(0, z.shape[1] - 1, size):
        block = np.asarray(z[:, start : start + size + 1])
        found.append((block[:, 1:] == block[:, :-1]).all(axis=2))
    return np.concatenate(found, axis=1) if found else np.zeros((z.shape[0], 0), bool)


def stride(z: Any) -> int:
    """Every which draw of z (chain, draw, dim) what needs no more looks at; 1 for all."""
    return max(1, -(-z.size // FEWER))
