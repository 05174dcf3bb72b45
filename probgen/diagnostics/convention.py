"""One convention for intervals and tails: ArviZ's, as its rcParams say (`stats.ci_prob`, `stats.ci_kind`)."""

from __future__ import annotations

from typing import Any

import numpy as np


def probability() -> float:
    """The probability of an interval: ArviZ's `stats.ci_prob`."""
    from arviz_base import rcParams

    return float(rcParams["stats.ci_prob"])


def kind() -> str:
    """The kind of an interval, "eti" (equal tails) or "hdi" (highest density): ArviZ's `stats.ci_kind`."""
    from arviz_base import rcParams

    return str(rcParams["stats.ci_kind"])


def per_cent() -> str:
    """The probability in words."""
    return f"{100 * probability():.3g} %"


def interval(draws: np.ndarray, prob: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the intervals of scalars (scalar, draw): (scalar,) each."""
    from arviz_stats.base import array_stats

    prob = probability() if prob is None else prob
    if kind() == "hdi" and len(draws):
        ends = np.array([array_stats.hdi(row, prob=prob, axis=-1) for row in draws])
        return ends[:, 0], ends[:, 1]
    low, high = np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2], axis=1)
    return low, high


def tail_ess(draws: np.ndarray) -> Any:
    """The effective sample size of the tails of scalars (scalar, chain, draw), as `arviz_stats.summary` takes them."""
    from arviz_stats.base import array_stats

    return array_stats.ess(draws, method="tail", prob=probability())


def tails() -> str:
    """The quantiles of `tail_ess` in words."""
    low, high = sorted((probability(), 1 - probability()))
    return f"{100 * low:.3g} % and {100 * high:.3g} %"
