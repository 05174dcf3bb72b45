"""Drawing points from a denoiser: from noise, from a point that is noised in part (SDEdit), or by jumps that a network learned.

    consistency    f(z_t, t) = alpha_e D + sigma_e (z_t - alpha_t D) / sigma_t,   D = D(z_t, t),   e the earliest time
    mean velocity  z_s = z_t - (t - s) u(z_t, s, t),   u = 1 / (t - s) int_s^t v(z_r, r) dr

f is a line from z_t to the point D, left where its noise is that of the earliest time: f(z_e, e) = z_e, whatever the network says.
Song et al. 2023 (arXiv:2303.01469); Geng et al. 2025 (arXiv:2505.13447).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from probgen.nets.diffusion.denoiser import Denoiser
from probgen.nets.diffusion.grids import grid, time_of, told
from probgen.nets.diffusion.samplers import Sampler, named
from probgen.nets.diffusion.schedules import Schedule

NOISY = 0.05  # sigma / alpha that may be left at the earliest time


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


# ---- jumps


def ladder(schedule: Schedule, num_levels: int) -> Any:
    """Times that fall from 1 to the earliest, evenly in (sigma / alpha)^(1/7): (num_levels + 1,)."""
    return jax.lax.stop_gradient(grid(schedule, num_levels + 1, kind="rho"))


def earliest(schedule: Schedule) -> Any:
    """The last time of every ladder: ()."""
    return ladder(schedule, 1)[-1]


def to_the_end(denoiser: Denoiser, z: Any, t: Any, end_time: Any) -> Any:
    """The consistency function of a network's D, z_t itself at the end time: (*event)."""
    (alpha, sigma), (alpha_e, sigma_e) = denoiser.schedule.scales(t), denoiser.schedule.scales(end_time)
    x, left = denoiser(z, t).mean, sigma_e / sigma
    return left * z + (alpha_e - left * alpha) * x


def narrowed(schedule: Schedule, num_levels: int) -> Any:
    """The standard deviation of draws in one step, of N(0, 1) data, after consistency training without a teacher: ().

    The same noise is put on a point at two neighbouring levels, and E[z_s | z_t] taken for where the flow leads: cos(a - b) of the
    deviation is left, a and b arctan sigma / alpha of both. Evenly spaced in that angle exp(-pi^2 / 8 num_levels) is left of all.
    """
    times = ladder(schedule, num_levels)
    alpha, sigma = jax.vmap(schedule.scales)(times)
    return jnp.prod(jnp.cos(jnp.diff(jnp.arctan2(sigma, alpha))))


def by_consistency(denoiser: Denoiser, key: Any, shape: tuple[int, ...], num_steps: int) -> Any:
    """A point (*shape) by so many evaluations: after each but the last noise is put back, at levels even in arctan sigma/alpha."""
    schedule, last = denoiser.schedule, earliest(denoiser.schedule)
    alpha_e, sigma_e = schedule.scales(last)
    angles = 0.5 * math.pi * (1 - jnp.arange(1, num_steps) / num_steps)
    times = jnp.maximum(time_of(schedule, -2 * jnp.log(jnp.tan(angles))), last)

    def again(z: Any, at: Any) -> tuple[Any, None]:
        t, key = at
        alpha, sigma = schedule.scales(t)
        more = jnp.sqrt(jnp.maximum(sigma**2 - (alpha / alpha_e * sigma_e) ** 2, 0.0))
        noisy = alpha / alpha_e * z + more * jax.random.normal(key, shape)
        return to_the_end(denoiser, noisy, t, last).astype(z.dtype), None

    begin, *rest = jax.random.split(key, num_steps)
    z = to_the_end(denoiser, end(schedule, begin, shape), jnp.ones(()), last)
    if rest:
        z, _ = jax.lax.scan(again, z, (times, jnp.stack(rest)))
    return z / alpha_e


def by_mean_velocity(denoiser: Any, key: Any, shape: tuple[int, ...], num_steps: int) -> Any:
    """A point (*shape) by so many evaluations, at times evenly spaced from 1 to the schedule's first."""
    schedule = denoiser.schedule
    times = jnp.linspace(1.0, schedule.first, num_steps + 1)

    def step(z: Any, at: Any) -> tuple[Any, None]:
        t, s = at
        return (z - (t - s) * denoiser.mean_velocity(z, t, s)).astype(z.dtype), None

    z, _ = jax.lax.scan(step, end(schedule, key, shape), (times[:-1], times[1:]))
    return z / schedule.scales(schedule.first)[0]


DRAWN = {"consistency": by_consistency, "mean_flow": by_mean_velocity}  # by the learner's word
