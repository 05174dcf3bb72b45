"""What was seen of a point, y = A x + noise: averages of a picture, its grey, itself under noise, or any combinations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from probgen.data.inputs import read
from probgen.programs import gathers

MOST = 50_000_000  # numbers of A that are kept
OVERLAPPING = 2_000  # rows of A that are solved at once to see whether they contradict each other
FAR = 1e3, 1e6  # times a point, at which a function that is cut off is no longer linear
AT_ONCE = 4_000_000  # numbers of what A says of unit points, at once
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in grey: ITU-R BT.601

Columns = Callable[
    [Callable[..., Any], np.ndarray], np.ndarray
]  # a function of one point, of many: (point, *event) -> (point, *y)


@dataclass(frozen=True, eq=False)
class Linear:
    """What was seen of a point x: y = A x + N(0, noise^2). `fit.condition(x=pg.Linear(A, y, noise))` of a diffusion model.

    of: A: a matrix (numbers in y, size of x), or a linear function of one point (*event) whose answer has the shape of y. The
        function is asked once for every number of x, by arrays of the fit's engine; what is zero of it is not kept.
    value: y, in any shape; NaN where it was not seen.
    noise: its standard deviation, in the units of y, one for all or one a number; None: seen exactly, up to what stands for
        none, see `inference="twisted_smc"`.
    truth: x itself, where it is known, for the picture in `fit.report`; nothing else reads it.

    `Linear.averages`, `grey`, `noisy` and `masked` write A for pictures. Raises ValueError for what is no such thing, here or where
    it is given to `fit.condition`.
    """

    of: Any
    value: Any
    noise: Any = None
    truth: Any = None

    words: ClassVar[tuple[str, ...]] = ("averages", "grey", "noisy", "masked")

    def __post_init__(self) -> None:
        value = read("value", self.value, unknown=True).astype(float)
        if np.isnan(value).all():
            raise ValueError(
                "Nothing was seen: every number of value is NaN. fit.sample(64) draws from the model itself."
            )
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "noise", None if self.noise is None else _noise(self.noise, value.shape))

    @classmethod
    def averages(cls, value: Any, factor: int | tuple[int, int], noise: Any = None, truth: Any = None) -> Linear:
        """The picture in `factor` times as many pixels along each side, of which value are the averages: super-resolution.

        value: (height / factor, width / factor), or with channels last. factor: one for both sides, or (down, across).
        """
        return cls(gathers.Averages(gathers.factors(factor)), value, noise, truth)

    @classmethod
    def grey(cls, value: Any, weights: Any = LUMA, noise: Any = None, truth: Any = None) -> Linear:
        """The picture in colour, of which value (height, width) is the sum of the channels by these weights."""
        return cls(gathers.Channels(gathers.weights_of(weights)), value, noise, truth)

    @classmethod
    def noisy(cls, value: Any, noise: Any, truth: Any = None) -> Linear:
        """The point itself under noise: denoising. value: (*event)."""
        if noise is None:
            raise ValueError("noise is None; pg.Linear.noisy is a point under noise: say its standard deviation.")
        return cls(gathers.Itself(), value, noise, truth)

    @classmethod
    def masked(cls, value: Any, noise: Any = None, truth: Any = None) -> Linear:
        """The point in part, NaN where it was not seen: inpainting. value: (*event). The same without noise: the row itself."""
        return cls(gathers.Itself(), value, noise, truth)

    def combined(self, name: str, event: tuple[int, ...], columns: Columns) -> Combined:
        """A of points of a shape, and what was seen; name: what the user calls the point."""
        value: Any = self.value
        size, seen = math.prod(event), ~np.isnan(value.ravel())
        if isinstance(self.of, gathers.Gather):
            at, weights = self.of.of_points(name, event, value.shape)
        elif callable(self.of):
            at, weights = _asked(name, self.of, event, value.shape, columns)
        else:
            at, weights = gathers.rows_of(_matrix(name, self.of, value.size, size))
        at, weights = at[seen], weights[seen]
        noise = None if self.noise is None else np.broadcast_to(self.noise, value.shape).ravel()[seen]
        found = Combined(value.ravel()[seen], at, weights, noise, value, _truth(name, self.truth, event), size)
        return found.checked(name)


class Combined(NamedTuple):
    """A by the numbers of x that each of y is made of, and what was seen.

    y: (seen,); at: indices into the flattened point, weights: (seen, most), zeros where there are fewer; noise: (seen,) or None;
    value: y as it was given, with NaN; truth: (*event) or None; size: of the point.
    """

    y: np.ndarray
    at: np.ndarray
    weights: np.ndarray
    noise: np.ndarray | None
    value: np.ndarray
    truth: np.ndarray | None
    size: int

    @property
    def matrix(self) -> np.ndarray:
        """A: (seen, size)."""
        found = np.zeros((len(self.y), self.size))
        np.add.at(found, (np.arange(len(self.y))[:, None], self.at), self.weights)
        return found

    @property
    def apart(self) -> bool:
        """Whether no number of x is in two of y."""
        used = self.at[self.weights != 0]
        return len(np.unique(used)) == len(used)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """A x of rows (row, *event): (row, seen)."""
        rows = rows.reshape(len(rows), -1)
        return np.stack([(self.weights * row[self.at]).sum(-1) for row in rows])

    def checked(self, name: str) -> Combined:
        """The same without numbers that are made of none of x; ValueError where one says what no point can."""
        if self.weights.size > MOST:
            raise ValueError(
                f"A of {name} has {len(self.y):,} rows of up to {self.weights.shape[1]:,} numbers; at most {MOST:,} are kept.\n"
                "Give fewer numbers of y, or combinations of fewer numbers of x."
            )
        empty = ~(self.weights != 0).any(1)
        if empty.all():
            raise ValueError(f"A of {name} is zero: what was seen says nothing of {name}.")
        off = empty & (self.y != 0)
        if off.any() and self.noise is None:
            i = int(np.argmax(off))
            raise ValueError(
                f"A of {name} is zero for number {i} of y, which is {self.y[i]:g}: no {name} gives that exactly."
            )
        if empty.any() and self.noise is not None:
            i = int(np.argmax(empty))
            raise ValueError(
                f"A of {name} is zero for number {i} of y, which says nothing of {name}: put NaN there, and leave its noise out."
            )
        found = self._replace(y=self.y[~empty], at=self.at[~empty], weights=self.weights[~empty])
        found._check_one_point(name)
        return found

    def _check_one_point(self, name: str) -> None:
        """Raise ValueError where combinations are seen exactly that no point has all of."""
        if self.noise is not None or self.apart or len(self.y) > OVERLAPPING:
            return
        a = self.matrix
        off = np.abs(a @ np.linalg.lstsq(a, self.y)[0] - self.y)
        if off.max() > 1e-6 * max(float(np.abs(self.y).max()), 1e-30):
            i = int(np.argmax(off))
            raise ValueError(
                f"No {name} gives all of y exactly: number {i}, {self.y[i]:g}, contradicts the others. "
                "Say noise=, its standard deviation."
            )


def _noise(noise: Any, shape: tuple[int, ...]) -> np.ndarray:
    found = read("noise", noise, finite=False).astype(float)
    bad = ~(np.isfinite(found) & (found > 0))
    if bad.any():
        raise ValueError(
            f"noise is {found[bad].ravel()[0]:g}; expected a standard deviation above 0, or None for none."
        )
    if found.shape not in ((), shape):
        raise ValueError(f"noise has shape {found.shape}; expected one number, or {shape} as value has.")
    return found


def _truth(name: str, truth: Any, event: tuple[int, ...]) -> np.ndarray | None:
    if truth is None:
        return None
    found = read("truth", truth).astype(float)
    if found.size != math.prod(event):
        raise ValueError(f"truth has shape {found.shape}; expected one {name}, of shape {event}.")
    return found.reshape(event)


def _matrix(name: str, of: Any, seen: int, size: int) -> np.ndarray:
    found = read("of", of.toarray() if hasattr(of, "toarray") and hasattr(of, "nnz") else of).astype(float)
    if found.shape != (seen, size):
        raise ValueError(
            f"A of {name} has shape {found.shape}; expected ({seen}, {size}): numbers in value by numbers in one {name}."
        )
    return found


def _asked(name: str, of: Any, event: tuple[int, ...], shape: tuple[int, ...], columns: Columns) -> Any:
    """A of a function, by what it says of unit points."""
    size, seen = math.prod(event), math.prod(shape)
    _check_linear(name, of, event, shape, columns)
    rows, cols, weights, count = [], [], [], 0
    step = max(1, AT_ONCE // max(seen, size))
    for begin in range(0, size, step):
        unit = np.zeros((min(step, size - begin), size))
        unit[np.arange(len(unit)), begin + np.arange(len(unit))] = 1.0
        said = columns(of, unit.reshape(-1, *event)).reshape(len(unit), seen)
        col, row = np.nonzero(said)
        rows, cols, weights = [*rows, row], [*cols, begin + col], [*weights, said[col, row]]
        count += len(row)
        if count > MOST:
            raise ValueError(f"A of {name} has more than {MOST:,} numbers that are not zero, the most that are kept.")
    return gathers.gathered(np.concatenate(rows), np.concatenate(cols), np.concatenate(weights), seen)


def _check_linear(name: str, of: Any, event: tuple[int, ...], shape: tuple[int, ...], columns: Columns) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, *event))
    try:
        said = columns(of, np.stack([a, b, a + 2 * b, np.zeros(event), *(far * a for far in FAR)]))
    except Exception as error:
        raise ValueError(
            f"of= does not run on one {name}, of shape {event}: {type(error).__name__}: {error}"
        ) from error
    if said.shape[1:] != shape:
        raise ValueError(f"of= says {said.shape[1:]} of one {name}, of shape {event}; value has shape {shape}.")
    if not np.isfinite(said).all():
        raise ValueError(f"of= says NaN or infinities of points of {name}.")
    one, other, both, none, *long = said
    scale = 1e-4 * max(float(np.abs(said[:4]).max()), 1e-30)
    if np.abs(none).max() > scale:
        raise ValueError(
            f"of= says {none.ravel()[np.abs(none).argmax()]:g} of a {name} of zeros; expected 0. Take what it adds from value."
        )
    if np.abs(both - one - 2 * other).max() > scale:
        raise ValueError("of= is not linear: what it says of a + 2 b is not what it says of a, and twice that of b.")
    for far, found in zip(FAR, long, strict=True):
        if np.abs(found - far * one).max() > far * scale:
            raise ValueError(
                f"of= is not linear: what it says of {far:,.0f} a is not {far:,.0f} times what it says of a."
            )
