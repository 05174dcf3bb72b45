"""Samplers of diffusion models: one step from a time t to an earlier time s, given what is believed of x at t.

With h = log SNR(s) - log SNR(t), the bridge of a forward process that knew x is

    q(z_s | z_t, x) = N(alpha_t / alpha_s (sigma_s / sigma_t)^2 z_t + alpha_s (1 - e^-h) x,  sigma_s^2 (1 - e^-h) I)

"ancestral" draws from it with E[x | z_t] in x's place. "ddim", "euler", "heun" and "dpm++" follow the probability flow, "sde" its
stochastic twin. All call the network once a step, "heun" twice. They know times only by their pairs: see `grids`.

Ho et al. 2020 (arXiv:2006.11239); Song et al. 2021 (arXiv:2010.02502); Karras et al. 2022 (arXiv:2206.00364); Lu et al. 2022
(arXiv:2211.01095).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from probgen.nets.diffusion.denoiser import Denoiser, Posterior
from probgen.nets.diffusion.schedules import Schedule


class Level(NamedTuple):
    """What a schedule says of a time: alpha, sigma and log SNR."""

    alpha: Any
    sigma: Any
    log_snr: Any


CLEAN = Level(1.0, 0.0, jnp.inf)


def level(schedule: Schedule, t: Any) -> Level:
    return Level(*schedule.scales(t), schedule.log_snr(t))


def bridge(x: Any, z: Any, t: Level, s: Level) -> tuple[Any, Any]:
    """The mean (*event) and variance () of q(z_s | z_t, x); s may be CLEAN, and alpha_t zero."""
    lost = -jnp.expm1(t.log_snr - s.log_snr)
    mean = t.alpha / s.alpha * (s.sigma / t.sigma) ** 2 * z + s.alpha * lost * x
    return mean, lost * s.sigma**2


class Sampler(eqx.Module):
    """A step from t to s, and what it remembers between steps."""

    evaluations: ClassVar[int] = 1  # of the network, a step
    grid: ClassVar[str] = "even"  # where its times stand unless told otherwise, see `grids`

    def init(self, z: Any) -> Any:
        """What it remembers before the first step from z: (*event)."""
        return ()

    @abstractmethod
    def step(self, denoiser: Denoiser, z: Any, t: Any, s: Any, key: Any, memory: Any) -> tuple[Any, Any]:
        """z_t: (*event), t > s: () -> z_s and what it remembers."""


class Ancestral(Sampler):
    """The chain that the bound is of: p(z_s | z_t) = N(the bridge's mean at E[x | z_t], its variance).

    variance: "bridge" is that of q(z_s | z_t, x), DDPM's beta tilde; "beta" that of q(z_t | z_s), right for data of
    variance one; "posterior" adds what the denoiser says that it does not know of x, right for any normal data.
    """

    variance: Literal["bridge", "beta", "posterior"] = eqx.field(static=True, default="bridge")

    def __check_init__(self) -> None:
        if self.variance not in ("bridge", "beta", "posterior"):
            raise ValueError(f"variance={self.variance!r} of an ancestral step; known: bridge, beta, posterior.")

    def kernel(self, believed: Posterior, z: Any, t: Level, s: Level) -> tuple[Any, Any]:
        """The mean (*event) and variance, () or (*event), of p(z_s | z_t)."""
        mean, variance = bridge(believed.mean, z, t, s)
        lost = -jnp.expm1(t.log_snr - s.log_snr)
        if self.variance == "beta":
            return mean, lost * t.sigma**2
        if self.variance == "posterior":
            return mean, variance + (s.alpha * lost) ** 2 * believed.variance
        return mean, variance

    def step(self, denoiser: Denoiser, z: Any, t: Any, s: Any, key: Any, memory: Any) -> tuple[Any, Any]:
        at, to = level(denoiser.schedule, t), level(denoiser.schedule, s)
        mean, variance = self.kernel(denoiser(z, t), z, at, to)
        return mean + jnp.sqrt(variance) * jax.random.normal(key, z.shape, z.dtype), memory


class DDIM(Sampler):
    """x and noise as believed at t are mixed anew at s; eta of the bridge's standard deviation is drawn, the rest kept.

    eta = 0 is the probability flow, exact wherever E[x | z] stays as it is; eta = 1 is `Ancestral`.
    """

    eta: float = eqx.field(static=True, default=0.0)

    def step(self, denoiser: Denoiser, z: Any, t: Any, s: Any, key: Any, memory: Any) -> tuple[Any, Any]:
        at, to = level(denoiser.schedule, t), level(denoiser.schedule, s)
        x = denoiser(z, t).mean
        fresh = self.eta**2 * -jnp.expm1(at.log_snr - to.log_snr)  # the share of the noise's variance that is drawn
        moved = to.alpha * x + to.sigma * jnp.sqrt(1 - fresh) * (z - at.alpha * x) / at.sigma
        if self.eta:
            moved += to.sigma * jnp.sqrt(fresh) * jax.random.normal(key, z.shape, z.dtype)
        return moved, memory


class Euler(Sampler):
    """Euler's step of dz / dt in time itself: the one that a likelihood by fixed steps is of. On straight paths, DDIM."""

    def step(self, denoiser: Denoiser, z: Any, t: Any, s: Any, key: Any, memory: Any) -> tuple[Any, Any]:
        return z + (s - t) * denoiser.velocity(z, t), memory


class Heun(Sampler):
    """The trapezoid's step of order two, on the path made straight: y = z / (alpha + sigma) by tau = sigma / (alpha + sigma).

    Every schedule is that of straight paths in y and tau, where dy / dtau = E[e - x | z] is finite at both ends. Two evaluations.
    """

    evaluations: ClassVar[int] = 2
    grid: ClassVar[str] = "log_snr"

    def step(self, denoiser: Denoiser, z: Any, t: Any, s: Any, key: Any, memory: Any) -> tuple[Any, Any]:
        at, to = level(denoiser.schedule, t), level(denoiser.schedule, s)
        width, narrow = at.alpha + at.sigma, to.alpha + to.sigma
        y, span = z / width, to.sigma / narrow - at.sigma / width
        first = (z - width * denoiser(z, t).mean) / at.sigma
        ahead = narrow * (y + span * first)
        second = (ahead - narrow * denoiser(ahead, s).mean) / to.sigma
        return narrow * (y + 0.5 * span * (first + second)), memory


class Multistep(Sampler):
    """DPM-Solver++(2M): E[x | z] goes on as it last went, on a line in log SNR. Order two at one evaluation a step.

    noise: "sde" draws the bridge's own noise, else the probability flow is followed.
    """

    grid: ClassVar[str] = "log_snr"
    noise: bool = eqx.field(static=True, default=False)

    def init(self, z: Any) -> Any:
        return jnp.zeros_like(z), jnp.asarray(jnp.inf, z.dtype)  # no step before: nothing to go on with

    def step(self, denoiser: Denoiser, z: Any, t: Any, s: Any, key: Any, memory: Any) -> tuple[Any, Any]:
        at, to = level(denoiser.schedule, t), level(denoiser.schedule, s)
        x, (last, width) = denoiser(z, t).mean, memory
        h = to.log_snr - at.log_snr
        # A step from pure noise is infinitely wide. One much wider than the last goes on no further than twice as far.
        ratio = jnp.where(jnp.isfinite(h), jnp.minimum(h / width, 2.0), 0.0)
        ahead = x + 0.5 * ratio * (x - last)
        if self.noise:
            mean, variance = bridge(ahead, z, at, to)
            moved = mean + jnp.sqrt(variance) * jax.random.normal(key, z.shape, z.dtype)
        else:
            moved = to.sigma / at.sigma * z - to.alpha * jnp.expm1(-0.5 * h) * ahead
        return moved, (x, h.astype(z.dtype))


SAMPLERS: dict[str, Sampler] = {
    "ancestral": Ancestral(),
    "ddim": DDIM(),
    "euler": Euler(),
    "heun": Heun(),
    "dpm++": Multistep(),
    "sde": Multistep(noise=True),
}
STOCHASTIC = ("ancestral", "sde")  # those that forget where they began, as SDEdit needs


def named(sampler: str | Sampler) -> Sampler:
    """A sampler by its name; itself where it is one."""
    if isinstance(sampler, Sampler):
        return sampler
    if sampler not in SAMPLERS:
        raise ValueError(f"Unknown sampler {sampler!r}. Known: {', '.join(SAMPLERS)}.")
    return SAMPLERS[sampler]
