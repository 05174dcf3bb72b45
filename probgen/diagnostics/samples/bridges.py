"""Checks of diffusions between rows of two kinds: the way back's end, and whether both ways are one process, and the right one.

Which row of b belongs to a row of a is nowhere in the data. Of pairs made there, and of those made on the way back, the correlation

    1/D sum_i Cov(a_i, b_i) / sqrt(Var(a_i) Var(b_i)),   D coordinates,

must be one number, and in few dimensions that of the pairs that Sinkhorn's algorithm finds for the rows themselves: minimise
E |a - b|^2 / 2 + sigma^2 KL. In many dimensions so few rows say nothing of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from probgen.data import scales
from probgen.data.whole_numbers import generator
from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.samples.beside import APART, FEWEST, SURE
from probgen.diagnostics.samples.gathered import ENOUGH, units
from probgen.diagnostics.samples.told_apart import told_apart
from probgen.diagnostics.verdict import Finding, Status, beside
from probgen.engine import bridging

MOST = 1000  # rows of each kind
FEW = 3  # dimensions in which Sinkhorn's pairs of so many rows are the bridge's
ITERATIONS, AT_REST = 500, 1e-3
OFF = 0.05, 0.15  # of a correlation


class Ways(NamedTuple):
    """Rows of both kinds, those held out first, and what becomes of them: (row, dim); held: how many of each were held out."""

    a: np.ndarray
    there: np.ndarray
    b: np.ndarray
    back: np.ndarray
    held: int


def _ways(fit: Any) -> Ways:
    """Kept with the fit."""
    kept = vars(fit)
    if "_ways" not in kept:
        target, rng = fit.target, generator(fit.seed, 8)
        found, held = [], fit.held_out
        for keyword in (target.given, target.made):
            rows = np.asarray(target.data[keyword], float)
            some = np.concatenate([held[keyword], rows[rng.permutation(len(rows))]])[:MOST].astype(float)
            ends = bridging.ends(target, fit.answer, keyword, some, fit.seed + 6)
            found += [some.reshape(len(some), -1), ends.reshape(len(some), -1)]
        a, there, b, back = found
        kept["_ways"] = Ways(a, there, b, back, min(map(len, held.values())))
    return kept["_ways"]


def _varying(ways: Ways) -> Ways:
    """Of the coordinates that vary in rows of both kinds: the others have no correlation."""
    varies = (scales.moments(ways.a)[1] > 0) & (scales.moments(ways.b)[1] > 0)
    a, there, b, back = (x[:, varies] for x in ways[:4])
    return Ways(a, there, b, back, ways.held)


def _way_back(evidence: Evidence) -> Finding | None:
    """Whether a classifier tells where the way back ends from rows of the kind that it goes to."""
    ways, target = _ways(evidence.fit), evidence.fit.target
    count = min(ways.held if ways.held >= ENOUGH else MOST, len(ways.a), len(ways.back))
    if count < FEWEST or not np.isfinite(ways.back).all():
        return None
    unit = units(ways.a)
    found = told_apart(ways.a[:count] / unit, ways.back[:count] / unit, evidence.fit.seed)
    share, chance = beside(found.share, APART[0], ".1%"), found.p_value >= SURE
    status: Status = "pass" if chance or found.share <= APART[0] else "warn" if found.share <= APART[1] else "fail"
    name: Any = target
    message = (
        f"a classifier tells {share} of {found.count // 2} rows of {name.given} and as many ends of the way back right (standard "
        f"error {found.error:.1%}, p = {found.p_value:.2g}); at most {APART[0]:.0%}, 50 % is chance"
    )
    return Finding("way_back", status, found.share, APART[0], message, _remedy(evidence))


def _one_process(evidence: Evidence) -> Finding | None:
    """Whether pairs made there and pairs made on the way back are of one correlation, as they are at the end of the iteration."""
    ways = _varying(_ways(evidence.fit))
    if not ways.a.shape[1]:
        return None
    (there, error), (back, other) = _correlation(ways.a, ways.there), _correlation(ways.back, ways.b)
    gap, error = abs(there - back), float(np.hypot(error, other))
    message = (
        f"the correlation of a row and its end is {there:.3f} there and {back:.3f} on the way back (standard error of the "
        f"difference {error:.3f}); at most {OFF[0]} apart"
    )
    return Finding("one_process", _grade(gap, error), gap, OFF[0], message, _remedy(evidence))


def _pairs(evidence: Evidence) -> Finding | None:
    """Whether pairs are those of the bridge, by Sinkhorn's of the same rows; in few dimensions alone."""
    ways, fit = _varying(_ways(evidence.fit)), evidence.fit
    if not ways.a.shape[1]:
        return None
    (there, error), (back, other) = _correlation(ways.a, ways.there), _correlation(ways.back, ways.b)
    found, error = (there + back) / 2, float(np.hypot(error, other)) / 2
    remedy = _remedy(evidence)
    if ways.a.shape[1] > FEW:
        message = (
            f"the correlation of pairs is {found:.3f}; whether it is the bridge's cannot be told in {ways.a.shape[1]} "
            f"dimensions from so few rows: at most {FEW}"
        )
        return Finding("pairs", "pass", found, None, message, remedy)
    target: Any = fit.target
    sigma = bridging.sigma(target, fit.answer)
    exact, off = sinkhorn(ways.a, ways.b, sigma**2)
    if off > 10 * AT_REST:
        message = (
            f"the correlation of pairs is {found:.3f}; whether it is the bridge's cannot be told: Sinkhorn's algorithm did not "
            f"come to rest at sigma {sigma:.2g}"
        )
        return Finding("pairs", "warn", found, None, message, remedy)
    error = float(np.hypot(error, (1 - exact**2) / np.sqrt(min(len(ways.a), len(ways.b)))))
    gap = abs(found - exact)
    message = (
        f"the correlation of a row and its end is {found:.3f}, of Sinkhorn's pairs of the same rows {exact:.3f} (standard error "
        f"{error:.3f}); at most {OFF[0]} apart"
    )
    return Finding("pairs", _grade(gap, error), gap, OFF[0], message, remedy)


def sinkhorn(a: np.ndarray, b: np.ndarray, epsilon: float) -> tuple[float, float]:
    """The correlation of the pairs of least E |a - b|^2 / 2 + epsilon KL, and by what share rows are then over- or underused.

    The entropy falls to epsilon as the iteration goes, in logarithms.
    """
    from scipy.special import logsumexp

    x, y = a - a.mean(0), b - b.mean(0)
    gain = x @ y.T  # |x|^2 and |y|^2 belong to the rows, whatever the pairs
    weight, f, off = max(epsilon, float(np.ptp(gain)) / 4), np.zeros(len(x)), 1.0
    for _ in range(ITERATIONS):
        weight = max(0.8 * weight, epsilon)
        g = -weight * (logsumexp((gain + f[:, None]) / weight, axis=0) - np.log(len(x)))
        new = -weight * (logsumexp((gain + g) / weight, axis=1) - np.log(len(y)))
        off, f = float(abs(np.expm1((f - new) / weight)).mean()), new
        if weight == epsilon and off < AT_REST:
            break
    plan = np.exp((gain + f[:, None] + g) / weight) / gain.size
    return float((plan * (_standard(a) @ _standard(b).T)).sum() / x.shape[1]), off


def _correlation(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Of pairs (row, dim), the mean over coordinates, and its standard error by the spread of the rows' parts."""
    x, y = _standard(a), _standard(b)
    each = (x * y).mean(0)
    parts = (x * y - each * (x**2 + y**2) / 2).mean(1)
    return float(each.mean()), float(parts.std() / np.sqrt(len(parts)))


def _standard(a: np.ndarray) -> np.ndarray:
    """Rows less their mean, in units of each coordinate's spread; a coordinate without one is zero."""
    x, spread = a - a.mean(0), a.std(0)
    return x / np.where(spread > 0, spread, 1.0)


def _grade(gap: float, error: float) -> Status:
    """By how far correlations are apart for certain."""
    sure = gap - 3 * error
    if not np.isfinite(gap) or (gap > OFF[1] and sure > OFF[0]):
        return "fail"
    return "warn" if gap > OFF[0] and sure > 0 else "pass"


def _remedy(evidence: Evidence) -> str:
    steps = evidence.settings.get("num_steps", evidence.fit.num_steps)
    return f"num_steps={4 * steps}, a wider network (`width`), more steps of a path (`num_steps` in data)"


CHECKS = (_way_back, _one_process, _pairs)
