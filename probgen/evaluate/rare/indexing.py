"""Whether a function indexes an array by a drawn number, which plain Python checks and JAX clamps into range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

INDEXED = {"gather": slice(1, 2), "dynamic_slice": slice(1, None)}  # operands that are indices


def by_a_draw(function: Callable[[Any], Any], row: Any) -> bool:
    """Whether `function(row)`, as JAX traces it, has an index that depends on `row`: {name: array}."""
    import jax

    traced = jax.make_jaxpr(function)(row).jaxpr
    return _in(traced, set(map(id, traced.invars)))


def _in(jaxpr: Any, drawn: set[int]) -> bool:
    """drawn: ids of the variables that depend on a draw."""
    for step in jaxpr.eqns:
        operands = [id(v) in drawn for v in step.invars]
        if any(operands[INDEXED.get(step.primitive.name, slice(0, 0))]):
            return True
        inner = [] if _of_jax(step) else [_bare(v) for v in _parts(step.params) if hasattr(_bare(v), "eqns")]
        if any(operands) and any(_in(part, set(map(id, part.invars))) for part in inner):
            return True
        drawn |= set(map(id, step.outvars)) if any(operands) else set()
    return False


def _of_jax(step: Any) -> bool:
    """Whether it is a function of jax.numpy or jax.lax, whose indices are its own: it does the same on plain arrays."""
    import jax.numpy as jnp
    from jax import lax

    name = str(step.params.get("name", "")).lstrip("_")
    return bool(name) and any(hasattr(home, name) for home in (jnp, jnp.linalg, lax))


def _parts(params: Any) -> list[Any]:
    return [part for v in params.values() for part in (v if isinstance(v, tuple | list) else (v,))]


def _bare(part: Any) -> Any:
    return getattr(part, "jaxpr", part)
