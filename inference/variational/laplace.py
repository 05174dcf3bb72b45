"""Laplace's approximation: the normal at the mode, q(z) = N(z | mode, -Hessian^-1), in unconstrained space.

Tierney and Kadane 1986, "Accurate approximations for posterior moments and marginal densities".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.algorithm import positive
from probgen.inference.variational._guide import Answer, evaluated
from probgen.inference.variational._mode import Climb, State, covariance_root
from probgen.target import Continuous


@dataclass(frozen=True, kw_only=True)
class Laplace(Climb):
    """The normal approximation at the mode.

    num_draws: draws of the answer, in each of its four chains.
    """

    density_alone: ClassVar[bool] = True

    num_draws: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_draws")

    def answer(self, key: Any, state: State, target: Continuous) -> Answer:
        ops, xp = target.ops, target.ops.xp
        root = covariance_root(target, state)
        noise = ops.normal(key, (4, self.num_draws, target.dim))
        log_det = xp.sum(xp.log(xp.diagonal(root)))
        log_q = -0.5 * xp.sum(noise**2, axis=-1) - 0.5 * target.dim * xp.log(2 * xp.pi) - log_det
        return evaluated(target, state.z + noise @ root.T, log_q)
