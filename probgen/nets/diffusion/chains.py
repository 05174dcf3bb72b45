"""A chain of noisier and noisier points as one hidden site: what noise makes of a point, and the denoiser that goes back.

    q(z_1, ..., z_N | x):  z_i = alpha_i x + sigma_i e_i, by steps;  q(z_{i-1} | z_i, x) is normal, the bridge
    p(z_1, ..., z_N):      z_N ~ N(0, s^2 I),  z_{i-1} | z_i ~ the bridge at the denoiser's mean of x

q is a guide with nothing to learn, and both are plain distributions of a whole chain. Their KL is a sum over levels,

    KL(q || p) = KL(q(z_N | x) || p(z_N)) + sum_i E KL(q(z_{i-1} | z_i, x) || p(z_{i-1} | z_i)),

of which one level, drawn at random and scaled, is an unbiased estimate: time is a plate that is subsampled.
Sohl-Dickstein et al. 2015 (arXiv:1503.03585); Ho et al. 2020 (arXiv:2006.11239); Kingma et al. 2021 (arXiv:2107.00630).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, constraints

from probgen.data.whole_numbers import counted
from probgen.nets.diffusion.denoiser import Denoiser, Mixed
from probgen.nets.diffusion.schedules import Exploding, Levels, LinearLogSNR, Schedule


class At(NamedTuple):
    """One random level of a chain: its index, its time in [0, 1) and what it counts for, (); the noise and z there, (*event)."""

    index: Any
    time: Any
    weight: Any
    noise: Any
    z: Any


def kept(schedule: Schedule, s: Any, t: Any) -> Any:
    """The share of sigma_t^2 that comes after an earlier time s: 1 - SNR_t / SNR_s."""
    return -jnp.expm1(schedule.log_snr(t) - schedule.log_snr(s))


def bridge(schedule: Schedule, x: Any, z: Any, s: Any, t: Any) -> tuple[Any, Any]:
    """Mean (*event) and variance () of q(z_s | z_t, x), s < t."""
    (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule.scales(s), schedule.scales(t)
    share = kept(schedule, s, t)
    return alpha_t / alpha_s * (sigma_s / sigma_t) ** 2 * z + alpha_s * share * x, sigma_s**2 * share


def step_variance(schedule: Schedule, s: Any, t: Any) -> Any:
    """The variance of q(z_t | z_s), DDPM's beta: ()."""
    return schedule.scales(t)[1] ** 2 * kept(schedule, s, t)


def levels(schedule: Schedule, num_levels: int) -> Any:
    """The times of a chain of so many levels, the last at 1: (level,)."""
    num_levels = counted("num_levels", num_levels)
    if isinstance(schedule, Levels):  # whose own steps these are
        return jnp.arange(1, num_levels + 1) / num_levels
    return jnp.linspace(schedule.first, 1.0, num_levels)


def evenly(num_levels: int) -> Any:
    """The times of a chain of so many levels from 0 to 1, two of them at least: (level,)."""
    return jnp.linspace(0, 1, counted("num_levels", num_levels, least=2))


class Noised(Distribution):
    """q(z_1, ..., z_N | x): what noise makes of a point; nothing is learned but, where it is, the schedule.

    x: (*event); times: (level,), rising. Events: (level, *event).
    """

    reparametrized_params: Any = ()
    pytree_data_fields = ("x", "schedule", "times")

    def __init__(self, x: Any, schedule: Schedule, times: Any, *, validate_args: bool | None = None):
        self.x, self.schedule, self.times = jnp.asarray(x, jnp.result_type(float)), schedule, times
        super().__init__((), (len(times), *jnp.shape(x)), validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> Any:
        return constraints.independent(constraints.real, self.event_dim)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        draw = jax.vmap(self._path)
        flat = jax.random.split(key, math.prod(sample_shape))
        return draw(flat).reshape(*sample_shape, *self.event_shape)

    def _path(self, key: Any) -> Any:
        noise = jax.random.normal(key, self.event_shape)

        def forward(z: Any, at: Any) -> tuple[Any, Any]:
            s, t, e = at
            (alpha_s, _), (alpha_t, _) = self.schedule.scales(s), self.schedule.scales(t)
            z = alpha_t / alpha_s * z + jnp.sqrt(step_variance(self.schedule, s, t)) * e
            return z, z

        first = self.schedule.noised(self.x, noise[0], self.times[0])
        rest = jax.lax.scan(forward, first, (self.times[:-1], self.times[1:], noise[1:]))[1]
        return jnp.concatenate([first[None], rest])

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """By the end of the chain and the bridges: ()."""
        alpha, sigma = self.schedule.scales(self.times[-1])
        total = _normal(value[-1], alpha * self.x, sigma**2)

        def one(z_s: Any, z_t: Any, s: Any, t: Any) -> Any:
            return _normal(z_s, *bridge(self.schedule, self.x, z_t, s, t))

        return total + jax.vmap(one)(value[:-1], value[1:], self.times[:-1], self.times[1:]).sum()

    # ---- a random level of it

    def lazily(self, key: Any, time: Any = None) -> tuple[Any, At]:
        """The first level, and one random level, both drawn by themselves; time: which, in [0, 1), by default drawn.

        Early levels come more often, as most of the bound is theirs, and count for less: of `early` there are about even numbers in
        every octave. Where the log SNR falls on a line, every time is as good as another.
        """
        k_first, k_time, k_at = jax.random.split(key, 3)
        noise = jax.random.normal(k_first, jnp.shape(self.x))
        first = self.schedule.noised(self.x, noise, self.times[0])
        time = jax.random.uniform(k_time) if time is None else time
        uneven = not isinstance(self.schedule, LinearLogSNR | Exploding)
        time, weight = early(time, 1 / len(self.times)) if uneven else (time, jnp.ones_like(time))
        index = jnp.clip(jnp.floor(time * (len(self.times) - 1)).astype(int), 0, max(len(self.times) - 2, 0))
        return first, self._at(k_at, time, weight, index + 1 if len(self.times) > 1 else index)

    def _at(self, key: Any, time: Any, weight: Any, index: Any) -> At:
        noise = jax.random.normal(key, jnp.shape(self.x))
        return At(index, time, weight, noise, self.schedule.noised(self.x, noise, self.times[index]))


class Backward(Distribution):
    """p(z_1, ..., z_N): a denoiser that goes back from noise, level by level.

    shape: of a point; times: (level,), rising; spread: the standard deviation of the data's coordinates, for the end.
    variance: of a step: "beta", of the step that noise made, the most; or "bridge", of the bridge, the least.
    continuous: whether KL(q || p) is that of infinitely many levels between the first and the last; draws take those of `times`.
    Events: (level, *event).
    """

    reparametrized_params: Any = ()
    pytree_data_fields = ("denoiser", "times", "spread")
    pytree_aux_fields = ("kind", "continuous")

    def __init__(
        self, denoiser: Denoiser, shape: tuple[int, ...], times: Any, variance: str = "beta",
        continuous: bool = False, spread: Any = 1.0, *, validate_args: bool | None = None,
    ):  # fmt: skip
        if variance not in ("beta", "bridge"):
            raise ValueError(f"variance is {variance!r}; known: beta, bridge")
        self.denoiser, self.times, self.kind, self.continuous = denoiser, times, variance, continuous
        self.spread = spread
        super().__init__((), (len(times), *shape), validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> Any:
        return constraints.independent(constraints.real, self.event_dim)

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    @property
    def end_scale(self) -> Any:
        """The standard deviation of z_N: ()."""
        alpha, sigma = self.schedule.scales(self.times[-1])
        return jnp.sqrt((alpha * self.spread) ** 2 + sigma**2)

    def step(self, z: Any, s: Any, t: Any) -> tuple[Any, Any]:
        """Mean (*event) and variance () of p(z_s | z_t)."""
        mean, variance = bridge(self.schedule, self.denoiser(z, t).mean, z, s, t)
        return mean, step_variance(self.schedule, s, t) if self.kind == "beta" else variance

    def last(self, z: Any) -> tuple[Any, ...]:
        """Mean (*event) and standard deviation () of x given z_1; with "bridge" that of the step before, as its own is zero.

        Of a denoiser that says a mixture those of its components and their log weights, all (component, *event).
        """
        if isinstance(self.denoiser, Mixed):
            log_weights, mean, variance = self.denoiser.parts(z, self.times[0])
            return mean, jnp.sqrt(variance), log_weights
        alpha, scale = self.schedule.scales(self.times[0])
        if self.continuous:
            scale = scale / alpha
        elif self.kind == "bridge" and len(self.times) > 1:
            scale = jnp.sqrt(bridge(self.schedule, 0.0, 0.0, self.times[0], self.times[1])[1])
        return self.denoiser(z, self.times[0]).mean, scale

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        flat = jax.random.split(key, math.prod(sample_shape))
        return jax.vmap(self._path)(flat).reshape(*sample_shape, *self.event_shape)

    def first(self, key: Any) -> Any:
        """z_1 alone, by all levels: (*event)."""
        return self._back(key, False)[0]

    def _path(self, key: Any) -> Any:
        _, rest, end = self._back(key, True)
        return jnp.concatenate([rest, end[None]])

    def _back(self, key: Any, kept: bool) -> tuple[Any, Any, Any]:
        """The first level, those between where they are kept, and the last."""
        k_end, k_steps = jax.random.split(key)
        keys = jax.random.split(k_steps, max(len(self.times) - 1, 1))[: len(self.times) - 1]

        def backward(z: Any, at: Any) -> tuple[Any, Any]:
            s, t, key = at
            mean, variance = self.step(z, s, t)
            z = mean + jnp.sqrt(variance) * jax.random.normal(key, jnp.shape(z))
            return z, z if kept else None

        end = self.end_scale * jax.random.normal(k_end, self.event_shape[1:])
        first, rest = jax.lax.scan(backward, end, (self.times[:-1], self.times[1:], keys), reverse=True)
        return first, rest, end

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        total = _normal(value[-1], 0.0, self.end_scale**2)
        one = lambda z_s, z_t, s, t: _normal(z_s, *self.step(z_t, s, t))  # noqa: E731
        return total + jax.vmap(one)(value[:-1], value[1:], self.times[:-1], self.times[1:]).sum()

    # ---- KL(q || p), a part at a time

    def end_gap(self, q: Noised) -> Any:
        """KL(q(z_N | x) || p(z_N)), in nats: ()."""
        if len(q.times) != len(self.times):
            raise ValueError(f"The guide's chain has {len(q.times)} levels, the program's {len(self.times)}.")
        alpha, sigma = q.schedule.scales(q.times[-1])
        return _kl(alpha * q.x, sigma**2, 0.0, self.end_scale**2)

    def gap(self, q: Noised, at: At) -> Any:
        """The KL of one random level, scaled to stand for them all, in nats: (); right for a guide of another schedule too."""
        if self.continuous:
            return jnp.where(self._same(q, at), self._slope(q, at), jnp.inf)
        if len(self.times) == 1:
            return jnp.zeros(())
        s, t = self.times[at.index - 1], self.times[at.index]
        own = bridge(q.schedule, q.x, at.z, q.times[at.index - 1], q.times[at.index])
        return at.weight * (len(self.times) - 1) * _kl(*own, *self.step(at.z, s, t))

    def _same(self, q: Noised, at: At) -> Any:
        """Whether q puts noise on as p takes it off: the KL of infinitely many levels is infinite where it does not, ()."""
        low, high = self.times[0], self.times[-1]
        times = jnp.stack([low, low + (high - low) * at.time, high])
        ours, theirs = (jax.vmap(schedule.log_snr)(times) for schedule in (self.schedule, q.schedule))
        far = jnp.abs(theirs - ours) > 1e-3 * (1 + jnp.abs(ours))  # both infinite: NaN, which is not far
        return ~jnp.any(far) & (jnp.abs(q.times[0] - low) < 1e-6) & (jnp.abs(q.times[-1] - high) < 1e-6)

    def _slope(self, q: Noised, at: At) -> Any:
        """The same of infinitely many levels: 1/2 (-d log SNR / dt) |e - e(z_t, t)|^2 at a time drawn evenly."""
        low, high = self.times[0], self.times[-1]
        t = low + (high - low) * at.time
        z = self.schedule.noised(q.x, at.noise, t)
        _, slope = jax.jvp(self.schedule.log_snr, (t,), (jnp.ones_like(t),))
        return -0.5 * at.weight * (high - low) * slope * jnp.sum((at.noise - self.denoiser.noise(z, t)) ** 2)


def early(u: Any, least: float) -> tuple[Any, Any]:
    """An even number in [0, 1) as one of density 1 / (u + least), up to a factor, and the inverse of that density."""
    wide = math.log1p(1 / least)
    moved = least * jnp.expm1(u * wide)
    return moved, (moved + least) * wide


def filled(first: Any, count: int) -> Any:
    """A chain of which only the first level is known, NaN elsewhere: (level, *event)."""
    return jnp.concatenate([first[None], jnp.full((count - 1, *jnp.shape(first)), jnp.nan, first.dtype)])


def _normal(x: Any, mean: Any, variance: Any) -> Any:
    """log N(x; mean, variance I), in nats: ()."""
    return jnp.sum(-0.5 * ((x - mean) ** 2 / variance + jnp.log(2 * jnp.pi * variance)))


def _kl(mean: Any, variance: Any, other: Any, wide: Any) -> Any:
    """KL(N(mean, variance I) || N(other, wide I)), in nats: ()."""
    ratio = variance / wide
    return 0.5 * jnp.sum(ratio - 1 - jnp.log(ratio) + (mean - other) ** 2 / wide)
