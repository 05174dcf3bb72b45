"""Stochastic variational inference with the author's own guide, on the whole data.

    maximise over the parameters of program and guide   E_q [log p(z, data) - log q(z)]

What "svi" means for a program on its whole data with a guide. The bound and its gradient are the library's (Trace_ELBO of NumPyro
or Pyro, TraceEnum_ELBO where finite unknowns are summed out), with its plates, minibatches and reparametrisations.
Hoffman, Blei, Wang and Paisley 2013, JMLR 14; Wingate and Weber 2013 (arXiv:1301.1299).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from probgen.algorithm import Incompatible
from probgen.inference.variational._guide import Anchor, Answer, Guide, Plan, State, evaluated
from probgen.inference.variational.map import Answer as Point
from probgen.target import Continuous


class _Own:
    """The guide of the target itself, in place of a family of ours."""

    @staticmethod
    def loss_and_gradient(
        settings: GuidedSVI, key: Any, parameters: Any, anchor: Anchor, target: Any
    ) -> tuple[Any, Any]:
        return target.guide_loss_and_gradient(key, parameters, settings.num_particles)

    @staticmethod
    def draws(settings: GuidedSVI, key: Any, parameters: Any, anchor: Anchor, target: Any) -> tuple[Any, Any]:
        return target.guide_draws(key, parameters, settings.num_draws)


@dataclass(frozen=True, kw_only=True)
class GuidedSVI(Guide):
    """The author's guide, learned together with the parameters of the program.

    num_particles: draws of the guide a step; minibatches are those of the program's plates, whatever `minibatch` says.
    Learning is in the coordinates of the program: a larger or smaller learning_rate may suit it.
    """

    num_particles: int = 4
    gradient: Literal["path", "total"] = "total"

    has_density: ClassVar[bool] = False  # at points other than the guide's own draws
    takes_guide: ClassVar[bool] = True

    def prepare(self, target: Any) -> Any:
        if target.author_guide is None:
            raise Incompatible("guided_svi needs the author's guide: pg.fit(program, data, 'svi', guide=guide).")
        return target.paired()

    def backend(self, target: Any) -> Any:
        return _Own

    def init(self, key: Any, target: Continuous) -> State:
        xp = target.ops.xp
        parameters = target.guide_start(key)  # type: ignore[attr-defined]
        none, zero, nought = xp.zeros_like(parameters), xp.zeros((), target.precision), xp.int32(0)  # type: ignore[attr-defined]
        plan = Plan(zero + self.learning_rate, zero, nought, zero + xp.inf, nought, nought, nought, xp.bool_(False))
        anchor = Anchor(xp.zeros(1, target.precision), xp.ones(1, target.precision))  # type: ignore[attr-defined]
        return State(nought, parameters, none, none, parameters, zero, anchor, plan)

    def answer(self, key: Any, state: State, target: Any) -> Any:
        z, log_q = target.ops.map(
            lambda k: _Own.draws(self, k, state.average, state.anchor, target), target.ops.split(key, 4)
        )
        found: Answer = evaluated(target, z, log_q)
        return Point(found.z, found.log_p) if target.guide_is_point else found
