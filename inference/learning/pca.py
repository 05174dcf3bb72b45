"""Principal component analysis: the maximum likelihood of its probabilistic program, in closed form.

    z ~ N(0, I),   x | z ~ N(mu + W z, v I)
    mu: the mean of the rows,   v: the mean of their covariance's eigenvalues but the first q,   W = U (L - v I)^(1/2)

with U and L the first q eigenvectors and eigenvalues. Which parameters mu, W and v are is read off the program, whose gradient they
must explain; v may be any increasing or decreasing function of its parameter.
Tipping and Bishop 1999 (doi:10.1111/1467-9868.00196).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from probgen import runtime
from probgen.algorithm import Incompatible, Learner
from probgen.target import Learnable

FORM = "z ~ N(0, I), x ~ N(mu + W z, v I), with parameters W, v and perhaps mu"


class State(NamedTuple):
    """The parameters, unconstrained."""

    parameters: Any


class Info(NamedTuple):
    """loss: minus the mean log likelihood of the rows, in nats; explained: the share of their variance that W holds."""

    loss: Any
    explained: Any
    converged: Any


@dataclass(frozen=True, kw_only=True)
class PCA(Learner[Learnable]):
    """Probabilistic principal components in closed form: one step.

    Raises Incompatible where the program has another form, ValueError where the rows leave no noise.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    precision: ClassVar[str] = "float64"

    num_steps: int = 1

    def prepare(self, target: Any) -> Any:
        from probgen.inference.learning import _pca

        target = getattr(target, "plain", target)  # no guide is learned
        with runtime.jax_scope(target.precision):
            if not _pca.explained(target):
                raise Incompatible(f"The closed form is of programs {FORM}.\nTry inference='mle' or 'svi'.")
            (x, z), values = _pca.sites(target), _pca.spectrum(target)[0]
            if not values[z.size :].mean() > 1e-10 * values[0]:
                raise ValueError(
                    f"{z.size} components leave no noise: the rows of {x.name!r} have no variance beside them."
                )
            if not _pca.attainable(target):
                raise Incompatible(
                    "No value of the noise's parameter gives the variance that the rows leave; let it take any positive one."
                )
        return target

    def init(self, key: Any, target: Any) -> State:
        return State(target.initial(key))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax.numpy as jnp

        from probgen.inference.learning import _pca

        found, loss, explained = _pca.solution(target, state.parameters)
        return State(found), Info(loss, explained, jnp.bool_(True))

    def answer(self, key: Any, state: State, target: Any) -> dict[str, Any]:
        return dict(state.parameters)
