"""Sums over all states of a program's units, differentiable and inside compiled code.

log sum_x exp f(x),   x over the states of all units but those of one block, which are summed in closed form
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen.engine.numpyro.sums import energy

LARGEST = 20  # units that are enumerated at every step
MOST = 25  # units that are enumerated once
CHUNK = 2**12  # states at a time


class TooLarge(ValueError):
    """More states than can be enumerated."""


def enumerated_sites(target: Any) -> tuple[list[Any], list[Any]]:
    """Sites to be enumerated and sites to be summed over given those: the block that leaves the fewest units.

    Raises TooLarge where more than 25 units, or a real one, would have to be enumerated.
    """
    structure = target.structure
    whole = [b for b in structure.blocks if b.colours is None and not b.evaluated]
    choices = []
    for block in [None, *whole]:
        summed = [v for v in target.variables if block and v.name in block.sites]
        rest = [v for v in target.variables if v not in summed]
        if all(v.levels for v in rest):
            choices.append((sum(v.size * np.log2(v.levels) for v in rest), rest, summed))
    if not choices:
        raise TooLarge("The model has real unknowns that interact; they cannot be enumerated. Use AIS.")
    cost, rest, summed = min(choices, key=lambda c: c[0])
    if cost > MOST:
        raise TooLarge(f"Enumeration needs 2^{cost:.0f} states; at most 2^{MOST} are tried. Use AIS.")
    return rest, summed


def numbered_state(index: Any, sites: list[Any], dtype: Any) -> dict[str, Any]:
    """The values of sites in the state of a number."""
    values = {}
    for v in sites:
        digits = []
        for _ in range(v.size):
            digits.append(index % v.levels)
            index = index // v.levels
        values[v.name] = jnp.stack(digits).reshape(v.shape).astype(dtype) if digits else jnp.zeros(v.shape, dtype)
    return values


def split(target: Any, sites: list[Any]) -> tuple[list[Any], list[Any]]:
    """Of some sites those to be enumerated, and those to be summed over given them.

    Raises TooLarge where more than 20 units, or a real one, would have to be enumerated.
    """
    rest, summed = enumerated_sites(SimpleNamespace(structure=target.structure, variables=sites))
    cost = sum(v.size * np.log2(v.levels) for v in rest)
    if cost > LARGEST:
        raise TooLarge(
            f"Every step would need 2^{cost:.0f} states; at most 2^{LARGEST} are tried. Use inference='pcd'."
        )
    return rest, summed


def log_sum(f: Any, sites: tuple[list[Any], list[Any]], given: Any) -> Any:
    """log of the sum of exp f over the states of the sites, the others as given; (), in nats."""
    rest, summed = sites
    total = int(np.prod([float(v.levels) ** v.size for v in rest]))
    size = min(CHUNK, total)

    def one(index: Any) -> Any:
        values = {**given, **numbered_state(index, rest, jnp.result_type(float))}
        return energy.collapsed(f, values, summed) if summed else f(values)

    @jax.checkpoint
    def chunk(start: Any) -> Any:
        indices = start + jnp.arange(size)
        return jax.scipy.special.logsumexp(jnp.where(indices < total, jax.vmap(one)(indices), -jnp.inf))

    return jax.scipy.special.logsumexp(jax.lax.map(chunk, jnp.arange(0, total, size)))


def marginal(target: Any, f: Any) -> Any:
    """log of the integral of exp f over the hidden sites as a function of a row, exact; raises TooLarge as `split` does."""
    if target.structure.normal:
        return lambda row: energy.integrated(f, row, target.hidden)
    sites = split(target, target.hidden)
    return lambda row: log_sum(f, sites, row)
