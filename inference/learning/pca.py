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

import jax
import jax.numpy as jnp

from probgen import runtime
from probgen.algorithm import Incompatible, Learner
from probgen.target import Learnable

FORM = "z ~ N(0, I), x ~ N(mu + W z, v I), with parameters W, v and perhaps mu"
REACH = 30.0  # of the parameter of v, unconstrained


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
        target = getattr(target, "plain", target)  # no guide is learned
        with runtime.jax_scope(target.precision):
            if not _explained(target):
                raise Incompatible(f"The closed form is of programs {FORM}.\nTry inference='mle' or 'svi'.")
            values, _, _ = _spectrum(target)
            x, z = _sites(target)
            if not values[z.size :].mean() > 1e-10 * values[0]:
                raise ValueError(
                    f"{z.size} components leave no noise: the rows of {x.name!r} have no variance beside them."
                )
        return target

    def init(self, key: Any, target: Any) -> State:
        return State(target.initial(key))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        (x, z), names = _sites(target), _names(target, state.parameters)
        values, vectors, mean = _spectrum(target)
        noise = values[z.size :].mean()
        W = vectors[:, : z.size] * jnp.sqrt(values[: z.size] - noise)
        found = {names.W: W if state.parameters[names.W].shape == W.shape else W.T}
        found |= {names.mu: mean} if names.mu else {}
        found[names.noise] = _solved(target, state.parameters, names.noise, noise)
        log_det = jnp.log(values[: z.size]).sum() + (x.size - z.size) * jnp.log(noise)
        loss = 0.5 * (x.size * jnp.log(2 * jnp.pi) + log_det + x.size)
        explained = 1 - x.size * noise / values.sum()
        return State(found), Info(loss, explained, jnp.bool_(True))

    def answer(self, key: Any, state: State, target: Any) -> dict[str, Any]:
        return dict(state.parameters)


class Names(NamedTuple):
    """Of the parameters; mu is "" where the mean is zero."""

    W: str
    mu: str
    noise: str


def _sites(target: Any) -> tuple[Any, Any]:
    return target.visible[0], target.hidden[0]


def _names(target: Any, parameters: Any) -> Names | None:
    """The parameters by their shapes; None where there are others."""
    if len(target.visible) != 1 or len(target.hidden) != 1 or target.inputs:
        return None
    x, z = _sites(target)
    if any(v.kind != "reals" or len(v.shape) != 1 for v in (x, z)) or not z.size < x.size:
        return None
    kinds = {(x.size, z.size): "W", (z.size, x.size): "W", x.shape: "mu", (): "noise"}
    found = {kinds.get(jnp.shape(v), k): k for k, v in parameters.items()}
    if len(found) != len(parameters) or not {"W", "noise"} <= set(found) <= {"W", "mu", "noise"}:
        return None
    return Names(found["W"], found.get("mu", ""), found["noise"])


def _explained(target: Any) -> bool:
    """Whether the gradient of f with respect to x and z is that of the form, at random points and parameters."""
    begun = target.initial(jax.random.key(0))
    names = _names(target, begun)
    if names is None or not target.proper:
        return False
    x, z = _sites(target)

    @jax.jit
    def misfit(key: Any) -> Any:
        keys = jax.random.split(key, len(begun) + 2)
        parameters = {k: jax.random.normal(i, v.shape, v.dtype) for (k, v), i in zip(begun.items(), keys, strict=False)}
        point = {x.name: jax.random.normal(keys[-2], x.shape), z.name: jax.random.normal(keys[-1], z.shape)}
        W = parameters[names.W]
        W = W if W.shape == (x.size, z.size) else W.T
        mu = parameters[names.mu] if names.mu else 0.0
        rest = (point[x.name] - mu - W @ point[z.name]) / _variance(target, parameters)
        slope = jax.grad(lambda p: target.joint(parameters, p))(point)
        apart = slope[x.name] + rest, slope[z.name] - W.T @ rest + point[z.name]
        return jnp.stack([jnp.abs(a).max() for a in apart]).max() / (1 + jnp.abs(rest).max())

    return all(float(misfit(key)) < 1e-6 for key in jax.random.split(jax.random.key(1), 3))  # not where it is NaN


def _variance(target: Any, parameters: Any) -> Any:
    """v: of the first coordinate of x given z, by the curvature of f."""
    x, z = _sites(target)
    along = lambda t: target.joint(parameters, {x.name: jnp.zeros(x.shape).at[0].set(t), z.name: jnp.zeros(z.shape)})  # noqa: E731
    return -1 / jax.grad(jax.grad(along))(0.0)


def _solved(target: Any, parameters: Any, name: str, noise: Any) -> Any:
    """The unconstrained parameter at which v is the noise, by bisection."""
    v = lambda u: _variance(target, {**parameters, name: u})  # noqa: E731
    sign = jnp.where(v(jnp.ones(())) > v(-jnp.ones(())), 1.0, -1.0)

    def halved(_: Any, ends: Any) -> Any:
        low, high = ends
        middle = 0.5 * (low + high)
        below = sign * (v(middle) - noise) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, 100, halved, (-REACH * jnp.ones(()), REACH * jnp.ones(())))
    return 0.5 * (low + high)


def _spectrum(target: Any) -> tuple[Any, Any, Any]:
    """Eigenvalues of the rows' covariance, the largest first, its eigenvectors as columns, and the mean that it is about."""
    rows = target.rows(jnp.arange(target.num_rows))[_sites(target)[0].name]
    known = _names(target, target.initial(jax.random.key(0)))
    mean = rows.mean(0) if known is not None and known.mu else jnp.zeros(rows.shape[1], rows.dtype)
    values, vectors = jnp.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    return values[::-1], vectors[:, ::-1], mean
