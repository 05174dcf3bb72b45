"""The constant of a learned energy, and the log probabilities of data: exact where states can be counted, else estimated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.result import LogProb

if TYPE_CHECKING:
    from probgen.result import LearnedFit

METHODS = ("auto", "enumeration", "ais")


def log_z(fit: LearnedFit, method: str = "auto", **settings: Any) -> LogProb:
    """log Z of a learned model; see `LearnedFit.log_z`."""
    from probgen.evaluate import energy

    if method not in METHODS:
        raise ValueError(f"method is {method!r}; known: {', '.join(METHODS)}")
    target = fit.condition().blocked()  # type: ignore[attr-defined]
    if method != "ais":
        try:
            return energy.log_z(target)
        except energy.TooLarge:
            if method == "enumeration":
                raise
    from probgen.evaluate import ais

    return ais.log_z(target, fit._rows({}), seed=fit.seed, **settings)


def log_prob(fit: LearnedFit, rows: Mapping[str, np.ndarray], method: str = "auto") -> LogProb:
    """log p of rows: (row,)."""
    from probgen.evaluate.energy import free_energies

    constant = log_z(fit, method)
    return LogProb(-free_energies(fit.target, fit.answer, rows) - constant.value, constant.stderr, constant.kind)
