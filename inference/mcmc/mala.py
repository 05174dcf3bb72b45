"""MALA: one Langevin step at a time, accepted by Metropolis.

    z' = z + (e^2 / 2) L L' grad log p(z) + e L r,   r ~ N(0, I)

Roberts and Tweedie 1996; the acceptance 0.574 is optimal (Roberts and Rosenthal 1998). It is HMC with one leapfrog step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.algorithm import positive
from probgen.inference.mcmc import _adaptation
from probgen.inference.mcmc._hamiltonian import Adapted, Info, State, langevin
from probgen.target import Continuous


@dataclass(frozen=True, kw_only=True)
class MALA(Adapted):
    """The Metropolis-adjusted Langevin algorithm.

    thinning: Langevin steps for every draw; diffusion moves little in one.
    target_accept: mean acceptance probability that the step size aims at.
    """

    steady: ClassVar[bool] = True

    target_accept: float | None = 0.574
    thinning: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "thinning")

    def step(self, key: Any, state: State, target: Continuous) -> tuple[State, Info]:
        ops, xp = target.ops, target.ops.xp
        step_size = _adaptation.current_step_size(xp, state.warmup, self.num_warmup)
        state, accept, diverging, energy = langevin(key, target, state, step_size, self.thinning)
        warmup = _adaptation.advance(ops, self, state.warmup, state.z, state.gradient, accept)
        info = Info(state.z, state.log_density, accept, step_size, xp.int32(self.thinning), diverging, energy)
        return state._replace(warmup=warmup), info
