"""Likelihoods without a maximum: classes that inputs separate, densities with a spike at a single row, modes of flat priors.

Classes: with logits linear in the inputs there is no maximum if and only if some direction of the parameters raises the probability
of some rows and lowers that of none (Albert and Anderson 1984, doi:10.1093/biomet/71.1.1); a linear program finds it (Konis 2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probgen.data.points import climbed
from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.verdict import Finding, Status
from probgen.engine.drawable import weighed
from probgen.target import Continuous, Learnable

MOST = 20_000  # rows
CELLS = 300_000  # rows times columns of a linear program
SECONDS = 2.0  # of a linear program
CATEGORIES = 20  # values of an integer input that is taken for a group
SURE = np.log(0.75)  # of rows that inputs tell apart
SPIKE = 4.0  # nats above nine tenths of the rows
PRIOR = "a prior (fit by 'map' or 'nuts'), or weight_decay=0.001: without one the parameters grow for ever"


def _is_density(target: Learnable) -> bool:
    """Whether a learned program has a log probability of rows that is known at once."""
    return target.normalised and not weighed(target)


def classes(evidence: Evidence) -> Finding | None:
    """Whether inputs separate the classes of rows, for a density of one bit or class given inputs."""
    fit, target = evidence.fit, evidence.fit.target
    if not isinstance(target, Learnable) or not _is_density(target) or not target.inputs:
        return None
    visible = target.visible
    if len(visible) != 1 or visible[0].size != 1 or visible[0].kind not in ("bits", "levels"):
        return None
    if evidence.settings.get("weight_decay") or target.num_rows > MOST:
        return None
    rows = target.all_rows()
    log_p = np.asarray(fit.log_prob().value)
    y = rows[visible[0].name].reshape(len(log_p))
    few = sum(np.size(v) for v in fit.answer.values()) < len(y)
    if (log_p > np.log(0.5)).all():
        status: Status = "fail" if few else "warn"
        message = f"all {len(y)} rows are told apart: the likelihood has no maximum, its parameters grow for ever"
        return Finding("separable", status, 1.0, None, message, PRIOR)
    apart = separated(design([rows[k] for k in target.inputs]), y) if few else np.zeros(len(y), bool)
    if apart.any() and np.mean(log_p[apart] > SURE) > 0.95:
        message = f"the inputs of {int(apart.sum())} of {len(y)} rows tell their class for certain: the likelihood has no maximum"
        return Finding("separable", "fail", float(apart.mean()), None, message, PRIOR)
    return Finding("separable", "pass", 0.0, None, "no class is told for certain by the inputs", PRIOR)


def design(inputs: list[np.ndarray]) -> np.ndarray:
    """Columns of inputs with mean 0 and sd 1, integers of few values as groups, and a column of ones: (row, column)."""
    columns = [np.ones((len(inputs[0]), 1))]
    for array in inputs:
        for column in np.asarray(array, float).reshape(len(array), -1).T:
            values = np.unique(column)
            if 2 < len(values) <= CATEGORIES and (values == np.round(values)).all():
                columns.append((column[:, None] == values[1:]).astype(float))
            elif len(values) > 1:
                columns.append(((column - column.mean()) / column.std())[:, None])
    return np.concatenate(columns, axis=1)


def separated(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rows (row,) that a linear classifier of one class against the rest tells for certain, with no row on the wrong side.

    None where the linear program would be too large, or takes too long.
    """
    kinds = np.unique(y)
    if X.size > CELLS or len(kinds) < 2:
        return np.zeros(len(y), bool)
    for kind in kinds[1:] if len(kinds) == 2 else kinds:
        found = _told(X * np.where(y == kind, 1.0, -1.0)[:, None], SECONDS / len(kinds))
        if found.any():
            return found
    return np.zeros(len(y), bool)


def _told(signed: np.ndarray, seconds: float) -> np.ndarray:
    """Rows with a margin in the direction that gives one to most, none having a negative one: (row,)."""
    from scipy.optimize import linprog

    count, dim = signed.shape
    cost = np.concatenate([np.zeros(dim), -np.ones(count)])  # the sum of margins, each at most 1
    limits = [(-1e4, 1e4)] * dim + [(0.0, 1.0)] * count
    found = linprog(
        cost,
        A_ub=_beside(-signed),
        b_ub=np.zeros(count),
        bounds=limits,
        method="highs",
        options={"time_limit": seconds},
    )
    return found.x[dim:] > 0.5 if found.status == 0 else np.zeros(count, bool)


def _beside(matrix: np.ndarray) -> Any:
    """A matrix with the identity to its right."""
    from scipy import sparse

    return sparse.hstack([sparse.csr_matrix(matrix), sparse.eye(len(matrix))]).tocsr()


def spikes(evidence: Evidence) -> Finding | None:
    """Whether a mixture gives a few rows a density far above that of all others: a component that shrinks onto them."""
    fit, target = evidence.fit, evidence.fit.target
    if not isinstance(target, Learnable) or not _is_density(target) or target.num_rows > MOST:
        return None
    if not any("Mixture" in s.distribution for s in target.sites) or target.visible[0].kind != "reals":
        return None
    log_p = np.asarray(fit.log_prob().value)
    dim = target.visible[0].size
    above = np.flatnonzero(log_p > np.quantile(log_p, 0.9) + SPIKE * max(1.0, dim / 2))
    rows = target.all_rows()[target.visible[0].name]
    remedy = "fewer components, a prior on their scales, or inference='em' with a larger smoothing"
    if len(above) and (len(above) <= dim + 1 or np.ptp(rows[above], axis=0).max() == 0):
        height = float(log_p[above].max() - np.median(log_p))
        message = (
            f"the density of {len(above)} rows (row {above[0]}) is {height:.3g} nats above the others': "
            "a component shrinks onto them, and the likelihood has no maximum"
        )
        return Finding("spikes", "fail", height, None, message, remedy)
    return Finding("spikes", "pass", 0.0, None, "no component has shrunk onto a few rows", remedy)


def ray(evidence: Evidence) -> Finding | None:
    """Whether a mode is one: farther out in its own direction the density must not be higher."""
    fit = evidence.fit
    if fit.inference.name not in ("map", "laplace") or not isinstance(fit.target, Continuous) or not fit.z.size:
        return None
    z = fit.z.reshape(-1, fit.z.shape[-1]).mean(0)
    here, there, far = climbed(fit.inference, fit.target).gradients(np.stack([z, 1.5 * z, 3 * z]))[0]
    remedy = "a proper prior: the density has no maximum, its unknowns grow for ever"
    if np.isfinite([here, there, far]).all() and far > there > here:
        message = f"the log density is {far - here:.3g} nats higher three times as far from 0: this is no mode"
        return Finding("mode", "fail", float(far - here), 0.0, message, remedy)
    return Finding("mode", "pass", 0.0, 0.0, "the density is no higher farther out", remedy)


CHECKS = (classes, spikes, ray)
