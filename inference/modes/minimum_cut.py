"""The exact mode of bits that attract each other in pairs, by a minimum cut.

    argmax_x  sum_i b_i x_i + sum_{i<j} W_ij x_i x_j,   W_ij >= 0,   x in {0, 1}^n

b and W are derivatives of the program's log density, and whether it has this form is checked; units that are known are
constants. The maximum flow is SciPy's, on the host, with capacities rounded to 30 bits: see `gap`.
Greig, Porteous and Seheult 1989 (doi:10.1111/j.2517-6161.1989.tb01764.x).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from probgen.algorithm import Learner
from probgen.target import Discrete


class State(NamedTuple):
    """The mode (dim,), its log density, and by how much it may fall short of the highest, in nats."""

    z: Any
    log_density: Any
    gap: Any


class Info(NamedTuple):
    """loss: minus the log density, in nats; gap: by how much rounding may have missed the optimum, in nats."""

    loss: Any
    gap: Any
    converged: Any


class Answer(NamedTuple):
    """The mode z (1, 1, dim) and its log density (1, 1) in nats."""

    z: Any
    log_p: Any


@dataclass(frozen=True, kw_only=True)
class MinimumCut(Learner[Discrete]):
    """The highest mode, exactly; an error names the pair of bits that repel each other, where there is one."""

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    bias: ClassVar[str | None] = "a point estimate: no uncertainty"

    num_steps: int = 1

    def prepare(self, target: Any) -> Any:
        from probgen.inference.modes import _cut

        return _cut.solved(target)

    def init(self, key: Any, target: Any) -> State:
        from probgen.engine.numpyro.sums import energy

        values = energy.split(target.variables, target.cut.x)
        return State(target.flat(values), target.joint(values), target.cut.gap)

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax.numpy as jnp

        return state, Info(-state.log_density, state.gap, jnp.bool_(True))

    def answer(self, key: Any, state: State, target: Any) -> Answer:
        return Answer(state.z[None, None], state.log_density[None, None])
