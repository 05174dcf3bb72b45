"""Pictures as generators and critics take them: their sides, how often these can be halved, the range of values, and the classes.

What a model derives of its data before anything compiles: `Model(derived=of_pictures("x"))`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probgen.data.inputs import first
from probgen.data.scales import numbers

Derive = Callable[[Mapping[str, Any]], dict[str, Any]]
SMALLEST = 2  # pixels of a side that has been halved


def of_pictures(*names: str, label: str = "", low: float = 0.0, high: float = 1.0, most: int = 3) -> Derive:
    """What a model derives of pictures (row, height, width) or (row, height, width, channel), all of the same sides.

    `height`, `width`, `channels` (0 where there is no axis of them), `halvings`; of two keywords `given_channels`, of the first; of
    a keyword `label` `num_classes`.
    low, high: the range of a generator's pictures, unless the data say another. most: halvings at most.
    Raises ValueError for what is no picture, has an odd side, or has values out of the range; for classes see `num_classes`.
    """

    keywords = list(names)

    def derive(data: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for keyword in keywords:
            rows = numbers(data.get(keyword))
            if rows is None:
                continue
            check_range(keyword, rows, float(data.get("low", low)), float(data.get("high", high)))
            own = sizes(keyword, rows, most)
            if found and any(own[k] != found[k] for k in ("height", "width")):
                raise ValueError(
                    f"{keyword} holds pictures of {shown(own)}, {keywords[0]} of {shown(found)}; give both the same sides."
                )
            found = own | ({"given_channels": found.get("channels", 0)} if len(keywords) > 1 else {})
        return found | (classes(keywords[0], label)(data) if label else {})

    return derive


def classes(keyword: str, label: str) -> Derive:
    """What a model derives of a class for each row: `num_classes`. Raises ValueError for labels that do not fit the rows."""

    def derive(data: Mapping[str, Any]) -> dict[str, Any]:
        codes, rows = numbers(data.get(label)), data.get(keyword)
        if codes is None:
            return {}
        if rows is not None and len(codes) != len(rows):
            raise ValueError(f"{label} has {len(codes)} entries for {len(rows)} rows of {keyword}; expected one each.")
        return {"num_classes": num_classes(label, codes, data.get("num_classes"))}

    return derive


def shown(found: Mapping[str, Any]) -> str:
    return f"{found['height']} by {found['width']}" + (f" by {found['channels']}" if found["channels"] else "")


def sizes(keyword: str, rows: np.ndarray, most: int) -> dict[str, int]:
    """Sides, channels and halvings of pictures; ValueError for other arrays, and for odd sides."""
    _check_pictures(keyword, rows)
    height, width = rows.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(
            f"{keyword} holds pictures of {height} by {width}, which cannot be halved: both sides must be even.\n"
            f"Pad them: np.pad({keyword}, ((0, 0), (0, {height % 2}), (0, {width % 2}){', (0, 0)' * (rows.ndim == 4)}))."
        )
    channels = rows.shape[3] if rows.ndim == 4 else 0
    return {"height": height, "width": width, "channels": channels, "halvings": halvings(height, width, most)}


def _check_pictures(keyword: str, rows: np.ndarray) -> None:
    if rows.ndim not in (3, 4):
        raise ValueError(
            f"{keyword} has shape {rows.shape}; expected pictures (row, height, width) or (row, height, width, channel). "
            "Reshape them."
        )


def halvings(height: int, width: int, most: int) -> int:
    """How often both sides can be halved, at most so often, and not below two pixels."""
    good = [n for n in range(1, most + 1) if all(s % 2**n == 0 and s // 2**n >= SMALLEST for s in (height, width))]
    return max(good, default=1)


def check_range(keyword: str, rows: np.ndarray, low: float, high: float) -> None:
    """ValueError for values that no picture of the generator has."""
    if not low < high:
        raise ValueError(f"low is {low:g} and high is {high:g}; expected low < high.")
    bad = (rows < low) | (rows > high)
    if bad.any():
        byte = low == 0 and rows.min() >= 0 and 1 < rows.max() <= 255
        remedy = f"{keyword} / 255" if byte else f"({keyword} - {rows.min():g}) / {rows.max() - rows.min():g}"
        raise ValueError(
            f"{keyword} goes from {rows.min():g} to {rows.max():g}, the first out of range at {keyword}{first(bad)}; the "
            f"generator's pictures from {low:g} to {high:g}.\nPass {remedy}, or the settings low and high."
        )


def num_classes(label: str, codes: np.ndarray, said: Any = None) -> int:
    """How many classes there are, 0 to one less than that; ValueError for other labels, and for a class without rows.

    said: how many the user says that there are.
    """
    if codes.ndim != 1 or (codes != np.rint(codes)).any() or codes.min() < 0:
        bad = f"of shape {codes.shape}" if codes.ndim != 1 else f"from {codes.min():g} to {codes.max():g}"
        raise ValueError(f"{label} is {bad}; expected a class for each row, whole numbers from 0: (row,).")
    count = int(codes.max()) + 1 if said is None else int(said)
    if codes.max() >= count:
        raise ValueError(f"num_classes is {count}; {label} goes up to {codes.max():g}: expected 0 to {count - 1}.")
    empty = np.flatnonzero(np.bincount(codes.astype(int), minlength=count) == 0)
    if len(empty):
        raise ValueError(
            f"Class {empty[0]} of {count} has no rows{f', nor have {len(empty) - 1} more' * (len(empty) > 1)}: nothing says what "
            f"it looks like.\nNumber the classes from 0 without gaps: np.unique({label}, return_inverse=True)[1]."
        )
    return count


def with_classes(derive: Derive, label: str = "label") -> Derive:
    """What a model derives of its rows, and `num_classes` of their labels, where they have some."""

    def derived(data: Mapping[str, Any]) -> dict[str, Any]:
        codes = numbers(data.get(label))
        found = {} if codes is None else {"num_classes": num_classes(label, codes, data.get("num_classes"))}
        return derive(data) | found

    return derived


def with_sides(derive: Derive, keyword: str = "x") -> Derive:
    """What a model derives of its pictures, and their `height`, `width`, `channels` (0 where there is no axis of them), any sides.

    ValueError for what is no picture.
    """

    def derived(data: Mapping[str, Any]) -> dict[str, Any]:
        rows = numbers(data.get(keyword))
        if rows is None:
            return derive(data)
        _check_pictures(keyword, rows)
        channels = rows.shape[3] if rows.ndim == 4 else 0
        return derive(data) | {"height": rows.shape[1], "width": rows.shape[2], "channels": channels}

    return derived


# ---- stages of sides that double


def progressive(x: np.ndarray, stage: int | None = None, fade: float = 1.0) -> dict[str, Any]:
    """The data of a stage, of pictures x (row, side, side) or (row, side, side, channel): means of squares of their pixels.

    stage: of 4 2^stage pixels a side; by default that of x. ValueError for other sides, and for sides smaller than a stage's.
    """
    x = np.asarray(x)
    own = stage_of("x", x)
    if stage is not None and not 0 <= stage <= own:
        raise ValueError(f"stage is {stage}; pictures of {x.shape[1]} pixels a side have stages 0 to {own}.")
    for _ in range(own - (own if stage is None else stage)):
        x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, *x.shape[3:]).mean((2, 4))
    return {"x": x, "fade": fade}


def stage_of(keyword: str, x: np.ndarray) -> int:
    """The stage of square pictures of 4, 8, 16, ... pixels a side; ValueError for others."""
    if x.ndim not in (3, 4) or x.shape[1] != x.shape[2] or x.shape[1] < 4 or x.shape[1] & (x.shape[1] - 1):
        raise ValueError(
            f"{keyword} has shape {x.shape}; expected square pictures (row, side, side) of 4, 8, 16, 32, ... pixels a side.\n"
            f"Pad them, 28 to 32: np.pad({keyword}, ((0, 0), (2, 2), (2, 2)))."
        )
    return int(x.shape[1]).bit_length() - 3


def in_stages(keyword: str, low: float = 0.0, high: float = 1.0) -> Derive:
    """What a model derives of pictures of a stage: `stage`, `channels`; ValueError for others, and for a `fade` outside 0 to 1."""

    def derive(data: Mapping[str, Any]) -> dict[str, Any]:
        rows, fade = numbers(data.get(keyword)), numbers([data.get("fade", 1.0)])
        if fade is None or not 0 <= float(fade.ravel()[0]) <= 1:
            raise ValueError(f"fade is {data.get('fade')}; it must be from 0, the stage before, to 1.")
        if rows is None:
            return {}
        check_range(keyword, rows, float(data.get("low", low)), float(data.get("high", high)))
        stage = stage_of(keyword, rows)
        if stage == 0 and float(fade.ravel()[0]) != 1:
            raise ValueError(f"fade is {data['fade']}; stage 0 has no stage before it: leave fade at 1.")
        return {"stage": stage, "channels": rows.shape[3] if rows.ndim == 4 else 0}

    return derive


# ---- edges, of which a program may be asked to make a picture


def edges(pictures: np.ndarray) -> np.ndarray:
    """How steep grey levels are at every pixel: (row, height, width) -> the same shape, each picture's steepest pixel at 1.

    The length of Sobel's two slopes, each a difference across three pixels; pixels past the border are those on it.
    """
    from scipy.ndimage import correlate1d

    pictures = np.asarray(pictures, np.result_type(pictures, np.float32))  # differences of bytes would wrap

    def slope(axis: int) -> Any:
        along = correlate1d(pictures, [-1, 0, 1], axis, mode="nearest")
        return correlate1d(along, [1, 2, 1], 3 - axis, mode="nearest")  # scipy's sobel would smooth over rows, too

    steep = np.hypot(slope(1), slope(2))
    top = steep.max((1, 2), keepdims=True)
    return steep / np.where(top > 0, top, 1.0)


def with_edges(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs: edges, and the pictures that they are of."""
    return edges(pictures), pictures
