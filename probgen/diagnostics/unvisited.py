"""Modes that the search for starting points found, and whether the draws came near."""

from __future__ import annotations

import numpy as np

from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.verdict import Finding, grade

SMALLEST_MODE = 0.01  # share of the mass below which a mode may be missed


def modes(evidence: Evidence) -> Finding | None:
    """Modes that the search for starting points found and no draw came near."""
    fit = evidence.fit
    starts = fit.starts
    if not np.size(starts.get("elbos", ())) or "lp" not in evidence.records or not np.isfinite(fit.z).all():
        return None
    share = unvisited_mass(fit.z, evidence.records["lp"], starts["ends"], starts["elbos"])
    remedy = (
        "num_chains=16 and another seed; or reparametrise, or break the symmetry between the modes (ordered parameters)"
    )
    found = "no mode was found that the draws do not visit"
    if share > 0:
        found = f"a mode holding at least about {share:.1%} of the mass was not visited; at most {SMALLEST_MODE:.0%}"
    return Finding("modes", grade(share, SMALLEST_MODE, SMALLEST_MODE), share, SMALLEST_MODE, found, remedy)


def unvisited_mass(z: np.ndarray, lp: np.ndarray, ends: np.ndarray, elbos: np.ndarray) -> float:
    """About the least share of the mass in the heaviest mode that no draw came near; 0 where every mode was visited.

    z: draws (chain, draw, dim); lp: their log densities (chain, draw). ends: (..., dim), centres of the best normal
    approximations along paths up the density; elbos: (...), their ELBOs, in nats, whose exponential bounds the mass
    around an end from below.
    """
    ends, elbos = ends.reshape(-1, z.shape[-1]), elbos.ravel()
    usable = np.isfinite(elbos) & np.isfinite(ends).all(axis=1)
    ends, elbos, flat = ends[usable], elbos[usable], z.reshape(-1, z.shape[-1])
    if len(flat) < 100 or not len(ends):
        return 0.0
    scale, directions = np.linalg.eigh(np.atleast_2d(np.cov(flat, rowvar=False)))
    if scale.max() <= 0:
        return 0.0
    scale = np.maximum(scale, 1e-12 * scale.max())
    whitened = [(x - flat.mean(axis=0)) @ directions / np.sqrt(scale) for x in (ends, z)]
    far = _far(*whitened)
    if not far.any():
        return 0.0
    visited = _log_mass(whitened[1].reshape(flat.shape), lp.ravel()) + 0.5 * np.log(scale).sum()
    return float(1 / (1 + np.exp(np.clip(visited - elbos[far].max(), -700, 700))))


def _log_mass(whitened: np.ndarray, lp: np.ndarray) -> float:
    """The log of the mass that draws stand for, in nats, by the reciprocal of a normal truncated to their inner half.

    whitened: (draw, dim), lp: (draw,). Source: Geweke 1999, doi:10.1080/07474939908800428, the modified harmonic mean.
    """
    from scipy.special import logsumexp
    from scipy.stats import chi2

    dim, square = whitened.shape[1], (whitened**2).sum(axis=1)
    edge = np.median(square)
    inside = square <= edge
    log_g = -0.5 * (square[inside] + dim * np.log(2 * np.pi)) - chi2.logcdf(edge, dim)
    return float(np.log(len(lp)) - logsumexp(log_g - lp[inside]))


def _far(ends: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Which whitened ends (end, dim) lie far from all whitened draws (chain, draw, dim).

    Either beyond the furthest draw in the end's own direction by more than two sds, or more than twice as far from the
    nearest draw as any draw is from the nearest one of its past or future.
    """
    from scipy.spatial.distance import cdist

    flat = draws.reshape(-1, draws.shape[-1])
    size = np.linalg.norm(ends, axis=1)
    beyond = size - (flat @ (ends / np.maximum(size, 1e-300)[:, None]).T).max(axis=0) > 2.0
    rows = flat[:: max(1, len(flat) // 2000)]
    probe = np.arange(0, len(rows), max(1, len(rows) // 200))
    between = cdist(rows[probe], rows)
    between[abs(probe[:, None] - np.arange(len(rows))) < len(rows) // 50] = np.inf
    return beyond | (cdist(ends, rows).min(axis=1) > 2 * between.min(axis=1).max())
