"""Numbers of a program as arguments of its compiled code, so that who edits one compiles nothing anew.

    numpyro.sample("b", dist.Normal(0, 2.5))        # 2.5 and 3 have one density, of a number that is given

A trace says a program's numbers as literals, and what it closes over as constants. Both are handed in beside the data, and what
follows from numbers and data alone is worked out once, before the loops of a run. What makes code shorter stays in it: zeros,
exponents, what is not finite, integers, and the powers of two where they meet an unknown, for formulas are full of them. Numbers
within a loop or a branch of the program's own stay, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, Var, jaxpr_as_fun

from probgen import runtime

NUMBERS, CLOSED = " numbers", " closed"  # of the arrays made here
SPREAD = {"neg", "broadcast_in_dim", "convert_element_type", "reshape"}  # which begin a gradient, of 1 or -1
MANY = 2**16  # entries up to which an array that follows from the data is kept through a run


@dataclass(frozen=True)
class Open:
    """A function of arrays and a point in two: what follows from the arrays, and the rest; equal to another where its text is."""

    text: str  # lowered
    first: Callable[[Any], Any] = field(compare=False)  # of the arrays, numbers among them
    rest: Callable[[Any, Any, Any], Any] = field(compare=False)  # of the arrays, of what came first, and of a point
    both: Callable[[Any, Any], Any] = field(compare=False)  # compiled, for what runs once


Shapes = tuple[tuple[str, tuple[int, ...], Any], ...]  # of named arrays, and their types


def shapes_of(arrays: Mapping[str, Any]) -> Shapes:
    """What a trace sees of arrays, as a key."""
    return tuple((k, jnp.shape(v), jnp.result_type(v)) for k, v in sorted(arrays.items()))


def opened(
    fn: Callable[[Any, Any], Any], shapes: Shapes, point: Any, precision: str, options: Mapping[str, Any] = runtime.ONCE
) -> tuple[Open, dict[str, Any]] | None:
    """`fn(arrays, point)` with its numbers left open, and these as arrays beside the others; None where it calls Python.

    shapes: of the arrays; point: the shape of one array; options: the compiler's for `both`. Raises whatever a trace of fn raises.
    """
    arrays = {k: jax.ShapeDtypeStruct(*rest) for k, *rest in shapes}
    traced, tree = jax.make_jaxpr(fn, return_shape=True)(arrays, point)
    if traced.effects:
        return None
    shape = jax.tree.structure(tree)
    early, late, values = _split(traced.jaxpr, precision)
    found = {NUMBERS: np.array(values, precision), CLOSED: tuple(traced.consts)}

    def given(arrays: Any) -> list[Any]:
        return jax.tree.leaves({k: v for k, v in arrays.items() if k not in found})

    def first(arrays: Any) -> Any:
        return jaxpr_as_fun(ClosedJaxpr(early, [*arrays[CLOSED], *arrays[NUMBERS]]))(*given(arrays))

    def rest(arrays: Any, made: Any, point: Any) -> Any:
        return jax.tree.unflatten(shape, jaxpr_as_fun(ClosedJaxpr(late, made))(*given(arrays), point))

    both = jax.jit(lambda arrays, point: rest(arrays, first(arrays), point), compiler_options=dict(options))
    return Open(both.lower({**arrays, **found}, point).as_text(), first, rest, both), found


def _split(jaxpr: Any, precision: str) -> tuple[Any, Any, list[float]]:
    """What follows from all but the last argument; the rest, whose constants are what it takes from the first; the numbers.

    The first takes the numbers as its last constants.
    """
    known, early, late = {*jaxpr.constvars, *jaxpr.invars[:-1]}, [], []
    exponents, values, variables = _exponents(jaxpr), [], []
    for eqn in jaxpr.eqns:
        first = all(isinstance(v, Literal) or v in known for v in eqn.invars) and _largest(eqn) <= MANY
        given = list(eqn.invars)
        for i, atom in enumerate(given if exponents.isdisjoint(eqn.outvars) else ()):
            if (
                isinstance(atom, Literal)
                and getattr(atom.aval, "dtype", None) == precision
                and _is_open(eqn, i, float(atom.val), first)
            ):
                values.append(float(atom.val))
                variables.append(Var(atom.aval))
                given[i] = variables[-1]
        (early if first else late).append(eqn.replace(invars=given))
        known |= set(eqn.outvars) if first else set()
    asked = {v for eqn in late for v in eqn.invars if not isinstance(v, Literal)}
    asked |= {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    constants = [*jaxpr.constvars, *variables]
    between = [v for v in (*constants, *(v for eqn in early for v in eqn.outvars)) if v in asked]
    plain = jaxpr.replace(debug_info=jaxpr.debug_info.with_unknown_names())
    first = plain.replace(eqns=early, constvars=constants, invars=jaxpr.invars[:-1], outvars=between)
    return first, plain.replace(eqns=late, constvars=between), values


def _largest(eqn: Any) -> int:
    return max((math.prod(v.aval.shape) for v in eqn.outvars), default=0)


def _is_open(eqn: Any, place: int, value: float, first: bool) -> bool:
    """Whether a number of an operation is given with the arrays; first: whether the operation is worked out once."""
    if value == 0 or not math.isfinite(value) or (eqn.primitive.name == "pow" and place == 1):
        return False
    return abs(math.frexp(value)[0]) != 0.5 or (first and eqn.primitive.name not in SPREAD)


def _exponents(jaxpr: Any) -> set[Any]:
    """The variables from which exponents follow."""
    found: set[Any] = set()
    for eqn in reversed(jaxpr.eqns):
        if not found.isdisjoint(eqn.outvars):
            found |= {v for v in eqn.invars if not isinstance(v, Literal)}
        elif eqn.primitive.name == "pow" and not isinstance(eqn.invars[1], Literal):
            found.add(eqn.invars[1])
    return found
