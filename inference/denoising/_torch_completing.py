"""Completions on the Pyro engine: the kernels of settings that `guided` and `twisted_smc` define, and what these say.

What is random is drawn by generators of the step's key.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from probgen.engine.pyro.executor import OPS
from probgen.nets.torch_diffusion import twisted
from probgen.nets.torch_diffusion.grids import grid
from probgen.nets.torch_diffusion.samplers import Ancestral, named
from probgen.nets.torch_diffusion.sampling import end


def _generator(key: Any) -> torch.Generator:
    return torch.Generator().manual_seed(OPS.seed(key))


class State(NamedTuple):
    """As `guided.State`, its z (run * particle, *event)."""

    z: Any
    memory: Any
    times: Any
    step: int


class Guided:
    """Of `guided.Guided`."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def init(self, key: Any, target: Any) -> State:
        s = self.settings
        with target.running() as denoiser:
            like = torch.empty(s.num_runs * s.num_particles, *target.site.shape)
            z = end(denoiser.schedule, like, generator=_generator(key))
            times = grid(denoiser.schedule, s.num_steps, kind="log_snr").to(z)
            return State(z, named(s.sampler).init(z), times, 0)

    def step(self, key: Any, state: State, target: Any) -> tuple[State, dict[str, Any]]:
        s = self.settings
        with target.running() as denoiser, torch.no_grad():
            informed, _ = target.problem(denoiser, s.noise, s.covariance)
            if state.step + 1 < s.num_steps:
                t, to = state.times[state.step : state.step + 2]
                z, memory = named(s.sampler).step(informed, state.z, t, to, _generator(key), state.memory)
            else:
                z, memory = informed(state.z, state.times[-1]).mean, state.memory
            away = (informed.seen.y - informed.seen.of(z)) / informed.seen.noise
        return State(z, memory, state.times, state.step + 1), {"loss": (away**2).mean()}

    def answer(self, key: Any, state: State, target: Any) -> dict[str, Any]:
        s = self.settings
        return {"z": target.settled(state.z, s.noise).reshape(s.num_runs, s.num_particles, -1)}


class Clouds(NamedTuple):
    """As `twisted_smc.State`, of every run its own cloud and points x, which are zeros until the end."""

    cloud: tuple[twisted.Cloud, ...]
    x: tuple[Any, ...]
    times: Any
    step: int


class TwistedSMC:
    """Of `twisted_smc.TwistedSMC`."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def _problem(self, target: Any, denoiser: Any) -> tuple[Any, Ancestral, float]:
        """The informed denoiser, the chain's step, and the log volume of what is known."""
        s = self.settings
        informed, volume = target.problem(denoiser, s.noise, "rows" if s.covariance == "auto" else s.covariance)
        return informed, Ancestral(s.variance or denoiser.variance), volume

    def init(self, key: Any, target: Any) -> Clouds:
        s = self.settings
        with target.running() as denoiser, torch.no_grad():
            informed, _, _ = self._problem(target, denoiser)
            like = torch.empty(s.num_particles, *target.site.shape)
            times = grid(denoiser.schedule, s.num_steps, kind="log_snr").to(like)

            def one(generator: torch.Generator) -> twisted.Cloud:
                z = end(denoiser.schedule, like, generator=generator)
                return twisted.begun(informed, generator, z, times[0], s.threshold)[0]

            clouds = tuple(one(_generator(k)) for k in OPS.split(key, s.num_runs))
            return Clouds(clouds, tuple(torch.zeros_like(c.z) for c in clouds), times, 0)

    def step(self, key: Any, state: Clouds, target: Any) -> tuple[Clouds, dict[str, Any]]:
        s, at = self.settings, state.step
        generators = [_generator(k) for k in OPS.split(key, s.num_runs)]
        with target.running() as denoiser, torch.no_grad():
            informed, chain, volume = self._problem(target, denoiser)
            pairs, x = zip(state.cloud, generators, strict=True), state.x
            if at + 1 < s.num_steps:
                t, to = state.times[at : at + 2]
                found = [twisted.moved(informed, chain, s.threshold, c, t, to, g) for c, g in pairs]
                clouds, ess = zip(*found, strict=True)
            else:
                found = [twisted.ended(informed, chain, c, state.times[-1], g) for c, g in pairs]
                x, clouds, ess = zip(*found, strict=True)
        loss = -(torch.stack([c.log_evidence for c in clouds]).mean() + volume)
        return Clouds(clouds, x, state.times, at + 1), {"loss": loss, "ess": torch.stack(ess).min() / s.num_particles}

    def answer(self, key: Any, state: Clouds, target: Any) -> dict[str, Any]:
        s = self.settings
        # Stopped before its end, a run has what its particles believe of x.
        beliefs = [c.believed.posterior.mean for c in state.cloud]
        x = target.settled(torch.stack(beliefs if state.step < s.num_steps else list(state.x)), s.noise)
        evidence = torch.stack([c.log_evidence for c in state.cloud]) + target.seen(s.noise)[1]
        shares = torch.tensor([twisted.survivors(c.roots) / s.num_particles for c in state.cloud]).to(x)
        like = torch.ones(x.shape[:2]).to(x)
        told = {"log_evidence": like * evidence[:, None], "survivors": like * shares[:, None]}
        return {"z": x.flatten(2), **told}
