"""ULA: the Langevin diffusion in Euler steps, without a Metropolis correction, and so with a bias.

    z' = z + (e^2 / 2) L L' grad log p(z) + e L r,   r ~ N(0, I)

Parisi 1981; Durmus and Moulines 2017 (arXiv:1507.05021). The stationary distribution is off by O(e^2): on a standard
normal its variance is 1 / (1 - e^2 / 4). The acceptance that a correction would have had is recorded and says how far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.inference.mcmc import _adaptation
from probgen.inference.mcmc._hamiltonian import Info, State, langevin
from probgen.inference.mcmc.mala import MALA
from probgen.target import Continuous


@dataclass(frozen=True, kw_only=True)
class ULA(MALA):
    """The unadjusted Langevin algorithm.

    target_accept: the step size is chosen so that a Metropolis correction would accept with this mean probability.
    step_size: in whitened units; None is chosen during warm-up, whose steps are adjusted.
    """

    bias: ClassVar[str | None] = "no Metropolis correction: the step size biases the draws; inference='mala' does not"

    target_accept: float | None = 0.98
    step_size: float | None = None

    def step(self, key: Any, state: State, target: Continuous) -> tuple[State, Info]:
        ops, xp = target.ops, target.ops.xp
        warming = state.warmup.step < self.num_warmup if self.num_warmup else False
        step_size = _adaptation.current_step_size(xp, state.warmup, self.num_warmup)
        if self.step_size is not None:
            step_size = step_size * 0 + self.step_size
        state, accept, diverging, energy = langevin(key, target, state, step_size, self.thin, warming)
        warmup = _adaptation.advance(ops, self, state.warmup, state.z, state.gradient, accept)
        info = Info(state.z, state.log_density, accept, step_size, xp.int32(self.thin), diverging, energy)
        return state._replace(warmup=warmup), info
