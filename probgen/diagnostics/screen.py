"""Which of very many scalars are checked in full: a quick look at all of them, in blocks, picks those that mix worst.

The quick look needs two passes over the draws and no sorting: split R-hat (Gelman et al. 2013) and an effective sample size by
batch means (Flegal and Jones 2010, doi:10.1214/09-AOS735), both of x and of (x - mean)^2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probgen.data.large import scratch

BATCHES = 16  # of each chain; an even number, so that its halves are made of them
BLOCK = 1 << 21  # numbers that are worked on at once


class Look(NamedTuple):
    """Of every scalar (scalar,): whether it varies and is finite, the quick split R-hat, the quick effective sample size."""

    varies: np.ndarray
    r_hat: np.ndarray
    ess: np.ndarray


def look(draws: np.ndarray) -> Look:
    """The quick look at draws (chain, draw, scalar)."""
    width = max(1, BLOCK // max(1, draws.shape[0] * draws.shape[1]))
    parts = []
    for i in range(0, draws.shape[2], width):
        parts.append(_block(draws[..., i : i + width].astype(float)))
        scratch.release(draws)
    return Look(*(np.concatenate(part) for part in zip(*parts, strict=True))) if parts else Look(*[np.zeros(0)] * 3)


def _block(x: np.ndarray) -> Look:
    low, high = x.min(axis=(0, 1)), x.max(axis=(0, 1))
    with np.errstate(all="ignore"):
        varies = np.isfinite(low) & np.isfinite(high) & (high - low > 1e-12 * np.maximum(abs(low), abs(high)))
        size = x.shape[1] // BATCHES
        if not size:  # chains of a few draws
            return Look(varies, np.full(len(low), np.inf), np.zeros(len(low)))
        x = np.ascontiguousarray(x[:, : size * BATCHES] - x.mean(axis=(0, 1)))
        first, second = _mixing(x, size), _mixing(x * x, size)
    r_hat, ess = np.maximum(first[0], second[0]), np.minimum(first[1], second[1])
    return Look(varies, np.nan_to_num(r_hat, nan=np.inf), np.nan_to_num(ess, nan=0.0))


def _mixing(x: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Split R-hat and effective sample size of x (chain, draw, scalar), by means of batches of so many draws."""
    chains, _, scalars = x.shape
    batches = x.reshape(chains, BATCHES, size, scalars).mean(axis=2)
    halves = batches.reshape(chains * 2, BATCHES // 2, scalars).mean(axis=1)
    square = np.einsum("cbds,cbds->cbs", *[x.reshape(chains, BATCHES, size, scalars)] * 2) / size
    inner = square.reshape(chains * 2, BATCHES // 2, scalars).mean(axis=1) - halves**2
    within, between = inner.mean(axis=0), halves.var(axis=0, ddof=1)
    r_hat = np.sqrt(1 + between / within)
    spread = batches.reshape(chains * BATCHES, scalars).var(axis=0, ddof=1)
    ess = chains * BATCHES * (within + between) / spread
    return r_hat, ess


def worst(found: Look, most: int) -> np.ndarray:
    """Indices, in order, of at most so many scalars that vary: half of them by R-hat, the rest by effective sample size."""
    able = np.flatnonzero(found.varies)
    if len(able) <= most:
        return able
    by_r_hat = able[np.argsort(-found.r_hat[able], kind="stable")][: most // 2]
    rest = np.setdiff1d(able, by_r_hat)
    by_ess = rest[np.argsort(found.ess[rest], kind="stable")][: most - len(by_r_hat)]
    return np.sort(np.concatenate([by_r_hat, by_ess]))
