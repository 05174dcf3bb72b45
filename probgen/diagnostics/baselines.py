"""A learned density beside the simplest one of the same rows, a fitted normal or independent marginals; its draws beside the rows.

reals: the normal of the rows' mean and covariance, or of their variances alone where the program has fewer parameters than that;
bits, levels, counts: independent coordinates with the rows' frequencies.

What the model gives to a row is read off its loss: of the rows that it learned from, which flatter it, so that what is worse than
the baseline is so for certain; of held-out rows, where the learner kept some. Energies are counted where they have few states.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from probgen.algorithm import Incompatible
from probgen.data import scales
from probgen.diagnostics import convergence
from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.samples import densities
from probgen.diagnostics.verdict import Finding, Status
from probgen.engine.drawable import weighed
from probgen.evaluate.samples.drawn import held_out
from probgen.programs.pinned import Changed
from probgen.target import Learnable

ROWS = 2000  # at most, of an energy
STATES = 2**12  # states of an energy that are counted
LARGEST = 1000  # coordinates of a point whose covariance is fitted, or whose draws are compared
EACH = 10  # rows for each level, below which frequencies of levels would be the rows themselves
SLACK = 0.1  # nats a row
COARSE = 1.0  # nats a coordinate: worse than that, whatever the program may describe
SINGULAR = ("Dirichlet", "Wishart", "WishartCholesky", "LKJ", "LKJCholesky")
CLOSED = ("em", "pca", "cross_validation")  # learners that end at a maximum, whatever it is worth


class Gap(NamedTuple):
    """How much more the baseline gives to a row than the model, in nats, and the standard error; both means; what was compared."""

    value: float
    error: float
    model: float
    baseline: float
    name: str


def density(evidence: Evidence) -> Finding | None:
    """Whether the density describes rows at least as well as a fitted normal or independent marginals do."""
    found = _gap(evidence)
    if found is None:
        return None
    dim, expected = _size(evidence), _expected(evidence)
    held = np.isfinite(evidence.records.get("validation", np.full(1, np.nan))).any()
    held = held or (_played(evidence.fit) and len(held_out(evidence.fit)) > 0)
    of = "held-out rows" if held or evidence.fit.inference.name == "cross_validation" else "rows that it learned from"
    status = _status(found, dim, expected)
    bar = SLACK if expected else COARSE * dim
    allowed = "" if expected else ", as the program has few parameters or is at its maximum"
    message = (
        f"{of}: {found.model:.4g} nats a row (standard error {found.error:.2g}), {found.name} {found.baseline:.4g}; "
        f"at most {bar:.3g} below{allowed}"
    )
    remedy = (
        "more steps or a larger learning_rate; data in units near 1, as (x - x.mean(0)) / x.std(0); or another program: "
        "this density is worse than none"
    )
    if _played(evidence.fit) and status != "pass":
        remedy = (
            "fit.log_prob is not to be relied on: draws were learned, the density was not; inference='mle' learns it"
        )
        return Finding("baseline", "warn", found.value, bar, message, remedy)
    return Finding("baseline", status, found.value, bar, message, remedy)


def _status(found: Gap, dim: int, expected: bool) -> Status:
    """Fail where the baseline is better by far; warn where it is better, and the program should do better."""
    if not np.isfinite(found.value):
        return "fail"
    worse = found.value - 3 * found.error
    if worse > COARSE * dim:
        return "fail" if expected or worse > 10 * COARSE * dim else "warn"
    if not expected:
        return "pass"
    return "fail" if worse > COARSE else "warn" if worse > SLACK else "pass"


def _size(evidence: Evidence) -> int:
    """Coordinates of a row."""
    target: Any = evidence.fit.target
    return sum(v.size for v in target.visible)


def _expected(evidence: Evidence) -> bool:
    """Whether the program should reach the baseline: it has as many parameters, and is at no maximum by the learner's own rule."""
    fit = evidence.fit
    at_rest = fit.inference.name in CLOSED and bool(evidence.records.get("converged", np.zeros((1, 1)))[:, -1].all())
    return not at_rest and _numbers(fit) >= 2 * _size(evidence)


def _gap(evidence: Evidence) -> Gap | None:
    """The baseline and the model on the same rows; None where a row has no density, or none that costs little."""
    fit, target = evidence.fit, evidence.fit.target
    if not isinstance(target, Learnable) or weighed(target):
        return None
    model = _of_draws(fit) if _played(fit) else _by_loss(evidence) if target.proper else _counted(fit)
    if model is None:
        return None
    whole = target.all_rows()
    hidden = bool(getattr(target, "hidden", []))
    each = [_baseline(v, whole[v.name], 0 if hidden else _numbers(fit)) for v in target.visible]
    found = [f for f in each if f is not None]
    if len(found) < len(each):
        return None
    baseline = sum(value for value, _ in found)
    name = " and ".join(dict.fromkeys(word for _, word in found))
    return Gap(baseline - model[0], model[1], model[0], baseline, name)


def _by_loss(evidence: Evidence) -> tuple[float, float] | None:
    """Mean log p of a row, or the bound on it, by the loss at the end, and its standard error."""
    fit, records = evidence.fit, evidence.records
    learner: Any = fit.inference
    if learner.loss_of != "likelihood" or any(s.distribution in SINGULAR for s in fit.target.sites):
        return None
    if fit.inference.name == "cross_validation":
        return -float(np.nanmin(records["loss"])), 0.0
    held = records.get("validation", np.full(1, np.nan))
    if np.isfinite(held).any():
        return -float(held[np.isfinite(held)].min()), 0.0
    loss = records["loss"].mean(axis=0)
    if records.get("converged", np.zeros((1, 1)))[:, -1].all():
        return -float(loss[-1]), 0.0
    late = convergence.level(loss, 1.0)
    return -late.mean, late.error if np.isfinite(late.error) else float(np.nanstd(loss[-20:]))


def _played(fit: Any) -> bool:
    """Whether the learner saw the program's draws alone: its density may be off where they are not."""
    return fit.inference.loss_of == "game"


def _of_draws(fit: Any) -> tuple[float, float] | None:
    """Mean log p of rows that were held out of learning from draws, and its standard error."""
    if not fit.target.normalised:
        return None
    held = held_out(fit)
    rows = {k: v[held[:ROWS] if len(held) else slice(ROWS)] for k, v in fit.target.all_rows().items()}
    keywords = {site: k for k, site in fit.target.keywords.items()}
    log_p = np.asarray(fit.log_prob(**{keywords.get(k, k): v for k, v in rows.items()}).value, float)
    return float(log_p.mean()), float(log_p.std() / np.sqrt(len(log_p)))


def _counted(fit: Any) -> tuple[float, float] | None:
    """Mean log p of rows of an energy with few states, and its standard error."""
    target = fit.target
    if fit.inference.loss_of == "loss" or target.engine != "numpyro":  # patterns to be stored are no density
        return None
    if any(v.kind != "bits" for v in [*target.visible, *target.hidden]):
        return None
    sides = [sum(v.size for v in side) for side in (target.visible, target.hidden)]
    if 2 ** min(side for side in sides if side) > STATES:
        return None
    rows = {k: v[:: 1 + len(v) // ROWS] for k, v in target.all_rows().items()}
    keywords = {site: k for k, site in target.keywords.items()}
    try:
        log_p = fit.log_prob(**{keywords.get(k, k): v for k, v in rows.items()}).value
    except Changed:  # what the fit is of is not there any more
        raise
    except (Incompatible, TypeError, ValueError, NotImplementedError):  # units that cannot be summed
        return None
    return float(np.mean(log_p)), 0.0


def _numbers(fit: Any) -> int:
    """How many parameters the program has."""
    return sum(np.size(v) for v in fit.answer.values())


# ---- baselines ---------------------------------------------------------------------------------------------------


def _baseline(variable: Any, rows: np.ndarray, numbers: int) -> tuple[float, str] | None:
    """Mean log p of rows under the simplest density fitted to them, and what to call it."""
    rows = rows.reshape(len(rows), -1).astype(float)
    if len(rows) < 10 or not np.isfinite(rows).all():
        return None
    few = variable.kind == "levels" and len(rows) < EACH * len(np.unique(rows))
    if variable.kind in ("bits", "levels") and not few:
        return _frequencies(rows), "independent marginals"
    counts = few or (variable.kind == "other" and (rows == np.round(rows)).all())
    return (_counts(rows), "a rounded normal") if counts else _normal(rows, numbers)


def _normal(rows: np.ndarray, numbers: int) -> tuple[float, str] | None:
    """A fitted normal: with covariances, where rows and the program's parameters are enough for them."""
    count, dim = rows.shape
    mean, spread = scales.moments(rows)
    if not (spread > 0).all():
        return None
    independent = float(-np.log(spread).sum() - 0.5 * dim * (1 + np.log(2 * np.pi)))
    if 1 < dim <= LARGEST and numbers >= dim + dim * (dim + 1) // 2 and count > 10 * dim:
        z = (rows - mean) / spread
        values = np.linalg.eigvalsh(z.T @ z / count)
        if values[0] > 1e-6:
            return independent - 0.5 * float(np.log(values).sum()), "a fitted normal"
    return independent, "independent normals"


def _frequencies(rows: np.ndarray) -> float:
    """Independent coordinates of finitely many values; probabilities of bits count as such."""
    if ((rows > 0) & (rows < 1)).any():
        p = rows.mean(0)
        p = p[(p > 0) & (p < 1)]
        return float((p * np.log(p) + (1 - p) * np.log1p(-p)).sum())
    shares = [np.unique(column, return_counts=True)[1] / len(rows) for column in rows.T]
    own = sum(len(p) - 1 for p in shares) / (2 * len(rows))  # by which frequencies flatter their own rows (Miller 1955)
    return float(sum((p * np.log(p)).sum() for p in shares) - own)


def _counts(rows: np.ndarray) -> float:
    """Independent normals of the rows' means and variances, their mass between half-integers."""
    from scipy.stats import norm

    mean, spread = rows.mean(0), np.sqrt(rows.var(0) + 1 / 12)
    upper, lower = norm.cdf((rows + 0.5 - mean) / spread), norm.cdf((rows - 0.5 - mean) / spread)
    return float(np.log(np.maximum(upper - lower, 1e-30)).sum(1).mean())


# ---- draws -------------------------------------------------------------------------------------------------------


def draws(evidence: Evidence) -> Finding | None:
    """Whether the means and spreads of the model's draws are those of the rows."""
    fit, target = evidence.fit, evidence.fit.target
    if not isinstance(target, Learnable) or not target.proper or target.inputs or not _cheap(target):
        return None
    drawn = densities.drawn(fit)
    if isinstance(drawn, str):
        return None
    whole = target.all_rows()
    apart = [_apart(whole[v.name], drawn[v.name]) for v in target.visible]
    shift, ratio = max(a for a, _ in apart), max(b for _, b in apart)
    told = f"{shift:.2g} sd off the rows', spreads a factor of {ratio:.2g}"
    message = f"means of {len(next(iter(drawn.values())))} draws are {told}, beyond noise; at most 0.5 and 2"
    remedy = "more steps, data in units near 1, or another program: new points are not like the data"
    bad = not (shift <= 2 and ratio <= 5)
    status: Status = "fail" if bad else "warn" if shift > 0.5 or ratio > 2 else "pass"
    return Finding("new draws", status, shift, 0.5, message, remedy)


def _cheap(target: Any) -> bool:
    """Whether draws take one pass: no pixel after pixel."""
    small = all(v.size <= LARGEST and v.kind in ("reals", "bits", "levels") for v in target.visible)
    slow = any("Pixel" in s.distribution or "Autoregressive" in s.distribution for s in target.sites)
    return small and not slow


def _apart(rows: np.ndarray, drawn: np.ndarray) -> tuple[float, float]:
    """The root mean square distance of means in sds, and the typical ratio of spreads, of coordinates that vary, beyond noise."""
    x, y = (a.reshape(len(a), -1).astype(float) for a in (rows, drawn))
    if not np.isfinite(y).all():
        return np.inf, np.inf
    spread, wide = x.std(0), np.ptp(x, axis=0)
    enough = spread > 1e-12 * (1e-300 + abs(x).max(0))
    if len(x) > 20:  # a bit that is 1 in hardly any row says nothing of spreads
        enough &= spread > 0.1 * wide / np.sqrt(12)
    if not enough.any():
        return 0.0, 1.0
    x, y, spread = x[:, enough], y[:, enough], spread[enough]
    y = np.clip(y, x.min(0) - wide[enough], x.max(0) + wide[enough])
    noise = np.sqrt(1 / len(x) + 1 / len(y))
    shift = np.maximum(abs(y.mean(0) - x.mean(0)) / spread - 3 * noise, 0.0)
    own = np.maximum(y.std(0), 1e-12 * spread)
    ratio = np.exp(max(abs(np.median(np.log(own / spread))) - 3 * noise, 0.0))
    return float(np.sqrt(np.mean(shift**2))), float(ratio)


CHECKS = (density, draws)
