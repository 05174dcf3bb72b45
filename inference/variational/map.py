"""Maximum a posteriori: the mode of the posterior density of the unknowns, argmax p(unknowns | data).

A mode depends on the coordinates. By default they are the unknowns themselves, as in NumPyro's and Pyro's AutoDelta: a coin with a
Beta(10, 10) prior and 6 heads of 10 has its mode at 15 / 28. With space="unconstrained" the density is that of the unconstrained z,
the log-Jacobian of the bijections included, of which "laplace" is the normal approximation: there it is 16 / 30, for z = logit.
Found by BFGS with a backtracking line search, with limited memory beyond 1000 unknowns (Nocedal and Wright 2006, chapters 6, 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.data.points import climbed
from probgen.inference.variational._mode import Climb, Info, State
from probgen.target import Continuous


class Answer(NamedTuple):
    """The mode z (1, 1, dim) and its log density (1, 1) in nats; a point has no log q."""

    z: Any
    log_p: Any


@dataclass(frozen=True, kw_only=True)
class MAP(Climb):
    """The posterior mode, as one draw.

    space: "constrained" for the mode of the unknowns as the program has them, "unconstrained" for that of their images in R^n.
    """

    learns_points: ClassVar[bool] = True
    needs_matrix: ClassVar[bool] = False
    bias: ClassVar[str | None] = "a point estimate: no uncertainty"

    space: Literal["constrained", "unconstrained"] = "constrained"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.space not in ("constrained", "unconstrained"):
            raise ValueError(f"space is {self.space!r}; known: constrained, unconstrained")

    def init(self, key: Any, target: Continuous) -> State:
        return super().init(key, climbed(self, target))

    def step(self, key: Any, state: State, target: Continuous) -> tuple[State, Info]:
        return super().step(key, state, climbed(self, target))

    def answer(self, key: Any, state: State, target: Continuous) -> Answer:
        return Answer(state.z[None, None], state.value[None, None])
