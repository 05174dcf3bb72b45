"""What follows from the joint log density f of a NumPyro program: conditionals, blocks, sweeps, sums over a block.

f is a function of the values of the program's sites. For units that do not interact given the rest, everything is exact
and derived from f by differentiation:

    bits     f is affine in each, so that logit p(x_i = 1 | rest) = df/dx_i
    reals    f is quadratic in each: x_i | rest is normal with precision -d2f/dx_i^2
    levels   by evaluation of f at every level, one unit after the other

Blocks of units that do not interact come from the sparsity of the Hessian of f: whole sites first, then the colours of a
site's own interaction graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probgen.target import Variable

Values = Mapping[str, Any]


Density = Callable[[Values], Any]


class Block(NamedTuple):
    """Units that are drawn at once: whole sites, or one colour of one site.

    colours: of a single site, an integer for every unit, flattened; None for whole sites.
    evaluated: whether f is evaluated at every value of each unit, because its derivatives do not give the conditionals.
    """

    sites: tuple[str, ...]
    colours: tuple[int, ...] | None = None
    evaluated: bool = False


class NotConditional(ValueError):
    """A site's units cannot be drawn given the rest from derivatives of the density."""


def join(variables: Sequence[Variable], values: Values) -> Any:
    """The values of all sites as one array: (dim,)."""
    return jnp.concatenate([jnp.reshape(values[v.name], -1) for v in variables])


def split(variables: Sequence[Variable], z: Any) -> dict[str, Any]:
    """The inverse of `join`, of arrays (..., dim)."""
    values, start = {}, 0
    for v in variables:
        values[v.name], start = z[..., start : start + v.size].reshape(*z.shape[:-1], *v.shape), start + v.size
    return values


def anywhere(key: Any, variables: Sequence[Variable], *batch: int) -> dict[str, Any]:
    """Values to start chains at, arrays (*batch, *event): uniform bits and levels, standard normal reals."""
    values = {}
    for i, v in enumerate(variables):
        k, shape = jax.random.fold_in(key, i), (*batch, *v.shape)
        drawn = jax.random.randint(k, shape, 0, v.levels) if v.levels else jax.random.normal(k, shape)
        values[v.name] = drawn.astype(jnp.result_type(float))
    return values


def slopes(f: Density, values: Values, sites: Sequence[str]) -> dict[str, Any]:
    """df/dx of some sites, each in the site's shape."""
    own = {k: values[k] for k in sites}
    return jax.grad(lambda x: f({**values, **x}))(own)


def curvatures(f: Density, values: Values, sites: Sequence[str], mask: Any = None) -> dict[str, Any]:
    """d2f/dx_i^2 of units that do not interact (those of `mask`): the Hessian times a vector of ones."""
    own = {k: values[k] for k in sites}
    ones = {k: jnp.ones_like(v) if mask is None else mask.astype(v.dtype) for k, v in own.items()}
    return jax.jvp(lambda x: slopes(f, {**values, **x}, sites), (own,), (ones,))[1]


def draw(
    key: Any, f: Density, values: Values, variables: Sequence[Variable], mask: Any = None, held: Values | None = None
) -> tuple[dict[str, Any], Any]:
    """New values of bits and reals that do not interact, given the rest, and f at them (of a whole block)."""
    own = {v.name: values[v.name] for v in variables}
    density, slope = jax.value_and_grad(lambda x: f({**values, **x}))(own)
    reals = [v.name for v in variables if v.kind == "reals"]
    curvature = curvatures(f, values, reals, mask) if reals else {}
    new = {}
    for i, v in enumerate(variables):
        k = jax.random.fold_in(key, i) if len(variables) > 1 else key
        x, g = values[v.name], slope[v.name]
        if v.kind == "bits":
            drawn = (jax.random.uniform(k, g.shape, g.dtype) < jax.nn.sigmoid(g)).astype(x.dtype)
        else:
            precision = -curvature[v.name] if mask is None else jnp.where(mask, -curvature[v.name], 1.0)
            drawn = x + g / precision + jax.random.normal(k, g.shape, g.dtype) / jnp.sqrt(precision)
        drawn = jnp.where(held[v.name], x, drawn) if held and v.name in held else drawn
        density = density + jnp.sum(g * (drawn - x))
        if v.kind == "reals":
            density = density + 0.5 * jnp.sum(curvature[v.name] * (drawn - x) ** 2)
        new[v.name] = drawn
    return new, density


def draw_unit(key: Any, f: Density, values: Values, variable: Variable, index: Any) -> Any:
    """A site's values with one unit drawn anew, by evaluating f at each of its levels."""
    flat = values[variable.name].reshape(-1)
    every = jnp.arange(variable.levels).astype(flat.dtype)
    tried = jax.vmap(lambda level: flat.at[index].set(level).reshape(variable.shape))(every)
    logits = jax.vmap(lambda x: f({**values, variable.name: x}))(tried)
    return flat.at[index].set(every[jax.random.categorical(key, logits)]).reshape(variable.shape)


def sweep(
    key: Any, f: Density, values: Values, variables: Mapping[str, Variable], blocks: Sequence[Block], held: Values
) -> tuple[dict[str, Any], Any]:
    """Every unknown drawn once given the rest, block after block, and f at the end.

    held: for some sites, booleans in their shape: units that keep their value.
    """
    values, density = dict(values), None
    for i, block in enumerate(blocks):
        k = jax.random.fold_in(key, i) if len(blocks) > 1 else key
        chosen = [variables[name] for name in block.sites]
        if block.colours is None:
            new, density = draw(k, f, values, chosen, held=held)
        else:
            (name,), density = block.sites, None
            new = {name: draw_by_colour(k, f, values, chosen[0], block.colours, held.get(name))}
        values |= new
    return values, f(values) if density is None else density


def draw_by_colour(
    key: Any, f: Density, values: Values, variable: Variable, colours: tuple[int, ...], held: Any = None,
    backward: bool = False,
) -> Any:  # fmt: skip
    """A site drawn colour after colour, its held units kept throughout."""

    def new(i: Any, mask: Any, x: Any) -> Any:
        k, now = jax.random.fold_in(key, i), {**values, variable.name: x}
        if mask is None:
            drawn = draw_unit(k, f, now, variable, i)
        else:
            drawn = draw(k, f, now, [variable], mask)[0][variable.name]
        return drawn if held is None else jnp.where(held, x, drawn)

    return by_colour(variable, colours, new, values[variable.name], backward)


def by_colour(
    variable: Variable, colours: tuple[int, ...], new: Callable[..., Any], x: Any, backward: bool = False
) -> Any:
    """A site's values x after one colour upon the other, in the opposite order if `backward`.

    new: `new(i, mask, x)` gives values for the units of colour i; mask is None where a colour is the one unit i with levels.
    """
    count = max(colours) + 1
    each = np.array(colours).reshape(variable.shape)
    single = variable.levels > 0 and (variable.kind == "levels" or count == variable.size)

    def one(i: Any, x: Any) -> Any:
        i = count - 1 - i if backward else i
        if single:
            return new(i, None, x)
        mask = jnp.asarray(each) == i
        return jnp.where(mask, new(i, mask, x), x)

    if count <= 4 and not single:
        return functools.reduce(lambda x, i: one(i, x), range(count), x)
    return jax.lax.fori_loop(0, count, one, x)


def collapsed(f: Density, values: Values, variables: Sequence[Variable]) -> Any:
    """log of the sum (of the integral) of exp f over sites whose units do not interact given the rest.

    f(0) + sum_i log(1 + exp df/dx_i) for bits; a normal integral for reals.
    """
    zero = {v.name: jnp.zeros(v.shape, jnp.result_type(float)) for v in variables}
    base, slope = jax.value_and_grad(lambda x: f({**values, **x}))(zero)
    reals = [v.name for v in variables if v.kind == "reals"]
    curvature = curvatures(f, {**values, **zero}, reals) if reals else {}
    for v in variables:
        if v.kind == "bits":
            base = base + jnp.sum(jax.nn.softplus(slope[v.name]))
        else:
            precision = -curvature[v.name]
            base = base + jnp.sum(slope[v.name] ** 2 / (2 * precision) + 0.5 * jnp.log(2 * jnp.pi / precision))
    return base


def integrated(f: Density, values: Values, variables: Sequence[Variable]) -> Any:
    """log of the integral of exp f over reals that are jointly normal given the rest, at once; see `jointly_normal`.

    f(0) + g' P^-1 g / 2 + (dim log 2 pi - log det P) / 2,   g the gradient of f at 0, P minus its Hessian
    """
    root, half = _root(f, values, variables)
    size = len(half)
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(root)))
    zero = split(variables, jnp.zeros(size, half.dtype))
    return f({**values, **zero}) + 0.5 * (half @ half + size * jnp.log(2 * jnp.pi) - log_det)


def _root(f: Density, values: Values, variables: Sequence[Variable]) -> tuple[Any, Any]:
    """The Cholesky factor L of P, and L^-1 g."""
    at = lambda z: f({**values, **split(variables, z)})  # noqa: E731
    zero = jnp.zeros(sum(v.size for v in variables), jnp.result_type(float))
    root = jnp.linalg.cholesky(-jax.hessian(at)(zero))
    return root, jax.scipy.linalg.solve_triangular(root, jax.grad(at)(zero), lower=True)


def means(f: Density, values: Values, variables: Sequence[Variable]) -> dict[str, Any]:
    """Conditional means of sites whose units do not interact given the rest."""
    zero = {v.name: jnp.zeros(v.shape, jnp.result_type(float)) for v in variables}
    slope = slopes(f, {**values, **zero}, list(zero))
    reals = [v.name for v in variables if v.kind == "reals"]
    curvature = curvatures(f, {**values, **zero}, reals) if reals else {}
    bits = {v.name: jax.nn.sigmoid(slope[v.name]) for v in variables if v.kind == "bits"}
    return bits | {k: -slope[k] / curvature[k] for k in reals}
