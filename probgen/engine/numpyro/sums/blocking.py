"""Which units of a density can be drawn at once: blocks, found by probing its derivatives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen.engine.numpyro.sums.energy import Block, NotConditional, Values, _root, slopes
from probgen.target import Variable

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
    return joined[kept].tolist()


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
