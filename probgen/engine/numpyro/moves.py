"""What moves the draws of a program, read off its traced code: parameters, by values and by gradients, and noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

NOISE = (2, "")
Causes = frozenset[tuple[int, str]]


class Moves(NamedTuple):
    """sites: NumPyro's messages of what is sampled, by name; moving: those whose distributions depend on parameters.

    Of visible sites, random: those whose values depend on noise; values: the parameters that the value depends on; slopes: those
    in which its gradient is not zero everywhere.
    """

    sites: Mapping[str, Any]
    moving: frozenset[str]
    random: frozenset[str]
    values: Mapping[str, frozenset[str]]
    slopes: Mapping[str, frozenset[str]]


def of_program(target: Any, traced: Callable[..., Mapping[str, Any]]) -> Moves:
    """By an abstract run of one row: nothing is computed. traced: (target, key, parameters, row, given) -> messages by name."""
    sites: dict[str, Any] = {}
    names = sorted(v.name for v in target.visible)

    def run(parameters: Any, row: Any, key: Any) -> Any:
        found = traced(target, key, parameters, row, {})
        sites.update({k: s for k, s in found.items() if s["type"] == "sample"})
        values = {k: jnp.asarray(found[k]["value"]) for k in names}  # an unobserved Delta is "deterministic"
        reals = {k: v for k, v in values.items() if jnp.issubdtype(v.dtype, jnp.inexact)}
        return reals, ({k: jax.tree.leaves(s["fn"]) for k, s in sites.items()}, values)

    def both(parameters: Any, directions: Any, row: Any, key: Any) -> Any:
        _, slopes, others = jax.jvp(lambda p: run(p, row, key), (parameters,), (directions,), has_aux=True)
        return slopes, *others

    parameters = jax.eval_shape(target.initial, jax.random.key(0))
    row = jax.eval_shape(lambda: jax.tree.map(lambda x: x[0], target.rows(jnp.arange(1))))
    jaxpr, shapes = jax.make_jaxpr(both, return_shape=True)(parameters, parameters, row, jax.random.key(0))
    labels = sorted(parameters)
    ends = [frozenset([(turn, k)]) for turn in (0, 1) for k in labels]
    ends += [frozenset()] * len(jax.tree.leaves(row)) + [frozenset([NOISE])]
    outs = jax.tree.unflatten(jax.tree.structure(shapes), causes(jaxpr.jaxpr, ends))
    slopes, leaves, values = outs
    of = lambda found, turn: {k: frozenset(n for t, n in found.get(k, ()) if t == turn) for k in names}  # noqa: E731
    moving = frozenset(k for k, found in leaves.items() if any(t == 0 for cause in found for t, _ in cause))
    random = frozenset(k for k in names if NOISE in values[k])
    return Moves(sites, moving, random, of(values, 0), of(slopes, 1))


def causes(jaxpr: Any, ends: list[Causes]) -> list[Causes]:
    """What each result depends on, given what each argument does."""
    known = dict(zip(map(id, jaxpr.invars), ends, strict=True))
    of = lambda v: known.get(id(v), frozenset())  # noqa: E731
    for equation in jaxpr.eqns:
        given = [of(v) for v in equation.invars]
        if equation.primitive.name in ("jit", "pjit"):
            found = causes(equation.params["jaxpr"].jaxpr, given)
        else:
            found = [frozenset().union(*given)] * len(equation.outvars)
        known |= dict(zip(map(id, equation.outvars), found, strict=True))
    return [of(v) for v in jaxpr.outvars]


def heeded(function: Callable[[Any], Mapping[str, Any]], values: Mapping[str, Any]) -> set[str]:
    """Which of the values by name another name's result depends on, by an abstract run."""
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(values)
    found = causes(jaxpr.jaxpr, [frozenset([(0, k)]) for k in sorted(values)])
    results = jax.tree.unflatten(jax.tree.structure(shapes), found)
    return {k for name, leaves in results.items() for cause in leaves for _, k in cause if k != name}
