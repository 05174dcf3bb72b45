"""Maximum likelihood of parameters on the whole data: argmax_theta log p(data; theta).

For programs that are no sum over rows, such as a Gaussian process: "mle" means this for them. Finite unknowns are summed out; other
unknowns have no exact likelihood here ("svi" raises a bound on it). Found by BFGS from where the program says that its parameters
begin, in their unconstrained coordinates, which moves no maximum (Nocedal and Wright 2006, chapter 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.algorithm import Incompatible
from probgen.data.points import free
from probgen.inference.variational._mode import Climb, State
from probgen.inference.variational.map import Answer
from probgen.target import Continuous


@dataclass(frozen=True, kw_only=True)
class MaximumLikelihood(Climb):
    """The exact maximum of the likelihood of a program's parameters, as one draw."""

    learns_points: ClassVar[bool] = True
    bias: ClassVar[str | None] = "a maximum of the likelihood: no uncertainty"

    def prepare(self, target: Any) -> Any:
        if not target.points:
            raise Incompatible(
                "maximum_likelihood learns parameters (param); this program has none.\nUse inference='map'."
            )
        if len(free(target)):
            unknowns = [
                s.name for s in target.sites if s.kind == "latent" and not s.discrete and s.name not in target.points
            ]
            raise Incompatible(
                f"The likelihood of the parameters {', '.join(map(repr, target.points[:3]))} is an integral over {unknowns[0]!r}, "
                "which is not computed.\nUse inference='svi', which raises a bound on it, or 'map' for the joint mode; "
                "by_row=True if every row has its own."
            )
        return target

    def answer(self, key: Any, state: State, target: Continuous) -> Answer:
        return Answer(state.z[None, None], state.value[None, None])
