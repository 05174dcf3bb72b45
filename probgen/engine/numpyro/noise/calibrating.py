"""What rows say of a learned denoiser, coordinate by coordinate and level by level of noise: see `Calibration`."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen import runtime
from probgen.nets.diffusion.grids import FARTHEST, time_of
from probgen.target import Arrays

LEVELS, ROWS = 32, 500
CELLS = 16_000_000  # numbers of rows at all levels
RIDGE = 1e-3  # of the variance of what is regressed on
CLEAN = (
    2.0,
    5.0,
)  # log SNR from which, and above which alone, a denoiser's own means count: those that the chain ends by
FIELDS = ("log_snr", "gain", "slope", "offset", "missed")


def calibration(target: Any, answer: Arrays, seed: int = 0) -> dict[str, np.ndarray]:
    """log_snr: (level,); gain, slope, offset: (level, *event); missed: x less what is believed then: (level, row, *event)."""
    rng, (site,) = np.random.default_rng(seed), target.visible
    picked = rng.integers(target.num_rows, size=max(20, min(ROWS, CELLS // (LEVELS * site.size))))
    with runtime.jax_scope(target.precision):
        parameters = {k: jnp.asarray(v, target.precision) for k, v in answer.items()}
        rows = target.rows(jnp.asarray(picked))
        found = _calibrated(target, parameters, jax.random.key(seed), rows)
        return {k: np.asarray(v) for k, v in zip(FIELDS, found, strict=True)}


@jax.jit
def _calibrated(target: Any, parameters: Any, key: Any, rows: Any) -> Any:
    schedule = target.denoised(parameters, jax.tree.map(lambda x: x[0], rows))[0].schedule
    low, high = (jnp.clip(schedule.log_snr(jnp.asarray(t)), *FARTHEST) for t in (1.0, max(schedule.first, 1e-6)))
    log_snr = jnp.linspace(low, high, LEVELS)

    def level(at: Any) -> Any:
        key, log_snr = at
        keys = jax.random.split(key, len(jax.tree.leaves(rows)[0]))
        seen = jax.vmap(functools.partial(_one, target, parameters, time_of(schedule, log_snr)))(keys, rows)
        return _regressed(jnp.clip((log_snr - CLEAN[0]) / (CLEAN[1] - CLEAN[0]), 0.0, 1.0), *seen)

    return log_snr, *jax.lax.map(level, (jax.random.split(key, LEVELS), log_snr))


def _one(target: Any, parameters: Any, t: Any, key: Any, row: Any) -> Any:
    """A row, what the denoiser believes of it, and z over its scale: (*event) each."""
    denoiser, x = target.denoised(parameters, row)
    alpha, sigma = denoiser.schedule.scales(t)
    z = denoiser.schedule.noised(x, jax.random.normal(key, x.shape, x.dtype), t)
    return x, denoiser(z, t).mean, z / jnp.sqrt(alpha**2 + sigma**2)


def _regressed(share: Any, x: Any, m: Any, z: Any) -> Any:
    """Gain, slope, offset by least squares, a share of them m's own: (*event) each, of (row, *event); and what is left."""
    a, b, c = (v - v.mean(0) for v in (x, m, z))
    over = lambda u, v: (u * v).mean(0)  # noqa: E731
    mm, zz, mz = over(b, b) * (1 + RIDGE) + 1e-12, over(c, c) * (1 + RIDGE) + 1e-12, over(b, c)
    xm, xz = over(a, b), over(a, c)
    full = jnp.maximum(mm * zz - mz**2, 1e-6 * mm * zz)
    gain, slope = (xm * zz - xz * mz) / full, (xz * mm - xm * mz) / full
    offset = x.mean(0) - gain * m.mean(0) - slope * z.mean(0)
    gain, slope, offset = share + (1 - share) * gain, (1 - share) * slope, (1 - share) * offset
    return gain, slope, offset, x - gain * m - slope * z - offset
