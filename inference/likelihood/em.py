"""Expectation maximisation, for mixtures of exponential families, and for linear programs with normal causes.

    E-step   r_nk = w_k p(x_n; theta_k) / sum_j w_j p(x_n; theta_j)
    M-step   w_k = sum_n r_nk / N,   theta_k: expected statistics E T = sum_n r_nk T(x_n) / sum_n r_nk

Both are read off the program: responsibilities from the mixture's terms, the M-step from the family of its components
(`probgen.distributions.families`), which it fits by moments. A program that is no mixture has one component, and is fitted in
one step. Dempster, Laird and Rubin 1977.

    z ~ N(0, I),   x | z ~ N(mu + W z, diag(v))

Of these the E-step is the normal posterior of z, the M-step least squares on its moments; v is one number, as in probabilistic
principal components, or one for each coordinate, as in factor analysis. Rubin and Thayer 1982 (doi:10.1007/BF02293851).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from probgen.algorithm import Incompatible, Learner, positive
from probgen.engine.drawable import check_counted
from probgen.inference.likelihood import _linear, _mixture
from probgen.target import Learnable


class State(NamedTuple):
    """Constrained parameters by their labels, minus the mean log likelihood that they have."""

    parameters: Any
    loss: Any


class LinearState(NamedTuple):
    """Unconstrained parameters, the loss that they have, the rows' mean and their covariance about it."""

    parameters: Any
    loss: Any
    mean: Any
    covariance: Any


class LinearInfo(NamedTuple):
    """loss: minus the mean log likelihood of all rows before the step, in nats."""

    loss: Any
    converged: Any


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
    start: "kmeans": the clusters of k-means; "program": the program's initial parameters, as for linear programs in any case.
    smoothing: rows that are added to every component, with the statistics of all data, so that none collapses onto a point.
    Raises Incompatible where the program is neither a mixture of an exponential family nor linear and normal, or an argument is not
    a parameter; ValueError for a coordinate that is constant, whose likelihood has no maximum.
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
        check_counted(target, self.name)
        if target.hidden:
            return _linear_one(target)
        mixture = _mixture.found(target)
        if mixture.num_components > target.num_rows:
            raise ValueError(f"{mixture.num_components} components need as many rows; there are {target.num_rows}.")
        return target

    def init(self, key: Any, target: Any) -> State | LinearState:
        import jax
        import jax.numpy as jnp

        if form := _linear.known(target):
            mean, covariance = _linear.moments(target, form)
            parameters = target.initial(key) | ({form.mu: mean} if form.mu else {})  # where it stays
            if not target.starts:
                parameters = _linear.in_units(target, form, parameters, mean, covariance)
            return LinearState(parameters, jnp.full((), jnp.inf, target.precision), mean, covariance)
        k_parameters, k_start = jax.random.split(key)
        learned = target.structure.one.program
        parameters = learned.constrained(target.initial(k_parameters))
        if self.start == "kmeans" and not target.starts:
            mixture: Any = _mixture.known(target)
            parameters = _mixture.started(k_start, mixture, target, parameters, self.smoothing)
        return State(parameters, jnp.full((), jnp.inf, target.precision))

    def step(self, key: Any, state: Any, target: Any) -> tuple[Any, Any]:
        import jax.numpy as jnp

        if isinstance(state, LinearState):
            return self._linear_step(state, target)
        mixture: Any = _mixture.known(target)
        x = _mixture.rows_of(target)
        begun, units = state.parameters, _mixture.units_of(mixture, target, state.parameters)
        found = _mixture.shares(mixture, target, begun, units)
        parameters, counts, log_p = _mixture.maximised(mixture, target, begun, x, found, self.smoothing, units)
        loss = -log_p
        converged = jnp.abs(state.loss - loss) < self.tolerance
        return State(parameters, loss), Info(loss, counts.min(), converged)

    def _linear_step(self, state: LinearState, target: Any) -> tuple[LinearState, LinearInfo]:
        import jax.numpy as jnp

        form: Any = _linear.known(target)
        W, _, v = _linear.parts(target, form, state.parameters)
        W, v, loss = _linear.improved(W, v, state.covariance)
        v = v if state.parameters[form.noise].shape else jnp.full_like(v, v.mean())
        parameters = _linear.changed(target, form, state.parameters, W, state.mean, v)
        converged = jnp.abs(state.loss - loss) < self.tolerance
        return LinearState(parameters, loss, state.mean, state.covariance), LinearInfo(loss, converged)

    def answer(self, key: Any, state: State, target: Any) -> dict[str, Any]:
        if isinstance(state, LinearState):
            return dict(state.parameters)
        return target.structure.one.program.unconstrained(state.parameters)


def _linear_one(target: Any) -> Any:
    """The target without a guide, if the program is linear and normal and no coordinate is constant."""
    target = getattr(target, "plain", target)
    form = _linear.found(target)
    if form is None:
        raise Incompatible(
            "em of hidden sites needs z ~ N(0, I), x ~ N(mu + W z, diag(v)) with parameters W, v and perhaps mu.\n"
            "Write an assignment as one mixture distribution (MixtureSameFamily), or try inference='mle' or 'svi'."
        )
    spread = np.asarray(target.data[next(iter(target.keywords))], float).std(0)
    constant = [] if _linear.shared(target, form) else np.flatnonzero(~(spread > 0))
    if len(constant):
        raise ValueError(
            f"Coordinate {constant[0]} of {target.visible[0].name!r} is constant: leave it out, its noise would shrink to zero."
        )
    return target
