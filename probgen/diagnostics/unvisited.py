"""Modes that hold mass and that no draw came near, of samplers and of guides.

Where modes may lie is known from the search for starting points, where a sampler made one, and from `search`. A far end counts
by the mass around it, estimated with the normal that fits there; what was visited counts by the draws' own evidence.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from probgen.data.large import blocks
from probgen.data.points import AtPoints, climbed
from probgen.data.whole_numbers import generator
from probgen.diagnostics import search
from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.verdict import Finding, grade
from probgen.target import Continuous

SMALLEST_MODE = 0.01  # share of the mass below which a mode may be missed
NUM_MASS = 256  # draws of the normal around an end
MOST_ENDS = 6  # far ends whose mass is estimated
STATIONARY = 0.3  # sds from its top within which a climb has ended


class Visited(NamedTuple):
    """Draws (chain, draw, dim), their mean (dim,) and a root of their covariance (dim, dim), and the log of their mass."""

    z: np.ndarray
    mean: np.ndarray
    root: np.ndarray
    log_mass: float

    def white(self, points: np.ndarray) -> np.ndarray:
        """Points (..., dim) in units of the draws' sds."""
        return np.linalg.solve(self.root, (points - self.mean).reshape(-1, len(self.mean)).T).T.reshape(points.shape)


class Far(NamedTuple):
    """A mode that was not visited: where (dim,), the log of its mass, and whether it is a permutation of a visited one."""

    z: np.ndarray
    log_mass: float
    symmetric: bool


def modes(evidence: Evidence) -> Finding | None:
    """Modes that climbs from far apart found and no draw came near."""
    fit = evidence.fit
    if not isinstance(fit.target, Continuous) or fit.z.shape[2] == 0 or blocks.not_finite(fit.z)[0]:
        return None
    if fit.z.shape[:2] == (1, 1):
        return _of_point(evidence)
    if fit.target.points:
        evidence = _at_points(evidence)
        fit = evidence.fit
    if fit.z.shape[0] * fit.z.shape[1] < 100:
        return None
    visited = _visited(evidence)
    found = search.found(fit)
    ends = found.z
    if visited is None or not len(ends) + np.size(fit.starts.get("elbos", ())):
        return None
    heaviest = _heaviest(evidence, visited, ends)
    if heaviest is None or (share := _share(heaviest.log_mass, visited.log_mass)) == 0:
        message = f"no mode was found that the draws do not visit, in {found.told}"
        return Finding("modes", "pass", 0.0, SMALLEST_MODE, message, _remedy(evidence))
    message = f"a mode that was not visited holds at least about {share:.1%} of the mass; at most {SMALLEST_MODE:.0%}"
    if share <= SMALLEST_MODE:
        return Finding("modes", "pass", share, SMALLEST_MODE, message, _remedy(evidence))
    if heaviest.symmetric:
        twin = "; it is a visited mode with its entries exchanged (symmetric, as of a mixture's labels)"
        remedy = "harmless for what does not name the labels; else break the symmetry: ordered parameters"
        return Finding("modes", "warn", share, SMALLEST_MODE, message + twin, remedy)
    where = _where(evidence, heaviest.z)
    return Finding("modes", "fail", share, SMALLEST_MODE, f"{message}; its centre is near {where}", _remedy(evidence))


def _at_points(evidence: Evidence) -> Evidence:
    """The same of the unknowns alone, the program's parameters where they were learned."""
    fit = evidence.fit
    kept = vars(fit)
    if "_unknowns" not in kept:
        target: Any = fit.target
        unknowns = AtPoints(target, fit.z[0, 0][target.point_index])
        kept["_unknowns"] = SimpleNamespace(
            target=unknowns, z=fit.z[..., unknowns.free], answer=fit.answer, records=fit.records, starts={}, seed=fit.seed,
            inference=fit.inference,
        )  # fmt: skip
    return replace(evidence, fit=kept["_unknowns"])


def _share(mass: float, rest: float) -> float:
    """exp(mass) as a share of the sum of both."""
    return float(1 / (1 + np.exp(np.clip(rest - mass, -700, 700))))


def _remedy(evidence: Evidence) -> str:
    if evidence.fit.answer:
        return "inference='nuts' or 'tempering'; a guide sees one mode: or break the symmetry (ordered parameters)"
    return (
        "num_chains=16 and another seed, or inference='tempering'; or reparametrise, or break the symmetry between the "
        "modes (ordered parameters)"
    )


def _where(evidence: Evidence, z: np.ndarray) -> str:
    """The first few unknowns at a point, by their names in the program."""
    target: Any = evidence.fit.target
    values = target.constrain(z[None, None])
    latent = [k for k in evidence.fit.target.named("latent") if k in values][:2]
    return ", ".join(f"{k} = {np.array2string(values[k].ravel()[:3], precision=3)[1:-1].strip()}" for k in latent)


def _visited(evidence: Evidence) -> Visited | None:
    """What the draws say of the mass where they are; None where they do not vary or their densities are unknown."""
    fit, every = evidence.fit, blocks.stride(evidence.fit.z)
    z = np.asarray(fit.z[:, ::every]).astype(float)
    flat = z.reshape(-1, z.shape[-1])
    scale, directions = np.linalg.eigh(np.atleast_2d(np.cov(flat, rowvar=False)))
    if not scale.max() > 0:
        return None
    scale = np.maximum(scale, 1e-12 * scale.max())
    bare = Visited(z, flat.mean(axis=0), directions * np.sqrt(scale), 0.0)
    if "log_q" in fit.answer:
        mass = logsumexp(fit.answer["log_p"] - fit.answer["log_q"]) - np.log(fit.answer["log_q"].size)
    else:
        lp = evidence.records.get("lp")
        rows = slice(None)
        if lp is None or "gradient_noise" in evidence.records:  # no densities, or those of minibatches
            rows = np.linspace(0, len(flat) - 1, min(len(flat), 512)).astype(int)
            lp, _ = search.evaluator(fit.target)(flat[rows])
        else:
            lp = lp[:, ::every]
        mass = _log_mass(bare.white(flat)[rows], np.ravel(lp)) + 0.5 * np.log(scale).sum()
    return bare._replace(log_mass=float(mass)) if np.isfinite(mass) else None


def _log_mass(whitened: np.ndarray, lp: np.ndarray) -> float:
    """The log of the mass that draws stand for, in nats, by the reciprocal of a normal truncated to their inner half.

    whitened: (draw, dim), lp: (draw,). Source: Geweke 1999, doi:10.1080/07474939908800428, the modified harmonic mean.
    """
    from scipy.stats import chi2

    dim, square = whitened.shape[1], (whitened**2).sum(axis=1)
    edge = np.median(square)
    inside = square <= edge
    log_g = -0.5 * (square[inside] + dim * np.log(2 * np.pi)) - chi2.logcdf(edge, dim)
    return float(np.log(len(lp)) - logsumexp(log_g - lp[inside]))


def _heaviest(evidence: Evidence, visited: Visited, ends: np.ndarray) -> Far | None:
    """The heaviest far mode, of the search and of the starts."""
    candidates = [_mass_around(evidence, visited, end) for end in _distinct(visited, ends)]
    starts = evidence.fit.starts
    if np.size(starts.get("elbos", ())):
        centres, elbos = starts["ends"].reshape(-1, len(visited.mean)), np.ravel(starts["elbos"])
        usable = np.isfinite(elbos) & np.isfinite(centres).all(axis=1)
        usable[usable] = _far(visited.white(centres[usable]), visited.white(visited.z))
        if usable.any():
            best = int(np.argmax(np.where(usable, elbos, -np.inf)))
            candidates.append(
                Far(centres[best], float(elbos[best]), _is_twin(evidence, visited, centres[best], elbos[best]))
            )
    return max(candidates, key=lambda far: far.log_mass, default=None)


def _distinct(visited: Visited, ends: np.ndarray) -> list[np.ndarray]:
    """Far ends, the highest first, no two within a tenth of an sd of the draws."""
    if not len(ends):
        return []
    whitened = visited.white(ends)
    found: list[int] = []
    for i in np.flatnonzero(_far(whitened, visited.white(visited.z))):
        if all(np.linalg.norm(whitened[i] - whitened[j]) > 0.1 for j in found):
            found.append(int(i))
    return [ends[i] for i in found]


def _mass_around(evidence: Evidence, visited: Visited, end: np.ndarray) -> Far:
    """The mass nearer to an end than to the draws, by importance sampling from the normal that fits at the end."""
    evaluate, dim = search.evaluator(evidence.fit.target), len(end)
    root = search.curvature_root(evaluate, end)
    noise = generator(evidence.fit.seed).normal(size=(NUM_MASS, dim))
    points = end + noise @ root.T
    values, gradients = evaluate(np.concatenate([points, end[None]]))
    if not np.linalg.norm(gradients[-1] @ root) < STATIONARY:  # a climb under way, in a long tail: no mode
        return Far(end, -np.inf, False)
    values = values[:-1]
    log_q = -0.5 * ((noise**2).sum(axis=1) + dim * np.log(2 * np.pi)) - np.linalg.slogdet(root)[1]
    ours = np.linalg.norm(noise, axis=1) < np.linalg.norm(visited.white(points), axis=1)
    ratios = np.where(ours & np.isfinite(values), values - log_q, -np.inf)
    mass = float(logsumexp(ratios) - np.log(NUM_MASS)) if np.isfinite(ratios).any() else -np.inf
    return Far(end, mass, _is_twin(evidence, visited, end, mass))


def _is_twin(evidence: Evidence, visited: Visited, end: np.ndarray, mass: float) -> bool:
    """Whether a mode is one near the draws with entries of its sites exchanged, as labels of a mixture can be."""
    ends = search.found(evidence.fit).z
    near = ends[~_far(visited.white(ends), visited.white(visited.z))] if len(ends) else ends
    if not len(near):
        return False
    target: Any = evidence.fit.target
    values = target.constrain(np.concatenate([end[None], near])[:, None])
    latent = [values[k] for k in evidence.fit.target.named("latent") if k in values]
    rows = [np.sort(v.reshape(len(v), -1), axis=1) for v in latent]
    same = [np.isclose(r[1:], r[:1], rtol=1e-2, atol=1e-2 * abs(r).max()).all(axis=1) for r in rows]
    return bool(np.logical_and.reduce(same).any())


def _of_point(evidence: Evidence) -> Finding:
    """Of a point estimate: whether climbs from far apart found a higher density."""
    fit = evidence.fit
    ends, dim = search.found(fit), fit.z.shape[-1]
    if not len(ends.z):
        unknown = f"not looked for: {dim} unknowns, more than {search.LARGEST}"
        message = unknown if dim > search.LARGEST else "no climb from far apart reached a finite density"
        return Finding(
            "modes", "warn", None, None, message, "another seed, or init=: do they end at the same log density?"
        )
    evaluate, point = search.evaluator(climbed(fit.inference, fit.target)), fit.z[0, 0].astype(float)
    value = float(evaluate(point[None])[0][0])
    above = float(ends.value.max(initial=-np.inf) - value)
    message = f"{ends.told} found no higher density"
    remedy = "another seed: the climb ended at a lower mode; or inference='nuts'"
    bar = 0.01
    if above > bar:
        where = _where(evidence, ends.z[int(np.argmax(ends.value))])
        message = f"the log density is {above:.3g} nats higher near {where}; at most {bar}"
    return Finding("modes", grade(max(above, 0.0), bar, bar), max(above, 0.0), bar, message, remedy)


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
