"""Modes of finite unknowns that no draw came near: what the draws' states hold of the exact sum over all states."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.verdict import Finding, beside, grade
from probgen.target import Conditional

LARGEST = 14  # bits up to which all states are enumerated
SMALLEST_MODE = 0.01  # share of the mass that may be missed
FEWEST = 100  # draws in the set of states that the estimate rests on


def finite_modes(evidence: Evidence) -> Finding | None:
    """The share of the mass that the chains do not reach, where all states can be summed over.

    Of chains that stay in a region A, p(A) = p(U) / P(U | A) for any set of states U in A: p(U) is a sum of exact probabilities,
    and P(U | A) how often draws lie there. U is chosen by one half of the draws, and counted in the other.
    """
    target, lp = evidence.fit.target, evidence.records.get("lp")
    if not isinstance(target, Conditional) or lp is None or not _enumerable(target) or evidence.fit.answer:
        return None
    z = evidence.fit.z
    states = (
        np.ascontiguousarray(z.reshape(-1, z.shape[-1]).astype(np.float32))
        .view(f"V{4 * z.shape[-1]}")
        .reshape(lp.shape)
    )
    values, inside = _core(states[:, ::2], lp[:, ::2], states[:, 1::2])
    if inside.sum() < FEWEST:
        return None
    from arviz_stats.base import array_stats

    from probgen.evaluate.energy import log_z

    often = inside.mean()
    error = (
        0.0 if inside.all() else float(np.sqrt((1 - often) / often / max(array_stats.ess(inside.astype(float)), 1.0)))
    )
    reached = float(np.exp(logsumexp(values) - np.log(often) - log_z(target).value))
    share, bar = max(0.0, 1 - reached), round(SMALLEST_MODE + 3 * error, 3)
    shown = beside(share, bar, ".1%")
    message = (
        f"states that the chains do not reach hold about {shown} of the mass; at most {bar:.1%}, 1 % beyond the noise"
    )
    remedy = "inference='tempering', which crosses between modes"
    return Finding("modes", grade(share, bar, bar), share, bar, message, remedy)


def _enumerable(target: Any) -> bool:
    bits = sum(v.size * np.log2(v.levels) if v.levels else np.inf for v in target.variables)
    return bits <= LARGEST and not getattr(target, "known", {})


def _core(states: np.ndarray, lp: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log densities of the likeliest states that hold most of these draws, and which of the other draws are in one of them."""
    _, first, numbers, counts = np.unique(states.ravel(), return_index=True, return_inverse=True, return_counts=True)
    heights = lp.ravel()[first].astype(float)
    order = np.argsort(-heights, kind="stable")
    chosen = order[: np.searchsorted(np.cumsum(counts[order]), 0.9 * numbers.size) + 1]
    names = states.ravel()[first[chosen]]
    return heights[chosen], np.isin(others.ravel(), names).reshape(others.shape)
