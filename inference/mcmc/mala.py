"""MALA: one Langevin step at a time, accepted by Metropolis.

    z' = z + (e^2 / 2) L L' grad log p(z) + e L r,   r ~ N(0, I)

Roberts and Tweedie 1996; the acceptance 0.574 is optimal (Roberts and Rosenthal 1998). It is HMC with one leapfrog step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.inference.mcmc import _adaptation
from probgen.inference.mcmc._hamiltonian import Adapted, Info, State, langevin
from probgen.target import Continuous


@dataclass(frozen=True, kw_only=True)
class MALA(Adapted):
    """The Metropolis-adjusted Langevin algorithm.

    thin: Langevin steps for every draw; diffusion moves little in one.
    target_accept: mean acceptance probability that the step size aims at.
    """

    steady: ClassVar[bool] = True
    thins_itself: ClassVar[bool] = True

    target_accept: float | None = 0.574
    thin: int = 20

    def step(self, key: Any, state: State, target: Continuous) -> tuple[State, Info]:
        ops, xp = target.ops, target.ops.xp
        step_size = _adaptation.current_step_size(xp, state.warmup, self.num_warmup)
        state, accept, diverging, energy = langevin(key, target, state, step_size, self.thin)
        warmup = _adaptation.advance(ops, self, state.warmup, state.z, state.gradient, accept)
        info = Info(state.z, state.log_density, accept, step_size, xp.int32(self.thin), diverging, energy)
        return state._replace(warmup=warmup), info
