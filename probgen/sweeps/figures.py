"""What a sweep tells of a fit: the figures of a comparison, and what a grid is searched by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from probgen.comparison import COLUMNS, costs
from probgen.diagnostics import Verdict
from probgen.fits.completed import CompletedFit
from probgen.fitted import Fitted

LAST = 50  # steps whose loss is averaged
WORDS = ("log_prob_kind",)
MEANINGS = {
    k: v for k, v in COLUMNS.items() if k not in ("verdict", "mean_diff", "noise", "sd_diff", "seconds", "compiling")
} | {
    "divergences": "divergent transitions after warm-up",
    "training_loss": f"of a learner: its loss, mean of the last {LAST} steps",
    "held_out_loss": "of a learner with held-out rows (validation): their smallest loss",
    "evidence_bound": "of a variational fit: mean of log p - log q over its draws, below the log evidence",
    "log_evidence": "log evidence of what is known, in nats, where draws are weighted",
}


def figures(fit: Fitted, verdict: Verdict) -> dict[str, Any]:
    """Figures by the names in `MEANINGS`, those that this fit has."""
    found = {**costs(fit, verdict), **dict(_further(fit))}
    return {k: v if k in WORDS else float(v) for k, v in found.items() if k in MEANINGS}


def _further(fit: Fitted) -> Iterator[tuple[str, Any]]:
    records, answer = fit.records, fit.answer
    if "diverging" in records:
        yield "divergences", np.sum(records["diverging"][:, fit.num_warmup :])
    if "loss" in records:
        yield "training_loss", np.mean(records["loss"][:, -LAST:])
    if np.isfinite(held := records.get("validation", np.full(1, np.nan))).any():
        yield "held_out_loss", np.nanmin(held)
    if {"log_p", "log_q"} <= answer.keys():
        yield "evidence_bound", np.mean(answer["log_p"] - answer["log_q"])
    if isinstance(fit, CompletedFit) and "log_evidence" in answer:
        yield "log_evidence", fit.log_evidence.value
