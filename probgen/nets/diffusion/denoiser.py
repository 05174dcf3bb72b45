"""Denoisers: what is believed of a point given what noise made of it.

    z_t = alpha x + sigma e;   E[x | z_t], by a network that says one of
    "noise"     e            x = (z - sigma e) / alpha
    "point"     x
    "v"         v = alpha e - sigma x                            alpha^2 + sigma^2 = 1 alone
    "velocity"  u = alpha' x + sigma' e = dz / dt
    "edm"       of x in units that have variance one at every level

The network sees z over its standard deviation and log sigma / alpha, so that another schedule may take the place of the one that it
learned under. Salimans and Ho 2022 (arXiv:2202.00512); Karras et al. 2022 (arXiv:2206.00364).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.diffusion.schedules import Schedule

KINDS = ("noise", "point", "v", "velocity", "edm")
BEGUN, NARROW = -1.5, (-6.0, 2.0)  # log standard deviations of a mixture's components, in units of the data


class Posterior(NamedTuple):
    """What is believed of x given z_t: its mean (*event), and a variance of every coordinate, () or (*event)."""

    mean: Any
    variance: Any


class Denoiser(eqx.Module):
    """The posterior of a point given z_t, and what follows of it."""

    schedule: eqx.AbstractVar[Schedule]

    @abstractmethod
    def __call__(self, z: Any, t: Any) -> Posterior:
        """z: (*event), t: () -> the posterior of x."""

    def noise(self, z: Any, t: Any) -> Any:
        """E[e | z_t]: (*event)."""
        alpha, sigma = self.schedule.scales(t)
        return (z - alpha * self(z, t).mean) / sigma

    def score(self, z: Any, t: Any) -> Any:
        """The gradient of log p(z_t): (*event)."""
        return -self.noise(z, t) / self.schedule.scales(t)[1]

    def velocity(self, z: Any, t: Any) -> Any:
        """dz / dt of the probability flow: (*event)."""
        up, down = self.schedule.slopes(t)
        return up * self(z, t).mean + down * self.noise(z, t)

    def said(self, z: Any, t: Any) -> Any:
        """What is compared in learning by the simple loss, the noise unless a class says other: (*event)."""
        return self.noise(z, t)

    def wanted(self, x: Any, noise: Any, t: Any) -> Any:
        """What `said` should have been: (*event)."""
        return noise


class Network(Denoiser):
    """A denoiser by a network.

    net: (scaled z, log sigma / alpha) -> (*event); kind: what it says, see above; spread: the standard deviation of the data's
    coordinates; mean: (scaled z, t, t - s) -> (*event), the mean velocity between t and an earlier s, where that is learned, too.
    """

    schedule: Schedule
    net: Callable[[Any, Any], Any]
    kind: str = eqx.field(static=True, default="noise")
    spread: float = 1.0
    mean: Callable[[Any, Any, Any], Any] | None = None

    def __check_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"A denoiser says {self.kind!r}; known: {', '.join(KINDS)}.")

    def said(self, z: Any, t: Any) -> Any:
        """The network's own output: (*event)."""
        level = jnp.clip(-0.5 * self.schedule.log_snr(t), -self.schedule.farthest, self.schedule.farthest)
        return self.net(self._scaled(z, t), level)

    def mean_velocity(self, z: Any, t: Any, s: Any) -> Any:
        """(z_t - z_s) / (t - s), z_s where the probability flow takes z_t at an earlier time: (*event)."""
        assert self.mean is not None
        return self.mean(self._scaled(z, t), t, t - s)

    def _scaled(self, z: Any, t: Any) -> Any:
        alpha, sigma = self.schedule.scales(t)
        return z / jnp.sqrt((alpha * self.spread) ** 2 + sigma**2)

    def __call__(self, z: Any, t: Any) -> Posterior:
        return self.posterior(self.said(z, t), z, t)

    def posterior(self, said: Any, z: Any, t: Any) -> Posterior:
        """What an output of the network means."""
        alpha, sigma = self.schedule.scales(t)
        total = (alpha * self.spread) ** 2 + sigma**2
        variance = (sigma * self.spread) ** 2 / total
        if self.kind == "point":
            mean = said
        elif self.kind == "noise":
            mean = (z - sigma * said) / alpha
        elif self.kind == "v":
            mean = alpha * z - sigma * said
        elif self.kind == "velocity":
            up, down = self.schedule.slopes(t)
            mean = (down * z - sigma * said) / (alpha * down - sigma * up)
        else:
            mean = alpha * self.spread**2 / total * z + sigma * self.spread / jnp.sqrt(total) * said
        return Posterior(mean, variance)

    def wanted(self, x: Any, noise: Any, t: Any) -> Any:
        """What the network should have said of a point and its noise: (*event)."""
        alpha, sigma = self.schedule.scales(t)
        if self.kind == "point":
            return x
        if self.kind == "noise":
            return noise
        if self.kind == "v":
            return alpha * noise - sigma * x
        if self.kind == "velocity":
            up, down = self.schedule.slopes(t)
            return up * x + down * noise
        total = (alpha * self.spread) ** 2 + sigma**2
        skipped = alpha * self.spread**2 / total * (alpha * x + sigma * noise)
        return (x - skipped) * jnp.sqrt(total) / (sigma * self.spread)

    def noise(self, z: Any, t: Any) -> Any:
        said = self.said(z, t)
        alpha, sigma = self.schedule.scales(t)
        if self.kind == "noise":
            return said
        if self.kind == "velocity":  # no division by sigma, which is zero at the clean end
            up, down = self.schedule.slopes(t)
            return (alpha * said - up * z) / (alpha * down - sigma * up)
        return (z - alpha * self.posterior(said, z, t).mean) / sigma

    def velocity(self, z: Any, t: Any) -> Any:
        if self.kind == "velocity":
            return self.said(z, t)
        said = self.said(z, t)
        alpha, sigma = self.schedule.scales(t)
        up, down = self.schedule.slopes(t)
        mean = self.posterior(said, z, t).mean
        noise = said if self.kind == "noise" else (z - alpha * mean) / sigma
        return up * mean + down * noise


class Mixed(Denoiser):
    """Coordinates that are mixtures of normals: a network says which, and what is seen of each one weighs them by Bayes' rule.

        p(x | z) = prod_i sum_k w_ik N(x_i; m_ik, s_ik^2) N(z_i; alpha x_i, sigma^2) / Z_i

    A network that says x, or the noise, has to say a coordinate ever more precisely as the noise goes, through its narrowest layer.
    Here it says what the others tell of it. The same law is that of x at the last level, which need have little noise no more.
    net: (scaled z, log sigma / alpha) -> (3 components, *event): log weights, means, log standard deviations, about `BEGUN`.
    """

    schedule: Schedule
    net: Callable[[Any, Any], Any]
    spread: float = 1.0

    def parts(self, z: Any, t: Any) -> tuple[Any, Any, Any]:
        """Log weights, means and variances of x given z_t, all (component, *event)."""
        (log_w, mean, variance, _), _ = self._seen(z, t)
        return log_w, mean, variance

    def __call__(self, z: Any, t: Any) -> Posterior:
        (log_w, each, within, _), _ = self._seen(z, t)
        share = jnp.exp(log_w)
        mean = jnp.sum(share * each, 0)
        return Posterior(mean, jnp.sum(share * (within + (each - mean) ** 2), 0))

    def noise(self, z: Any, t: Any) -> Any:
        (log_w, _, _, left), scale = self._seen(z, t)
        return jnp.sum(jnp.exp(log_w) * left, 0) / scale

    def _seen(self, z: Any, t: Any) -> tuple[tuple[Any, Any, Any, Any], Any]:
        """The same, and what of z / alpha is noise, (component, *event), whose standard deviation is the last number, ()."""
        alpha, sigma = self.schedule.scales(t)
        level = jnp.clip(-0.5 * self.schedule.log_snr(t), -self.schedule.farthest, self.schedule.farthest)
        said = self.net(z / jnp.sqrt((alpha * self.spread) ** 2 + sigma**2), level)
        log_w, mean, log_s = jnp.split(said, 3)
        begun = jnp.linspace(-1.0, 1.0, len(mean)).reshape(-1, *(1,) * jnp.ndim(z))
        mean, square = mean + self.spread * begun, (self.spread * jnp.exp(jnp.clip(log_s + BEGUN, *NARROW))) ** 2
        noise = (sigma / alpha) ** 2
        total, apart = square + noise, z / alpha - mean
        log_w = jax.nn.log_softmax(log_w - 0.5 * (apart**2 / total + jnp.log(total)), 0)
        return (log_w, mean + square / total * apart, square * noise / total, noise / total * apart), sigma / alpha


class Normal(Denoiser):
    """The exact denoiser of data N(mean, covariance): the oracle of all that is built on denoisers.

    mean: (dim,); covariance: (dim, dim).
    """

    schedule: Schedule
    mean: Any
    covariance: Any

    def __call__(self, z: Any, t: Any) -> Posterior:
        alpha, sigma = self.schedule.scales(t)
        total = alpha**2 * self.covariance + sigma**2 * jnp.eye(len(self.mean))
        gain = alpha * jnp.linalg.solve(total, self.covariance).T
        mean = self.mean + gain @ (z - alpha * self.mean)
        return Posterior(mean, jnp.diagonal(self.covariance - alpha * gain @ self.covariance))

    def noise(self, z: Any, t: Any) -> Any:  # no division by sigma, which is zero at the clean end
        alpha, sigma = self.schedule.scales(t)
        total = alpha**2 * self.covariance + sigma**2 * jnp.eye(len(self.mean))
        return sigma * jnp.linalg.solve(total, z - alpha * self.mean)


class Mixture(Denoiser):
    """The exact denoiser of a mixture of normals of independent coordinates, an oracle with more than one mode.

    weights: (component,); means, spreads: (component, dim).
    """

    schedule: Schedule
    weights: Any
    means: Any
    spreads: Any

    def __call__(self, z: Any, t: Any) -> Posterior:
        alpha, sigma = self.schedule.scales(t)
        total = (alpha * self.spreads) ** 2 + sigma**2
        apart = z - alpha * self.means
        log_w = jnp.log(self.weights) - 0.5 * jnp.sum(apart**2 / total + jnp.log(total), -1)
        share = jnp.exp(log_w - jnp.max(log_w))
        share = (share / share.sum())[:, None]
        each = self.means + alpha * self.spreads**2 / total * apart
        mean = jnp.sum(share * each, 0)
        within = self.spreads**2 * sigma**2 / total
        return Posterior(mean, jnp.sum(share * (within + (each - mean) ** 2), 0))
