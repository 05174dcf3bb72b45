"""Integers as real numbers, so that a density can be learned of them; `evaluate.density.bits_per_dim` has the units of the result.

    y = (x + u) / levels,  u ~ U[0, 1)^D:   E[log p(y)] - D log levels <= log P(x)

Theis, van den Oord and Bethge 2016 (arXiv:1511.01844).
"""

from __future__ import annotations

from typing import Any

import numpy as np


def dequantised(x: Any, levels: int, seed: int = 0, draws: int = 1) -> np.ndarray:
    """Integers 0 ... levels - 1 with uniform noise, in [0, 1): (draws * row, ...), every draw of the noise one copy of the rows.

    Raises ValueError for anything but such integers, naming the first.
    """
    x = np.asarray(x)
    if levels < 2 or draws < 1:
        raise ValueError(f"levels is {levels} and draws {draws}; expected at least 2 levels and 1 draw.")
    wrong = ~((x >= 0) & (x < levels) & (x == np.round(x)))
    if wrong.any():
        bad = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"x{list(bad)} is {x[bad]:g}; expected integers from 0 to {levels - 1}: rescale, or raise levels."
        )
    noise = np.random.default_rng(seed).random((draws, *x.shape))
    return ((x + noise) / levels).reshape(draws * len(x), *x.shape[1:])
