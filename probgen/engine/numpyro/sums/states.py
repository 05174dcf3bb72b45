"""Finite unknowns summed out over all their joint states, where enumeration site by site does not follow the program.

    log p(z, y) = log sum over states s of p(z, s, y)

A unit without a plate, a product of several sites inside of a matrix product, a value that is an index of another: the program is
run at every state, which is exact for any program. With few states only, for each is one evaluation of the density.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen.engine.numpyro.programs.structure import Structure
from probgen.engine.numpyro.sums.energy import NotConditional
from probgen.engine.numpyro.sums.finite import density, finite_of, value_of

LARGEST = 1024  # states
NOTE = "The finite unknowns {} are summed out over all their {} joint states, each an evaluation of the density."


def count(structure: Structure) -> int:
    """How many joint states the finite unknowns have; 0 where that cannot be told."""
    try:
        return int(np.prod([float(v.levels) ** v.size for v in finite_of(structure)]))
    except (NotConditional, OverflowError):
        return 0


@functools.lru_cache(maxsize=64)
def with_states(structure: Structure) -> Structure:
    """The structure that sums over all states: the same object for equal ones, so that compiled code is found again."""
    return dataclasses.replace(structure, by_state=log_sum)


def note(structure: Structure) -> str:
    """What a fit says of it."""
    names = ", ".join(repr(v.name) for v in finite_of(structure))
    return NOTE.format(names, count(structure))


def _every(structure: Structure) -> dict[str, np.ndarray]:
    """The indices of all states: arrays (state, *unit)."""
    finite = finite_of(structure)
    sizes = [v.levels for v in finite for _ in range(v.size)]
    flat = np.stack(np.unravel_index(np.arange(count(structure)), sizes), axis=1)
    found, start = {}, 0
    for v in finite:
        found[v.name], start = flat[:, start : start + v.size].reshape(-1, *v.shape), start + v.size
    return found


def _densities(structure: Structure, arrays: Any, z: Any) -> Any:
    """The log density at z (dim,) of every state: (state,)."""
    every = {k: jnp.asarray(v) for k, v in _every(structure).items()}
    return jax.vmap(lambda indices: density(structure, arrays, indices, z))(every)


def log_sum(structure: Structure, arrays: Any, z: Any) -> Any:
    """The log density at z with the finite unknowns summed out, log-Jacobian included, in nats: ()."""
    return jax.scipy.special.logsumexp(_densities(structure, arrays, z))


def drawn(structure: Structure, arrays: Any, key: Any, z: Any) -> dict[str, Any]:
    """The finite unknowns drawn from their exact joint conditional given z: values by site."""
    state = jax.random.categorical(key, _densities(structure, arrays, z))
    found = {}
    for v in finite_of(structure):
        value = value_of(structure, v, jnp.asarray(_every(structure)[v.name])[state])
        found[v.name] = value.astype(jnp.int32) if jnp.issubdtype(value.dtype, jnp.integer) else value
    return found
