"""Gibbs sampling: every unknown drawn given the rest, a block of units that do not interact at a time.

    x_B ~ p(x_B | x_rest),   for bits logit p(x_i = 1 | x_rest) = d log p / dx_i

The conditionals are derivatives of the program's own log density, and the blocks come from the sparsity of its Hessian
(`probgen.engine.energy`). Geman and Geman 1984 (doi:10.1109/TPAMI.1984.4767596).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.algorithm import Sampler, positive
from probgen.target import Conditional


class State(NamedTuple):
    """Values of every site, and their log density."""

    values: Any
    log_density: Any


class Info(NamedTuple):
    """The point as one array, and its log density up to a constant, in nats."""

    z: Any
    lp: Any


@dataclass(frozen=True, kw_only=True)
class Gibbs(Sampler[Conditional]):
    """Block Gibbs sampling, all chains at once.

    thinning: sweeps through all unknowns for every draw.
    blocks: sites to be drawn together, `(("v",), ("h1", "h2"))`; by default found from the density.
    conditionals: "gradient", or "evaluation" of the density at every value of one unit after the other for the sites that
        its derivatives do not describe.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    together: ClassVar[bool] = True
    precision: ClassVar[str] = "float32"

    num_warmup: int = 200
    thinning: int = 1
    blocks: tuple[tuple[str, ...], ...] = ()
    conditionals: Literal["gradient", "evaluation"] = "gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "thinning")
        if self.conditionals not in ("gradient", "evaluation"):
            raise ValueError(f"conditionals is {self.conditionals!r}; known: gradient, evaluation")

    def kernel(self) -> Gibbs:
        return replace(self, num_samples=1, num_chains=1, num_warmup=0 if self.thin == 1 else self.num_warmup)

    def prepare(self, target: Any) -> Any:
        return target.blocked(self.blocks, self.conditionals == "evaluation")

    def init(self, key: Any, target: Any) -> State:
        values = target.start(key)
        return State(values, target.joint(values))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax

        def one(i: Any, values: Any) -> Any:
            return target.sweep(jax.random.fold_in(key, i), values)

        values = jax.lax.fori_loop(1, self.thinning, one, state.values) if self.thinning > 1 else state.values
        state = State(*target.sweep_with_density(jax.random.fold_in(key, 0), values))
        return state, Info(target.flat(state.values), state.log_density)
