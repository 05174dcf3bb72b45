"""What is asked of learned programs by their draws: they are run forward, their noise named, points judged by their critic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.engine import load
from probgen.target import Arrays, Generative

SAME = 1e-6  # radians between two directions that are taken for one, or for opposite ones


def forward(
    target: Generative, answer: Arrays, rows: Arrays, count: int, seed: int, given: Arrays | None = None,
    once: bool = False,
) -> dict[str, np.ndarray]:  # fmt: skip
    """All sites run forward, parameters as learned: {site: (count, *event)}.

    rows: inputs by keyword, (count, *event); given: values (count, *event) that stand for draws of some sites. Bits are drawn.
    once: whether it is done once, so that compiling in haste pays.
    """
    return _asked(target, "forward")(target, answer, rows, count, seed, given or {}, once)


def noise(target: Generative, answer: Arrays, rows: Arrays) -> Mapping[str, tuple[tuple[int, ...], str]]:
    """The sites that are drawn and not shown: their shapes, and "standard normal", or what their distribution is called."""
    return _asked(target, "noise")(target, answer, rows)


def returned(target: Generative, answer: Arrays, rows: Arrays) -> dict[str, np.ndarray]:
    """What the way back of a map makes of rows, by keyword, (row, *event), likewise; Incompatible where none was learned."""
    way: Any = getattr(load(target.engine), "returned", None)
    found = way and way(target, answer, rows)
    if not found:
        raise Incompatible("No way back was learned: inference='cycle_gan' learns one, of a program with a guide.")
    return found


def judged(target: Generative, answer: Arrays, rows: Arrays) -> np.ndarray:
    """The learned critic's logits of points, sites and inputs by name, (row, *event): (row,), or (row / pack,)."""
    return _asked(target, "judged")(target, answer, rows)


def pack(target: Generative) -> int:
    """How many rows the critic judges at once; 0 where there is none."""
    return _asked(target, "pack")(target)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """The angle between two arrays as vectors, in radians; NaN where one of them is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return float(2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v)))


def great_circle(a: np.ndarray, b: np.ndarray, at: np.ndarray) -> np.ndarray:
    """From a to b by the great circle, lengths between those of the ends: (point, *shape). Shoemake 1985.

    at: from 0 to 1, (point,). The straight line where no circle, or no single one, joins the ends: same or opposite directions, 0.
    """
    apart = angle(a, b)
    if not SAME <= apart <= np.pi - SAME:
        return np.multiply.outer(1 - at, a) + np.multiply.outer(at, b)
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    turned = np.multiply.outer(np.sin((1 - at) * apart), a / lengths[0]) + np.multiply.outer(
        np.sin(at * apart), b / lengths[1]
    )
    length = (1 - at) * lengths[0] + at * lengths[1]
    return turned / np.sin(apart) * length.reshape(-1, *(1,) * a.ndim)


def _asked(target: Generative, word: str) -> Any:
    """The engine's function; Incompatible where it has none."""
    found = getattr(load(target.engine), word, None)
    if found is None:
        raise Incompatible(f"Draws of many rows at once are for NumPyro programs; this is a {target.engine} program.")
    return found
