"""Twisted sequential Monte Carlo: a point completed by a diffusion model, with an unbiased estimate of the evidence p(y).

Particles take the chain's steps, pulled towards what is known, and are weighted for it; the poorest die. However rough the pull,
the mean weight is an unbiased estimate of p(y), and the points are of p(x | y), both of the chain of `num_steps` levels, as the
number of particles grows: the effective number of them, and that runs agree, say whether it is large enough.
Wu et al. 2023 (arXiv:2306.17775).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.inference.denoising._completing import Completing
from probgen.programs.completable import DENSE

MANY = (
    "covariance='jacobian' gives p(y | z) of at most {} numbers that are known; got {}.\n"
    "Use covariance='rows' or 'variance', or inference='guided'."
)


class State(NamedTuple):
    """Of every run its particles, in the end the points x: (run, particle, *event); times: (time,); step: how many are done."""

    cloud: Any
    x: Any
    ess: Any
    times: Any
    step: Any


class Info(NamedTuple):
    """loss: minus the log evidence so far, in nats, the mean of the runs; ess: the least effective share of a run's particles."""

    loss: Any
    ess: Any


class Answer(NamedTuple):
    """Points z (run, particle, dim); log_evidence in nats, survivors: share of a run's particles that have descendants: of each."""

    z: Any
    log_evidence: Any
    survivors: Any


@dataclass(frozen=True, kw_only=True)
class TwistedSMC(Completing):
    """Settings, beside those of both.

    variance: of the chain's steps, and so which law the evidence is of: "bridge", "beta" or "posterior", see
        `probgen.nets.diffusion.samplers.Ancestral`; None: that of the program's chain, of a flow "posterior".
    threshold: effective share of the particles below which the poorest die.
    """

    bias: ClassVar[str | None] = None

    variance: Literal["bridge", "beta", "posterior"] | None = None
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance not in (None, "bridge", "beta", "posterior"):
            raise ValueError(f"variance is {self.variance!r}; known: bridge, beta, posterior")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must be between 0 and 1")

    def prepare(self, target: Any) -> Any:
        found = super().prepare(target)
        if self.covariance == "jacobian" and found.num_seen > DENSE:
            raise ValueError(MANY.format(DENSE, found.num_seen))
        return found.calibrated() if self.covariance in ("auto", "rows") else found

    def _problem(self, target: Any) -> tuple[Any, Any, Any]:
        """The informed denoiser, the chain's step, and the log volume of what is known."""
        from probgen.nets.diffusion.samplers import Ancestral

        covariance = "rows" if self.covariance == "auto" else self.covariance
        informed, variance, volume = target.problem(self.noise, covariance)
        return informed, Ancestral(self.variance or variance), volume

    def on(self, engine: str) -> Any:
        from probgen.inference.denoising import _torch_completing

        return _torch_completing.TwistedSMC(self) if engine == "pyro" else self

    def init(self, key: Any, target: Any) -> State:
        import jax
        import jax.numpy as jnp

        from probgen.nets.diffusion.grids import grid
        from probgen.nets.diffusion.sampling import end
        from probgen.nets.diffusion.twisted import begun

        informed, _, _ = self._problem(target)
        times = grid(informed.schedule, self.num_steps, kind="log_snr").astype(target.precision)
        shape = (self.num_particles, *target.site.shape)

        def one(key: Any) -> Any:
            k_end, k_first = jax.random.split(key)
            z = end(informed.schedule, k_end, shape).astype(target.precision)
            return begun(informed, k_first, z, times[0], self.threshold)

        cloud, ess = jax.vmap(one)(jax.random.split(key, self.num_runs))
        return State(cloud, jnp.zeros_like(cloud.z), ess, times, jnp.int32(0))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax

        from probgen.nets.diffusion.twisted import ended, moved

        informed, chain, volume = self._problem(target)
        keys = jax.random.split(key, self.num_runs)

        def on() -> Any:
            t, s = state.times[state.step], state.times[state.step + 1]
            one = lambda cloud, key: moved(informed, chain, self.threshold, cloud, t, s, key)  # noqa: E731
            cloud, ess = jax.vmap(one)(state.cloud, keys)
            return cloud, state.x, ess

        def last() -> Any:
            one = lambda cloud, key: ended(informed, chain, cloud, state.times[-1], key)  # noqa: E731
            x, cloud, ess = jax.vmap(one)(state.cloud, keys)
            return cloud, x, ess

        cloud, x, ess = jax.lax.cond(state.step + 1 < self.num_steps, on, last)
        state = State(cloud, x, ess, state.times, state.step + 1)
        return state, Info(-(cloud.log_evidence.mean() + volume), ess.min() / self.num_particles)

    def answer(self, key: Any, state: State, target: Any) -> Answer:
        import jax
        import jax.numpy as jnp

        from probgen.nets.diffusion.twisted import survivors

        # Stopped before its end, a run has what its particles believe of x.
        x = jnp.where(state.step < self.num_steps, state.cloud.believed.posterior.mean, state.x)
        x = target.settled(x, self.noise)
        like = jnp.ones((self.num_runs, self.num_particles), x.dtype)
        evidence = state.cloud.log_evidence + self._problem(target)[2]
        share = jax.vmap(survivors)(state.cloud.roots) / self.num_particles
        z = x.reshape(self.num_runs, self.num_particles, -1)
        return Answer(z, like * evidence[:, None], like * share[:, None])
