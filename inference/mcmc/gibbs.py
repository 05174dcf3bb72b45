"""Gibbs sampling: every unknown drawn given the rest, a block of units that do not interact at a time.

    x_B ~ p(x_B | x_rest),   for bits logit p(x_i = 1 | x_rest) = d log p / dx_i

The conditionals are derivatives of the program's own log density, and the blocks come from the sparsity of its Hessian
(`probgen.engine.numpyro.sums.energy`). Where that does not describe every unknown (reals with bounds, a finite support of any
kind), the finite ones are drawn from exact conditionals in turn with Hamiltonian steps of the reals (`_turns`).
Geman and Geman 1984 (doi:10.1109/TPAMI.1984.4767596).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.algorithm import Sampler
from probgen.inference.mcmc import _turns
from probgen.inference.mcmc.hmc import HMC
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

    thin: sweeps through all unknowns for every draw.
    blocks: sites to be drawn together, `(("v",), ("h1", "h2"))`; by default found from the density.
    conditionals: "gradient", or "evaluation" of the density at every value of one unit after the other for the sites that
        its derivatives do not describe; by default what the program needs, and of an energy the gradient.
    target_accept: of the Hamiltonian steps of reals that are not conditionally normal.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    together: ClassVar[bool] = True
    precision: ClassVar[str] = "float32"
    thins_itself: ClassVar[bool] = True

    num_warmup: int = 400
    thin: int = 1
    blocks: tuple[tuple[str, ...], ...] = ()
    conditionals: Literal["auto", "gradient", "evaluation"] = "auto"
    target_accept: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.conditionals not in ("auto", "gradient", "evaluation"):
            raise ValueError(f"conditionals is {self.conditionals!r}; known: auto, gradient, evaluation")

    @property
    def _hmc(self) -> HMC:
        """How the reals move, where they have no conditional that is drawn from."""
        return HMC(num_warmup=self.num_warmup, target_accept=self.target_accept)

    def kernel(self) -> Gibbs:
        return replace(self, num_samples=1, num_chains=1)

    def precision_on(self, target: Any) -> str | None:
        """Single precision for energies, whose units are many; the density of data is a large sum, as of counts of 1e8."""
        return self.precision if target.is_energy else None

    def prepare(self, target: Any) -> Any:
        from probgen.engine.numpyro.sums.energy import NotConditional

        asked = self.blocks or self.conditionals != "auto"
        if not asked and target.suits_turns:
            return target.in_turns()
        try:
            return target.blocked(self.blocks, self.conditionals == "evaluation")
        except (NotConditional, TypeError, IndexError):  # a finite unknown that is used as an index, for one
            bits = target.is_energy and all(v.levels for v in target.variables)  # maybe many: not unit by unit unasked
            if asked or bits:
                raise
        return target.in_turns()

    def init(self, key: Any, target: Any) -> Any:
        if target.takes_turns:
            return _turns.begin(key, target, self._hmc)
        values = target.start(key)
        return State(values, target.joint(values))

    def step(self, key: Any, state: Any, target: Any) -> tuple[Any, Any]:
        import jax

        if target.takes_turns:
            return _turns.step(key, state, target, self._hmc, self.thin)

        def one(i: Any, values: Any) -> Any:
            return target.sweep(jax.random.fold_in(key, i), values)

        values = jax.lax.fori_loop(1, self.thin, one, state.values) if self.thin > 1 else state.values
        state = State(*target.sweep_with_density(jax.random.fold_in(key, 0), values))
        return state, Info(target.flat(state.values), state.log_density)
