"""A chain of noisier and noisier rows as one hidden site of a Pyro program: the twin of `probgen.nets.diffusion.chains`.

    q(z_1, ..., z_N | x):  z_i = alpha_i x + sigma_i e_i, by steps;  q(z_{i-1} | z_i, x) is normal, the bridge
    p(z_1, ..., z_N):      z_N ~ N(0, s^2 I),  z_{i-1} | z_i ~ the bridge at the denoiser's mean of x

    KL(q || p) = KL(q(z_N | x) || p(z_N)) + sum_i E KL(q(z_{i-1} | z_i, x) || p(z_{i-1} | z_i)),

of which one level a row, drawn at random and scaled, is an unbiased estimate. Shapes, of a batch: x: (row, *event), z: (row, level,
*event), times: (level,).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from probgen.data.whole_numbers import counted
from probgen.nets.torch_diffusion.denoiser import Denoiser
from probgen.nets.torch_diffusion.samplers import noise_like
from probgen.nets.torch_diffusion.schedules import Levels, Schedule, over


class At(NamedTuple):
    """What one random level a row needs: its index (row,), where it is in [0, 1), the noise and the noisy rows (row, *event)."""

    index: Tensor
    time: Tensor
    noise: Tensor
    z: Tensor


def kept(schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
    """The share of sigma_t^2 that comes after an earlier time s: 1 - SNR_t / SNR_s."""
    return -torch.expm1(schedule.log_snr(t) - schedule.log_snr(s))


def bridge(schedule: Schedule, x: Tensor, z: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (row, *event) and variance, (row,) or (), of q(z_s | z_t, x), s < t."""
    (alpha_s, sigma_s), (alpha_t, _) = schedule.scales(s), schedule.scales(t)
    share = kept(schedule, s, t)
    mean = over(alpha_s / alpha_t * (1 - share), z) * z + over(alpha_s * share, z) * x
    return mean, sigma_s**2 * share


def step_variance(schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
    """The variance of q(z_t | z_s), DDPM's beta: (row,) or ()."""
    return schedule.scales(t)[1] ** 2 * kept(schedule, s, t)


def levels(schedule: Schedule, num_levels: int) -> Tensor:
    """The times of a chain of so many levels, the last at 1: (level,)."""
    num_levels = counted("num_levels", num_levels)
    if isinstance(schedule, Levels):  # whose own steps these are
        return torch.arange(1, num_levels + 1) / num_levels
    return torch.linspace(schedule.first, 1.0, num_levels)


def spread_out(count: int, like: Tensor) -> Tensor:
    """(u + i / n) mod 1 for a uniform u, each uniform in [0, 1): (count,). Kingma et al. 2021 (arXiv:2107.00630)."""
    start = torch.rand((), dtype=like.dtype)
    return ((start + torch.arange(count) / count) % 1.0).to(like)


class _Chain(TorchDistribution):
    """Rows of chains: batch (row,), events (level, *event)."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    schedule: Schedule
    times: Tensor

    @constraints.dependent_property
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    def filled(self, first: Tensor, rest: float = torch.nan) -> Tensor:
        """Chains of which only the first level is known: (row, level, *event)."""
        z = first.new_full((len(first), *self.event_shape), rest)
        z[:, 0] = first
        return z


class Noised(_Chain):
    """q(z_1, ..., z_N | x): what noise makes of rows; nothing is learned but, where it is, the schedule.

    x: (row, *event); times: (level,), rising.
    """

    def __init__(self, x: Tensor, schedule: Schedule, times: Tensor) -> None:
        self.x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        self.schedule, self.times = schedule, times.to(self.x)
        super().__init__(x.shape[:1], torch.Size((len(times), *x.shape[1:])), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Noised:
        if tuple(batch_shape) != tuple(self.batch_shape):
            raise ValueError(f"A chain of {tuple(self.batch_shape)} rows stands in a plate of {tuple(batch_shape)}.")
        return self

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        noise = torch.randn(*sample_shape, *self.shape(), dtype=self.x.dtype).to(self.x)
        noise = noise.reshape(-1, *self.event_shape)
        x = self.x.expand(*sample_shape, *self.x.shape).reshape(-1, *self.x.shape[1:])
        z = [self.schedule.noised(x, noise[:, 0], self.times[0])]
        for i in range(1, len(self.times)):
            s, t = self.times[i - 1], self.times[i]
            ratio = self.schedule.scales(t)[0] / self.schedule.scales(s)[0]
            z.append(ratio * z[-1] + torch.sqrt(step_variance(self.schedule, s, t)) * noise[:, i])
        return torch.stack(z, 1).reshape(*sample_shape, *self.shape())

    def log_prob(self, value: Tensor) -> Tensor:
        """By the end of the chain and the bridges: (row,)."""
        alpha, sigma = self.schedule.scales(self.times[-1])
        total = _normal(value[:, -1], alpha * self.x, sigma**2)
        for i in range(1, len(self.times)):
            s, t = self.times[i - 1], self.times[i]
            total = total + _normal(value[:, i - 1], *bridge(self.schedule, self.x, value[:, i], s, t))
        return total

    # ---- a random level of it

    def first(self) -> Tensor:
        """The first level, drawn: (row, *event)."""
        return self.schedule.noised(self.x, noise_like(self.x), self.times[0])

    def level(self, time: Tensor | None = None) -> At:
        """One random level a row; time: which, (row,) in [0, 1), by default drawn, spread out over the rows."""
        time = spread_out(len(self.x), self.x) if time is None else time.to(self.x)
        steps = len(self.times) - 1
        index = (time * steps).floor().long().clamp(0, max(steps - 1, 0)) + (1 if steps else 0)
        noise = noise_like(self.x)
        return At(index, time, noise, self.schedule.noised(self.x, noise, self.times[index]))


class Backward(_Chain):
    """p(z_1, ..., z_N): a denoiser that goes back from noise, level by level.

    shape: of a row; times: (level,), rising; spread: the standard deviation of the data's coordinates, for the end.
    variance: of a step: "beta", of the step that noise made, the most; or "bridge", of the bridge, the least.
    continuous: whether KL(q || p) is that of infinitely many levels between the first and the last; draws take those of `times`.
    """

    def __init__(
        self, denoiser: Denoiser, shape: Any, times: Tensor, variance: str = "beta",
        continuous: bool = False, spread: float = 1.0, batch: Any = (),
    ) -> None:  # fmt: skip
        if variance not in ("beta", "bridge"):
            raise ValueError(f"variance is {variance!r}; known: beta, bridge")
        self.kind = variance
        self.denoiser, self.continuous, self.spread = denoiser, continuous, spread
        self.times = times.to(torch.get_default_dtype())
        super().__init__(torch.Size(batch), torch.Size((len(times), *shape)), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Backward:
        shape = self.event_shape[1:]
        return Backward(self.denoiser, shape, self.times, self.kind, self.continuous, self.spread, batch_shape)

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    @property
    def end_scale(self) -> Tensor:
        """The standard deviation of z_N: ()."""
        alpha, sigma = self.schedule.scales(self.times[-1])
        return torch.sqrt((alpha * self.spread) ** 2 + sigma**2)

    def step(self, z: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (row, *event) and variance of p(z_s | z_t)."""
        mean, variance = bridge(self.schedule, self.denoiser(z, t).mean, z, s, t)
        return mean, step_variance(self.schedule, s, t) if self.kind == "beta" else variance

    def last(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (row, *event) and standard deviation () of x given z_1; with "bridge" that of the step before, its own being 0."""
        alpha, scale = self.schedule.scales(self.times[0])
        if self.continuous:
            scale = scale / alpha
        elif self.kind == "bridge" and len(self.times) > 1:
            share = kept(self.schedule, self.times[0], self.times[1])
            scale = scale * torch.sqrt(share)
        return self.denoiser(z, self.times[0]).mean, scale

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size((*sample_shape, *self.batch_shape))
        z = [self.end_scale * torch.randn(shape.numel(), *self.event_shape[1:], dtype=self.times.dtype)]
        for i in range(len(self.times) - 1, 0, -1):
            mean, variance = self.step(z[-1], self.times[i - 1], self.times[i])
            z.append(mean + torch.sqrt(variance) * noise_like(mean))
        return torch.stack(z[::-1], 1).reshape(*shape, *self.event_shape)

    @torch.no_grad()
    def first(self) -> Tensor:
        """The first level of chains drawn from noise, of which the others are not kept: (row, *event)."""
        z = self.end_scale * torch.randn(*self.batch_shape, *self.event_shape[1:], dtype=self.times.dtype)
        for i in range(len(self.times) - 1, 0, -1):
            mean, variance = self.step(z, self.times[i - 1], self.times[i])
            z = mean + torch.sqrt(variance) * noise_like(mean)
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        total = _normal(value[:, -1], torch.zeros_like(value[:, -1]), self.end_scale**2)
        for i in range(1, len(self.times)):
            total = total + _normal(value[:, i - 1], *self.step(value[:, i], self.times[i - 1], self.times[i]))
        return total

    # ---- KL(q || p), a part at a time

    @torch.no_grad()
    def check(self, q: Noised) -> None:
        """Raises ValueError for a guide whose chain has other levels of noise than this one: their KL is not a sum over levels."""
        if self.times.shape != q.times.shape:
            raise ValueError(f"The guide's chain has {len(q.times)} levels, the program's {len(self.times)}.")
        own, other = (chain.schedule.log_snr(chain.times[[0, -1]]) for chain in (self, q))
        if not torch.allclose(own, other, rtol=1e-4, atol=1e-4):
            said = lambda lam: " to ".join(f"{float(x):.3g}" for x in lam)  # noqa: E731
            raise ValueError(
                f"The guide's chain goes from a log SNR of {said(other)}, the program's from {said(own)}: give both one schedule."
            )

    def end_gap(self, q: Noised) -> Tensor:
        """KL(q(z_N | x) || p(z_N)), in nats: (row,)."""
        self.check(q)
        alpha, sigma = q.schedule.scales(q.times[-1])
        return _kl(alpha * q.x, sigma**2, torch.zeros_like(q.x), self.end_scale**2)

    def gap(self, q: Noised, at: At) -> Tensor:
        """The KL of one random level a row, scaled to stand for them all, in nats: (row,)."""
        if self.continuous:
            return self._slope(q, at)
        if len(self.times) == 1:
            return torch.zeros_like(at.time)
        s, t = self.times[at.index - 1], self.times[at.index]
        own = bridge(q.schedule, q.x, at.z, s, t)
        return (len(self.times) - 1) * _kl(*own, *self.step(at.z, s, t))

    def _slope(self, q: Noised, at: At) -> Tensor:
        """The same of infinitely many levels: 1/2 (-d log SNR / dt) |e - e(z_t, t)|^2 at times drawn evenly."""
        low, high = self.times[0], self.times[-1]
        t = low + (high - low) * at.time
        z = self.schedule.noised(q.x, at.noise, t)
        error = (at.noise - self.denoiser.noise(z, t)) ** 2
        return -0.5 * (high - low) * self.schedule.fall(t) * error.flatten(1).sum(1)


def _normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(x; mean, variance I), in nats: (row,)."""
    variance = over(variance, x)
    return (-0.5 * ((x - mean) ** 2 / variance + torch.log(2 * torch.pi * variance))).flatten(1).sum(1)


def _kl(mean: Tensor, variance: Tensor, other: Tensor, wide: Tensor) -> Tensor:
    """KL(N(mean, variance I) || N(other, wide I)), in nats: (row,)."""
    ratio = variance / wide
    size = mean[0].numel()
    apart = ((mean - other) ** 2).flatten(1).sum(1) / wide
    return 0.5 * (size * (ratio - 1 - torch.log(ratio)) + apart)
