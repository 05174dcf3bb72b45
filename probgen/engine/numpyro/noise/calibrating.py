"""What rows say of a learned denoiser, coordinate by coordinate and level by level of noise: see `Calibration`."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen import runtime
from probgen.engine import measuring
from probgen.nets.diffusion.grids import FARTHEST, time_of
from probgen.target import Arrays


def calibration(target: Any, answer: Arrays, seed: int = 0) -> dict[str, np.ndarray]:
    """log_snr: (level,); gain, slope, offset: (level, *event); missed: x less what is believed then: (level, row, *event)."""
    picked = measuring.picked(target, seed)
    with runtime.jax_scope(target.precision):
        parameters = {k: jnp.asarray(v, target.precision) for k, v in answer.items()}
        rows = target.rows(jnp.asarray(picked))
        found = _calibrated(target, parameters, jax.random.key(seed), rows)
        return {k: np.asarray(v) for k, v in zip(measuring.FIELDS, found, strict=True)}


@jax.jit
def _calibrated(target: Any, parameters: Any, key: Any, rows: Any) -> Any:
    schedule = target.denoised(parameters, jax.tree.map(lambda x: x[0], rows))[0].schedule
    low, high = (jnp.clip(schedule.log_snr(jnp.asarray(t)), *FARTHEST) for t in (1.0, max(schedule.first, 1e-6)))
    log_snr = jnp.linspace(low, high, measuring.LEVELS)

    def level(at: Any) -> Any:
        key, log_snr = at
        keys = jax.random.split(key, len(jax.tree.leaves(rows)[0]))
        seen = jax.vmap(functools.partial(_one, target, parameters, time_of(schedule, log_snr)))(keys, rows)
        return measuring.regressed(log_snr, *seen)

    return log_snr, *jax.lax.map(level, (jax.random.split(key, measuring.LEVELS), log_snr))


def _one(target: Any, parameters: Any, t: Any, key: Any, row: Any) -> Any:
    """A row, what the denoiser believes of it, and z over its scale: (*event) each."""
    denoiser, x = target.denoised(parameters, row)
    alpha, sigma = denoiser.schedule.scales(t)
    z = denoiser.schedule.noised(x, jax.random.normal(key, x.shape, x.dtype), t)
    return x, denoiser(z, t).mean, z / jnp.sqrt(alpha**2 + sigma**2)


def columns(function: Any, points: np.ndarray) -> np.ndarray:
    """A function of one point, of many in double precision: (point, *event) -> (point, *value)."""
    with runtime.jax_scope("float64"):
        try:
            return np.asarray(jax.vmap(function)(jnp.asarray(points)))
        except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):  # one of NumPy's arrays
            return np.stack([np.asarray(function(point)) for point in points])
