"""Random-walk Metropolis: a normal step in any direction, taken if it goes up, and otherwise with the ratio of densities.

    z' = z + e L r,   r ~ N(0, I),   accepted with probability min(1, p(z') / p(z))

Metropolis et al. 1953 (doi:10.1063/1.1699114); the acceptance 0.234 is optimal in many dimensions (Roberts, Gelman and
Gilks 1997, doi:10.1214/aoap/1034625254), where e L L' e is about the covariance times 2.38^2 / dim. The density is all that a
proposal needs; the start and the metric, learned in warm-up, use gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from probgen.inference.mcmc import _adaptation
from probgen.inference.mcmc._hamiltonian import Adapted, State
from probgen.target import Continuous


class Info(NamedTuple):
    """What the proposals of one draw tell, in ArviZ's words; n_steps counts evaluations of the density."""

    z: Any
    lp: Any
    acceptance_rate: Any
    step_size: Any
    n_steps: Any


@dataclass(frozen=True, kw_only=True)
class RandomWalk(Adapted):
    """Random-walk Metropolis.

    thin: proposals for every draw; decorrelation takes a number that grows with the dimension.
    target_accept: mean acceptance probability that the step size aims at.
    """

    steady: ClassVar[bool] = True
    thins_itself: ClassVar[bool] = True

    target_accept: float | None = 0.234
    thin: int = 50

    def first_step(self, dim: int) -> float:
        """The step size to begin with, in whitened units: the best one for a normal density."""
        return 2.38 * dim**-0.5

    def acceptance(self, xp: Any, uneven: Any) -> Any:
        """The mean acceptance probability to aim at."""
        return 0.234 if self.target_accept is None else self.target_accept

    def step(self, key: Any, state: State, target: Continuous) -> tuple[State, Info]:
        ops, xp = target.ops, target.ops.xp
        step_size = _adaptation.current_step_size(xp, state.warmup, self.num_warmup)

        def move(carry: Any) -> Any:
            i, z, log_density, total = carry
            k_step, k_accept = ops.split(ops.fold_in(key, i), 2)
            proposal = z + step_size * state.warmup.metric.push(ops.normal(k_step, z.shape))
            value = target.log_density(proposal)
            gain = ops.where(xp.isnan(value), -xp.inf, value - log_density)
            accept = xp.exp(xp.minimum(gain, 0.0))
            taken = ops.uniform(k_accept) < accept
            return i + 1, ops.where(taken, proposal, z), ops.where(taken, value, log_density), total + accept

        first = (xp.int32(0), state.z, state.log_density, state.log_density * 0)
        _, z, log_density, total = ops.while_loop(lambda c: c[0] < self.thin, move, first)
        accept, (_, gradient) = total / self.thin, target.value_and_grad(z)
        warmup = _adaptation.advance(ops, self, state.warmup, z, gradient, accept)
        info = Info(z, log_density, accept, step_size, xp.int32(self.thin))
        return State(z, log_density, gradient, warmup), info
