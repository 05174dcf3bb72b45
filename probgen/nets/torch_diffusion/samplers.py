"""Samplers in torch: the twins of `probgen.nets.diffusion.samplers`, which says what a step of each is.

A step takes rows z (row, *event) from a time t to an earlier one s, both () and the same for all rows. What is random is drawn by
torch's generator, or by one that is given.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from probgen.nets.torch_diffusion.denoiser import Denoiser, Posterior
from probgen.nets.torch_diffusion.schedules import Schedule


class Level(NamedTuple):
    """What a schedule says of a time: alpha, sigma and log SNR."""

    alpha: Tensor
    sigma: Tensor
    log_snr: Tensor


def level(schedule: Schedule, t: Tensor) -> Level:
    return Level(*schedule.scales(t), schedule.log_snr(t))


def lost(t: Level, s: Level) -> Tensor:
    """1 - SNR(t) / SNR(s): what the steps from s to t take."""
    return -torch.expm1(t.log_snr - s.log_snr)


def bridge(x: Tensor, z: Tensor, t: Level, s: Level) -> tuple[Tensor, Tensor]:
    """The mean (row, *event) and variance of q(z_s | z_t, x); alpha_t may be zero."""
    share = lost(t, s)
    mean = t.alpha / s.alpha * (s.sigma / t.sigma) ** 2 * z + s.alpha * share * x
    return mean, share * s.sigma**2


def noise_like(z: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal numbers in the shape of z."""
    return torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z.device)


class Sampler(ABC):
    """A step from t to s, and what it remembers between steps."""

    evaluations: ClassVar[int] = 1  # of the network, a step
    grid: ClassVar[str] = "even"  # where its times stand unless told otherwise, see `grids`

    def init(self, z: Tensor) -> Any:
        """What it remembers before the first step from z: (row, *event)."""
        return ()

    @abstractmethod
    def step(
        self, denoiser: Denoiser, z: Tensor, t: Tensor, s: Tensor, generator: torch.Generator | None, memory: Any
    ) -> tuple[Tensor, Any]:
        """z_t: (row, *event), t > s: () -> z_s and what it remembers."""


@dataclass(frozen=True)
class Ancestral(Sampler):
    """The chain that the bound is of; variance: "bridge", "beta" or "posterior"."""

    variance: Literal["bridge", "beta", "posterior"] = "bridge"

    def __post_init__(self) -> None:
        if self.variance not in ("bridge", "beta", "posterior"):
            raise ValueError(f"variance={self.variance!r} of an ancestral step; known: bridge, beta, posterior.")

    def kernel(self, believed: Posterior, z: Tensor, t: Level, s: Level) -> tuple[Tensor, Tensor]:
        """The mean (row, *event) and variance of p(z_s | z_t)."""
        mean, variance = bridge(believed.mean, z, t, s)
        if self.variance == "beta":
            return mean, lost(t, s) * t.sigma**2
        if self.variance == "posterior":
            return mean, variance + (s.alpha * lost(t, s)) ** 2 * believed.variance
        return mean, variance

    def step(self, denoiser: Denoiser, z: Tensor, t: Tensor, s: Tensor, generator: Any, memory: Any) -> Any:
        at, to = level(denoiser.schedule, t), level(denoiser.schedule, s)
        mean, variance = self.kernel(denoiser(z, t), z, at, to)
        return mean + torch.sqrt(variance) * noise_like(z, generator), memory


@dataclass(frozen=True)
class DDIM(Sampler):
    """x and noise as believed at t are mixed anew at s; eta of the bridge's standard deviation is drawn, the rest kept."""

    eta: float = 0.0

    def step(self, denoiser: Denoiser, z: Tensor, t: Tensor, s: Tensor, generator: Any, memory: Any) -> Any:
        at, to = level(denoiser.schedule, t), level(denoiser.schedule, s)
        x = denoiser(z, t).mean
        fresh = self.eta**2 * lost(at, to)  # the share of the noise's variance that is drawn
        moved = to.alpha * x + to.sigma * torch.sqrt(1 - fresh) * (z - at.alpha * x) / at.sigma
        if self.eta:
            moved = moved + to.sigma * torch.sqrt(fresh) * noise_like(z, generator)
        return moved, memory


class Euler(Sampler):
    """Euler's step of dz / dt in time itself."""

    def step(self, denoiser: Denoiser, z: Tensor, t: Tensor, s: Tensor, generator: Any, memory: Any) -> Any:
        return z + (s - t) * denoiser.velocity(z, t), memory


class Heun(Sampler):
    """The trapezoid's step on the path made straight. Two evaluations."""

    evaluations: ClassVar[int] = 2
    grid: ClassVar[str] = "log_snr"

    def step(self, denoiser: Denoiser, z: Tensor, t: Tensor, s: Tensor, generator: Any, memory: Any) -> Any:
        at, to = level(denoiser.schedule, t), level(denoiser.schedule, s)
        width, narrow = at.alpha + at.sigma, to.alpha + to.sigma
        y, span = z / width, to.sigma / narrow - at.sigma / width
        first = (z - width * denoiser(z, t).mean) / at.sigma
        ahead = narrow * (y + span * first)
        second = (ahead - narrow * denoiser(ahead, s).mean) / to.sigma
        return narrow * (y + 0.5 * span * (first + second)), memory


@dataclass(frozen=True)
class Multistep(Sampler):
    """DPM-Solver++(2M); noise: the bridge's own is drawn, else the probability flow is followed."""

    grid: ClassVar[str] = "log_snr"
    noise: bool = False

    def init(self, z: Tensor) -> Any:
        return torch.zeros_like(z), torch.full((), torch.inf, dtype=z.dtype)  # no step before: nothing to go on with

    def step(self, denoiser: Denoiser, z: Tensor, t: Tensor, s: Tensor, generator: Any, memory: Any) -> Any:
        at, to = level(denoiser.schedule, t), level(denoiser.schedule, s)
        x, (last, width) = denoiser(z, t).mean, memory
        h = to.log_snr - at.log_snr
        # A step from pure noise is infinitely wide. One much wider than the last goes on no further than twice as far.
        ratio = torch.where(torch.isfinite(h), (h / width).clamp(max=2.0), 0.0)
        ahead = x + 0.5 * ratio * (x - last)
        if self.noise:
            mean, variance = bridge(ahead, z, at, to)
            moved = mean + torch.sqrt(variance) * noise_like(z, generator)
        else:
            moved = to.sigma / at.sigma * z - to.alpha * torch.expm1(-0.5 * h) * ahead
        return moved, (x, h.to(z.dtype))


SAMPLERS: dict[str, Sampler] = {
    "ancestral": Ancestral(),
    "ddim": DDIM(),
    "euler": Euler(),
    "heun": Heun(),
    "dpm++": Multistep(),
    "sde": Multistep(noise=True),
}


def named(sampler: str | Sampler) -> Sampler:
    """A sampler by its name; itself where it is one."""
    if isinstance(sampler, Sampler):
        return sampler
    if sampler not in SAMPLERS:
        raise ValueError(f"Unknown sampler {sampler!r}. Known: {', '.join(SAMPLERS)}.")
    return SAMPLERS[sampler]
