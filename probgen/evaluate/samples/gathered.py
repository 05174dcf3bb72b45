"""What is compared: samples, rows held out and rows learned from, in one shape and on one scale."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from probgen import datasets
from probgen.data.whole_numbers import generator
from probgen.evaluate.features.pictures import apart, are_pictures, scale_of, scaled
from probgen.evaluate.samples.drawn import alike, drawn
from probgen.evaluate.samples.rows import checked
from probgen.fitted import Fitted

MOST = 10_000  # rows of data that are compared
UNIT = (0.0, 1.0)
WIDE = 64  # numbers of a row that may be pixels


@dataclass(frozen=True)
class Gathered:
    """Samples and data (row, *event); train: rows learned from, or None; held_out: whether data are not among them.

    name: of the data set, where it was named. clipped: the share of values of samples beyond black and white.
    """

    samples: np.ndarray
    data: np.ndarray
    train: np.ndarray | None
    held_out: bool
    name: str | None = None
    pictures: bool = False
    clipped: float = 0.0
    notes: tuple[str, ...] = field(default=())


def gathered(
    samples: Any, data: Any, train: Any, num: int, site: str | None, value_range: tuple[float, float] | None, seed: int
) -> Gathered:
    """Everything read, drawn where it must be, and brought to the shape and the scale of the data."""
    name = data if isinstance(data, str) else None
    given = None if name is None and data is None else _named(name) if name else checked(data, 2, "data")
    notes: list[str] = []
    held_out = given is not None and (name is None or name in datasets.HELD_OUT)
    if isinstance(samples, Fitted):
        own, learned, held, notes = drawn(samples, num, site, seed)
        if given is None:
            name = datasets.name_of(held, learned)
            given, told = _held(name, held)
            held_out, notes = given is not None, [*notes, *told]
        train = learned if train is None else train
    else:
        own = samples
        train = datasets.load(name) if train is None and name else train
    own = checked(own, 2, "samples")
    train = None if train is None else checked(train, 2, "train")
    if given is None and train is None:
        raise TypeError(
            "What are the samples compared with? Pass data=, rows that were not learned from, or a data set's name."
        )
    if not held_out:
        notes.append("data are the rows that were learned from: none were held out, and a memoriser looks good")
    reference = _some(train if given is None else given, seed)
    shape = reference.shape[1:]
    found = Gathered(alike(own, shape, "samples"), reference, _shaped(train, shape), held_out, name, notes=tuple(notes))
    return _on_one_scale(found, value_range)


def _held(name: str | None, held: np.ndarray) -> tuple[np.ndarray | None, list[str]]:
    """Rows that a fit did not learn from, and a note: those that it held out, else those of the data set that it learned from."""
    known = f" {name!r}" if name else ""
    if len(held) > 1:
        of = f" of the data set{known}" if name else ""
        return held, [f"data are the {len(held)} rows{of} that the fit held out of learning"]
    found = datasets.held_out(name) if name else None
    return found, [] if found is None else [f"data are held-out rows of{known}, on whose other rows the fit learned"]


def _named(name: str) -> np.ndarray:
    """The held-out rows of a named data set, or its only ones."""
    found = datasets.held_out(name)
    found = datasets.load(name) if found is None else found
    if isinstance(found, tuple):
        raise ValueError(
            f"The data set {name!r} is of pairs; pass the rows that samples are compared with, as an array."
        )
    return found


def _some(rows: np.ndarray, seed: int) -> np.ndarray:
    """At most `MOST` rows, by chance."""
    if len(rows) <= MOST:
        return rows
    return rows[np.sort(generator(seed).choice(len(rows), MOST, replace=False))]


def _shaped(train: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    return None if train is None else alike(train, shape, "train")


def _on_one_scale(found: Gathered, value_range: tuple[float, float] | None) -> Gathered:
    """Pictures from 0 to 1; other rows as floats. Rows of a picture's shape with other values are no pictures, unless said."""
    data, samples = found.data, found.samples
    shaped = are_pictures(data.shape[1:])
    bytes_or_unit = data.dtype == np.uint8 or (data.min() >= 0 and data.max() <= 1)
    if not shaped or (value_range is None and not bytes_or_unit):
        if value_range is not None:
            raise ValueError(f"value_range is for pictures; rows of shape {data.shape[1:]} are none.")
        told = [_apart(found, scale_of(data), x, k) for k, x in (("samples", samples), ("train", found.train))]
        train = None if found.train is None else found.train.astype(float)
        notes = (*found.notes, *filter(None, told))
        return replace(found, samples=samples.astype(float), data=data.astype(float), train=train, notes=notes)
    chosen = UNIT if value_range is None else value_range
    data, _ = scaled(data, UNIT if found.name else chosen, "data", strict=True)
    given, (samples, clipped) = samples, scaled(samples, chosen, "samples", strict=False)
    if given.dtype != np.uint8:
        _apart(found, chosen, given, "samples")
    train = None if found.train is None else scaled(found.train, _own(found.train, chosen), "train", strict=True)[0]
    notes = [f"{clipped:.2%} of the values of samples were outside {chosen} and are clipped"] if clipped else []
    notes += _levels(samples, data)
    return replace(
        found, samples=samples, data=data, train=train, pictures=True, clipped=clipped, notes=(*found.notes, *notes)
    )


def _apart(found: Gathered, own: tuple[float, float] | None, x: np.ndarray | None, name: str) -> str:
    """A note that rows are on another scale than the data, which is a ValueError for pictures, flat ones too."""
    told = "" if x is None else apart(x, own, name)
    shape = found.data.shape[1:]
    if told and (are_pictures(shape) or np.prod(shape) >= WIDE):
        raise ValueError(told)
    return told.partition("\n")[0]


def _own(train: np.ndarray, chosen: tuple[float, float]) -> tuple[float, float]:
    """Rows of a named data set are from 0 to 1, whatever samples are."""
    return UNIT if train.min() >= 0 and train.max() <= 1 and chosen[0] < 0 else chosen


def _levels(samples: np.ndarray, data: np.ndarray) -> list[str]:
    """A note where one has grey levels and the other black and white alone: any measure tells them apart by that."""
    binary = [bool(np.isin(x[:200], (0, 1)).all()) for x in (samples, data)]
    if binary[0] == binary[1]:
        return []
    which = ("samples are black and white, data grey", "samples are grey, data black and white")[binary[1]]
    return [f"{which}: they differ by that alone; compare with the data set in the form that was learned from"]
