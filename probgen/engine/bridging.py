"""What is asked of learned diffusions between two kinds of rows: their paths, and where they end."""

from __future__ import annotations

from typing import Any

import numpy as np

from probgen.engine import load
from probgen.programs.bridging import Bridging
from probgen.target import Arrays


def paths(target: Bridging, answer: Arrays, keyword: str, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (time,), rising from 0 to 1, and paths from rows of one kind, (row, *event): (row, time, *event)."""
    return _of(target).paths(target, answer, keyword, rows, seed)


def ends(target: Bridging, answer: Arrays, keyword: str, rows: np.ndarray, seed: int) -> np.ndarray:
    """Where paths end that begin at rows of one kind: (row, *event)."""
    return _of(target).ends(target, answer, keyword, rows, seed)


def sigma(target: Bridging, answer: Arrays) -> float:
    """The standard deviation of the Brownian motion after one unit of time."""
    return _of(target).sigma(target, answer)


def _of(target: Bridging) -> Any:
    """The engine's module of these."""
    return load(target.engine).bridging
