"""Combinations of a point's numbers as indices and weights: pixels, averages of squares, sums of channels, rows of a matrix."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from probgen.data.inputs import read


class Gather(ABC):
    """A of a picture by its shape."""

    @abstractmethod
    def indices(self, event: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray | None:
        """Which numbers of a point (*event) each of value (*shape) is made of: (*shape, count); None where they do not fit."""

    @abstractmethod
    def weights(self, count: int) -> np.ndarray:
        """The weights of so many: (count,)."""

    @abstractmethod
    def expected(self, event: tuple[int, ...]) -> str:
        """What value should be of points of a shape, in words."""

    def of_points(self, name: str, event: tuple[int, ...], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Indices and weights, (number, count) each; ValueError where the shapes do not fit."""
        at = self.indices(event, shape)
        if at is None:
            raise ValueError(
                f"value has shape {shape}; expected {self.expected(event)}, as one {name} has shape {event}."
            )
        at = at.reshape(-1, at.shape[-1])
        return at, np.broadcast_to(self.weights(at.shape[1]), at.shape)


@dataclass(frozen=True)
class Itself(Gather):
    """Every number by itself."""

    def indices(self, event: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray | None:
        return np.arange(math.prod(event)).reshape(*event, 1) if shape == event else None

    def weights(self, count: int) -> np.ndarray:
        return np.ones(count)

    def expected(self, event: tuple[int, ...]) -> str:
        return f"{event}"


@dataclass(frozen=True)
class Averages(Gather):
    """Means of rectangles of pixels, (down, across) each, that do not overlap."""

    factor: tuple[int, int]

    def indices(self, event: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray | None:
        down, across = self.factor
        for axis in range(len(shape) - 1):
            height, width = shape[axis : axis + 2]
            before, after = shape[:axis], shape[axis + 2 :]
            whole = (*before, height * down, width * across, *after)
            if math.prod(whole) == math.prod(event) and (event == whole or len(event) == 1):
                at = np.arange(math.prod(event)).reshape(*before, height, down, width, across, *after)
                at = np.moveaxis(at, (axis + 1, axis + 3), (-2, -1))
                return at.reshape(*shape, down * across)
        return None

    def weights(self, count: int) -> np.ndarray:
        return np.full(count, 1 / count)

    def expected(self, event: tuple[int, ...]) -> str:
        return f"a picture {self.factor[0]} times smaller down and {self.factor[1]} across, (height, width) or with channels"


@dataclass(frozen=True)
class Channels(Gather):
    """Sums of a pixel's channels, which stand last, or first."""

    by: tuple[float, ...]

    def indices(self, event: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray | None:
        count = len(self.by)
        at = np.arange(math.prod(event))
        if event == (*shape, count) or (len(event) == 1 and len(at) == math.prod(shape) * count):
            return at.reshape(*shape, count)
        return np.moveaxis(at.reshape(event), 0, -1) if event == (count, *shape) else None

    def weights(self, count: int) -> np.ndarray:
        return np.array(self.by)

    def expected(self, event: tuple[int, ...]) -> str:
        return f"a picture without its {len(self.by)} channels"


def factors(factor: Any) -> tuple[int, int]:
    """How many times smaller, down and across."""
    both = tuple(factor) if isinstance(factor, tuple | list) else (factor, factor)
    if len(both) != 2 or any(int(f) != f or f < 1 for f in both) or max(both) < 2:
        raise ValueError(f"factor is {factor}; expected a whole number of at least 2, or two of them, down and across.")
    return int(both[0]), int(both[1])


def weights_of(weights: Any) -> tuple[float, ...]:
    """Weights of channels, checked."""
    found = read("weights", weights).astype(float)
    if found.ndim != 1 or len(found) < 2 or not found.any():
        raise ValueError(f"weights is {weights}; expected one a channel, not all zero.")
    return tuple(found.tolist())


def rows_of(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights of a matrix."""
    rows, cols = np.nonzero(matrix)
    return gathered(rows, cols, matrix[rows, cols], len(matrix))


def gathered(rows: np.ndarray, cols: np.ndarray, weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights, (count, most) each, of numbers of a matrix that has so many rows, zeros where a row has fewer."""
    order = np.lexsort((cols, rows))
    rows, cols, weights = rows[order], cols[order], weights[order]
    many = np.bincount(rows, minlength=count)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(many) - many, many)
    at, by = np.zeros((count, max(1, many.max(initial=0))), int), np.zeros((count, max(1, many.max(initial=0))))
    at[rows, place], by[rows, place] = cols, weights
    return at, by
