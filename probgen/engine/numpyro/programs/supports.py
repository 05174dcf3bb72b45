"""The values of the unknowns of a NumPyro program: bits, levels, reals, and finite supports as lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import Distribution, constraints

from probgen.engine.numpyro.wrapped import innermost
from probgen.target import Variable

LARGEST = 1 << 16  # values that are listed


def listable(fn: Distribution) -> bool:
    """Whether a distribution's values can be listed."""
    support: Any = fn.support
    return bool(support.is_discrete and fn.has_enumerate_support)


def support_of(fn: Distribution) -> tuple | None:
    """The values of a finite support, as nested tuples; None where they are 0, 1, ..."""
    table = _table(fn)
    return None if np.array_equal(table, np.arange(len(table))) else _nested(table.tolist())


def unit_of(fn: Distribution, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple] | None:
    """The shape of the units of a site whose values have this shape, and the values of each, as nested tuples.

    None where they cannot be listed: an infinite support, one that depends on an unknown or on data, or differs from unit to unit.
    """
    fn = innermost(fn)
    if not listable(fn):
        return None
    try:
        table = _table(fn)
    except (NotImplementedError, TypeError, ValueError, IndexError):  # tracers among them
        return None
    units = shape[: len(shape) - fn.event_dim]
    return (units, _nested(table.tolist())) if 0 < len(table) <= LARGEST else None


def _table(fn: Distribution) -> np.ndarray:
    """The values of a finite support: (value, *event)."""
    with jax.ensure_compile_time_eval():
        values = fn.enumerate_support(expand=False)
        return np.asarray(values).reshape(len(values), *fn.event_shape)


def _nested(values: Any) -> Any:
    return tuple(map(_nested, values)) if isinstance(values, list) else values


# ---- of a trace --------------------------------------------------------------------------------------------------


def variables_of(trace: Mapping[str, Any]) -> tuple[Variable, ...]:
    """The unknown sites as bits, levels or reals; "other" where their support is something else."""
    found = []
    for key, site in trace.items():
        if site["type"] == "sample" and not site["is_observed"]:
            support, shape = site["fn"].support, jnp.shape(site["value"])
            while isinstance(support, constraints.independent):
                support = support.base_constraint
            if support is constraints.boolean:
                found.append(Variable(key, shape, "bits", 2, site["fn"].event_dim > 0))
            elif levels := _levels(support):
                found.append(Variable(key, shape, "levels", levels))
            elif support in (constraints.real, constraints.real_vector, constraints.real_matrix):
                found.append(Variable(key, shape, "reals"))
            else:
                found.append(Variable(key, shape, "other"))
    return tuple(found)


def _levels(support: Any) -> int | None:
    """How many values a unit takes where they are 0, 1, ...; None for other supports."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    high = getattr(support, "upper_bound", None)
    if support is constraints.boolean:
        return 2
    return (
        high + 1
        if support.is_discrete and getattr(support, "lower_bound", None) == 0 and isinstance(high, int)
        else None
    )


def supports_of(trace: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], tuple]]:
    """Of the finite unknowns whose values can be listed: the shape of their units, and the values of one."""
    found = {}
    for key, site in trace.items():
        unknown = site["type"] == "sample" and not site["is_observed"]
        if unknown and site["fn"].support.is_discrete and (unit := unit_of(site["fn"], jnp.shape(site["value"]))):
            found[key] = unit
    return found
