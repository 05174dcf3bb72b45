"""Rows of reals, or of whole numbers: which of the two, and what a model derives of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probgen.data import scales

MOST = 256  # levels of a coordinate


def either(x: Any) -> np.ndarray:
    """Reals as they are; grey from 0 to 1 in at most 255 equal steps as whole numbers; whole numbers as integers.

    x: (row, ...).
    """
    x = np.asarray(x)
    if x.dtype.kind in "iub" or x.dtype.kind != "f" or not np.isfinite(x).all() or not x.size:
        return x.astype(int) if x.dtype.kind == "b" else x
    if x.min() >= 0 and x.max() == 1:
        found = np.unique(x[: 1 + 10**6 // max(1, x[0].size)])
        step = 1 / np.diff(found).min() if len(found) > 1 else 1.0
        if step < MOST and (abs(x * round(step) - np.rint(x * round(step))) < 1e-4).all():
            return np.rint(x * round(step)).astype(int)
    return np.rint(x).astype(int) if whole_numbers(x) else x


def whole_numbers(x: np.ndarray) -> bool:
    """Whether all are integers of which there are at most 256, from 0."""
    return bool(x.min() >= 0 and x.max() < MOST and _whole(x))


def _whole(x: np.ndarray, given: Any = None) -> bool:
    """Whether all are integers that could be fractions in the type in which they were given: large floats are all integers."""
    kind = given.dtype if isinstance(given, np.ndarray) else x.dtype
    exact = 2 / np.finfo(kind).eps if kind.kind == "f" else np.inf
    return bool(abs(x).max() < exact and (x == np.rint(x)).all())


def levels_or_scales(keyword: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What a model derives of its rows: `whole`, how many levels they have, for integers; else `centre` and `spread`, (1, *event).

    ValueError for integers below 0 or above 255: a density of reals has no largest likelihood there.
    """
    scaled = scales.one_scale(keyword)

    def derive(data: Mapping[str, Any]) -> dict[str, Any]:
        rows = scales.numbers(data.get(keyword))
        if rows is None or not rows.size or rows.ndim < 2 or "whole" in data:
            return {}
        if whole_numbers(rows):
            return {"whole": max(2, int(rows.max()) + 1)}
        if _whole(rows, data[keyword]):
            raise ValueError(
                f"{keyword} holds whole numbers from {rows.min():g} to {rows.max():g}; expected 0 to {MOST - 1}, or reals.\n"
                "Shift them to begin at 0, or add noise: probgen.data.dequantise."
            )
        return scaled(data)

    return derive


def reals_only(keyword: str, one: bool = False) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What a density of reals derives of its rows: `centre` and `spread`, (1, *event); ValueError for whole numbers.

    A density of reals grows without end on whole numbers: its bits a dimension would be negative. one: whether all coordinates have
    one spread, as pixels have.
    """
    scaled = scales.one_scale(keyword) if one else scales.standard(keyword)

    def derive(data: Mapping[str, Any]) -> dict[str, Any]:
        rows = scales.numbers(data.get(keyword))
        if (
            rows is not None
            and rows.size
            and rows.ndim > 1
            and (either(rows).dtype.kind == "i" or _whole(rows, data[keyword]))
        ):
            raise ValueError(
                f"{keyword} holds whole numbers, or grey in equal steps: a density of reals has no largest likelihood there.\n"
                "Add noise, probgen.data.dequantise.dequantised(x, levels), or use 'ddpm', which takes them as they are."
            )
        return scaled(data)

    return derive
