"""Grids of time in torch: the twins of `probgen.nets.diffusion.grids`, which says where each kind stands.

Times are in double precision until they are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from probgen.nets.torch_diffusion.schedules import Schedule

GRIDS = ("even", "log_snr", "rho")
RHO = 7.0
FARTHEST = (-12.0, 14.0)  # log SNR, where a schedule goes on to infinity


def _number(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def time_of(schedule: Schedule, log_snr: Any, start: float = 1.0) -> Tensor:
    """The time of a log SNR, both of any shape, by bisection between `schedule.first` and the start."""
    wanted = _number(log_snr)
    late = torch.full_like(wanted, float(start))
    early = torch.full_like(late, schedule.first)
    for _ in range(50):
        middle = 0.5 * (early + late)
        noisy = schedule.log_snr(middle) < wanted
        early, late = torch.where(noisy, early, middle), torch.where(noisy, middle, late)
    return 0.5 * (early + late)


def grid(schedule: Schedule, num: int, start: Any = 1.0, kind: str = "even") -> Tensor:
    """The times at which the network is asked: (num,), falling from the start."""
    if kind not in GRIDS:
        raise ValueError(f"Unknown times {kind!r}. Known: {', '.join(GRIDS)}, or an array of falling times in (0, 1].")
    if num < 1:
        raise ValueError(f"num_steps={num}: expected one evaluation of the network or more.")
    start, first = _number(start), _number(schedule.first)
    share = torch.arange(num, dtype=torch.float64) / max(num - 1, 1)
    if kind == "even":
        # Where the schedule's first time has no noise, it is arrived at, and never asked.
        silent = bool(schedule.scales(first)[1] == 0)
        return start + (first - start) * (torch.arange(num, dtype=torch.float64) / num if silent else share)
    ends = torch.stack([schedule.log_snr(start), schedule.log_snr(first)]).clamp(*FARTHEST)
    if kind == "rho":
        root = torch.exp(-0.5 * ends / RHO)
        wanted = -2 * RHO * torch.log(root[0] + share * (root[1] - root[0]))
    else:
        wanted = ends[0] + share * (ends[1] - ends[0])
    times = time_of(schedule, wanted, float(start))
    times[0] = start
    return times


def told(schedule: Schedule, times: Any) -> Tensor:
    """Times that a user gives, checked: (num,). Where a last one has no noise the network is asked a little before it."""
    times = np.asarray(times, float)
    if times.ndim != 1 or not len(times) or np.any(np.diff(times) >= 0) or not 0 < times[0] <= 1 or times[-1] < 0:
        raise ValueError("times= of a sampler: expected an array that falls, from at most 1 to at least 0.")
    low = float(schedule.first)
    if times[-1] < low * (1 - 1e-6):
        raise ValueError(
            f"times= of a sampler end at {times[-1]:g}; this schedule has no noise before {low:g}: end there."
        )
    if float(schedule.scales(_number(times[-1]))[1]) == 0:
        times = np.append(times[:-1], 1e-3 * times[-2])
    return _number(times)
