"""Denoisers in torch: the twins of `probgen.nets.diffusion.denoiser`, which says what an output of each kind is.

z_t = alpha x + sigma e;   E[x | z_t], of rows z (row, *event) at times t (row,), or () for all
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probgen.nets.torch_diffusion.schedules import Schedule, over

KINDS = ("noise", "point", "v", "velocity", "edm")


class Posterior(NamedTuple):
    """What is believed of rows x given z_t: their means (row, *event), and a variance that broadcasts against them."""

    mean: Tensor
    variance: Tensor


class Denoiser(ABC):
    """The posterior of rows given z_t, and what follows of it."""

    schedule: Schedule

    @abstractmethod
    def __call__(self, z: Tensor, t: Tensor) -> Posterior:
        """z: (row, *event), t: (row,) or () -> the posterior of x."""

    def scales(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma of the rows' times, in a shape that multiplies them."""
        alpha, sigma = self.schedule.scales(t)
        return over(alpha, z), over(sigma, z)

    def slopes(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Their derivatives in time."""
        up, down = self.schedule.slopes(t)
        return over(up, z), over(down, z)

    def noise(self, z: Tensor, t: Tensor) -> Tensor:
        """E[e | z_t]: (row, *event)."""
        alpha, sigma = self.scales(z, t)
        return (z - alpha * self(z, t).mean) / sigma

    def score(self, z: Tensor, t: Tensor) -> Tensor:
        """The gradient of log p(z_t): (row, *event)."""
        return -self.noise(z, t) / self.scales(z, t)[1]

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """dz / dt of the probability flow: (row, *event)."""
        up, down = self.slopes(z, t)
        return up * self(z, t).mean + down * self.noise(z, t)

    def said(self, z: Tensor, t: Tensor) -> Tensor:
        """What is compared in learning by the simple loss, the noise unless a class says other: (row, *event)."""
        return self.noise(z, t)

    def wanted(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What `said` should have been: (row, *event)."""
        return noise


@dataclass(frozen=True)
class Network(Denoiser):
    """A denoiser by a network.

    net: (scaled z, log sigma / alpha (row,)) -> (row, *event); kind: what it says; spread: the standard deviation of the data's
    coordinates.
    """

    schedule: Schedule
    net: Callable[[Tensor, Tensor], Tensor]
    kind: str = "noise"
    spread: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"A denoiser says {self.kind!r}; known: {', '.join(KINDS)}.")

    def said(self, z: Tensor, t: Tensor) -> Tensor:
        """The network's own output: (row, *event)."""
        alpha, sigma = self.scales(z, t)
        scale = torch.sqrt((alpha * self.spread) ** 2 + sigma**2)
        level = (-0.5 * self.schedule.log_snr(t)).clamp(-self.schedule.farthest, self.schedule.farthest)
        return self.net(z / scale, level.expand(len(z)))

    def __call__(self, z: Tensor, t: Tensor) -> Posterior:
        return self.posterior(self.said(z, t), z, t)

    def posterior(self, said: Tensor, z: Tensor, t: Tensor) -> Posterior:
        """What an output of the network means."""
        alpha, sigma = self.scales(z, t)
        total = (alpha * self.spread) ** 2 + sigma**2
        variance = (sigma * self.spread) ** 2 / total
        if self.kind == "point":
            mean = said
        elif self.kind == "noise":
            mean = (z - sigma * said) / alpha
        elif self.kind == "v":
            mean = alpha * z - sigma * said
        elif self.kind == "velocity":
            up, down = self.slopes(z, t)
            mean = (down * z - sigma * said) / (alpha * down - sigma * up)
        else:
            mean = alpha * self.spread**2 / total * z + sigma * self.spread / torch.sqrt(total) * said
        return Posterior(mean, variance)

    def wanted(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should have said of rows and their noise: (row, *event)."""
        if self.kind == "point":
            return x
        if self.kind == "noise":
            return noise
        alpha, sigma = self.scales(x, t)
        if self.kind == "v":
            return alpha * noise - sigma * x
        if self.kind == "velocity":
            up, down = self.slopes(x, t)
            return up * x + down * noise
        total = (alpha * self.spread) ** 2 + sigma**2
        skipped = alpha * self.spread**2 / total * (alpha * x + sigma * noise)
        return (x - skipped) * torch.sqrt(total) / (sigma * self.spread)

    def noise(self, z: Tensor, t: Tensor) -> Tensor:
        said = self.said(z, t)
        if self.kind == "noise":
            return said
        alpha, sigma = self.scales(z, t)
        if self.kind == "velocity":  # no division by sigma, which is zero at the clean end
            up, down = self.slopes(z, t)
            return (alpha * said - up * z) / (alpha * down - sigma * up)
        return (z - alpha * self.posterior(said, z, t).mean) / sigma

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        said = self.said(z, t)
        if self.kind == "velocity":
            return said
        alpha, sigma = self.scales(z, t)
        up, down = self.slopes(z, t)
        mean = self.posterior(said, z, t).mean
        noise = said if self.kind == "noise" else (z - alpha * mean) / sigma
        return up * mean + down * noise


def probability_flow(denoiser: Denoiser) -> tuple[Callable[[Tensor, Tensor], Tensor], float]:
    """dz / dt of rows, and the time of points, on a schedule without corners where the denoiser may take another one."""
    if isinstance(denoiser, Network) and denoiser.kind != "velocity":  # which is of its schedule's own time
        schedule, first = denoiser.schedule.smooth()
        return replace(denoiser, schedule=schedule).velocity, first
    return denoiser.velocity, float(denoiser.schedule.first)


@dataclass(frozen=True, eq=False)
class Normal(Denoiser):
    """The exact denoiser of data N(mean, covariance): the oracle of all that is built on denoisers.

    mean: (dim,); covariance: (dim, dim).
    """

    schedule: Schedule
    mean: Tensor
    covariance: Tensor

    def __call__(self, z: Tensor, t: Tensor) -> Posterior:
        alpha, sigma = (x[..., None, None] for x in self.schedule.scales(t))  # (..., 1, 1)
        total = alpha**2 * self.covariance + sigma**2 * torch.eye(len(self.mean)).to(z)
        gain = alpha * torch.linalg.solve(total, self.covariance).mT
        apart = z - alpha[..., 0] * self.mean
        mean = self.mean + (gain @ apart[..., None])[..., 0]
        return Posterior(mean, torch.diagonal(self.covariance - alpha * gain @ self.covariance, dim1=-2, dim2=-1))

    def noise(self, z: Tensor, t: Tensor) -> Tensor:  # no division by sigma, which is zero at the clean end
        alpha, sigma = (x[..., None, None] for x in self.schedule.scales(t))
        total = alpha**2 * self.covariance + sigma**2 * torch.eye(len(self.mean)).to(z)
        apart = (z - alpha[..., 0] * self.mean)[..., None]
        return sigma[..., 0] * torch.linalg.solve(total, apart)[..., 0]


@dataclass(frozen=True, eq=False)
class Mixture(Denoiser):
    """The exact denoiser of a mixture of normals of independent coordinates, an oracle with more than one mode.

    weights: (component,); means, spreads: (component, dim).
    """

    schedule: Schedule
    weights: Tensor
    means: Tensor
    spreads: Tensor

    def __call__(self, z: Tensor, t: Tensor) -> Posterior:
        alpha, sigma = (x[..., None, None] for x in self.schedule.scales(t))
        total = (alpha * self.spreads) ** 2 + sigma**2  # (..., component, dim)
        apart = z[:, None] - alpha * self.means
        log_w = torch.log(self.weights) - 0.5 * torch.sum(apart**2 / total + torch.log(total), -1)
        share: Any = torch.softmax(log_w, -1)[..., None]
        each = self.means + alpha * self.spreads**2 / total * apart
        mean = torch.sum(share * each, -2)
        within = self.spreads**2 * sigma**2 / total
        return Posterior(mean, torch.sum(share * (within + (each - mean[:, None]) ** 2), -2))
