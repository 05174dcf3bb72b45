"""A wide search beside a climb: whether an event has a part that is likelier than what the climb found, and is jumped into.

    p = E_q[1(score > above) N(u; 0, I) / q(u)],   q a mixture of N(0, s^2 I), s = 1.5, 2.5 and 4

A climb takes steps from level to level, and misses what no level leads to. In few dimensions points thrown wide find it.
"""

from __future__ import annotations

import numpy as np

from probgen.data.whole_numbers import generator
from probgen.evaluate.rare.walking import World

WIDTHS = (1.5, 2.5, 4.0)
EACH = 4000  # points of each width
MOST = 12  # dimensions, beyond which wide points are all far away
AT_LEAST = 5  # points in the event, below which the search says nothing
ERRORS = 3.0  # standard errors, by which it has to be above another number


def searched(world: World, seed: int) -> tuple[float, float, float] | None:
    """The probability by points thrown wide, and an interval of three standard errors; None where they tell nothing."""
    dim = world.space.dim
    if world.space.begin is not None or not 0 < dim <= MOST or world.event.above is None:
        return None
    rng = generator(seed, 7)
    u = np.concatenate([width * rng.standard_normal((EACH, dim)) for width in WIDTHS])
    hits = world.look(u).scores > world.event.above
    if hits.sum() < AT_LEAST:
        return None
    weights = np.where(hits, np.exp(_log_ratio(u)), 0.0)
    value, error = float(weights.mean()), float(weights.std(ddof=1) / np.sqrt(len(u)))
    return value, max(0.0, value - ERRORS * error), min(1.0, value + ERRORS * error)


def _log_ratio(u: np.ndarray) -> np.ndarray:
    """log N(u; 0, I) / q(u) of points (point, dim)."""
    squares, dim = (u**2).sum(1), u.shape[1]
    parts = [-0.5 * squares / width**2 - dim * np.log(width) for width in WIDTHS]
    return -0.5 * squares - np.logaddexp.reduce(parts, 0) + np.log(len(WIDTHS))
