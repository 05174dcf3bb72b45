"""Estimate: a probability or an expectation with its error, its interval, how it was made, and what it cost."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, repr=False)
class Estimate:
    """A number under a fit's law.

    name: "probability" or "expectation". value: the number, or an array of expectations.
    stderr: its Monte Carlo standard error. interval: from, to, at `confidence`; of a rare event on the log scale, so never below 0.
    method: "monte_carlo", "importance" or "splitting". kind: what kind of number it is.
    effective: how many independent draws it is worth. hits: draws in the event, of plain counting.
    cost: evaluations of the program, pilot runs included. notes: what a reader should know.
    levels: of splitting, where its levels stand. law: whose draws they are.
    """

    name: str
    value: Any
    stderr: Any
    interval: tuple[Any, Any]
    confidence: float
    method: str
    kind: str
    effective: Any
    cost: int
    hits: int | None = None
    law: str = ""
    notes: tuple[str, ...] = ()
    levels: tuple[float, ...] = ()

    @property
    def is_bound(self) -> bool:
        """Whether nothing was hit, so that only an end of the interval says something."""
        return self.kind.startswith(("upper bound", "lower bound"))

    @property
    def log10(self) -> float:
        """log10 of the probability; -inf where nothing was hit."""
        with np.errstate(divide="ignore"):
            return float(np.log10(self.value))

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        low, high = self.interval
        share = f"{100 * self.confidence:g}%"
        if self.kind.startswith("upper bound"):
            told = f"below {number(high)} ({share})"
        elif self.kind.startswith("lower bound"):
            told = f"above {number(low)} ({share})"
        elif np.ndim(self.value) == 0 and np.isinf(self.stderr):
            told = f"{number(self.value)} ({share}: anything)"
        elif np.ndim(self.value):
            return f"{self.name} of shape {np.shape(self.value)}; {self.method}, {self.kind}"
        else:
            told = f"{number(self.value)} +- {number(self.stderr)} ({share}: {number(low)} to {number(high)})"
        worth = float(np.min(self.effective))
        worth = f"worth {worth:,.0f}" if worth < 1e6 else f"worth {worth:.2g}"
        return f"{self.name} {told}; {self.method}, {self.kind}; {worth} plain draws, {self.cost:,} evaluations"

    def __repr__(self) -> str:
        return "\n".join([str(self), *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return f"<p>{html.escape(str(self))}</p><ul>{notes}</ul>"


def number(value: Any) -> str:
    """A number in three digits that tell it from 0 and from 1."""
    value = float(value)
    return f"{1 - value:.3g} below 1" if 0.999 < value < 1 else f"{value:.3g}"
