"""An array of draws that stays in the segments of a run on disk, and is read where it is asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from safetensors import SafetensorError, safe_open

IN_MEMORY = 2**28  # bytes of draws up to which a run on disk is held in memory as well


class Gone(RuntimeError):
    """The files of a run that a fit reads its draws from are gone, or are those of another run."""


class Segment(NamedTuple):
    """A file with the steps start..stop-1, and what tells it from one that was written in its place."""

    path: Path
    start: int
    stop: int
    stamp: tuple[int, int, int]


def stamp(path: Path) -> tuple[int, int, int]:
    """The file itself, its size and when it was written."""
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns


class Stored(NDArrayOperatorsMixin):
    """(chain, step, *event) of contiguous segments, from step `first` to `last`; an array wherever NumPy takes one.

    A slice of steps alone is another `Stored`; any other index reads what it needs; what NumPy does with the whole reads the whole.
    Raises Gone where a segment is not that of its fit any more.
    """

    def __init__(
        self, segments: tuple[Segment, ...], key: str, first: int, last: int, chains: int, event: tuple[int, ...], dtype: Any
    ):  # fmt: skip
        self.segments, self.key, self.first, self.last = segments, key, first, last
        self.shape, self.dtype = (chains, last - first, *event), np.dtype(dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Steps start..stop-1, counted from its own first: (chain, stop - start, *event)."""
        out = np.empty((self.shape[0], stop - start, *self.shape[2:]), self.dtype)
        low, high = self.first + start, self.first + stop
        for segment in self.segments:
            a, b = max(low, segment.start), min(high, segment.stop)
            if a < b:
                out[:, a - low : b - low] = self._of(segment, a - segment.start, b - segment.start)
        return out

    def check(self) -> None:
        """Raise Gone where a segment is not that of its fit any more."""
        for segment in self.segments:
            self._of(segment, 0, 0)

    def _of(self, segment: Segment, start: int, stop: int) -> np.ndarray:
        try:
            if stamp(segment.path) != segment.stamp:
                raise OSError("it was written anew")
            with safe_open(str(segment.path), framework="numpy") as file:
                return file.get_slice(self.key)[:, start:stop]
        except (OSError, SafetensorError) as error:
            raise Gone(
                f"The draws of this fit stay on disk, and {segment.path} is not as it was: {error}.\n"
                "Read the run again with pg.load."
            ) from error

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """Its steps in blocks of at most so many: where each begins, and its draws."""
        for start in range(0, self.shape[1], size):
            yield start, self.read(start, min(start + size, self.shape[1]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Draws on disk cannot be an array without a copy in memory.")
        found = self.read(0, self.shape[1])
        return found if dtype is None else found.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        held = (np.asarray(v) if isinstance(v, Stored) else v for v in inputs)
        return getattr(ufunc, method)(*held, **keywords)

    def __getattr__(self, name: str) -> Any:
        """What an array has beside: of the whole, in memory."""
        if name.startswith("_") or name not in _OF_ARRAYS:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(np.asarray(self), name)

    def __getitem__(self, key: Any) -> Any:
        index = _expanded(key, self.ndim)
        if index is None:
            return np.asarray(self)[key]
        chain, step, *rest = index
        if isinstance(step, (int, np.integer)):
            at = range(self.shape[1])[step]
            return self.read(at, at + 1)[(chain, 0, *rest)]
        at = range(self.shape[1])[step]
        if at.step < 0:
            return np.asarray(self)[key]
        if at.step == 1 and all(v == slice(None) for v in (chain, *rest)):
            stop = max(at.start, at.stop)
            return Stored(
                self.segments, self.key, self.first + at.start, self.first + stop, self.shape[0], self.shape[2:], self.dtype
            )  # fmt: skip
        size = max(at.step, numbers_at_once(self.shape[0] * math.prod(self.shape[2:])))
        parts = []
        for start in range(at.start, max(at.start, at.stop), size - size % at.step):
            stop = min(start + size - size % at.step, at.stop)
            piece = self.read(start, stop)[(chain, slice(None, None, at.step), *rest)]
            parts.append(piece.copy())  # a view would keep all that was read
        axis = 0 if isinstance(chain, (int, np.integer)) else 1
        return np.concatenate(parts, axis=axis) if parts else self.read(0, 0)[(chain, slice(None), *rest)]


_OF_ARRAYS = {name for name in dir(np.ndarray) if not name.startswith("_")}
AT_ONCE = 2**22  # numbers that are worked on at once


def numbers_at_once(width: int) -> int:
    """How many draws of so many numbers are worked on at once."""
    return max(1, AT_ONCE // max(1, width))


def _expanded(key: Any, ndim: int) -> tuple[Any, ...] | None:
    """An index as one integer or slice an axis; None for any other kind of index."""
    key = key if isinstance(key, tuple) else (key,)
    if not all(v is Ellipsis or (isinstance(v, (int, np.integer, slice)) and not isinstance(v, bool)) for v in key):
        return None
    if any(v is Ellipsis for v in key):
        at = next(i for i, v in enumerate(key) if v is Ellipsis)
        key = (*key[:at], *[slice(None)] * (ndim - len(key) + 1), *key[at + 1 :])
    return (*key, *[slice(None)] * (ndim - len(key))) if len(key) <= ndim else None
