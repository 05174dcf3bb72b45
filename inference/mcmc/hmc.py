"""HMC: Hamiltonian trajectories of random length, accepted by Metropolis.

    z' = leapfrog^n(z, r),  r ~ N(0, I) whitened,  n = ceil(T u / step_size),  u ~ U(1/2, 3/2)

Duane et al. 1987; Neal 2011 (arXiv:1206.1901). The random length keeps periodic orbits from closing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.algorithm import positive
from probgen.inference.mcmc import _adaptation
from probgen.inference.mcmc._hamiltonian import Adapted, Info, State, metropolis
from probgen.target import Continuous


@dataclass(frozen=True, kw_only=True)
class HMC(Adapted):
    """Hamiltonian Monte Carlo.

    trajectory_length: mean integration time T in whitened units; pi / 2 is a quarter of a Gaussian's period.
    max_steps: a trajectory has at most so many leapfrog steps.
    """

    trajectory_length: float = 1.5
    max_steps: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "trajectory_length", "max_steps")

    def step(self, key: Any, state: State, target: Continuous) -> tuple[State, Info]:
        ops, xp = target.ops, target.ops.xp
        k_length, k_move = ops.split(key, 2)
        step_size = _adaptation.current_step_size(xp, state.warmup, self.num_warmup)
        length = self.trajectory_length * (0.5 + ops.uniform(k_length))
        num_steps = xp.clip(xp.ceil(length / step_size), 1, self.max_steps).astype(xp.int32)
        state, accept, diverging, energy = metropolis(k_move, target, state, step_size, num_steps)
        warmup = _adaptation.advance(ops, self, state.warmup, state.z, state.gradient, accept)
        info = Info(state.z, state.log_density, accept, step_size, num_steps, diverging, energy)
        return state._replace(warmup=warmup), info
