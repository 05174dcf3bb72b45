"""Rows without a plate: dimensions of sites that stand in none are taken for plates while finite unknowns are enumerated.

    z ~ Categorical(w).expand([n]),  y ~ Normal(m[z], s)         a mixture whose rows no plate holds
    t ~ DiscreteUniform(0, n),  y ~ Poisson(where(i < t, a, b))  a change point of a whole series

NumPyro asks for a plate about every such dimension: without it its enumeration stops (KeyError at the next plate), or the program's
own arrays meet the dimension of an unknown. Whether the dimensions are independent, as those of plates are, is checked by
`assigned.check` at random values of all unknowns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from jax import lax
from numpyro import handlers
from numpyro.contrib import funsor as enumerating
from numpyro.contrib.funsor.enum_messenger import NamedMessenger
from numpyro.primitives import CondIndepStackFrame

PREVIOUS = "_PREV_"  # NumPyro's name of a scan's site one step before
NAME = "_dim_{}_{}"  # of the plate of a dimension and a size


def frames(shape: tuple[int, ...], stack: Any, nesting: int) -> list[CondIndepStackFrame]:
    """Plates for the dimensions of a batch shape, up to `nesting` of them, that have none on the stack."""
    taken = {frame.dim for frame in stack}
    dims = range(-1, -min(nesting, len(shape)) - 1, -1)
    return [
        CondIndepStackFrame(NAME.format(-d, shape[d]), d, shape[d]) for d in dims if shape[d] > 1 and d not in taken
    ]


def batch_of(site: Mapping[str, Any]) -> tuple[int, ...]:
    """The batch shape of a site, that of one step where it stands in a scan."""
    shape = tuple(site["fn"].batch_shape)
    return shape[1:] if "_scan_current_index" in site["infer"] else shape


def found(trace: Mapping[str, Any]) -> tuple[int, dict[str, frozenset[str]]]:
    """Of a trace: its dimensions with those that no plate holds, 0 where there are none; and the names of these by site."""
    sites = {k: site for k, site in trace.items() if site["type"] == "sample"}
    nesting = max((len(batch_of(site)) for site in sites.values()), default=0)
    names = {
        k: frozenset(f.name for f in frames(batch_of(site), site["cond_indep_stack"], nesting))
        for k, site in sites.items()
    }
    return (nesting, names) if any(names.values()) else (0, {})


def of_program(program: Callable[[], Any], nesting: int) -> dict[str, list[CondIndepStackFrame]]:
    """By site, the plates that its dimensions without one get: those of the program run once with values of its unknowns."""
    with handlers.block():
        trace = handlers.trace(program).get_trace()
    sites = {k: site for k, site in trace.items() if site["type"] == "sample"}
    return {k: frames(batch_of(site), site["cond_indep_stack"], nesting) for k, site in sites.items()}


def tracer(own: Mapping[str, list[CondIndepStackFrame]]) -> type:
    """NumPyro's trace of enumerated programs, with plates for dimensions that have none; own: those of every site."""

    def of(msg: Mapping[str, Any]) -> list[CondIndepStackFrame]:
        name = msg["name"]
        while name.startswith(PREVIOUS):
            name = name[len(PREVIOUS) :]
        taken = {frame.dim for frame in msg["cond_indep_stack"]}
        return [frame for frame in own.get(name, ()) if frame.dim not in taken]

    class Loose(enumerating.trace):
        def process_message(self, msg: dict[str, Any]) -> None:
            if (
                msg["type"] == "sample"
            ):  # an enumerated state has one value for all units, as long as nothing tells them apart
                fn, shape = msg["fn"], tuple(msg["fn"].batch_shape)
                for frame in of(msg):
                    shape = lax.broadcast_shapes(shape, (frame.size, *(1,) * (-frame.dim - 1)))
                msg["fn"] = fn if shape == tuple(fn.batch_shape) else fn.expand(shape)

        def postprocess_message(self, msg: dict[str, Any]) -> None:
            if msg["type"] != "sample":
                return super().postprocess_message(msg)
            fn, value, mine = msg["fn"], msg["value"], of(msg)
            shape = lax.broadcast_shapes(tuple(fn.batch_shape), jnp.shape(value)[: jnp.ndim(value) - fn.event_dim])
            msg["cond_indep_stack"] = [*msg["cond_indep_stack"], *mine]
            bare = list(shape)
            for frame in mine:
                bare[frame.dim] = 1  # no name is asked for it: a later plate may have the dimension
            names = NamedMessenger._get_dim_to_name(tuple(bare))
            names |= {frame.dim: frame.name for frame in mine}
            msg["infer"]["dim_to_name"] = names
            msg["infer"]["name_to_dim"] = {name: dim for dim, name in names.items()}
            return handlers.trace.postprocess_message(self, msg)

    return Loose


@contextlib.contextmanager
def in_scans(kind: type) -> Iterator[None]:
    """NumPyro's scans trace their steps by the module's own class: by this one for the time being."""
    before, enumerating.trace = enumerating.trace, kind
    try:
        yield
    finally:
        enumerating.trace = before
