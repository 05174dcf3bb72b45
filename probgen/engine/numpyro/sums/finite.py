"""Finite unknowns of any support as indices into it, and the density at given ones."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from numpyro import handlers
from numpyro.infer.util import potential_energy

from probgen.engine.numpyro.programs.messengers import FullPlates
from probgen.engine.numpyro.programs.structure import Structure, put
from probgen.engine.numpyro.sums.energy import NotConditional, Values
from probgen.target import Variable

NOT_LISTED = """The values of site {!r} ({}) cannot be listed: they depend on an unknown or on data.
Give it a support of plain numbers."""


def finite_of(structure: Structure) -> tuple[Variable, ...]:
    """The finite unknowns: bits, and levels that number the values of a support; raises NotConditional where there is no list."""
    found = []
    for v, site in zip(structure.variables, _latent(structure), strict=True):
        if not site.discrete:
            continue
        if v.name in structure.supports:
            shape, values = structure.supports[v.name]
            found.append(Variable(v.name, shape, "bits" if values == (0, 1) else "levels", len(values)))
        elif v.levels:
            found.append(v)
        else:
            raise NotConditional(NOT_LISTED.format(v.name, site.distribution))
    return tuple(found)


def _latent(structure: Structure) -> list[Any]:
    return [site for site in structure.sites if site.kind == "latent"]


def value_of(structure: Structure, v: Variable, index: Any, smooth: bool = False) -> Any:
    """A site's values at indices of its units; smooth: of bits as reals, of which derivatives are taken."""
    if smooth:
        return index
    index = index.astype(int)
    values = structure.supports.get(v.name, ((), ()))[1]
    return index if values == tuple(range(v.levels)) or not values else jnp.asarray(values)[index]


def density(structure: Structure, arrays: Any, indices: Values, z: Any, smooth: frozenset[str] = frozenset()) -> Any:
    """The log density of finite unknowns at indices and of the reals at z (dim,), in nats, log-Jacobian included: ()."""
    finite = {v.name: value_of(structure, v, indices[v.name], v.name in smooth) for v in finite_of(structure)}
    real, aside = structure.filled(arrays, z)
    program = handlers.substitute(FullPlates(structure.closed(arrays)), substitute_fn=functools.partial(put, finite))
    with handlers.block():
        return aside - potential_energy(program, (), {}, real)
