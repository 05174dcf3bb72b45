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


# ---- conditionals ------------------------------------------------------------------------------------------------


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


# ---- sums over a block -------------------------------------------------------------------------------------------


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


# ---- blocks ------------------------------------------------------------------------------------------------------

PROBES = 3
AT_ONCE = 256  # rows of a Hessian


def _zero() -> float:
    """What a derivative by automatic differentiation may be for rounding, relative to others, in this thread's precision."""
    return 1e-9 if jnp.result_type(float) == jnp.float64 else 1e-5


Joint = Callable[[Any, Values], Any]  # f of data and values; equal joints share compiled code


def find_blocks(
    joint: Joint,
    data: Any,
    variables: tuple[Variable, ...],
    groups: Sequence[Sequence[str]] = (),
    evaluate: bool = False,
) -> tuple[Block, ...]:
    """Blocks of units that do not interact, by the Hessian of f at random points.

    groups: sites to be drawn at once, where the user says so. evaluate: whether finite sites that the derivatives of f do not
    describe are taken unit by unit. Raises NotConditional for such a site otherwise, naming it.
    """
    other = [v.name for v in variables if v.kind == "other"]
    if other:
        raise NotConditional(f"Site {other[0]!r} is neither bits, levels nor unbounded reals.\nUse inference='nuts'.")
    smooth = tuple(v for v in variables if v.kind != "levels")
    if evaluate:
        smooth = tuple(v for v in smooth if not v.levels or _affine(joint, data, variables, v))
    check_conditional(joint, data, variables, smooth)
    found = smooth_blocks(joint, data, variables, smooth, groups)
    return (*found, *(Block((v.name,), tuple(range(v.size)), True) for v in variables if v not in smooth))


def smooth_blocks(
    joint: Joint, data: Any, variables: tuple[Variable, ...], smooth: Sequence[Variable], groups: Any = ()
) -> list[Block]:
    """Blocks of the sites whose conditionals follow from derivatives of f."""
    interacts = _interactions(joint, data, variables, smooth)
    whole = [v.name for v in smooth if (v.name, v.name) not in interacts]
    chosen = _named_groups(groups, whole, interacts)
    fixed = len(chosen)
    for name in (n for n in whole if not any(n in group for group in chosen)):
        free = [i for i in range(fixed, len(chosen)) if not any((name, other) in interacts for other in chosen[i])]
        if free:
            chosen[free[0]] = (*chosen[free[0]], name)
        else:
            chosen.append((name,))
    found = [Block(group) for group in chosen]
    return found + [Block((v.name,), _colours(joint, data, variables, v)) for v in smooth if v.name not in whole]


def _affine(joint: Joint, data: Any, variables: Sequence[Variable], v: Variable) -> bool:
    try:
        check_conditional(joint, data, variables, [v])
    except NotConditional:
        return False
    return True


def _named_groups(groups: Any, whole: Sequence[str], interacts: set[tuple[str, str]]) -> list[tuple[str, ...]]:
    """The user's groups; NotConditional where sites of one interact."""
    for group in groups:
        for a in group:
            clash = next((b for b in group if (a, b) in interacts), None if a in whole else a)
            if clash is not None:
                raise NotConditional(
                    f"Sites {a!r} and {clash!r} of one block interact; leave `blocks` out to have them found."
                )
    return [tuple(group) for group in groups]


def random_points(variables: Sequence[Variable], seed: int, corners: bool = False) -> dict[str, Any]:
    """Values of all sites: inside of the unit cube, or at its corners."""
    rng, values = np.random.default_rng(seed), {}
    for v in variables:
        if v.kind == "levels":
            values[v.name] = jnp.asarray(rng.integers(0, v.levels, v.shape).astype(float))
        elif v.kind == "bits":
            values[v.name] = jnp.asarray(rng.integers(0, 2, v.shape).astype(float) if corners else rng.random(v.shape))
        else:
            values[v.name] = jnp.asarray(rng.normal(size=v.shape))
    return values


@functools.partial(jax.jit, static_argnums=(0, 1))
def _column(joint: Joint, names: tuple[str, ...], data: Any, values: Values, direction: Values) -> dict[str, Any]:
    """The Hessian of f in some sites, times a direction."""
    own = {k: values[k] for k in names}
    f = functools.partial(joint, data)
    return jax.jvp(lambda x: slopes(f, {**values, **x}, names), (own,), (direction,))[1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _hessian(joint: Joint, v: Variable, data: Any, values: Values, units: Any) -> Any:
    """Rows of the Hessian of f in one site: (row, unit)."""
    slope = jax.grad(lambda x: joint(data, {**values, v.name: x.reshape(v.shape)}))
    x = values[v.name].ravel()
    one = lambda i: jax.jvp(slope, (x,), (jnp.zeros_like(x).at[i].set(1.0),))[1]  # noqa: E731
    return jax.vmap(one)(units)


def _interactions(
    joint: Joint, data: Any, variables: Sequence[Variable], smooth: Sequence[Variable]
) -> set[tuple[str, str]]:
    """Pairs of sites with an entry of the Hessian between them that is not zero, its diagonal left out for reals."""
    names = tuple(v.name for v in smooth)
    found = set()
    for probe in range(PROBES):
        values, rng = random_points(variables, probe), np.random.default_rng(100 + probe)
        none = {n.name: jnp.zeros(n.shape) for n in smooth}
        for v in smooth:
            # Of a diagonal, two random directions give proportional products; of anything else, they do not.
            one, two = (jnp.asarray(rng.uniform(0.5, 1.5, v.shape) * rng.choice([-1, 1], v.shape)) for _ in range(2))
            first = _column(joint, names, data, values, {**none, v.name: one})
            scale = max(float(jnp.max(jnp.abs(x), initial=0.0)) for x in first.values()) + 1.0
            for name in names:
                x = first[name]
                if name == v.name and v.kind == "reals":
                    x = x / one - _column(joint, names, data, values, {**none, v.name: two})[name] / two
                if float(jnp.max(jnp.abs(x), initial=0.0)) > _zero() * scale:
                    found |= {(v.name, name), (name, v.name)}
    return found


def _colours(joint: Joint, data: Any, variables: Sequence[Variable], v: Variable) -> tuple[int, ...]:
    """A greedy colouring of one site's own interaction graph."""
    neighbours: list[set[int]] = [set() for _ in range(v.size)]
    for probe in range(PROBES):
        for unit, other in _edges(joint, data, random_points(variables, probe), v):
            neighbours[unit].add(other)
            neighbours[other].add(unit)
    colours = [-1] * v.size
    for unit, others in enumerate(neighbours):
        taken = {colours[other] for other in others}
        colours[unit] = next(c for c in range(v.size) if c not in taken)
    return tuple(colours)


def _edges(joint: Joint, data: Any, values: Values, v: Variable) -> list[list[int]]:
    """Pairs of units of a site with an entry of the Hessian at a point that is not zero; never all entries at once."""
    pairs, sizes = [], []
    for start in range(0, v.size, AT_ONCE):
        units = np.minimum(np.arange(start, start + AT_ONCE), v.size - 1)
        found = np.abs(np.asarray(_hessian(joint, v, data, values, units)))[: v.size - start]
        one, other = np.nonzero(found > _zero() * (1 + found.max()))
        pairs.append(np.stack([one + start, other], axis=1))
        sizes.append(found[one, other])
    joined, size = np.concatenate(pairs), np.concatenate(sizes)
    kept = (size > _zero() * (1 + size.max(initial=0.0))) & (joined[:, 0] != joined[:, 1])
    return joined[kept].tolist()  # type: ignore[no-any-return]


def jointly_normal(joint: Joint, data: Any, variables: Sequence[Variable], some: Sequence[Variable]) -> bool:
    """Whether some real sites are jointly normal given the rest: f is quadratic in them, with a maximum."""
    if not some or any(v.kind != "reals" for v in some):
        return False
    for probe in range(PROBES):
        values = random_points(variables, probe, corners=True)
        direction = {v.name: random_points(variables, probe + PROBES)[v.name] for v in some}
        bend, bar, definite = _bend(joint, tuple(some), data, values, direction)
        if not (float(bend) < float(bar) and bool(definite)):
            return False
    return True


@functools.partial(jax.jit, static_argnums=(0, 1))
def _bend(
    joint: Joint, some: tuple[Variable, ...], data: Any, values: Values, direction: Values
) -> tuple[Any, Any, Any]:
    """The third derivative of f along a direction, what rounding may make of it, and whether minus the Hessian is definite."""
    g = lambda t: joint(data, {**values, **{k: values[k] + t * d for k, d in direction.items()}})  # noqa: E731
    slope, curvature, bend = jax.grad(g), jax.grad(jax.grad(g)), jax.grad(jax.grad(jax.grad(g)))
    root, _ = _root(lambda x: joint(data, x), values, some)
    bar = _zero() * (1 + jnp.abs(slope(0.0)) + jnp.abs(curvature(0.0)))
    return jnp.maximum(jnp.abs(bend(0.0)), jnp.abs(bend(1.7))), bar, jnp.all(jnp.isfinite(root))


def check_conditional(joint: Joint, data: Any, variables: Sequence[Variable], smooth: Sequence[Variable]) -> None:
    """Raise NotConditional where f is not affine in a bit of `smooth`, or not quadratic with a maximum in a real number."""
    for v in smooth:
        units = np.random.default_rng(0).permutation(v.size)[:256]
        for probe in range(PROBES):
            misfit, curvature = _misfit(joint, v, data, units, random_points(variables, probe, corners=True))
            if v.kind == "reals" and not bool((curvature < 0).all()):
                raise NotConditional(
                    f"Site {v.name!r} has no normal conditional: the log density does not fall off quadratically in it.\n"
                    "Use inference='random_walk' or 'mala'."
                )
            worst = int(jnp.argmax(misfit))
            if not float(misfit[worst]) < 1:
                index = np.unravel_index(units[worst], v.shape)
                label = f"{v.name}[{', '.join(map(str, index))}]" if v.shape else v.name
                kind = "affine in the bit" if v.kind == "bits" else "quadratic in"
                other = "conditionals='evaluation'" if v.kind == "bits" else "inference='random_walk' or 'mala'"
                raise NotConditional(f"The log density is not {kind} {label}, site {v.name!r}.\nUse {other}.")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _misfit(joint: Joint, v: Variable, data: Any, units: Any, values: Values) -> tuple[Any, Any]:
    """For some units: how far f is from affine (quadratic), in units of what rounding may do; d2f/dx_i^2.

    By the next higher derivative, which smooth terms cannot hide from, and by f at another value, for kinks.
    """
    flat = values[v.name].ravel()
    eps = jnp.finfo(flat.dtype).eps

    def at(i: Any) -> tuple[Any, Any]:
        g = lambda t: joint(data, {**values, v.name: flat.at[i].set(t).reshape(v.shape)})  # noqa: E731
        here, there = flat[i], 1 - flat[i] if v.kind == "bits" else flat[i] + 1.7
        step, slope, curvature = there - here, jax.grad(g)(here), jax.grad(jax.grad(g))(here)
        bend = jax.grad(jax.grad(jax.grad(g)))(here) if v.kind == "reals" else curvature
        said = slope * step + (0.5 * curvature * step**2 if v.kind == "reals" else 0.0)
        real = g(there) - g(here)
        rounding = jnp.sqrt(eps) * (jnp.abs(real) + jnp.abs(said)) + 100 * eps * (1 + jnp.abs(g(here)))
        kink = jnp.abs(real - said) / rounding
        return jnp.maximum(kink, jnp.abs(bend) / (_zero() * (1 + jnp.abs(slope) + jnp.abs(curvature)))), curvature

    return jax.lax.map(at, jnp.asarray(units), batch_size=32)
