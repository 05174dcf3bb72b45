"""Grids of time for samplers: where the network is asked, from the start down to the earliest time at which there is noise.

    "even"      in t itself, which is EDM's grid under EDM's schedule
    "log_snr"   in the log SNR
    "rho"       in (sigma / alpha)^(1/7): Karras et al. 2022 (arXiv:2206.00364), for any schedule

The first time is the start itself: the end of the schedule is visited, as it is not by "leading" grids (Lin et al. 2024,
arXiv:2305.08891). At the last, x is what the denoiser says: the grids in log SNR and rho end at 14 where a schedule goes farther.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen.nets.diffusion.schedules import Schedule

GRIDS = ("even", "log_snr", "rho")
RHO = 7.0
FARTHEST = (
    -12.0,
    14.0,
)  # log SNR: beyond, sigma / alpha is above 400 or below .001, and some schedules go on to infinity


def time_of(schedule: Schedule, log_snr: Any, start: Any = 1.0) -> Any:
    """The time of a log SNR, both of any shape, by bisection between `schedule.first` and the start."""
    late = jnp.full(jnp.shape(log_snr), start, jnp.result_type(float))
    early = jnp.full_like(late, schedule.first)
    at = jnp.vectorize(schedule.log_snr)

    def halved(_: Any, ends: Any) -> Any:
        early, late = ends
        middle = 0.5 * (early + late)
        noisy = at(middle) < log_snr
        return jnp.where(noisy, early, middle), jnp.where(noisy, middle, late)

    early, late = jax.lax.fori_loop(0, 50, halved, (early, late))
    return 0.5 * (early + late)


def grid(schedule: Schedule, num: int, start: Any = 1.0, kind: str = "even") -> Any:
    """The times at which the network is asked: (num,), falling from the start."""
    if kind not in GRIDS:
        raise ValueError(f"Unknown times {kind!r}. Known: {', '.join(GRIDS)}, or an array of falling times in (0, 1].")
    if num < 1:
        raise ValueError(f"num_steps={num}: expected one evaluation of the network or more.")
    share = jnp.arange(num) / max(num - 1, 1)
    if kind == "even":
        # Where the schedule's first time has no noise, it is arrived at, and never asked.
        silent = schedule.scales(schedule.first)[1] == 0
        return start + (schedule.first - start) * jnp.where(silent, jnp.arange(num) / num, share)
    ends = jnp.clip(jnp.stack([schedule.log_snr(start), schedule.log_snr(schedule.first)]), *FARTHEST)
    if kind == "rho":
        root = jnp.exp(-0.5 * ends / RHO)
        wanted = -2 * RHO * jnp.log(root[0] + share * (root[1] - root[0]))
    else:
        wanted = ends[0] + share * (ends[1] - ends[0])
    return time_of(schedule, wanted, start).at[0].set(start)


def told(schedule: Schedule, times: Any) -> Any:
    """Times that a user gives, checked: (num,). Where a last one has no noise the network is asked a little before it."""
    times = np.asarray(times, float)
    if times.ndim != 1 or not len(times) or np.any(np.diff(times) >= 0) or not 0 < times[0] <= 1 or times[-1] < 0:
        raise ValueError("times= of a sampler: expected an array that falls, from at most 1 to at least 0.")
    low = float(schedule.first)
    if times[-1] < low * (1 - 1e-6):
        raise ValueError(
            f"times= of a sampler end at {times[-1]:g}; this schedule has no noise before {low:g}: end there."
        )
    silent = schedule.scales(times[-1])[1] == 0
    before = 1e-3 * times[-2] if len(times) > 1 else times[-1]
    return jnp.asarray(times).at[-1].set(jnp.where(silent, before, times[-1]))
