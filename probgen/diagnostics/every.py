"""Checks of every fit: finite draws, finite gradients, and whether the run came to its end."""

from __future__ import annotations

from typing import Any

import numpy as np

from probgen.data.large import blocks
from probgen.data.whole_numbers import generator
from probgen.diagnostics.evidence import Evidence, going_on, has_draws
from probgen.diagnostics.verdict import Finding
from probgen.target import Continuous

NUM_PROBES = 64  # points at which gradients are checked


def finite(evidence: Evidence) -> Finding | None:
    """Draws that are NaN or infinite."""
    fit = evidence.fit
    if not has_draws(fit):
        return None
    arrays = {"the unconstrained position": fit.z, **fit.draws}
    bad = {key: blocks.not_finite(value) for key, value in arrays.items() if value.dtype.kind == "f"}
    worst = {key: count for key, (count, _) in bad.items() if count}
    remedy = "look at the program at those draws: an overflow, or a log or division at the edge of its domain"
    if not worst:
        return Finding("finite", "pass", 0.0, 0.0, "all draws are finite", remedy)
    chain, draw = np.argwhere(next(iter(bad[key][1] for key in worst)))[0]
    named = ", ".join(f"{key} ({count} values)" for key, count in worst.items())
    message = f"draws are NaN or infinite: {named}; the first in chain {chain}, draw {draw}"
    return Finding("finite", "fail", float(sum(worst.values())), 0.0, message, remedy)


def complete(evidence: Evidence) -> Finding | None:
    """Whether the run came to its end."""
    fit = evidence.fit
    done, total = fit.num_steps, fit.inference.total_steps
    if fit.complete:
        return Finding("complete", "pass", float(done), float(done), f"all {done} steps were done", going_on(fit))
    message = f"the run was stopped at step {done} of {total}"
    return Finding("complete", "warn", float(done), float(total), message, going_on(fit))


def gradient(evidence: Evidence) -> Finding | None:
    """The site whose gradient is not finite where the density is; looked for where a symptom calls for it."""
    fit, records = evidence.fit, evidence.records
    if not has_draws(fit) or not isinstance(fit.target, Continuous):
        return None
    symptom = (
        "loss" in records and not np.isfinite(records["loss"]).all(),
        "skipped" in records and records["skipped"].any(),
        "diverging" in records and records["diverging"].any(),
        blocks.not_finite(fit.z)[0],
        fit.z.shape[1] > 1 and blocks.still(fit.z).all(axis=1).any(),
    )
    if not any(symptom):
        return None
    values, gradients = fit.target.gradients(_probes(np.asarray(fit.z[:, :: blocks.stride(fit.z)]), fit.seed))
    bad = ~np.isfinite(gradients) & np.isfinite(values)[:, None]
    share = float(bad.any(axis=1).mean())
    remedy = (
        "make both branches of a where finite: jnp.where(ok, f(x), 0) differentiates f even where it is not ok; "
        "write f(jnp.where(ok, x, 1)) inside it"
    )
    if not bad.any():
        message = f"finite at {NUM_PROBES} points on and around the draws"
        return Finding("gradient", "pass", 0.0, 0.0, message, remedy)
    sites = ", ".join(sites_of(fit.target, np.flatnonzero(bad.any(axis=0))))
    message = (
        f"the gradient with respect to {sites} is NaN or infinite at {share:.0%} of points where the density is finite"
    )
    return Finding("gradient", "fail", share, 0.0, message, remedy)


def _probes(z: np.ndarray, seed: int) -> np.ndarray:
    """Points at which to look at gradients: the chains' last positions, draws, and points around them: (point, dim)."""
    rng = generator(seed)
    flat = z.reshape(-1, z.shape[-1])
    flat = flat[np.isfinite(flat).all(axis=1)]
    if not len(flat):
        return rng.normal(size=(NUM_PROBES, z.shape[-1]))
    ends = z[:, -1][np.isfinite(z[:, -1]).all(axis=1)][:8]
    picked = flat[rng.integers(len(flat), size=NUM_PROBES - len(ends))]
    spread = np.where(flat.std(axis=0) > 0, flat.std(axis=0), 1.0)
    noise = rng.normal(size=picked.shape) * (np.arange(len(picked)) >= 8)[:, None]
    return np.concatenate([ends, picked + 2 * spread * noise])


def sites_of(target: Any, coordinates: np.ndarray) -> list[str]:
    """Names of the latent sites behind coordinates of z: the first that moves with each."""
    origin = np.zeros((1, 1, target.dim))
    moved = origin + np.eye(target.dim)[coordinates][:, None]
    values = target.constrain(np.concatenate([origin, moved]))
    latent = [name for name in target.named("latent") if name in values]

    def site(row: int) -> str:
        changed = (n for n in latent if not np.array_equal(values[n][row + 1], values[n][0], equal_nan=True))
        return repr(next(changed, f"coordinate {coordinates[row]}"))

    return list(dict.fromkeys(site(row) for row in range(len(coordinates))))
