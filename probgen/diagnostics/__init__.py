"""The verdict on a Fit: pass, warn or fail, every check with its number, its bar and the remedy.

A check is a function of the `Evidence` that gives one Finding, or None where it does not apply.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import numpy as np

from probgen import runtime
from probgen.algorithm import Learner
from probgen.diagnostics import baselines, chains, convention, guides, learners, samples, unbounded
from probgen.diagnostics.chains import r_hat
from probgen.diagnostics.every import complete, finite, gradient
from probgen.diagnostics.evidence import (
    Evidence,
    Looked,
    Scalars,
    Weights,
    going_on,
    has_draws,
    looked_at,
    scalars,
    smoothed_weights,
    varying,
    with_summaries,
)
from probgen.diagnostics.finite_modes import finite_modes
from probgen.diagnostics.learners import loss_drop
from probgen.diagnostics.samples import densities, particles, textures
from probgen.diagnostics.unvisited import modes
from probgen.diagnostics.verdict import SEVERITY, Finding, Verdict, agreed
from probgen.fitted import Fitted, FittedBridge, FittedDenoiser
from probgen.programs.completable import PartlyKnown
from probgen.programs.fields import Field
from probgen.target import Conditional, Generative

__all__ = [
    "SEVERITY", "Evidence", "Finding", "Looked", "Scalars", "Verdict", "Weights", "convention", "diagnose", "looked_at",
    "loss_drop", "r_hat", "scalars", "smoothed_weights", "varying",
]  # fmt: skip

CHAIN_CHECKS = (*chains.CHECKS, gradient, modes, finite_modes)
GAME_CHECKS = (learners.loss, *samples.CHECKS, *baselines.CHECKS)  # its loss falls and rises with the opponent's moves
DENOISER_CHECKS = (*learners.CHECKS, *samples.OF_NOISE, gradient)
BRIDGE_CHECKS = (*learners.CHECKS, *samples.OF_BRIDGES)
UNSEEN = (
    "This learner's loss is no likelihood, and what the model draws was not compared with rows: pg.evaluate(fit), or "
    "`probgen evaluate RUN`, compares them."
)
LEARNER_CHECKS = (
    *learners.CHECKS, *baselines.CHECKS, *unbounded.CHECKS, *guides.CHECKS, *samples.OF_DENSITIES,
    *samples.OF_ENERGIES, gradient, modes,
)  # fmt: skip


def diagnose(fit: Fitted) -> Verdict:
    """The verdict on a fit: every check that applies to it, the worst first."""
    with runtime.compile_cache() if fit.target.engine == "numpyro" else contextlib.nullcontext():
        found = agreed(_findings(fit))
    notes = (*fit.notes, UNSEEN) if _unseen(fit, found) else fit.notes
    if isinstance(fit.inference, Learner) and _checks(fit) is LEARNER_CHECKS:
        notes = (*notes, *densities.unsaid(fit))
    return Verdict(tuple(sorted(found, key=lambda f: -SEVERITY[f.status])), notes)


def _unseen(fit: Fitted, found: list[Finding]) -> bool:
    """Whether neither a loss nor a check says what a learned program draws, as of energies."""
    learner = fit.inference
    if not isinstance(learner, Learner) or not isinstance(fit.target, Generative) or _checks(fit) is not LEARNER_CHECKS:
        return False
    return learner.loss_of in ("loss", "pseudo-likelihood") and not {"baseline", "new draws", "two_sample", "draws"} & {
        f.check for f in found
    }


def _checks(fit: Fitted) -> tuple[Any, ...]:
    if not isinstance(fit.inference, Learner):
        return CHAIN_CHECKS
    if isinstance(fit.target, PartlyKnown):
        return (learners.loss, *particles.CHECKS)
    if isinstance(fit.target, Field):
        return textures.CHECKS
    if isinstance(fit, FittedDenoiser):
        return DENOISER_CHECKS
    if isinstance(fit, FittedBridge):
        return BRIDGE_CHECKS
    return GAME_CHECKS if fit.inference.loss_of == "game" else LEARNER_CHECKS


def _findings(fit: Fitted) -> list[Finding]:
    learned = isinstance(fit.inference, Learner)
    if has_draws(fit) and fit.z.shape[1] == 0:
        message = f"there are no draws: the run stopped in its warm-up, at step {fit.num_steps}"
        return [Finding("draws", "fail", 0.0, 1.0, message, going_on(fit))]
    records = {k: v[:, fit.num_warmup :] for k, v in fit.records.items() if k != "z"}
    scalar = has_draws(fit) and not isinstance(fit.target, Field)
    looked = looked_at(fit) if scalar else Looked(Scalars((), np.zeros((0, 1, 1))), 0, 0)
    every = looked.scalars
    if isinstance(fit.target, Conditional) and not learned:
        every = with_summaries(fit, every)
        every = every.pick(varying(every.draws))
    evidence = Evidence(fit, every, fit.records if learned else records, looked.told)
    checks = (finite, *_checks(fit), complete)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ's, on chains that do not move: the checks name them
        return [finding for check in checks if (finding := check(evidence)) is not None]
