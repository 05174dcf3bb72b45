"""Drawing rows from a denoiser in torch: the twin of `probgen.nets.diffusion.sampling`."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from probgen.nets.torch_diffusion.denoiser import Denoiser
from probgen.nets.torch_diffusion.grids import grid, time_of, told
from probgen.nets.torch_diffusion.samplers import Sampler, named, noise_like
from probgen.nets.torch_diffusion.schedules import Schedule


def end(schedule: Schedule, like: Tensor, spread: Any = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """z_1 of data of mean zero and a standard deviation, in the shape of rows: N(0, alpha^2 spread^2 + sigma^2)."""
    alpha, sigma = schedule.scales(torch.ones((), dtype=like.dtype))
    return torch.sqrt((alpha * spread) ** 2 + sigma**2) * noise_like(like, generator)


def times_of(denoiser: Denoiser, sampler: Sampler, num_steps: int, start_time: Any = 1.0, times: Any = None) -> Tensor:
    """The times at which a sampler asks the network, in so many evaluations at most."""
    times = sampler.grid if times is None else times
    if not isinstance(times, str):
        return told(denoiser.schedule, times)
    return grid(denoiser.schedule, 1 + (num_steps - 1) // sampler.evaluations, start_time, times)


@torch.no_grad()
def sample(
    denoiser: Denoiser, z: Tensor, num_steps: int = 50, sampler: str | Sampler = "ddim", start_time: Any = 1.0,
    times: Any = None, generator: torch.Generator | None = None, seen: list[Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Rows x, (row, *event), from z at the start time: (row, *event); seen: takes z at every time.

    num_steps: evaluations of the network in all, at most: the last asks it for x itself; Heun's method takes half as many steps.
    times: "even", "log_snr", "rho", or the times themselves, falling from that of z; unless told, the sampler's own.
    """
    sampler = named(sampler)
    at = times_of(denoiser, sampler, num_steps, start_time, times).to(z)
    memory = sampler.init(z)
    for t, s in itertools.pairwise(at):
        if seen is not None:
            seen.append(z)
        z, memory = sampler.step(denoiser, z, t, s, generator, memory)
    if seen is not None:
        seen.append(z)
    return denoiser(z, at[-1]).mean


def time_of_share(schedule: Schedule, share: float) -> Tensor:
    """The time at which noise has that share of a unit picture's variance, sigma^2 / (alpha^2 + sigma^2), or the nearest one."""
    if not 0 < share <= 1:
        raise ValueError(f"level={share:g}: expected the share of the variance that is noise, above 0 and at most 1.")
    wanted = torch.tensor(share, dtype=torch.float64)
    return time_of(schedule, torch.log1p(-wanted) - torch.log(wanted))


def edited(
    denoiser: Denoiser, picture: Tensor, level: float, num_steps: int = 50, sampler: str | Sampler = "sde",
    generator: torch.Generator | None = None, **options: Any,
) -> Tensor:  # fmt: skip
    """Pictures (row, *event) noised to a level and sampled from there: SDEdit, Meng et al. 2022 (arXiv:2108.01073).

    level: the share of the variance that is noise: .5 is as much noise as picture, 1 keeps nothing of it.
    """
    start = time_of_share(denoiser.schedule, level)
    z = denoiser.schedule.noised(picture, noise_like(picture, generator), start.to(picture))
    return sample(denoiser, z, num_steps, sampler, start_time=start, generator=generator, **options)
