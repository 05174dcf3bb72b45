"""Linear programs with normal causes and normal noise: which parameter is which, and how their likelihood is raised.

    z ~ N(0, I),   x | z ~ N(mu + W z, diag(v)),   so that   x ~ N(mu, W W' + diag(v))

What the parameters are is read off the program, whose gradient they must explain; v is one number for all coordinates or one
for each, and any increasing or decreasing function of its parameter.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from probgen import runtime

REACH = 30.0  # of the parameter of v, unconstrained


class Linear(NamedTuple):
    """Names of the parameters; mu is "" where the mean is zero."""

    W: str
    mu: str
    noise: str


def found(target: Any) -> Linear | None:
    """The form of a learnable program, found before anything compiles; None for another program."""
    if target.structure not in _FOUND:
        with runtime.jax_scope(target.precision):
            begun = target.initial(jax.random.key(0))
            fitting = (c for c in _candidates(target, begun) if target.proper and _explained(target, c, begun))
            _FOUND[target.structure] = next(fitting, None)
    return _FOUND[target.structure]


def known(target: Any) -> Linear | None:
    """What was found before, for compiled code."""
    return _FOUND.get(target.structure)


_FOUND: weakref.WeakKeyDictionary[Any, Linear | None] = weakref.WeakKeyDictionary()  # by the structure of the target


def _candidates(target: Any, parameters: Any) -> list[Linear]:
    """The parameters by their shapes; in two orders, where mean and noise have the same."""
    if len(target.visible) != 1 or len(target.hidden) != 1 or target.inputs:
        return []
    (x,), (z,) = target.visible, target.hidden
    if any(v.kind != "reals" or len(v.shape) != 1 for v in (x, z)):
        return []
    shapes = {k: jnp.shape(v) for k, v in parameters.items()}
    W = [k for k, shape in shapes.items() if shape in ((x.size, z.size), (z.size, x.size))]
    numbers = [k for k, shape in shapes.items() if shape == ()]
    vectors = [k for k, shape in shapes.items() if shape == x.shape]
    if len(W) != 1 or len(shapes) != 1 + len(numbers) + len(vectors):
        return []
    if len(numbers) == 1 and len(vectors) < 2:
        return [Linear(W[0], vectors[0] if vectors else "", numbers[0])]
    if not numbers and len(vectors) == 1:
        return [Linear(W[0], "", vectors[0])]
    if not numbers and len(vectors) == 2:
        return [Linear(W[0], mu, noise) for mu, noise in (vectors, vectors[::-1])]
    return []


def _explained(target: Any, form: Linear, begun: Any) -> bool:
    """Whether the gradient of log p with respect to x and z is that of the form, at random points and parameters."""
    (x,), (z,) = target.visible, target.hidden

    @jax.jit
    def misfit(key: Any) -> Any:
        keys = jax.random.split(key, len(begun) + 2)
        parameters = {k: jax.random.normal(i, v.shape, v.dtype) for (k, v), i in zip(begun.items(), keys, strict=False)}
        point = {x.name: jax.random.normal(keys[-2], x.shape), z.name: jax.random.normal(keys[-1], z.shape)}
        W, mu, v = parts(target, form, parameters)
        rest = (point[x.name] - mu - W @ point[z.name]) / v
        slope = jax.grad(lambda p: target.joint(parameters, p))(point)
        apart = slope[x.name] + rest, slope[z.name] - W.T @ rest + point[z.name]
        return jnp.stack([jnp.abs(a).max() for a in apart]).max() / (1 + jnp.abs(rest).max())

    return all(float(misfit(key)) < 1e-6 for key in jax.random.split(jax.random.key(1), 3))  # not where it is NaN


def shared(target: Any, form: Linear) -> bool:
    """Whether all coordinates have one noise."""
    with runtime.jax_scope(target.precision):
        return target.first_shapes()[form.noise].shape == ()


def parts(target: Any, form: Linear, parameters: Any) -> tuple[Any, Any, Any]:
    """W (coordinate, cause), mu (coordinate,), v (coordinate,) at unconstrained parameters."""
    dim, W = target.visible[0].size, parameters[form.W]
    mu = parameters[form.mu] if form.mu else jnp.zeros(dim)
    return W if W.shape[0] == dim else W.T, mu, _variance(target, form, parameters)


def changed(target: Any, form: Linear, parameters: Any, W: Any, mu: Any, v: Any) -> dict[str, Any]:
    """The unconstrained parameters at which the parts are these."""
    new = {form.W: W if parameters[form.W].shape == W.shape else W.T}
    new |= {form.mu: mu} if form.mu else {}
    return new | {form.noise: _solved(target, form, parameters, v)}


def moments(target: Any, form: Linear) -> tuple[Any, Any]:
    """The rows' mean, zero where the program's is, and their covariance about it."""
    rows = target.rows(jnp.arange(target.num_rows))[target.visible[0].name]
    mean = rows.mean(0) if form.mu else jnp.zeros(rows.shape[1], rows.dtype)
    return mean, (rows - mean).T @ (rows - mean) / len(rows)


def in_units(target: Any, form: Linear, parameters: Any, mean: Any, covariance: Any) -> dict[str, Any]:
    """Parameters that are to the rows what the program's own are to rows with unit variances: W in units of the rows' sds, v too.

    From a W that is small beside the rows a step gains next to nothing, and expectation maximisation would stop where it began.
    """
    W, _, _ = parts(target, form, parameters)
    variance = jnp.diag(covariance)
    variance = jnp.where(variance > 0, variance, variance.mean())
    if parameters[form.noise].shape == ():
        variance = jnp.full_like(variance, variance.mean())
    return changed(target, form, parameters, W * jnp.sqrt(variance)[:, None], mean, variance)


def improved(W: Any, v: Any, covariance: Any) -> tuple[Any, Any, Any]:
    """A step of expectation maximisation: the next W and v; minus the mean log likelihood of rows before it, in nats.

    With z | x of mean B (x - mu), B = G W' diag(1/v), and covariance G = (I + W' diag(1/v) W)^-1. Rubin and Thayer 1982.
    """
    scaled, trace = W / v[:, None], jnp.diag(covariance)
    precision = jnp.eye(W.shape[1]) + W.T @ scaled
    G = jnp.linalg.inv(precision)
    B = G @ scaled.T
    xz = covariance @ B.T
    zz = G + B @ xz
    new = jnp.linalg.solve(zz, xz.T).T
    log_det = jnp.log(v).sum() + jnp.linalg.slogdet(precision)[1]
    loss = 0.5 * (len(v) * jnp.log(2 * jnp.pi) + log_det + (trace / v).sum() - (scaled * xz).sum())
    return new, trace - (new * xz).sum(1), loss


# ---- the variance of the noise, a function of its parameter that only the program knows


def _variance(target: Any, form: Linear, parameters: Any) -> Any:
    """v: (coordinate,), by the curvature of log p in x."""
    (x,), (z,) = target.visible, target.hidden
    slope = lambda at: jax.grad(lambda p: target.joint(parameters, {x.name: p, z.name: jnp.zeros(z.shape)}))(at)  # noqa: E731
    return -1 / jax.jvp(slope, (jnp.zeros(x.shape),), (jnp.ones(x.shape),))[1]


def attainable(target: Any, form: Linear, v: Any) -> bool:
    """Whether a value of its parameter gives the noise v."""
    begun = target.initial(jax.random.key(0))
    at = jax.jit(lambda v: _variance(target, form, {**begun, form.noise: _solved(target, form, begun, v)}))
    return bool(jnp.allclose(at(v), v, rtol=1e-6))


def _solved(target: Any, form: Linear, parameters: Any, v: Any) -> Any:
    """The unconstrained parameter at which the noise is v, by bisection."""
    shape = parameters[form.noise].shape
    wanted = v if shape else v[0]

    def of(u: Any) -> Any:
        variance = _variance(target, form, {**parameters, form.noise: u})
        return variance if shape else variance[0]

    ones = jnp.ones(shape)
    sign = jnp.where(of(ones) >= of(-ones), 1.0, -1.0)  # of an even v the positive side

    def halved(_: Any, ends: Any) -> Any:
        low, high = ends
        middle = 0.5 * (low + high)
        below = sign * (of(middle) - wanted) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, 100, halved, (-REACH * ones, REACH * ones))
    return 0.5 * (low + high)
