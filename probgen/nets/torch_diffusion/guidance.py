"""Guidance in torch: the twin of `probgen.nets.diffusion.guidance`, which says what laws a scale does and does not give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from probgen.nets.torch_diffusion.denoiser import Denoiser, Posterior
from probgen.nets.torch_diffusion.schedules import Schedule


@dataclass(frozen=True)
class Guided(Denoiser):
    """A conditional denoiser guided by an unconditional one of the same schedule; scale: 1 is the conditional one itself."""

    conditional: Denoiser
    unconditional: Denoiser
    scale: float = 1.0

    @property
    def schedule(self) -> Schedule:
        return self.conditional.schedule

    def _mixed(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        return self.scale * conditional + (1 - self.scale) * unconditional  # exact at 1 and at 0

    def __call__(self, z: Tensor, t: Tensor) -> Posterior:
        given, free = self.conditional(z, t), self.unconditional(z, t)
        variance = self._mixed(given.variance, free.variance).clamp(min=0.0)
        return Posterior(self._mixed(given.mean, free.mean), variance)

    def noise(self, z: Tensor, t: Tensor) -> Tensor:
        return self._mixed(self.conditional.noise(z, t), self.unconditional.noise(z, t))

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        return self._mixed(self.conditional.velocity(z, t), self.unconditional.velocity(z, t))


@dataclass(frozen=True)
class Clipped(Denoiser):
    """A denoiser whose mean is kept within [low, high]: another model than the one that a likelihood is of."""

    denoiser: Denoiser
    low: Any = -1.0
    high: Any = 1.0

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def __call__(self, z: Tensor, t: Tensor) -> Posterior:
        believed = self.denoiser(z, t)
        return Posterior(believed.mean.clamp(self.low, self.high), believed.variance)
