"""Expectation maximisation, for programs that are mixtures of exponential families.

    E-step   r_nk = w_k p(x_n; theta_k) / sum_j w_j p(x_n; theta_j)
    M-step   w_k = sum_n r_nk / N,   theta_k: expected statistics E T = sum_n r_nk T(x_n) / sum_n r_nk

Both are read off the program: responsibilities from the mixture's terms, the M-step from the family of its components
(`probgen.distributions.families`), which it fits by moments. A program that is no mixture has one component, and is fitted in
one step. Dempster, Laird and Rubin 1977.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.algorithm import Learner, positive
from probgen.inference.learning import _mixture
from probgen.target import Learnable


class State(NamedTuple):
    """Constrained parameters by their labels, minus the mean log likelihood that they have."""

    parameters: Any
    loss: Any


class Info(NamedTuple):
    """loss: minus the mean log likelihood of all rows before the step, in nats; smallest: rows of the smallest component."""

    loss: Any
    smallest: Any
    converged: Any


@dataclass(frozen=True, kw_only=True)
class EM(Learner[Learnable]):
    """Maximum likelihood by expectation maximisation, all rows at every step. Priors of the program are left out.

    num_steps: iterations at most.
    tolerance: nats a row; it has converged where a step gains less.
    start: "kmeans": the clusters of k-means; "program": the program's initial parameters.
    smoothing: rows that are added to every component, with the statistics of all data, so that none collapses onto a point.
    Raises Incompatible where the program is not a mixture of an exponential family, or an argument is not a parameter.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    precision: ClassVar[str] = "float64"
    flat_prior: ClassVar[bool] = True

    num_steps: int = 1000
    tolerance: float = 1e-7
    start: Literal["kmeans", "program"] = "kmeans"
    smoothing: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "tolerance")
        if self.smoothing < 0:
            raise ValueError(f"smoothing is {self.smoothing}; it must be 0 or more")
        if self.start not in ("kmeans", "program"):
            raise ValueError(f"start is {self.start!r}; known: kmeans, program")

    def prepare(self, target: Any) -> Any:
        mixture = _mixture.found(target)
        if mixture.num_components > target.num_rows:
            raise ValueError(f"{mixture.num_components} components need as many rows; there are {target.num_rows}.")
        return target

    def init(self, key: Any, target: Any) -> State:
        import jax
        import jax.numpy as jnp

        k_parameters, k_start = jax.random.split(key)
        learned = target.structure.one.program
        parameters = learned.constrained(target.initial(k_parameters))
        if self.start == "kmeans":
            parameters = _mixture.started(k_start, _mixture.known(target), target, parameters, self.smoothing)
        return State(parameters, jnp.full((), jnp.inf, target.precision))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax
        import jax.numpy as jnp

        mixture, x = _mixture.known(target), _mixture.rows_of(target)

        def responsibilities(rows: Any, index: Any) -> Any:
            terms = mixture.log_terms(target, state.parameters, rows)
            return jax.nn.softmax(terms, axis=1), jax.nn.logsumexp(terms, axis=1)

        begun = state.parameters
        parameters, counts, log_p = _mixture.maximised(mixture, target, begun, x, responsibilities, self.smoothing)
        loss = -log_p
        converged = jnp.abs(state.loss - loss) < self.tolerance
        return State(parameters, loss), Info(loss, counts.min(), converged)

    def answer(self, key: Any, state: State, target: Any) -> dict[str, Any]:
        return target.structure.one.program.unconstrained(state.parameters)
