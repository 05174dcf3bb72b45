"""Schedules of noise: how much of a point is left at a time, and how much noise there is.

    z_t = alpha(t) x + sigma(t) e,   e ~ N(0, I),   t from 0 (the point) to 1 (noise)
    log SNR(t) = log alpha(t)^2 / sigma(t)^2, which falls

What is near 0 or 1 is computed by `expm1` and `sigmoid`: 1 - alpha^2 by a subtraction is 6 % wrong in float32 at the clean end.
Ho et al. 2020 (arXiv:2006.11239); Song et al. 2021 (arXiv:2011.13456); Kingma et al. 2021 (arXiv:2107.00630);
Karras et al. 2022 (arXiv:2206.00364); Lipman et al. 2023 (arXiv:2210.02747).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.data.whole_numbers import counted


class Schedule(eqx.Module):
    """alpha, sigma and log SNR of a time; `first` is the earliest time at which there is noise, `straight` paths need none."""

    first: eqx.AbstractVar[float]
    farthest: ClassVar[float] = 10.0  # log sigma / alpha that a network is shown

    @abstractmethod
    def scales(self, t: Any) -> tuple[Any, Any]:
        """alpha(t), sigma(t): () -> (), ()."""

    @abstractmethod
    def log_snr(self, t: Any) -> Any:
        """log alpha^2 / sigma^2: () -> ()."""

    def slopes(self, t: Any) -> tuple[Any, Any]:
        """The derivatives of alpha and sigma in time: () -> (), ()."""
        t = jnp.asarray(t, jnp.result_type(float))
        return jax.jvp(self.scales, (t,), (jnp.ones_like(t),))[1]

    def smooth(self, first: float) -> tuple[Schedule, float]:
        """A schedule of the same path without corners, which solvers of equations stumble on, and what `first` is on it."""
        return self, first

    def noised(self, x: Any, noise: Any, t: Any) -> Any:
        """z_t of a point and noise, both (*event)."""
        alpha, sigma = self.scales(t)
        return alpha * x + sigma * noise


class Preserving(Schedule):
    """alpha^2 + sigma^2 = 1, both by the log SNR."""

    def scales(self, t: Any) -> tuple[Any, Any]:
        lam = self.log_snr(t)
        return jnp.exp(0.5 * jax.nn.log_sigmoid(lam)), jnp.exp(0.5 * jax.nn.log_sigmoid(-lam))


def _lost(total: Any) -> Any:
    """The log SNR where alpha^2 = exp(-total)."""
    return -total - jnp.log(-jnp.expm1(-total))


class Levels(Preserving):
    """The steps of DDPM: alpha_i^2 = prod_{j <= i} (1 - beta_j) at t = i / T; between them log alpha^2 is a cubic.

    betas: (T,).
    """

    betas: Any
    first: float = eqx.field(static=True)

    def __init__(self, betas: Any) -> None:
        self.betas = betas
        self.first = 1.0 / len(betas)

    def log_snr(self, t: Any) -> Any:
        count = len(self.betas)
        lost = jnp.concatenate([jnp.zeros(1), -jnp.cumsum(jnp.log1p(-self.betas))])
        slope = jnp.gradient(lost) if count > 1 else jnp.full(2, lost[1])
        index = jnp.clip(jnp.floor(t * count + 1e-4).astype(int), 0, count - 1)  # rounding may leave i / T * T below i
        u = t * count - index
        low, high, up, down = lost[index], lost[index + 1], slope[index], slope[index + 1]
        cubic = low + u * (up + u * (3 * (high - low) - 2 * up - down + u * (2 * (low - high) + up + down)))
        return _lost(cubic)

    def smooth(self, first: float) -> tuple[Schedule, float]:
        return LinearLogSNR(high=self.log_snr(first), low=self.log_snr(1.0)), 0.0


def linear_levels(num_levels: int, low: float = 1e-4, high: float = 0.02) -> Levels:
    """DDPM's betas from 1e-4 to .02 at T = 1000, scaled so that as little is left of a point at any other T."""
    num_levels = counted("num_levels", num_levels, least=2)
    scale = 1000.0 / num_levels
    return Levels(jnp.clip(jnp.linspace(scale * low, scale * high, num_levels), 0.0, 0.999))


class Linear(Preserving):
    """The variance preserving SDE: beta(t) = low + t (high - low)."""

    low: float = 0.1
    high: float = 20.0
    first: float = eqx.field(static=True, default=1e-5, kw_only=True)

    def log_snr(self, t: Any) -> Any:
        return _lost(0.5 * t**2 * (self.high - self.low) + t * self.low)


class SubPreserving(Schedule):
    """The sub-VP SDE: alpha of `Linear`, sigma = 1 - alpha^2."""

    low: float = 0.1
    high: float = 20.0
    first: float = eqx.field(static=True, default=1e-5, kw_only=True)

    def _total(self, t: Any) -> Any:
        return 0.5 * t**2 * (self.high - self.low) + t * self.low

    def scales(self, t: Any) -> tuple[Any, Any]:
        return jnp.exp(-0.5 * self._total(t)), -jnp.expm1(-self._total(t))

    def log_snr(self, t: Any) -> Any:
        return -self._total(t) - 2 * jnp.log(-jnp.expm1(-self._total(t)))


class Cosine(Preserving):
    """alpha = cos(pi t / 2), cut where the log SNR leaves [low, high]. Nichol and Dhariwal 2021 (arXiv:2102.09672)."""

    low: float = -12.0
    high: float = 12.0
    first: float = eqx.field(static=True, default=0.0, kw_only=True)

    def log_snr(self, t: Any) -> Any:
        ends = [jnp.arctan(jnp.exp(-0.5 * lam)) for lam in (self.high, self.low)]
        return -2 * jnp.log(jnp.tan(ends[0] + t * (ends[1] - ends[0])))


class LinearLogSNR(Preserving):
    """The log SNR falls from `high` to `low` on a line; its ends may be learned. Kingma et al. 2021."""

    high: Any = 13.3
    low: Any = -5.0
    first: float = eqx.field(static=True, default=0.0, kw_only=True)

    def log_snr(self, t: Any) -> Any:
        return self.high + t * (self.low - self.high)


class Exploding(Schedule):
    """The variance exploding SDE: alpha = 1, sigma = low (high / low)^t."""

    low: float = 0.01
    high: float = 10.0
    first: float = eqx.field(static=True, default=0.0, kw_only=True)

    def scales(self, t: Any) -> tuple[Any, Any]:
        return jnp.ones_like(jnp.asarray(t, jnp.result_type(float))), jnp.exp(-0.5 * self.log_snr(t))

    def log_snr(self, t: Any) -> Any:
        return -2 * (jnp.log(self.low) + t * (jnp.log(self.high) - jnp.log(self.low)))


class Elucidated(Schedule):
    """alpha = 1, sigma^(1/rho) rises on a line, so that evenly spaced times are the steps of EDM's sampler."""

    low: float = 0.002
    high: float = 80.0
    rho: float = 7.0
    first: float = eqx.field(static=True, default=0.0, kw_only=True)

    def scales(self, t: Any) -> tuple[Any, Any]:
        low, high = self.low ** (1 / self.rho), self.high ** (1 / self.rho)
        sigma = (low + t * (high - low)) ** self.rho
        return jnp.ones_like(sigma), sigma

    def log_snr(self, t: Any) -> Any:
        return -2 * jnp.log(self.scales(t)[1])


class Straight(Schedule):
    """Straight paths: alpha = 1 - t, sigma = t.

    Their ends are infinitely far, and learning hardly comes near: all beyond t = .0025 and .9975 is one to the network, or else its
    velocity of pure noise, where every sampler begins, is wrong by as much as noise itself.
    """

    first: float = eqx.field(static=True, default=0.0, kw_only=True)
    farthest: ClassVar[float] = 6.0

    def scales(self, t: Any) -> tuple[Any, Any]:
        return 1.0 - t, t + jnp.zeros(())

    def log_snr(self, t: Any) -> Any:
        return 2 * (jnp.log1p(-t) - jnp.log(t))
