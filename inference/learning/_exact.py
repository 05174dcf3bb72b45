"""Sums over all states of a program's units, differentiable and inside compiled code.

log sum_x exp f(x),   x over the states of all units but those of one block, which are summed in closed form
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen.engine import energy
from probgen.evaluate.energy import TooLarge, enumerated_sites, numbered_state

LARGEST = 20  # units that are enumerated at every step
CHUNK = 2**12  # states at a time


def split(target: Any, sites: list[Any]) -> tuple[list[Any], list[Any]]:
    """Of some sites those to be enumerated, and those to be summed over given them.

    Raises TooLarge where more than 20 units, or a real one, would have to be enumerated.
    """
    rest, summed = enumerated_sites(SimpleNamespace(structure=target.structure, variables=sites))  # type: ignore[arg-type]
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
