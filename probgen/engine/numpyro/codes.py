"""Whether a NumPyro program uses codes of words as indices alone: as numbers they would mean nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen import runtime
from probgen.target import Conditional, Continuous

INDEXED = {"gather": slice(1, 2), "dynamic_slice": slice(1, None), "dynamic_update_slice": slice(2, None)}
SCATTER = slice(1, 2)  # of all of that family


def as_numbers(target: Any, names: Sequence[str]) -> list[str]:
    """Those of the named data that enter the density as numbers, not as indices or in comparisons alone."""
    if not isinstance(target, Continuous | Conditional):
        return list(names)
    own: Any = target
    with runtime.jax_scope(own.precision):
        if isinstance(target, Continuous):
            point, density = np.zeros(own.dim), own.structure.log_density
        else:
            point, density = own.start(jax.random.key(0)), own.structure.joint
        closed = jax.make_jaxpr(density)(own.arrays, point)
    order = sorted(own.arrays)  # as JAX flattens a dictionary
    return [k for k in names if k in order and _enters(closed.jaxpr, {closed.jaxpr.invars[order.index(k)]})]


def _enters(jaxpr: Any, codes: set[Any]) -> bool:
    """Whether codes, or whole numbers made of them, become real numbers."""
    for eqn in jaxpr.eqns:
        held = [v for v in eqn.invars if not hasattr(v, "val") and v in codes]
        if not held:
            continue
        inner = list(_inner(eqn))
        for body in inner:
            given = zip(body.invars, eqn.invars[len(eqn.invars) - len(body.invars) :], strict=True)
            if _enters(body, {own for own, outer in given if not hasattr(outer, "val") and outer in codes}):
                return True
        where = INDEXED.get(eqn.primitive.name, SCATTER if eqn.primitive.name.startswith("scatter") else slice(0))
        as_index = all(any(v is i for i in eqn.invars[where]) for v in held)
        kinds = [jnp.dtype(v.aval.dtype).kind for v in eqn.outvars]
        if not inner and not as_index and "f" in kinds:
            return True
        if not as_index:
            codes |= {v for v, kind in zip(eqn.outvars, kinds, strict=True) if kind in "iu"}
    return False


def _inner(eqn: Any) -> Iterator[Any]:
    """The jaxprs of a call, a loop or a branch, whose arguments are the last of its own."""
    for value in eqn.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            body = getattr(each, "jaxpr", each)
            if hasattr(body, "eqns") and hasattr(body, "invars") and len(body.invars) <= len(eqn.invars):
                yield body
