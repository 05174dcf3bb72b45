"""Rows of two kinds that are no pairs: their units, and whether a diffusion can go from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probgen.data import scales


def two_kinds(first: str, second: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What a model of two kinds of rows derives of both, {keyword}: `dim`, and for each `centre_{keyword}`, (1, *event), and
    `spread_{keyword}`, the root mean square of its coordinates' standard deviations.

    ValueError for rows of different shapes, for fewer than two rows, and for a `sigma` that is not above 0.
    """

    def derive(data: Mapping[str, Any]) -> dict[str, Any]:
        _check_sigma(data.get("sigma", 1.0))
        found: dict[str, Any] = {}
        if missing := [k for k in (first, second) if data.get(k) is None]:
            are = "is" if len(missing) < 2 else "are"
            raise ValueError(
                f"A diffusion goes between two kinds of rows; {' and '.join(missing)} {are} missing.\n"
                f"Pass data=({first}, {second}), names or arrays of rows, or a mapping."
            )
        kinds = {k: rows for k in (first, second) if (rows := scales.numbers(data.get(k))) is not None}
        for keyword, rows in kinds.items():
            if rows.ndim < 2 or len(rows) < 2:
                raise ValueError(
                    f"{keyword} has shape {rows.shape}; expected two rows or more, (row, dim), of dim coordinates."
                )
            mean, spread = scales.moments(rows)
            found[f"centre_{keyword}"] = mean[None]
            found[f"spread_{keyword}"] = float(np.sqrt(np.mean(spread**2))) or 1.0
        shapes = {k: rows.shape[1:] for k, rows in kinds.items()}
        if len(set(shapes.values())) > 1:
            told = " and ".join(f"{k} {shape}" for k, shape in shapes.items())
            raise ValueError(f"Rows have different shapes, {told}: a diffusion stays in one space; expected the same.")
        return found | {"dim": int(np.prod(next(iter(shapes.values()))))} if shapes else found

    return derive


def _check_sigma(sigma: Any) -> None:
    number = isinstance(sigma, int | float | np.integer | np.floating) and not isinstance(sigma, bool)
    if not number or not 0 < sigma < np.inf:
        raise ValueError(
            f"sigma is {sigma!r}; expected a number above 0, in units of the data.\n"
            "Without noise there is no bridge: for optimal transport make sigma small beside the spread of the rows."
        )
