"""Maximum a posteriori: the mode of the posterior density, argmax_z log p(z, data).

The density is that of the unconstrained unknowns z, the log-Jacobian of the bijections included: in other coordinates
the mode is another point. Found by BFGS with a backtracking line search (Nocedal and Wright 2006, chapter 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from probgen.inference.variational._mode import Climb, State
from probgen.target import Continuous


class Answer(NamedTuple):
    """The mode z (1, 1, dim) and its log p(z, data) (1, 1) in nats; a point has no log q."""

    z: Any
    log_p: Any


@dataclass(frozen=True, kw_only=True)
class MAP(Climb):
    """The posterior mode in unconstrained space, as one draw."""

    learns_points: ClassVar[bool] = True
    bias: ClassVar[str | None] = "a point estimate: no uncertainty"

    def answer(self, key: Any, state: State, target: Continuous) -> Answer:
        return Answer(state.z[None, None], state.value[None, None])
