"""Checks of guides, by the importance weights of their draws.

k-hat: Vehtari et al. 2024 (JMLR 25(72)) and Yao et al. 2018 (arXiv:1802.02538).
"""

from __future__ import annotations

import numpy as np

from probgen.diagnostics.every import sites_of
from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.verdict import Finding, grade
from probgen.points import free
from probgen.target import Conditional


def _k_hat(evidence: Evidence) -> Finding | None:
    """How heavy the tail of the importance weights p/q is: whether the guide covers the posterior."""
    if "log_q" not in evidence.fit.answer:
        return None
    value = np.nan if evidence.weights is None else evidence.weights.khat
    message = f"k-hat of the importance weights {value:.2f}; at most 0.5, unusable above 0.7"
    remedy = "fit.resample() up to 0.7; above it a richer guide (full rank, flow), or inference='nuts'"
    return Finding("k_hat", grade(value, 0.5, 0.7), value, 0.5, message, remedy)


def _weights(evidence: Evidence) -> Finding | None:
    """The effective share of a guide's draws once they are weighted."""
    if evidence.weights is None:
        return None
    weights = evidence.weights.weights
    value = float(1 / (weights @ weights) / weights.size)
    message = f"weighted, {value:.1%} of the draws are effective; at least 5 %"
    return Finding("weights", grade(-value, -0.05, -0.01), value, 0.05, message, "a richer guide, or inference='nuts'")


def _guide_sd(evidence: Evidence) -> Finding | None:
    """How far the guide's sds are from those of its weighted draws: k-hat alone misses a guide with halved scales."""
    if evidence.weights is None:
        return None
    _, ratios, error = _weighted(evidence)
    off = abs(np.log(ratios))
    index = int(np.argmax(off))
    value, excess = float(np.exp(off[index])), float(np.exp(off[index] - 2 * error))
    word = "small" if ratios[index] > 1 else "large"
    where = _of_site(evidence, index, 2 * error)
    message = f"an sd of the guide is too {word} by a factor of {value:.2f}{where}; at most 1.25"
    remedy = "fit.resample(), a richer guide (full rank, flow), or inference='nuts'"
    return Finding("guide_sd", grade(excess, 1.25, 1.5), value, 1.25, message, remedy)


def _guide_mean(evidence: Evidence) -> Finding | None:
    """How far the guide's means are from those of its weighted draws, in sds."""
    if evidence.weights is None:
        return None
    shifts, _, error = _weighted(evidence)
    index = int(np.argmax(abs(shifts)))
    value = float(abs(shifts[index]))
    message = f"a mean of the guide is off by {value:.2f} sd{_of_site(evidence, index, 3 * error)}; at most 0.3"
    remedy = "fit.resample(), more steps, or a richer guide"
    return Finding("guide_mean", grade(value - 3 * error, 0.3, 1.0), value, 0.3, message, remedy)


def _of_site(evidence: Evidence, coordinate: int, noise: float) -> str:
    site = sites_of(evidence.fit.target, free(evidence.fit.target)[[coordinate]])[0]  # type: ignore[arg-type]
    return f" (site {site}; noise {noise:.2f})"


def _weighted(evidence: Evidence) -> tuple[np.ndarray, np.ndarray, float]:
    """Weighted minus own mean of each unknown coordinate of z, in sds, ratio of sds, and the ratio's standard error."""
    assert evidence.weights is not None
    weights, z = evidence.weights.weights, evidence.fit.z.reshape(-1, evidence.fit.z.shape[-1])
    z = z[:, free(evidence.fit.target)]  # type: ignore[arg-type]
    mean, own = weights @ z, z.std(axis=0)
    return (
        (mean - z.mean(axis=0)) / own,
        np.sqrt(weights @ (z - mean) ** 2) / own,
        float(np.sqrt(weights @ weights / 2)),
    )


def _point(evidence: Evidence) -> Finding | None:
    """An answer that is one point."""
    if "z" not in evidence.fit.answer or "log_q" in evidence.fit.answer:
        return None
    message = "a point estimate: its draws carry no uncertainty"
    finite = isinstance(evidence.fit.target, Conditional)
    remedy = "inference='gibbs' for a distribution" if finite else "inference='laplace' or 'nuts' for a posterior"
    return Finding("point", "warn", None, None, message, remedy)


def _learner_bias(evidence: Evidence) -> Finding | None:
    """A guide that cannot match every posterior; a warning unless the weights say that it matches this one."""
    text = evidence.fit.inference.bias
    if not text:
        return None
    khat = None if evidence.weights is None else evidence.weights.khat
    small = khat is not None and khat <= 0.5
    measured = "" if khat is None else f"; here k-hat is {khat:.2f}"
    remedy = "a richer guide, or inference='nuts'"
    return Finding("bias", "pass" if small else "warn", khat, 0.5, text.rstrip(".") + measured, remedy)


CHECKS = (_k_hat, _weights, _guide_sd, _guide_mean, _point, _learner_bias)
