"""Twisted sequential Monte Carlo: points given what was seen, and an unbiased estimate of its evidence, by particles.

A particle moves by the chain's own step, its mean pulled towards that at E[x | z_t, y], and weighs

    w = p(z_s | z_t) p~(y | z_s) / (q(z_s | z_t, y) p~(y | z_t)),

p~ being an approximation, that of `inverse` or of `Twist`. At the last step p~ gives way to p(y | z), which is exact, so that
the mean weight is an unbiased estimate of the evidence of y under the chain, however rough p~: that costs particles, and shows
in their effective number.
Wu et al. 2023 (arXiv:2306.17775).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.diffusion.denoiser import Denoiser
from probgen.nets.diffusion.inverse import Informed, Likelihood, Seen, solve
from probgen.nets.diffusion.samplers import CLEAN, Ancestral, Level, level
from probgen.nets.diffusion.schedules import Schedule


class Calibration(NamedTuple):
    """What rows say of a denoiser's means m: x ~ N(gain m + slope z / scale + offset, ...), and how A x is spread about that.

    scale^2 = alpha^2 + sigma^2. log_snr: (level,), rising; gain, slope, offset: (level, *event); spread: (level, seen, seen), or
    (level, seen) of numbers that are taken for independent; cross: the covariance of x and A x, (level, size, seen), or None.
    """

    log_snr: Any
    gain: Any
    slope: Any
    offset: Any
    spread: Any
    cross: Any

    def at(self, log_snr: Any) -> Calibration:
        """The same at one log SNR, on lines between levels."""
        after = jnp.clip(jnp.searchsorted(self.log_snr, log_snr), 1, len(self.log_snr) - 1)
        low, high = self.log_snr[after - 1], self.log_snr[after]
        share = jnp.clip((log_snr - low) / (high - low), 0.0, 1.0)
        return jax.tree.map(lambda v: v[after - 1] + share * (v[after] - v[after - 1]), self)


class Turned(NamedTuple):
    """Directions among the numbers of y, (seen, seen), or None for these themselves; of each A x's variance, and the noise's."""

    basis: Any
    spread: Any
    noise: Any

    def of(self, v: Any) -> Any:
        return v if self.basis is None else self.basis.T @ v

    def back(self, v: Any) -> Any:
        return v if self.basis is None else self.basis @ v


class Twist(eqx.Module):
    """p~(y | z_t) by a denoiser that rows have calibrated: no derivative, one evaluation.

    A network's own mean is useless where little is left of x: by its noise, E[x | z] is far from all data there, and p~ with it.
    seen: its rows are of length one, and orthogonal.
    """

    denoiser: Denoiser
    seen: Seen
    calibration: Calibration

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def turned(self, log_snr: Any) -> Turned:
        spread, noise = self.calibration.at(log_snr).spread, self.seen.noise**2 + jnp.zeros_like(self.seen.y)
        if spread.ndim < 2:
            return Turned(None, spread, noise)
        values, basis = jnp.linalg.eigh(spread + jnp.diag(noise))
        noise = (basis**2).T @ noise
        return Turned(basis, jnp.maximum(values - noise, 0.0), noise)

    def likelihood(self, z: Any, t: Any) -> Likelihood:
        """What is believed of x given z_t and y, and log p~(y | z_t)."""
        (alpha, sigma), log_snr = self.schedule.scales(t), self.schedule.log_snr(t)
        believed, at, turned = self.denoiser(z, t), self.calibration.at(log_snr), self.turned(log_snr)
        mean = at.gain * believed.mean + at.slope * z / jnp.sqrt(alpha**2 + sigma**2) + at.offset
        away = self.seen.y - self.seen.of(mean)
        total, along = turned.spread + turned.noise, turned.of(away)
        log_prob = -0.5 * jnp.sum(along**2 / total + jnp.log(2 * jnp.pi * total))
        solved = turned.back(along / total)
        if at.cross is None:
            (moved,) = jax.linear_transpose(self.seen.of, z)(turned.back(turned.spread * along / total))
        else:
            moved = (at.cross @ solved).reshape(z.shape)
        return Likelihood(believed._replace(mean=believed.mean + moved), believed.mean, log_prob, away)

    def aimed(self, key: Any, cloud: Cloud, pull: Any, variance: Any, here: Level, there: Level) -> tuple[Any, Any]:
        """A step beside the chain's own mean: (particle, *event), and minus its log density: (particle,).

        Along what was seen it is as p~ at its end asks: there A z has variance V, and says of y as much as h = alpha c / sigma^2 of
        its variance c allows, so that it is moved by V h / (h^2 V + S) of what is amiss, and narrower by 1 / (1 + V h^2 / S).
        """
        gained, seen, turned = jnp.exp(there.log_snr) - jnp.exp(here.log_snr), self.seen, self.turned(here.log_snr)
        spread = turned.spread / (1 + gained * turned.spread)
        h, total = there.alpha / there.sigma**2 * spread, turned.noise + spread

        def one(e: Any, away: Any, pull: Any, variance: Any) -> tuple[Any, Any]:
            lift = jax.linear_transpose(seen.of, e)
            own = seen.diagonal(variance)
            own = own if turned.basis is None else (turned.basis**2).T @ own
            left = 1 / (1 + own * h**2 / total)
            aim = turned.back(left * own * h / total * turned.of(away))
            pull += lift(aim - seen.of(pull))[0]
            narrowed = e + lift(turned.back((jnp.sqrt(left) - 1) * turned.of(seen.of(e))))[0]
            return pull + jnp.sqrt(variance) * narrowed, jnp.sum(e**2) / 2 + jnp.sum(jnp.log(left)) / 2

        e = jax.random.normal(key, cloud.z.shape, cloud.z.dtype)
        return jax.vmap(one)(e, cloud.believed.away, pull, variance)


class Particles(NamedTuple):
    """Points of equal weight, and how they came about.

    x: (particle, *event); log_weights, before the last resampling, normalised: (particle,); log_evidence: log p^(y), in nats: ();
    ess: the effective number of particles at each time: (time,); times: (time,); ancestors: how many of the first particles have
    descendants: ().
    """

    x: Any
    log_weights: Any
    log_evidence: Any
    ess: Any
    times: Any
    ancestors: Any


class Cloud(NamedTuple):
    """Particles at a time: z, their weights, normalised, what they believe, the evidence so far, and whom they descend from."""

    z: Any
    log_w: Any
    believed: Likelihood
    log_evidence: Any
    roots: Any


def effective(log_w: Any) -> Any:
    """1 / sum w^2 of normalised weights: ()."""
    return jnp.exp(-jax.nn.logsumexp(2 * log_w))


def systematic(key: Any, log_w: Any) -> Any:
    """Which particles stand in their places: (particle,), each as often as its weight says, up to one, by one random number."""
    count = len(log_w)
    places = (jnp.arange(count) + jax.random.uniform(key)) / count
    return jnp.clip(jnp.searchsorted(jnp.cumsum(jnp.exp(log_w)), places), 0, count - 1)


def weighed(cloud: Cloud, log_ratio: Any) -> Cloud:
    """The particles with their weights times a ratio; NaN, of a network that fails somewhere, is no weight."""
    log_w = cloud.log_w + jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    total = jax.nn.logsumexp(log_w)
    return cloud._replace(log_w=log_w - total, log_evidence=cloud.log_evidence + total)


def resampled(key: Any, cloud: Cloud, threshold: float) -> Cloud:
    """The particles, drawn anew where their effective share is below the threshold."""
    count = len(cloud.log_w)
    chosen = systematic(key, cloud.log_w)
    poor = effective(cloud.log_w) < threshold * count
    at = jnp.where(poor, chosen, jnp.arange(count))
    z, believed, roots = jax.tree.map(lambda a: a[at], (cloud.z, cloud.believed, cloud.roots))
    return cloud._replace(z=z, believed=believed, roots=roots, log_w=jnp.where(poor, -jnp.log(count), cloud.log_w))


def twisted_smc(
    informed: Informed | Twist,
    key: Any,
    z: Any,
    times: Any,
    chain: Ancestral = Ancestral("posterior"),  # noqa: B008 - frozen
    threshold: float = 0.5,
) -> Particles:
    """Particles from draws of the end of the chain, z: (particle, *event), by the times of the chain, falling: (time,).

    chain: what the steps are, and so which model the evidence is of; threshold: the effective share below which to resample.
    """
    k_first, k_rest, k_last = jax.random.split(key, 3)
    cloud, first = begun(informed, k_first, z, times[0], threshold)
    one = lambda cloud, at: moved(informed, chain, threshold, cloud, *at)  # noqa: E731
    cloud, ess = jax.lax.scan(one, cloud, (times[:-1], times[1:], jax.random.split(k_rest, len(times) - 1)))
    x, cloud, last = ended(informed, chain, cloud, times[-1], k_last)
    ess = jnp.concatenate([first[None], ess]).at[-1].set(last)
    return Particles(x, cloud.log_w, cloud.log_evidence, ess, times, survivors(cloud.roots))


def begun(informed: Informed | Twist, key: Any, z: Any, t: Any, threshold: float) -> tuple[Cloud, Any]:
    """The particles at the first time, resampled where they must be, and their effective number before."""
    count = len(z)
    believed = _given(informed, z, t)
    start = Cloud(z, jnp.full(count, -jnp.log(count), z.dtype), believed, jnp.zeros((), z.dtype), jnp.arange(count))
    start = weighed(start, believed.log_prob)
    return resampled(key, start, threshold), effective(start.log_w)


def moved(
    informed: Informed | Twist, chain: Ancestral, threshold: float, cloud: Cloud, t: Any, s: Any, key: Any
) -> tuple[Cloud, Any]:
    """The particles at an earlier time, resampled where they must be, and their effective number before."""
    drawing, choosing = jax.random.split(key)
    here, there = level(informed.schedule, t), level(informed.schedule, s)
    own, variance = _kernel(chain, cloud.believed, cloud.z, here, there)
    pull = _pull(chain, cloud.believed, cloud.z, here, there)
    if isinstance(informed, Twist):
        step, ratio = informed.aimed(drawing, cloud, pull, variance, here, there)
    else:
        e = jax.random.normal(drawing, cloud.z.shape, cloud.z.dtype)
        step, ratio = pull + jnp.sqrt(variance) * e, _sum(e**2) / 2
    z = own + step
    ratio -= _sum(step**2 / variance) / 2
    believed = _given(informed, z, s)
    ratio += believed.log_prob - cloud.believed.log_prob
    cloud = weighed(cloud._replace(z=z, believed=believed), ratio)
    return resampled(choosing, cloud, threshold), effective(cloud.log_w)


def ended(informed: Informed | Twist, chain: Ancestral, cloud: Cloud, t: Any, key: Any) -> tuple[Any, Cloud, Any]:
    """Points x of equal weight, (particle, *event), the particles that they come of, and the effective number of these."""
    drawing, choosing = jax.random.split(key)
    cloud, x = _decoded(drawing, chain, informed.seen, cloud, level(informed.schedule, t))
    at = systematic(choosing, cloud.log_w)
    return x[at], cloud._replace(roots=cloud.roots[at]), effective(cloud.log_w)


def survivors(roots: Any) -> Any:
    """How many of the first particles have descendants: ()."""
    return jnp.zeros(len(roots)).at[roots].set(1.0).sum()


def _given(informed: Informed | Twist, z: Any, t: Any) -> Likelihood:
    return jax.vmap(lambda z: informed.likelihood(z, t))(z)


def _kernel(chain: Ancestral, believed: Likelihood, z: Any, here: Any, there: Any) -> tuple[Any, Any]:
    """Means and variances of the chain's own step: (particle, *event)."""
    own = believed.posterior._replace(mean=believed.mean)
    mean, variance = jax.vmap(lambda p, z: chain.kernel(p, z, here, there))(own, z)
    return mean, variance.reshape(variance.shape + (1,) * (mean.ndim - variance.ndim)) + jnp.zeros_like(mean)


def _pull(chain: Ancestral, believed: Likelihood, z: Any, here: Any, there: Any) -> Any:
    """How far what was seen moves a step's mean: (particle, *event).

    A step that is narrower than x is uncertain, as long ones with the bridge's variance are, is moved in proportion: else no
    particle stands where the chain itself goes, and none tells of it.
    """
    without, variance = _kernel(chain, believed, z, here, there)
    moved, _ = _kernel(chain, believed._replace(mean=believed.posterior.mean), z, here, there)
    wide = _kernel(Ancestral("posterior"), believed, z, here, there)[1]
    return jnp.minimum(variance / wide, 1.0) * (moved - without)


def _decoded(key: Any, chain: Ancestral, seen: Seen, cloud: Cloud, here: Any) -> tuple[Cloud, Any]:
    """The last weights, p(y | z) under p(x | z), the chain's step to no noise at all, and a draw of x given both."""
    own = cloud.believed.posterior._replace(mean=cloud.believed.mean)
    mean, variance = jax.vmap(lambda p, z: chain.kernel(p, z, here, CLEAN))(own, cloud.z)

    def one(key: Any, mean: Any, variance: Any) -> tuple[Any, Any]:
        # Matheron's rule: a draw of x and of what would be seen of it, moved by how far that is from what was.
        of_x, of_y = jax.random.split(key)
        x = mean + jnp.sqrt(variance) * jax.random.normal(of_x, mean.shape, mean.dtype)
        lift = jax.linear_transpose(seen.of, mean)
        away = seen.y - seen.of(mean)
        solved, log_det = solve(seen.spread(variance), seen.noise, away)
        would = seen.y - seen.of(x) - seen.noise * jax.random.normal(of_y, away.shape, away.dtype)
        x += variance * lift(solve(seen.spread(variance), seen.noise, would)[0])[0]
        return x, -0.5 * (away @ solved + log_det + len(away) * jnp.log(2 * jnp.pi))

    x, log_prob = jax.vmap(one)(jax.random.split(key, len(mean)), mean, variance)
    return weighed(cloud, log_prob - cloud.believed.log_prob), x


def _sum(values: Any) -> Any:
    """Over all but the first axis: (particle,)."""
    return values.reshape(len(values), -1).sum(1)
