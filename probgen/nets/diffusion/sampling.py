"""Drawing points from a denoiser: from noise, or from a picture that is noised in part (SDEdit)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from probgen.nets.diffusion.denoiser import Denoiser
from probgen.nets.diffusion.grids import grid, time_of, told
from probgen.nets.diffusion.samplers import Sampler, named
from probgen.nets.diffusion.schedules import Schedule


class Path(NamedTuple):
    """Where a point came from: times (num,), falling, and z at each: (num, *event)."""

    times: Any
    z: Any


def end(schedule: Schedule, key: Any, shape: tuple[int, ...], spread: Any = 1.0, mean: Any = 0.0) -> Any:
    """z_1 of data with a mean and a standard deviation, () or (*event): alpha mean + N(0, alpha^2 spread^2 + sigma^2)."""
    alpha, sigma = schedule.scales(1.0)
    return alpha * mean + jnp.sqrt((alpha * spread) ** 2 + sigma**2) * jax.random.normal(key, shape)


def sample(
    denoiser: Denoiser,
    key: Any,
    z: Any,
    num_steps: int = 50,
    sampler: str | Sampler = "ddim",
    start_time: Any = 1.0,
    times: Any = None,
    trajectory: bool = False,
) -> Any:
    """A point x, (*event), from z at the start time: (*event). With `trajectory`, (x, Path).

    num_steps: evaluations of the network in all, at most: the last asks it for x itself; Heun's method takes half as many steps.
    times: "even", "log_snr", "rho", or the times themselves, falling from that of z; unless told, the sampler's own.
    """
    sampler = named(sampler)
    times = sampler.grid if times is None else times
    if isinstance(times, str):
        num = 1 + (num_steps - 1) // sampler.evaluations
        times = grid(denoiser.schedule, num, start_time, times)
    else:
        times = told(denoiser.schedule, times)
    times = times.astype(z.dtype)

    def one(state: Any, at: Any) -> Any:
        z, memory = state
        t, s, key = at
        return sampler.step(denoiser, z, t, s, key, memory), z if trajectory else None

    pairs = times[:-1], times[1:], jax.random.split(key, len(times) - 1)
    (last, _), before = jax.lax.scan(one, (z, sampler.init(z)), pairs)
    x = denoiser(last, times[-1]).mean
    return (x, Path(times, jnp.concatenate([before, last[None]]))) if trajectory else x


def time_of_share(schedule: Schedule, share: float) -> Any:
    """The time at which noise has that share of a unit picture's variance, sigma^2 / (alpha^2 + sigma^2), or the nearest one."""
    if not 0 < share <= 1:
        raise ValueError(f"level={share:g}: expected the share of the variance that is noise, above 0 and at most 1.")
    noise = jnp.asarray(share, jnp.result_type(float))
    return time_of(schedule, jnp.log1p(-noise) - jnp.log(noise))


def edited(
    denoiser: Denoiser,
    key: Any,
    picture: Any,
    level: float,
    num_steps: int = 50,
    sampler: str | Sampler = "sde",
    **options: Any,
) -> Any:
    """A picture (*event) noised to a level and sampled from there: SDEdit, Meng et al. 2022 (arXiv:2108.01073).

    level: the share of the variance that is noise: .5 is as much noise as picture, 1 keeps nothing of it.
    sampler: a stochastic one ("sde", "ancestral") forgets the picture's own noise, and draws x given the noised picture. A flow
    ("ddim", "heun") keeps it: of a picture far from the data it gives a point as far from them.
    """
    start = time_of_share(denoiser.schedule, level)
    noising, drawing = jax.random.split(key)
    z = denoiser.schedule.noised(picture, jax.random.normal(noising, picture.shape, picture.dtype), start)
    return sample(denoiser, drawing, z, num_steps, sampler, start_time=start, **options)
