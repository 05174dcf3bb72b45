"""Checks of guides, by the importance weights of their draws.

k-hat: Vehtari et al. 2024 (JMLR 25(72)) and Yao et al. 2018 (arXiv:1802.02538).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probgen.data.points import free
from probgen.diagnostics.every import sites_of
from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.samples.gathered import is_energy
from probgen.diagnostics.verdict import Finding, beside, grade
from probgen.target import Conditional

RICHER = "fit again by inference='nuts', or by a guide with more freedom, inference='full_rank' or 'flow': weights do not mend it"
RESAMPLED = "fit.resample(1000) in place of fit.draws: it draws by the weights, which mends a guide that is so far off"
EVEN = 0.95, 10.0  # effective share, and largest weight over the mean, of weights that are nearly equal
USABLE = (
    0.8  # effective share from which a heavy tail is a warning: the squared distance chi^2 of p from q is then 0.25
)


def _k_hat(evidence: Evidence) -> Finding | None:
    """How heavy the tail of the importance weights p/q is: whether the guide covers the posterior.

    Of weights that are nearly equal the tail is a wrinkle, whatever its shape: with so large an effective share no mean or
    variance that the guide's draws give can be far off.
    """
    if "log_q" not in evidence.fit.answer:
        return None
    value = np.nan if evidence.weights is None else evidence.weights.khat
    remedy = RICHER if not value <= 0.7 else RESAMPLED
    message = f"k-hat of the importance weights {beside(value, 0.5, '.2f')}; at most 0.5, unusable above 0.7"
    status = grade(value, 0.5, 0.7)
    if evidence.weights is not None and status != "pass":
        share, largest = _evenness(evidence.weights.weights)
        if share >= EVEN[0] and largest <= EVEN[1]:
            message = f"the importance weights are nearly equal: the largest is {largest:.1f} times the mean; at most {EVEN[1]:.0f}"
            return Finding("k_hat", "pass", largest, EVEN[1], message, remedy)
        if status == "fail" and share >= USABLE:
            status, message = "warn", f"{message}, unless 80 % of the draws stay effective, here {share:.0%}"
    return Finding("k_hat", status, value, 0.5, message, remedy)


def _evenness(weights: np.ndarray) -> tuple[float, float]:
    """The effective share of normalised weights, and the largest over their mean."""
    return float(1 / (weights @ weights) / weights.size), float(weights.max() * weights.size)


def _weights(evidence: Evidence) -> Finding | None:
    """The effective share of a guide's draws once they are weighted."""
    if evidence.weights is None:
        return None
    weights = evidence.weights.weights
    value = float(1 / (weights @ weights) / weights.size)
    message = f"weighted, {beside(value, 0.05, '.1%')} of the draws are effective; at least 5 %"
    return Finding("weights", grade(-value, -0.05, -0.01), value, 0.05, message, "a richer guide, or inference='nuts'")


def _guide_sd(evidence: Evidence) -> Finding | None:
    """How far the guide's sds are from those of its weighted draws: k-hat alone misses a guide with halved scales."""
    if evidence.weights is None:
        return None
    _, ratios, error = _weighted(evidence)
    off = abs(np.log(ratios))
    index = int(np.argmax(off))
    value, allowed = float(np.exp(off[index])), np.exp(2 * error)
    bar = round(float(1.25 * allowed), 2)
    word = "small" if ratios[index] > 1 else "large"
    where = _of_site(evidence, index)
    shown = beside(value, bar, ".2f")
    message = (
        f"an sd of the guide is too {word} by a factor of {shown}{where}; at most {bar:.2f}, 1.25 beyond the noise"
    )
    remedy = "fit.resample(), a richer guide (full rank, flow), or inference='nuts'"
    return Finding("guide_sd", grade(value, bar, 1.5 * allowed), value, bar, message, remedy)


def _guide_mean(evidence: Evidence) -> Finding | None:
    """How far the guide's means are from those of its weighted draws, in sds."""
    if evidence.weights is None:
        return None
    shifts, _, error = _weighted(evidence)
    index = int(np.argmax(abs(shifts)))
    value, bar = float(abs(shifts[index])), round(float(0.3 + 3 * error), 2)
    shown = beside(value, bar, ".2f")
    message = (
        f"a mean of the guide is off by {shown} sd{_of_site(evidence, index)}; at most {bar:.2f}, 0.3 beyond the noise"
    )
    remedy = "fit.resample(), more steps, or a richer guide"
    return Finding("guide_mean", grade(value, bar, 1.0 + 3 * error), value, bar, message, remedy)


def _of_site(evidence: Evidence, coordinate: int) -> str:
    target: Any = evidence.fit.target
    site = sites_of(target, free(target)[[coordinate]])[0]
    return f" (site {site})"


def _weighted(evidence: Evidence) -> tuple[np.ndarray, np.ndarray, float]:
    """Weighted minus own mean of each unknown coordinate of z, in sds, ratio of sds, and the ratio's standard error."""
    assert evidence.weights is not None
    target: Any = evidence.fit.target
    weights, z = evidence.weights.weights, evidence.fit.z.reshape(-1, evidence.fit.z.shape[-1])
    z = z[:, free(target)]
    mean, own = weights @ z, z.std(axis=0)
    return (
        (mean - z.mean(axis=0)) / own,
        np.sqrt(weights @ (z - mean) ** 2) / own,
        float(np.sqrt(weights @ weights / 2)),
    )


def _point(evidence: Evidence) -> Finding | None:
    """An answer that is one point, in all of its unknowns or in some, or draws whose density is not known."""
    if "z" not in evidence.fit.answer or "log_q" in evidence.fit.answer:
        return None
    target: Any = evidence.fit.target
    finite = isinstance(target, Conditional)
    remedy = "inference='gibbs' for a distribution" if finite else "inference='laplace' or 'nuts' for a posterior"
    z = evidence.fit.z.reshape(-1, evidence.fit.z.shape[-1])
    z = z if finite else z[:, free(target)]
    if not z.size:
        return None
    held = np.ptp(z, axis=0) <= 1e-6 * (1 + abs(z[0]))
    space = getattr(evidence.fit.inference, "space", None)
    where = f" (the mode in {space} space)" if space else ""
    message = f"a point estimate{where}: its draws carry no uncertainty"
    if not held.any():
        message = "the density of the guide at its draws is not known: nothing tells whether it covers the posterior"
        return Finding("density", "warn", None, None, message, "a guide with a density, or inference='nuts'")
    if not held.all():
        message = f"{held.sum()} of {held.size} unknown coordinates are points: their draws carry no uncertainty"
    return Finding("point", "warn", None, None, message, remedy)


def _learner_bias(evidence: Evidence) -> Finding | None:
    """A guide that cannot match every posterior; a warning unless the weights say that it matches this one."""
    text = evidence.fit.inference.bias
    if not text:
        return None
    khat = None if evidence.weights is None else evidence.weights.khat
    share, largest = (0.0, np.inf) if evidence.weights is None else _evenness(evidence.weights.weights)
    even = share >= EVEN[0] and largest <= EVEN[1]
    remedy = "a richer guide, or inference='nuts'"
    if is_energy(evidence.fit.target):
        remedy = "the findings on its draws say how much it matters here"
    if khat is None:
        return Finding("bias", "warn", None, None, text.rstrip("."), remedy)
    if even:
        return Finding(
            "bias", "pass", None, None, text.rstrip(".") + "; here the importance weights are nearly equal", remedy
        )
    message = f"{text.rstrip('.')}; here k-hat is {beside(khat, 0.5, '.2f')}, at most 0.5"
    return Finding("bias", "pass" if khat <= 0.5 else "warn", khat, 0.5, message, remedy)


CHECKS = (_k_hat, _weights, _guide_sd, _guide_mean, _point, _learner_bias)
