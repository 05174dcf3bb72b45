"""Schedules of noise in torch: the twins of `probgen.nets.diffusion.schedules`, which says what they are.

    z_t = alpha(t) x + sigma(t) e,   t from 0 (the point) to 1 (noise)

Times are () for all rows or (row,) for each; `noised` takes rows (row, *event).
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from probgen.data.whole_numbers import counted


def over(factor: Tensor, z: Tensor) -> Tensor:
    """A number of each row, (row,), in the shape that multiplies rows (row, *event); () stays as it is."""
    return factor.reshape(*factor.shape, *(1,) * (z.dim() - factor.dim())) if factor.dim() else factor


class Schedule(ABC):
    """alpha, sigma and log SNR of a time; `first` is the earliest time at which there is noise, `straight` paths need none."""

    first: float
    farthest: ClassVar[float] = 10.0  # log sigma / alpha that a network is shown

    @abstractmethod
    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha(t), sigma(t): (row,) -> (row,), (row,)."""

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """log alpha^2 / sigma^2: (row,) -> (row,)."""

    @abstractmethod
    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The derivatives of alpha and sigma in time: (row,) -> (row,), (row,)."""

    def fall(self, t: Tensor) -> Tensor:
        """The derivative of the log SNR in time: (row,) -> (row,)."""
        (alpha, sigma), (up, down) = self.scales(t), self.slopes(t)
        return 2 * (up / alpha - down / sigma)

    def smooth(self) -> tuple[Schedule, float]:
        """A schedule of the same path without corners, which solvers of equations stumble on, and the first time on it."""
        return self, float(self.first)

    def noised(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z_t of points and noise, both (row, *event)."""
        alpha, sigma = self.scales(t)
        return over(alpha, x) * x + over(sigma, x) * noise


class Preserving(Schedule):
    """alpha^2 + sigma^2 = 1, both by the log SNR."""

    @abstractmethod
    def fall(self, t: Tensor) -> Tensor:
        """The derivative of the log SNR in time: (row,) -> (row,)."""

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        lam = self.log_snr(t)
        return torch.exp(0.5 * logsigmoid(lam)), torch.exp(0.5 * logsigmoid(-lam))

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        lam, half = self.log_snr(t), 0.5 * self.fall(t)
        alpha, sigma = self.scales(t)
        return half * alpha * torch.sigmoid(-lam), -half * sigma * torch.sigmoid(lam)


def _lost(total: Tensor) -> Tensor:
    """The log SNR where alpha^2 = exp(-total)."""
    return -total - torch.log(-torch.expm1(-total))


@dataclass(frozen=True)
class Levels(Preserving):
    """The steps of DDPM: alpha_i^2 = prod_{j <= i} (1 - beta_j) at t = i / T; between them log alpha^2 is a cubic.

    betas: (T,).
    """

    betas: Sequence[float] | Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(float(b) for b in self.betas))
        if bad := [b for b in self.betas if not 0 < b < 1]:
            raise ValueError(f"A schedule's betas lie between 0 and 1, so that its noise rises; got {bad[0]:g}.")
        if not self.betas:
            raise ValueError("A schedule has one beta for each of its levels; got none.")

    @property
    def first(self) -> float:
        return 1.0 / len(self.betas)

    @functools.cached_property
    def _known(self) -> tuple[Tensor, Tensor]:
        """-log alpha^2 at i / T from 0, and its slopes there: (T + 1,) each."""
        betas = torch.tensor(self.betas, dtype=torch.float64)
        lost = torch.cat([torch.zeros(1, dtype=torch.float64), -torch.cumsum(torch.log1p(-betas), 0)])
        return lost, torch.gradient(lost)[0] if len(betas) > 1 else lost[1].expand(2)

    def _cubic(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """-log alpha^2 and its derivative in time."""
        count, (lost, slope) = len(self.betas), (x.to(t) for x in self._known)
        index = (t.detach() * count + 1e-4).floor().long().clamp(0, count - 1)  # rounding may leave i / T * T below i
        u = t * count - index
        low, high, up, down = lost[index], lost[index + 1], slope[index], slope[index + 1]
        square, cube = 3 * (high - low) - 2 * up - down, 2 * (low - high) + up + down
        return low + u * (up + u * (square + u * cube)), count * (up + u * (2 * square + 3 * u * cube))

    def log_snr(self, t: Tensor) -> Tensor:
        return _lost(self._cubic(t)[0])

    def fall(self, t: Tensor) -> Tensor:
        total, slope = self._cubic(t)
        return slope / torch.expm1(-total)

    def smooth(self) -> tuple[Schedule, float]:
        high, low = (float(self.log_snr(torch.tensor(t, dtype=torch.float64))) for t in (self.first, 1.0))
        return LinearLogSNR(high, low), 0.0


def linear_levels(num_levels: int, low: float = 1e-4, high: float = 0.02) -> Levels:
    """DDPM's betas from 1e-4 to .02 at T = 1000, scaled so that as little is left of a point at any other T."""
    num_levels = counted("num_levels", num_levels, least=2)
    scale = 1000.0 / num_levels
    return Levels(torch.linspace(scale * low, scale * high, num_levels, dtype=torch.float64).clamp(0.0, 0.999))


class _Ranged:
    """A schedule with two ends."""

    low: Any
    high: Any
    positive: ClassVar[bool] = True  # whether they are

    def __post_init__(self) -> None:
        low, high = float(self.low), float(self.high)
        if not low < high or (self.positive and low <= 0):
            raise ValueError(
                f"A schedule's low is below its high{', both above 0' * self.positive}; got {low:g} and {high:g}."
            )


@dataclass(frozen=True)
class Linear(_Ranged, Preserving):
    """The variance preserving SDE: beta(t) = low + t (high - low)."""

    low: float = 0.1
    high: float = 20.0
    first: float = 1e-5

    def log_snr(self, t: Tensor) -> Tensor:
        return _lost(_integral(self, t))

    def fall(self, t: Tensor) -> Tensor:
        return _beta(self, t) / torch.expm1(-_integral(self, t))


@dataclass(frozen=True)
class SubPreserving(_Ranged, Schedule):
    """The sub-VP SDE: alpha of `Linear`, sigma = 1 - alpha^2."""

    low: float = 0.1
    high: float = 20.0
    first: float = 1e-5

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        total = _integral(self, t)
        return torch.exp(-0.5 * total), -torch.expm1(-total)

    def log_snr(self, t: Tensor) -> Tensor:
        total = _integral(self, t)
        return -total - 2 * torch.log(-torch.expm1(-total))

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        total, beta = _integral(self, t), _beta(self, t)
        return -0.5 * beta * torch.exp(-0.5 * total), beta * torch.exp(-total)


def _beta(schedule: Linear | SubPreserving, t: Tensor) -> Tensor:
    return t * (schedule.high - schedule.low) + schedule.low


def _integral(schedule: Linear | SubPreserving, t: Tensor) -> Tensor:
    """Of beta, from 0 to t."""
    return 0.5 * t**2 * (schedule.high - schedule.low) + t * schedule.low


@dataclass(frozen=True)
class Cosine(_Ranged, Preserving):
    """alpha = cos(pi t / 2), cut where the log SNR leaves [low, high]. Nichol and Dhariwal 2021 (arXiv:2102.09672)."""

    positive: ClassVar[bool] = False
    low: float = -12.0
    high: float = 12.0
    first: float = 0.0

    def _ends(self) -> tuple[float, float]:
        """The angles at the first and the last time."""
        return math.atan(math.exp(-0.5 * self.high)), math.atan(math.exp(-0.5 * self.low))

    def log_snr(self, t: Tensor) -> Tensor:
        start, end = self._ends()
        return -2 * torch.log(torch.tan(start + t * (end - start)))

    def fall(self, t: Tensor) -> Tensor:
        start, end = self._ends()
        return -4 * (end - start) / torch.sin(2 * (start + t * (end - start)))


@dataclass(frozen=True)
class LinearLogSNR(_Ranged, Preserving):
    """The log SNR falls from `high` to `low` on a line; its ends may be learned. Kingma et al. 2021."""

    positive: ClassVar[bool] = False
    high: Any = 13.3
    low: Any = -5.0
    first: float = 0.0

    def log_snr(self, t: Tensor) -> Tensor:
        return self.high + t * (self.low - self.high)

    def fall(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t) + (self.low - self.high)


@dataclass(frozen=True)
class Exploding(_Ranged, Schedule):
    """The variance exploding SDE: alpha = 1, sigma = low (high / low)^t."""

    low: float = 0.01
    high: float = 10.0
    first: float = 0.0

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), torch.exp(-0.5 * self.log_snr(t))

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * (math.log(self.low) + t * (math.log(self.high) - math.log(self.low)))

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), math.log(self.high / self.low) * self.scales(t)[1]


@dataclass(frozen=True)
class Elucidated(_Ranged, Schedule):
    """alpha = 1, sigma^(1/rho) rises on a line, so that evenly spaced times are the steps of EDM's sampler."""

    low: float = 0.002
    high: float = 80.0
    rho: float = 7.0
    first: float = 0.0

    def _ends(self) -> tuple[float, float]:
        return self.low ** (1 / self.rho), self.high ** (1 / self.rho)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self._ends()
        return torch.ones_like(t), (low + t * (high - low)) ** self.rho

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self._ends()
        return torch.zeros_like(t), self.rho * (high - low) * (low + t * (high - low)) ** (self.rho - 1)

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * torch.log(self.scales(t)[1])


@dataclass(frozen=True)
class Straight(Schedule):
    """Straight paths: alpha = 1 - t, sigma = t; all beyond t = .0025 and .9975 is one to the network, as in JAX."""

    first: float = 0.0
    farthest: ClassVar[float] = 6.0

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1.0 - t, t

    def slopes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(t), torch.ones_like(t)

    def log_snr(self, t: Tensor) -> Tensor:
        return 2 * (torch.log1p(-t) - torch.log(t))
