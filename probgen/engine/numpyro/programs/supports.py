"""The values of the unknowns of a NumPyro program: bits, levels, reals, and finite supports as lists."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro.distributions import Distribution, MaskedDistribution, constraints

from probgen.engine.numpyro.wrapped import WRAPPERS, innermost
from probgen.target import Variable

LARGEST = 1 << 16  # values that are listed
OF = " argument of "  # between an argument and its site
ROUNDED = 1e-3  # share by which sums and symmetries may be off


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


# ---- arguments of distributions


def valid_arguments(trace: Mapping[str, Any]) -> dict[str, Any]:
    """Where arguments of distributions lie in their own supports: booleans by "argument of site". NumPyro looks at numbers alone.

    What is masked is left out. 0 is taken for positive, of which the density tells by itself.
    """
    return _arguments(trace, _valid)


def whole_arguments(trace: Mapping[str, Any]) -> dict[str, Any]:
    """The same of those that are of a wrong kind at any point: sums that are not 1, matrices that are not symmetric."""
    return _arguments(trace, _is_whole)


def _arguments(trace: Mapping[str, Any], good: Callable[[Any, Any], Any]) -> dict[str, Any]:
    found = {}
    for name, site in trace.items():
        if site["type"] == "sample" and not is_masked(site["fn"]):
            for fn in _parts(innermost(site["fn"])):
                for argument, constraint in fn.arg_constraints.items():
                    value = vars(fn).get(argument)
                    if isinstance(value, Tracer) and not any(value is other["value"] for other in trace.values()):
                        # A constraint that is not of arrays, or that no program asks of them, says nothing.
                        with contextlib.suppress(NotImplementedError, ValueError, TypeError):
                            found[f"{argument}{OF}{name}"] = good(constraint, value)
    return {k: v for k, v in found.items() if v is not None}


def is_masked(fn: Any) -> bool:
    """Whether a distribution is masked, beneath what only says its shape."""
    return isinstance(fn, MaskedDistribution) or (isinstance(fn, WRAPPERS) and is_masked(fn.base_dist))


def _parts(fn: Distribution) -> list[Distribution]:
    """A distribution, and those that it is made of."""
    inner = [vars(fn).get(k) for k in ("base_dist", "_base_dist", "_mixing_distribution", "_component_distribution")]
    return [fn, *(part for d in inner if isinstance(d, Distribution) for part in _parts(innermost(d)))]


def _valid(constraint: Any, value: Any) -> Any:
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    if constraint in (constraints.real, constraints.real_vector, constraints.real_matrix):
        return None
    if (whole := _is_whole(constraint, value)) is not None:
        return whole & jnp.all(value >= 0, -1) if constraint is constraints.simplex else whole
    return constraint(value) | (value == 0) if constraint is constraints.positive else constraint(value)


def _is_whole(constraint: Any, value: Any) -> Any:
    """Whether a simplex sums to 1, a covariance is symmetric, a factor is triangular, in single precision; None for others."""
    if constraint is constraints.simplex:
        return ~(jnp.abs(jnp.sum(value, -1) - 1) > ROUNDED)
    size = ROUNDED * jnp.max(jnp.abs(value), (-2, -1), keepdims=True) if value.ndim > 1 else 0
    if constraint is constraints.positive_definite:
        return ~jnp.any(jnp.abs(value - jnp.swapaxes(value, -2, -1)) > size, (-2, -1))
    return ~jnp.any(jnp.abs(jnp.triu(value, 1)) > size, (-2, -1)) if constraint is constraints.lower_cholesky else None
