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
from probgen.engine.drawable import check_counted
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
        from probgen.inference.likelihood import _linear

        check_counted(target, self.name)
        target = getattr(target, "plain", target)  # no guide is learned
        form = _linear.found(target)
        with runtime.jax_scope(target.precision):
            if form is None or not _linear.shared(target, form) or target.hidden[0].size >= target.visible[0].size:
                raise Incompatible(f"The closed form is of programs {FORM}.\nTry inference='em', 'mle' or 'svi'.")
            values, _, _ = _spectrum(target, form)
            num, noise = target.hidden[0].size, values[target.hidden[0].size :].mean()
            if not noise > 1e-10 * values[0]:
                raise ValueError(
                    f"{num} components leave no noise: the rows of {target.visible[0].name!r} have no variance beside them."
                )
            if not _linear.attainable(target, form, noise.repeat(len(values))):
                raise Incompatible(
                    "No value of the noise's parameter gives the variance that the rows leave; let it take any positive one."
                )
        return target

    def init(self, key: Any, target: Any) -> State:
        return State(target.initial(key))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax.numpy as jnp

        from probgen.inference.likelihood import _linear

        form = _linear.known(target)
        assert form is not None
        values, vectors, mean = _spectrum(target, form)
        num, dim = target.hidden[0].size, len(values)
        noise = values[num:].mean()
        W = vectors[:, :num] * jnp.sqrt(values[:num] - noise)
        parameters = _linear.changed(target, form, state.parameters, W, mean, noise.repeat(dim))
        log_det = jnp.log(values[:num]).sum() + (dim - num) * jnp.log(noise)
        loss = 0.5 * (dim * jnp.log(2 * jnp.pi) + log_det + dim)
        return State(parameters), Info(loss, 1 - dim * noise / values.sum(), jnp.bool_(True))

    def answer(self, key: Any, state: State, target: Any) -> dict[str, Any]:
        return dict(state.parameters)


def _spectrum(target: Any, form: Any) -> tuple[Any, Any, Any]:
    """Eigenvalues of the rows' covariance, the largest first, its eigenvectors as columns, and the mean that it is about."""
    import jax.numpy as jnp

    from probgen.inference.likelihood import _linear

    mean, covariance = _linear.moments(target, form)
    values, vectors = jnp.linalg.eigh(covariance)
    return values[::-1], vectors[:, ::-1], mean
