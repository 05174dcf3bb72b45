"""Guidance: denoisers made of denoisers, for every sampler.

    E[x | z] = (1 - scale) E_u[x | z] + scale E_c[x | z]

scale = 1 is the conditional model itself, 0 the unconditional one; above 1, what tells them apart is exaggerated. (Ho and Salimans
2022, arXiv:2207.12598, write w = scale - 1.) No sampler then draws from p_u^(1-scale) p_c^scale, and a flow and an SDE differ:
with variances 1 and .2 at scale 2, that product has .1111, the SDE .0827 and the flow .040 (Bradley and Nakkiran 2024,
arXiv:2408.09000).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from probgen.nets.diffusion.denoiser import Denoiser, Posterior
from probgen.nets.diffusion.schedules import Schedule


class Guided(Denoiser):
    """A conditional denoiser guided by an unconditional one of the same schedule; scale: ()."""

    schedule: Schedule
    conditional: Denoiser
    unconditional: Denoiser
    scale: Any

    def __init__(self, conditional: Denoiser, unconditional: Denoiser, scale: Any = 1.0) -> None:
        self.schedule = conditional.schedule
        self.conditional, self.unconditional, self.scale = conditional, unconditional, scale

    def _mixed(self, conditional: Any, unconditional: Any) -> Any:
        return self.scale * conditional + (1 - self.scale) * unconditional  # exact at 1 and at 0

    def __call__(self, z: Any, t: Any) -> Posterior:
        given, free = self.conditional(z, t), self.unconditional(z, t)
        # By the derivative of the mean, which the variance of x given z is in proportion to; that may be negative here.
        variance = jnp.maximum(self._mixed(given.variance, free.variance), 0.0)
        return Posterior(self._mixed(given.mean, free.mean), variance)

    def noise(self, z: Any, t: Any) -> Any:
        return self._mixed(self.conditional.noise(z, t), self.unconditional.noise(z, t))

    def velocity(self, z: Any, t: Any) -> Any:
        return self._mixed(self.conditional.velocity(z, t), self.unconditional.velocity(z, t))


class Clipped(Denoiser):
    """A denoiser whose mean is kept within [low, high]: another model than the one that a likelihood is of."""

    schedule: Schedule
    denoiser: Denoiser
    low: Any
    high: Any

    def __init__(self, denoiser: Denoiser, low: Any = -1.0, high: Any = 1.0) -> None:
        self.schedule = denoiser.schedule
        self.denoiser, self.low, self.high = denoiser, low, high

    def __call__(self, z: Any, t: Any) -> Posterior:
        believed = self.denoiser(z, t)
        return Posterior(jnp.clip(believed.mean, self.low, self.high), believed.variance)
