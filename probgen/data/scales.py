"""Units of rows: their centres and spreads, by which models measure them, and whether single precision can hold them.

(x - centre) / spread   has mean 0 and sd 1 in every coordinate
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

FINE = 1e-3  # rounding error, in sds of a coordinate, that a density may have
APART = 30.0  # ratio of sds beyond which coordinates are in different units
SEEN = 2000  # rows
PIXELS = 16  # more columns than that may be pixels of a picture
FAR = 1e15  # sizes whose squares and products single precision still holds


def numbers(value: Any) -> np.ndarray | None:
    """Rows (row, ...) as finite doubles; None for anything else, which is refused elsewhere."""
    if isinstance(value, np.ma.MaskedArray | str | None):
        return None
    try:
        array = np.asarray(value)
        array = array.astype(float) if array.dtype.kind in "fiub" else None
    except (TypeError, ValueError):
        return None
    return array if array is not None and array.ndim and len(array) and np.isfinite(array).all() else None


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of every coordinate of rows (row, ...): two arrays (...), accurate at any offset.

    An sd below the rounding of its mean is 0: the coordinate is constant.
    """
    first = rows[0]
    away = rows - first  # exact to the rounding of the rows themselves
    shift = away.mean(0)
    spread = np.sqrt(((away - shift) ** 2).mean(0))
    mean = first + shift
    return mean, np.where(spread > 4e-16 * abs(mean), spread, 0.0)


def standard(keyword: str, given: str = "", strict: bool = True) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What a model derives of its rows: `centre` and `spread`, (1, *event); of its inputs `given_centre` and `given_spread`.

    strict: whether a constant coordinate is refused,
    since a density of reals has no largest likelihood there; else it gets the spread of the others.
    """

    def derive(data: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        rows = numbers(data.get(keyword))
        if rows is not None and len(rows) > 1 and rows.ndim > 1:
            mean, spread = moments(rows)
            if strict and not (spread > 0).all():
                refuse(keyword, rows, spread)
            found |= {"centre": mean[None], "spread": _positive(spread)[None]}
        inputs = numbers(data.get(given)) if given else None
        if inputs is not None and rows is not None and len(inputs) == len(rows) > 1:
            mean, spread = moments(inputs)
            found |= {"given_centre": mean[None], "given_spread": _positive(spread)[None]}
        return found

    return derive


def one_scale(keyword: str, likelihood: str = "normal") -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """`centre` and `spread` of rows for a model with one noise: one spread for all coordinates, (1, *event).

    Columns of a table with sds more than 30 times apart are in different units: each has its own. Pixels never are: a border that
    hardly has ink would count as much as the middle, and a row with ink there be twenty sds off.
    Of a likelihood other than "normal" nothing; likelihood: the default.
    """

    def derive(data: Mapping[str, Any]) -> dict[str, Any]:
        rows = numbers(data.get(keyword))
        if data.get("likelihood", likelihood) != "normal" or rows is None or len(rows) < 2 or rows.ndim < 2:
            return {}
        mean, spread = moments(rows)
        own = spread[spread > 0]
        if own.size and (rows.ndim > 2 or pixels(rows) or own.max() <= APART * own.min()):
            spread = np.full_like(spread, np.sqrt(np.mean(own**2)))
        return {"centre": mean[None], "spread": _positive(spread)[None]}

    return derive


def pixels(rows: np.ndarray) -> bool:
    """Whether columns of rows (row, column) are of one kind, as pixels are: many, and of most the range is that of all."""
    ranges = np.ptp(rows, axis=0)
    return bool(rows.shape[1] > PIXELS and np.median(ranges) >= 0.5 * np.ptp(rows))


def pictures(data: Mapping[str, Any]) -> dict[str, Any]:
    """`centre` and `spread` of pictures x (row, height, width, channel): of each channel, (1, 1, 1, channel); and the first of them
    as `start`. ValueError for a channel that is constant."""
    rows = numbers(data.get("x"))
    if rows is None or len(rows) < 2 or rows.ndim != 4:
        return {}
    mean, spread = moments(rows.reshape(-1, rows.shape[-1]))
    if not (spread > 0).all():
        refuse("x", rows, spread)
    shape = (1, 1, 1, -1)
    return {"centre": mean.reshape(shape), "spread": spread.reshape(shape), "start": rows[:256]}


def refuse(keyword: str, rows: np.ndarray, spread: np.ndarray) -> None:
    """Raise ValueError for the first coordinate that is constant."""
    at = tuple(map(int, np.argwhere(~(spread > 0))[0]))
    where = f"[:, {', '.join(map(str, at))}]" if spread.shape == rows.shape[1:] else f"'s channel {at[-1]}"
    raise ValueError(
        f"{keyword}{where} is constant: the likelihood of a density has no maximum there.\n"
        "Leave it out; or, where the data are integers, take them through probgen.data.dequantise."
    )


def _positive(spread: np.ndarray) -> np.ndarray:
    """Spreads, those of constant coordinates that of the others, or 1."""
    own = spread[spread > 0]
    return np.where(spread > 0, spread, np.sqrt(np.mean(own**2)) if own.size else 1.0)


def need_double(data: Any) -> bool:
    """Whether single precision loses what rows say: rounding is not small beside an sd, or squares overflow."""
    return isinstance(data, Mapping) and any(map(_loses, data.values()))


def _loses(value: Any) -> bool:
    """The same of one array, by at most SEEN of its rows."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu" or not value.ndim:
        return False
    rows = numbers(value[:: 1 + len(value) // SEEN])
    if rows is None or len(rows) < 2:
        return False
    _, spread = moments(rows)
    with np.errstate(over="ignore"):
        error = abs(rows - rows.astype(np.float32)).max(0)
    varies = spread > 0
    coarse = varies & (error > FINE * spread)
    outside = varies & ((abs(rows).max(0) > FAR) | (spread < 1 / FAR))
    return bool((coarse | outside).any())


def check_units(name: str, array: np.ndarray, rows: np.ndarray) -> None:
    """Raise ValueError where points lie far outside of rows, whose kind they should be: by three times their range."""
    low, high = float(rows.min()), float(rows.max())
    room = 3 * (high - low)
    if array.size and (array.min() < low - room or array.max() > high + room):
        raise ValueError(
            f"{name} reaches from {array.min():g} to {array.max():g}; the data from {low:g} to {high:g}: give it in their units."
        )
