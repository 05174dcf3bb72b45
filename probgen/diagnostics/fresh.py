"""More chains from new starts, for chains of finite unknowns that stand still: whether where they stand is the only place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import logsumexp

from probgen import engine, runtime
from probgen.fitted import Fitted

NUM_CHAINS, NUM_STEPS = 24, 50


def missed(fit: Fitted) -> float:
    """The share of mass, as far as it is seen, at points where fresh chains stand and no draw of the fit was.

    Points count by their densities: of chains that hardly move the points where they stand hold the mass. Kept with the fit.
    """
    kept = vars(fit)
    if "_missed" not in kept:
        kept["_missed"] = _missed(fit)
    return kept["_missed"]


def _missed(fit: Fitted) -> float:
    records = _chains(fit)
    ours = _weights(fit.z, fit.records["lp"][:, fit.num_warmup :])
    theirs = _weights(records["z"][:, NUM_STEPS // 2 :], records["lp"][:, NUM_STEPS // 2 :])
    new = [value for point, value in theirs.items() if point not in ours]
    if not new:
        return 0.0
    at_ours: Any = logsumexp(list(ours.values()))
    gap = at_ours - logsumexp(new)
    return float(1 / (1 + np.exp(np.clip(gap, -700, 700))))


def _chains(fit: Fitted) -> dict[str, np.ndarray]:
    algorithm: Any = replace(fit.inference, num_chains=NUM_CHAINS, num_warmup=0, num_samples=NUM_STEPS)
    with runtime.compile_cache():
        executor = engine.load(fit.target.engine).Executor(algorithm, fit.target, fit.seed + 1, NUM_CHAINS)
        executor.init()
        return executor.advance(0, NUM_STEPS)


def _weights(z: np.ndarray, lp: np.ndarray) -> dict[bytes, float]:
    """Log densities of distinct points (chain, draw, dim)."""
    flat = np.ascontiguousarray(z.reshape(-1, z.shape[-1]).astype(np.float32))
    return {point.tobytes(): float(value) for point, value in zip(flat, lp.ravel(), strict=True)}
