"""Guided draws: a point completed by a diffusion model, the denoiser moved by what is known.

    E[x | z_t, y] ~ m + sigma^2 / alpha (dm / dz)' A' S^-1 (y - A m),   S = noise^2 I + A C A',  m = E[x | z_t], C = Cov(x | z_t)

in any sampler: exact for normal data, else an approximation that no weight mends, as inference="twisted_smc" does.
Song et al. 2023 (PiGDM); Rozet et al. 2024 (arXiv:2405.13712).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from probgen.inference.denoising._completing import Completing


class State(NamedTuple):
    """Points on their way: z (run, particle, *event); what the sampler remembers; times: (time,); step: how many are done."""

    z: Any
    memory: Any
    times: Any
    step: Any


class Info(NamedTuple):
    """loss: how far what is believed is from what is known, a mean square in units of the noise."""

    loss: Any


class Answer(NamedTuple):
    """Points z (run, particle, dim)."""

    z: Any


@dataclass(frozen=True, kw_only=True)
class Guided(Completing):
    """Settings, beside those of both.

    sampler: "sde", "ancestral", "ddim", "euler", "heun" (two evaluations a step) or "dpm++".
    """

    bias: ClassVar[str | None] = (
        "the posterior of x given its noisy self is taken for a normal one; exact for normal data"
    )

    sampler: str = "sde"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.covariance == "rows":
            raise ValueError("covariance is 'rows', which is of twisted_smc alone; known: auto, jacobian, variance")
        known = ("ancestral", "ddim", "euler", "heun", "dpm++", "sde")
        if self.sampler not in known:
            raise ValueError(f"Unknown sampler {self.sampler!r}. Known: {', '.join(known)}.")

    def on(self, engine: str) -> Any:
        from probgen.inference.denoising import _torch_completing

        return _torch_completing.Guided(self) if engine == "pyro" else self

    def init(self, key: Any, target: Any) -> State:
        import jax
        import jax.numpy as jnp

        from probgen.nets.diffusion.grids import grid
        from probgen.nets.diffusion.samplers import named
        from probgen.nets.diffusion.sampling import end

        schedule = target.problem(self.noise, self.covariance)[0].schedule
        shape = (self.num_runs, self.num_particles, *target.site.shape)
        z = end(schedule, key, shape).astype(target.precision)
        times = grid(schedule, self.num_steps, kind="log_snr").astype(target.precision)
        return State(z, jax.vmap(jax.vmap(named(self.sampler).init))(z), times, jnp.int32(0))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax
        import jax.numpy as jnp

        from probgen.nets.diffusion.samplers import named

        informed, sampler = target.problem(self.noise, self.covariance)[0], named(self.sampler)
        keys = jax.random.split(key, (self.num_runs, self.num_particles))

        def on() -> Any:
            t, s = state.times[state.step], state.times[state.step + 1]
            one = lambda z, key, memory: sampler.step(informed, z, t, s, key, memory)  # noqa: E731
            return jax.vmap(jax.vmap(one))(state.z, keys, state.memory)

        def last() -> Any:
            one = lambda z: informed(z, state.times[-1]).mean  # noqa: E731
            return jax.vmap(jax.vmap(one))(state.z), state.memory

        z, memory = jax.lax.cond(state.step + 1 < self.num_steps, on, last)
        away = lambda z: (informed.seen.y - informed.seen.of(z)) / informed.seen.noise  # noqa: E731
        loss = jnp.mean(jax.vmap(jax.vmap(away))(z) ** 2)
        return State(z, memory, state.times, state.step + 1), Info(loss)

    def answer(self, key: Any, state: State, target: Any) -> Answer:
        return Answer(target.settled(state.z, self.noise).reshape(self.num_runs, self.num_particles, -1))
