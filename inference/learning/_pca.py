"""Which parameters of a program are those of probabilistic principal components, and where its likelihood is largest."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

REACH = 30.0  # of the parameter of v, unconstrained


class Names(NamedTuple):
    """Of the parameters; mu is "" where the mean is zero."""

    W: str
    mu: str
    noise: str


def sites(target: Any) -> tuple[Any, Any]:
    """What is visible, and what is hidden."""
    return target.visible[0], target.hidden[0]


def _names(target: Any, parameters: Any) -> Names | None:
    """The parameters by their shapes; None where there are others."""
    if len(target.visible) != 1 or len(target.hidden) != 1 or target.inputs:
        return None
    x, z = sites(target)
    if any(v.kind != "reals" or len(v.shape) != 1 for v in (x, z)) or not z.size < x.size:
        return None
    kinds = {(x.size, z.size): "W", (z.size, x.size): "W", x.shape: "mu", (): "noise"}
    found = {kinds.get(jnp.shape(v), k): k for k, v in parameters.items()}
    if len(found) != len(parameters) or not {"W", "noise"} <= set(found) <= {"W", "mu", "noise"}:
        return None
    return Names(found["W"], found.get("mu", ""), found["noise"])


def explained(target: Any) -> bool:
    """Whether the gradient of f with respect to x and z is that of the form, at random points and parameters."""
    begun = target.initial(jax.random.key(0))
    names = _names(target, begun)
    if names is None or not target.proper:
        return False
    x, z = sites(target)

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


def solution(target: Any, parameters: Any) -> tuple[dict[str, Any], Any, Any]:
    """The parameters at the maximum, unconstrained, minus the mean log likelihood there, and the share of variance that W holds."""
    (x, z), names = sites(target), _names(target, parameters)
    assert names is not None
    values, vectors, mean = spectrum(target)
    noise = values[z.size :].mean()
    W = vectors[:, : z.size] * jnp.sqrt(values[: z.size] - noise)
    found = {names.W: W if parameters[names.W].shape == W.shape else W.T}
    found |= {names.mu: mean} if names.mu else {}
    found[names.noise] = _solved(target, parameters, names.noise, noise)
    log_det = jnp.log(values[: z.size]).sum() + (x.size - z.size) * jnp.log(noise)
    loss = 0.5 * (x.size * jnp.log(2 * jnp.pi) + log_det + x.size)
    return found, loss, 1 - x.size * noise / values.sum()


def _variance(target: Any, parameters: Any) -> Any:
    """v: of the first coordinate of x given z, by the curvature of f."""
    x, z = sites(target)
    along = lambda t: target.joint(parameters, {x.name: jnp.zeros(x.shape).at[0].set(t), z.name: jnp.zeros(z.shape)})  # noqa: E731
    return -1 / jax.grad(jax.grad(along))(0.0)


def attainable(target: Any) -> bool:
    """Whether a value of its parameter gives the noise that the rows leave."""
    begun = target.initial(jax.random.key(0))
    names, noise = _names(target, begun), spectrum(target)[0][sites(target)[1].size :].mean()
    assert names is not None
    solved = jax.jit(lambda v: _variance(target, {**begun, names.noise: _solved(target, begun, names.noise, v)}))
    return bool(jnp.allclose(solved(noise), noise, rtol=1e-6))


def _solved(target: Any, parameters: Any, name: str, noise: Any) -> Any:
    """The unconstrained parameter at which v is the noise, by bisection."""
    v = lambda u: _variance(target, {**parameters, name: u})  # noqa: E731
    sign = jnp.where(v(jnp.ones(())) >= v(-jnp.ones(())), 1.0, -1.0)  # of an even v the positive side

    def halved(_: Any, ends: Any) -> Any:
        low, high = ends
        middle = 0.5 * (low + high)
        below = sign * (v(middle) - noise) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, 100, halved, (-REACH * jnp.ones(()), REACH * jnp.ones(())))
    return 0.5 * (low + high)


def spectrum(target: Any) -> tuple[Any, Any, Any]:
    """Eigenvalues of the rows' covariance, the largest first, its eigenvectors as columns, and the mean that it is about."""
    rows = target.rows(jnp.arange(target.num_rows))[sites(target)[0].name]
    known = _names(target, target.initial(jax.random.key(0)))
    mean = rows.mean(0) if known is not None and known.mu else jnp.zeros(rows.shape[1], rows.dtype)
    values, vectors = jnp.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    return values[::-1], vectors[:, ::-1], mean
