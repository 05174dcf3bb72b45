"""Rows of bits, levels and tokens: how many values a unit has, and into what pieces its rows part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probgen.data.inputs import first
from probgen.data.scales import numbers

TOKENS = 64  # pieces of a row, at most, where that can be
LONGEST = 8  # of a piece of a vector
MOST = 100_000  # values of a unit


def of_tokens(keyword: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What a model derives of rows (row, unit) or (row, height, width) of whole numbers.

    `num_values`, at least 2; `height`, 0 for vectors, `width`; `piece`, the side of the squares, or the length of the pieces, that
    make at most 64 tokens of a row. Raises ValueError for reals, but for those from 0 to 1 where the data say num_values=2: of them
    every batch draws its bits anew.
    """

    def derive(data: Mapping[str, Any]) -> dict[str, Any]:
        rows = numbers(data.get(keyword))
        if rows is None or not rows.size:
            return {}
        if rows.ndim not in (2, 3):
            raise ValueError(
                f"{keyword} has shape {rows.shape}; expected (row, unit) or (row, height, width). Reshape it."
            )
        said = data.get("num_values")
        _check(keyword, rows, said)
        found = {} if said is not None else {"num_values": max(2, int(rows.max()) + 1)}
        height, width = rows.shape[1:] if rows.ndim == 3 else (0, rows.shape[1])
        return found | {"height": height, "width": width, "piece": piece(height, width)}

    return derive


def _check(keyword: str, rows: np.ndarray, said: Any) -> None:
    """ValueError for rows that are no tokens."""
    most = (MOST if said is None else int(said)) - 1
    bad = (rows < 0) | (rows > most)
    if said != 2:
        bad |= rows != np.rint(rows)
    if not bad.any():
        return
    at = first(bad)
    grey = (
        "\nFor grey from 0 to 1 as the probabilities of bits pass num_values=2 with the data."
        if rows.max() <= 1
        else ""
    )
    raise ValueError(
        f"{keyword}{at} is {rows[bad][0]:g}; expected whole numbers from 0{f' to {most}' * (said is not None)}: "
        "what is masked has finitely many values.\n"
        f"Round or bin reals first, or learn them by 'ddpm' or 'velocity'.{grey}"
    )


def piece(height: int, width: int) -> int:
    """The smallest side of squares, or length, that makes at most 64 tokens; 1 where only long pieces would."""
    sides = (height, width) if height else (width,)
    good = [p for p in range(1, min(sides) + 1) if all(s % p == 0 for s in sides)]
    few = [p for p in good if np.prod([s // p for s in sides]) <= TOKENS]
    least = min(few, default=1)
    least = least if height or least <= LONGEST else 1
    return 2 if height and least == 1 and 2 in good else least
