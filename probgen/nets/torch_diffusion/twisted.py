"""Twisted sequential Monte Carlo in torch: the twin of `probgen.nets.diffusion.twisted`, which says what is computed, and why.

Particles are rows: (particle, *event). What is random is drawn by torch's generator, or by one that is given.
Wu et al. 2023 (arXiv:2306.17775).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from probgen.nets.torch_diffusion.denoiser import Denoiser, Posterior
from probgen.nets.torch_diffusion.inverse import Informed, Likelihood, Seen, eigh, of_rows, solve
from probgen.nets.torch_diffusion.samplers import Ancestral, Level, level, noise_like
from probgen.nets.torch_diffusion.schedules import Schedule

CLEAN = Level(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(torch.inf))
Generator = torch.Generator | None


class Calibration(NamedTuple):
    """What rows say of a denoiser's means, level by level of noise; see the twin. cross: (level, size, seen), or None."""

    log_snr: Tensor
    gain: Tensor
    slope: Tensor
    offset: Tensor
    spread: Tensor
    cross: Tensor | None

    def at(self, log_snr: Tensor) -> Calibration:
        """The same at one log SNR, on lines between levels."""
        after = torch.searchsorted(self.log_snr, log_snr).clamp(1, len(self.log_snr) - 1)
        low, high = self.log_snr[after - 1], self.log_snr[after]
        share = ((log_snr - low) / (high - low)).clamp(0.0, 1.0)
        return Calibration(*(None if v is None else v[after - 1] + share * (v[after] - v[after - 1]) for v in self))  # pyright: ignore[reportArgumentType]


class Turned(NamedTuple):
    """Directions among the numbers of y, (seen, seen), or None for these themselves; of each A x's variance, and the noise's."""

    basis: Tensor | None
    spread: Tensor
    noise: Tensor

    def of(self, v: Tensor) -> Tensor:
        return v if self.basis is None else v @ self.basis

    def back(self, v: Tensor) -> Tensor:
        return v if self.basis is None else v @ self.basis.mT


@dataclass(frozen=True, eq=False)
class Twist:
    """p~(y | z_t) by a denoiser that rows have calibrated: no derivative, one evaluation.

    seen: its rows are of length one, and orthogonal.
    """

    denoiser: Denoiser
    seen: Seen
    calibration: Calibration

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def turned(self, log_snr: Tensor) -> Turned:
        spread, noise = self.calibration.at(log_snr).spread, self.seen.noise**2
        if spread.dim() < 2:
            return Turned(None, spread, noise)
        (values,), (basis,) = eigh((spread + torch.diag(noise))[None])
        noise = noise @ basis**2
        return Turned(basis, (values - noise).clamp(min=0.0), noise)

    @torch.no_grad()
    def likelihood(self, z: Tensor, t: Tensor) -> Likelihood:
        """What is believed of x given rows z_t and y, and log p~(y | z_t)."""
        (alpha, sigma), log_snr = self.schedule.scales(t), self.schedule.log_snr(t)
        believed, at, turned = of_rows(self.denoiser(z, t)), self.calibration.at(log_snr), self.turned(log_snr)
        mean = at.gain * believed.mean + at.slope * z / torch.sqrt(alpha**2 + sigma**2) + at.offset
        away = self.seen.y - self.seen.of(mean)
        total, along = turned.spread + turned.noise, turned.of(away)
        log_prob = -0.5 * (along**2 / total + torch.log(2 * math.pi * total)).sum(1)
        if at.cross is None:
            moved = self.seen.lift(turned.back(turned.spread * along / total), z)
        else:
            moved = (turned.back(along / total) @ at.cross.mT).reshape(z.shape)
        return Likelihood(Posterior(believed.mean + moved, believed.variance), believed.mean, log_prob, away)

    def aimed(
        self, generator: Generator, cloud: Cloud, pull: Tensor, variance: Tensor, here: Level, there: Level
    ) -> tuple[Tensor, Tensor]:
        """A step beside the chain's own mean: (particle, *event), and minus its log density: (particle,); see the twin."""
        gained, seen, turned = there.log_snr.exp() - here.log_snr.exp(), self.seen, self.turned(here.log_snr)
        spread = turned.spread / (1 + gained * turned.spread)
        h, total = there.alpha / there.sigma**2 * spread, turned.noise + spread
        own = seen.diagonal(variance)
        own = own if turned.basis is None else own @ turned.basis**2
        left = 1 / (1 + own * h**2 / total)
        e = noise_like(cloud.z, generator)
        aim = turned.back(left * own * h / total * turned.of(cloud.believed.away))
        pull = pull + seen.lift(aim - seen.of(pull), e)
        narrowed = e + seen.lift(turned.back((left.sqrt() - 1) * turned.of(seen.of(e))), e)
        return pull + variance.sqrt() * narrowed, _sum(e**2) / 2 + left.log().sum(1) / 2


class Cloud(NamedTuple):
    """Particles at a time: z, their weights, normalised, what they believe, the evidence so far, and whom they descend from."""

    z: Tensor
    log_w: Tensor
    believed: Likelihood
    log_evidence: Tensor
    roots: Tensor


def effective(log_w: Tensor) -> Tensor:
    """1 / sum w^2 of normalised weights: ()."""
    return torch.exp(-torch.logsumexp(2 * log_w, 0))


def systematic(generator: Generator, log_w: Tensor) -> Tensor:
    """Which particles stand in their places: (particle,), each as often as its weight says, up to one, by one random number."""
    count = len(log_w)
    start = torch.rand((), generator=generator, dtype=log_w.dtype).to(log_w.device)
    places = (torch.arange(count).to(log_w) + start) / count
    return torch.searchsorted(log_w.exp().cumsum(0), places).clamp(0, count - 1)


def weighed(cloud: Cloud, log_ratio: Tensor) -> Cloud:
    """The particles with their weights times a ratio; NaN, of a network that fails somewhere, is no weight."""
    log_w = cloud.log_w + torch.where(log_ratio.isnan(), -torch.inf, log_ratio)
    total = torch.logsumexp(log_w, 0)
    return cloud._replace(log_w=log_w - total, log_evidence=cloud.log_evidence + total)


def chosen(cloud: Cloud, at: Tensor) -> Cloud:
    """The particles at some places, with the weights of those that stood there before."""
    (mean, variance), *rest = cloud.believed
    believed = Likelihood(Posterior(mean[at], variance[at]), *(v[at] for v in rest))
    return cloud._replace(z=cloud.z[at], believed=believed, roots=cloud.roots[at])


def resampled(generator: Generator, cloud: Cloud, threshold: float) -> Cloud:
    """The particles, drawn anew where their effective share is below the threshold."""
    count, at = len(cloud.log_w), systematic(generator, cloud.log_w)
    if not bool(effective(cloud.log_w) < threshold * count):
        return cloud
    return chosen(cloud, at)._replace(log_w=torch.full_like(cloud.log_w, -math.log(count)))


def begun(
    informed: Informed | Twist, generator: Generator, z: Tensor, t: Tensor, threshold: float
) -> tuple[Cloud, Tensor]:
    """The particles at the first time, resampled where they must be, and their effective number before."""
    count, believed = len(z), informed.likelihood(z, t)
    even = z.new_full((count,), -math.log(count))
    start = weighed(Cloud(z, even, believed, z.new_zeros(()), torch.arange(count)), believed.log_prob)
    return resampled(generator, start, threshold), effective(start.log_w)


def moved(
    informed: Informed | Twist,
    chain: Ancestral,
    threshold: float,
    cloud: Cloud,
    t: Tensor,
    s: Tensor,
    generator: Generator,
) -> tuple[Cloud, Tensor]:
    """The particles at an earlier time, resampled where they must be, and their effective number before."""
    here, there = level(informed.schedule, t), level(informed.schedule, s)
    own, variance = _kernel(chain, cloud.believed, cloud.z, here, there)
    pull = _pull(chain, cloud.believed, cloud.z, here, there)
    if isinstance(informed, Twist):
        step, ratio = informed.aimed(generator, cloud, pull, variance, here, there)
    else:
        e = noise_like(cloud.z, generator)
        step, ratio = pull + variance.sqrt() * e, _sum(e**2) / 2
    z = own + step
    believed = informed.likelihood(z, s)
    ratio = ratio - _sum(step**2 / variance) / 2 + believed.log_prob - cloud.believed.log_prob
    cloud = weighed(cloud._replace(z=z, believed=believed), ratio)
    return resampled(generator, cloud, threshold), effective(cloud.log_w)


def ended(
    informed: Informed | Twist, chain: Ancestral, cloud: Cloud, t: Tensor, generator: Generator
) -> tuple[Tensor, Cloud, Tensor]:
    """Points x of equal weight, (particle, *event), the particles that they come of, and the effective number of these."""
    cloud, x = _decoded(generator, chain, informed.seen, cloud, level(informed.schedule, t))
    at = systematic(generator, cloud.log_w)
    return x[at], cloud._replace(roots=cloud.roots[at]), effective(cloud.log_w)


def survivors(roots: Tensor) -> int:
    """How many of the first particles have descendants."""
    return len(roots.unique())


def _kernel(chain: Ancestral, believed: Likelihood, z: Tensor, here: Level, there: Level) -> tuple[Tensor, Tensor]:
    """Means and variances of the chain's own step: (particle, *event)."""
    mean, variance = chain.kernel(believed.posterior._replace(mean=believed.mean), z, here, there)
    return mean, variance.expand_as(mean)


def _pull(chain: Ancestral, believed: Likelihood, z: Tensor, here: Level, there: Level) -> Tensor:
    """How far what was seen moves a step's mean: (particle, *event), in proportion where a step is narrower than x is uncertain."""
    without, variance = _kernel(chain, believed, z, here, there)
    to, _ = _kernel(chain, believed._replace(mean=believed.posterior.mean), z, here, there)
    wide = _kernel(Ancestral("posterior"), believed, z, here, there)[1]
    return (variance / wide).clamp(max=1.0) * (to - without)


def _decoded(generator: Generator, chain: Ancestral, seen: Seen, cloud: Cloud, here: Level) -> tuple[Cloud, Tensor]:
    """The last weights, p(y | z) under p(x | z), the chain's step to no noise at all, and a draw of x given both."""
    clean = Level(*(v.to(cloud.z) for v in CLEAN))
    mean, variance = chain.kernel(cloud.believed.posterior._replace(mean=cloud.believed.mean), cloud.z, here, clean)
    variance = variance if variance.dim() else variance.expand((1,) * mean.dim())
    # Matheron's rule: a draw of x and of what would be seen of it, moved by how far that is from what was.
    x = mean + variance.sqrt() * noise_like(mean, generator)
    away, spread = seen.y - seen.of(mean), seen.spread(variance)
    solved, log_det = solve(spread, seen.noise, away)
    would = seen.y - seen.of(x) - seen.noise * noise_like(away, generator)
    x = x + variance * seen.lift(solve(spread, seen.noise, would)[0], x)
    log_prob = -0.5 * ((away * solved).sum(1) + log_det + away.shape[1] * math.log(2 * math.pi))
    return weighed(cloud, log_prob - cloud.believed.log_prob), x


def _sum(values: Tensor) -> Tensor:
    """Over all but the first axis: (particle,)."""
    return values.flatten(1).sum(1)
