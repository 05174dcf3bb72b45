"""Draws of a learned energy for its verdict, and whether they are to be trusted.

Exact draws are. Of chains those that began at rows and those that began anew must not be told apart: by R-hat of the energy between
the two groups (Margossian et al. 2024, doi:10.1214/24-BA1453), and by the classifier that tells draws from rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from probgen.data.grey import as_bits
from probgen.diagnostics.samples.told_apart import told_apart
from probgen.target import Arrays

DRAWS = 2000  # exact ones
R_HAT = 1.03  # of the energy, between the groups: means a third of a standard deviation apart
SURE = 0.005  # p-value that is no chance
ROWS = 500  # that chains' draws are held against


@dataclass(frozen=True)
class Drawn:
    """What stands for an energy's draws.

    draws: visible sites {site: (draw, *event)}, None where there are none; against: numbers of the rows to hold them against.
    trusted: whether they are of the model's law; told: how they were made, or why they are not to be trusted.
    value: R-hat of the energy; None of exact draws.
    """

    draws: Arrays | None
    against: np.ndarray
    trusted: bool
    told: str
    value: float | None = None


def drawn(fit: Any, known: np.ndarray) -> Drawn:
    """Kept with the fit. known: numbers of the rows that were learned from, in a random order."""
    found = vars(fit)
    if "_energy_draws" not in found:
        found["_energy_draws"] = _drawn(fit, known)
    return found["_energy_draws"]


def kept(fit: Any) -> Drawn:
    """What `drawn` has made."""
    return vars(fit)["_energy_draws"]


def rows(fit: Any) -> Arrays:
    """All rows of the visible sites, bits where they are grey levels."""
    return as_bits(fit.target, fit.target.all_rows())


def _drawn(fit: Any, known: np.ndarray) -> Drawn:
    from probgen.engine.numpyro.sums.energy import NotConditional
    from probgen.evaluate import energy_draws

    found = energy_draws.exact(fit, DRAWS, fit.seed + 5)
    if found is not None:
        return Drawn(_visible(fit, found[0]), known, True, found[1])
    half = min(ROWS, len(known) // 2)
    against, starts = known[:half], known[half:]
    if not len(starts):
        return Drawn(None, known, False, "there is no row to begin a chain at")
    told: list[tuple[float, float]] = []

    def agreed(chains: Any) -> bool:
        told.append(_apart(fit, chains))
        return told[-1][0] <= R_HAT and told[-1][1] >= SURE

    try:
        chains = energy_draws.chains(fit, starts, fit.seed + 5, agreed)
    except NotConditional as error:
        return Drawn(None, known, False, f"they cannot be drawn: {str(error).splitlines()[0]}")
    value, p_value = told[-1]
    trusted = value <= R_HAT and p_value >= SURE
    how = f"chains of {chains.sweeps} sweeps from rows and from independent units"
    how += (
        f" {'agree' if trusted else 'do not agree'}: R-hat of the energy {value:.3g}, p = {p_value:.2g} by a classifier"
    )
    return Drawn(_visible(fit, chains.anew if trusted else chains.from_rows), against, trusted, how, value)


def _visible(fit: Any, values: Arrays) -> Arrays:
    return {v.name: values[v.name] for v in fit.target.visible}


def _apart(fit: Any, chains: Any) -> tuple[float, float]:
    """R-hat of the log density between the groups, and the p-value that they are of one law by their visible sites."""
    from arviz_stats.base import array_stats

    logs = chains.log_density
    if not np.isfinite(logs).all():
        return np.inf, 0.0
    count = logs.shape[1]
    r_hat: Any = array_stats.rhat_nested(logs.reshape(2 * count, -1), superchain_ids=np.repeat([0, 1], count))
    sides = [np.concatenate([np.asarray(side[v.name], float).reshape(count, -1) for v in fit.target.visible], axis=1)
             for side in (chains.from_rows, chains.anew)]  # fmt: skip
    if not all(np.isfinite(side).all() for side in sides):
        return float(r_hat), 0.0
    spread = np.concatenate(sides).std(0)
    unit = np.where(spread > 0, spread, 1.0)
    return float(r_hat), told_apart(sides[0] / unit, sides[1] / unit, fit.seed).p_value
