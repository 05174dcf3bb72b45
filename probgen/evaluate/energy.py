"""Energies of data, exact sums over the states of a model, and what they give: log Z, log probabilities, marginals."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen import runtime
from probgen.engine.numpyro.sums import energy, free_energy
from probgen.engine.numpyro.sums.exact import enumerated_sites, numbered_state
from probgen.fitted import LogProb

CHUNK = 2**12  # states at a time


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _log_sums(target: Any, rest: tuple, summed: tuple, count: int, start: Any) -> Any:
    """log of the sum of exp f over `count` states from `start` on, and those sums one by one; -inf beyond the last state."""
    indices = start + jnp.arange(count)

    def one(index: Any) -> Any:
        values = numbered_state(index, list(rest), jnp.result_type(float))
        return energy.collapsed(target.joint, values, list(summed)) if summed else target.joint(values)

    terms = jnp.where(indices < number_of(rest), jax.vmap(one)(indices), -jnp.inf)
    return jax.scipy.special.logsumexp(terms), terms


def number_of(sites: Any) -> int:
    """How many states the units of some sites have together."""
    return math.prod(v.levels**v.size for v in sites)


def log_sums(target: Any) -> tuple[np.ndarray, list[Any], list[Any]]:
    """log of the sum of exp f over the sites that are summed, for every state of those that are enumerated; both kinds of sites.

    Raises TooLarge where that is out of reach.
    """
    rest, summed = enumerated_sites(target)
    total = number_of(rest)
    size = min(CHUNK, total)
    with runtime.jax_scope(target.precision):
        parts = [_log_sums(target, tuple(rest), tuple(summed), size, start)[1] for start in range(0, total, size)]
        return np.concatenate([np.asarray(part, float) for part in parts])[:total], rest, summed


def log_z(target: Any) -> LogProb:
    """log Z of a conditional target by enumeration, in nats, exact; TooLarge where that is out of reach."""
    rest, summed = enumerated_sites(target)
    total = number_of(rest)
    size = min(CHUNK, total)
    with runtime.jax_scope(target.precision):
        sums = [float(_log_sums(target, tuple(rest), tuple(summed), size, start)[0]) for start in range(0, total, size)]
    return LogProb(float(np.logaddexp.reduce(np.array(sums))), 0.0, "exact, by enumeration")


def free_energies(
    target: Any, answer: Mapping[str, Any], rows: Mapping[str, np.ndarray], size: int = 1000
) -> np.ndarray:
    """-F(v) of rows under learned parameters, in nats: (row,). Smaller is more probable, by exp."""
    if target.engine == "pyro":
        return -target.log_probs(answer, rows)
    if target.hidden and not target.structure.blocks:
        target = target.blocked(evaluate=True)
    count = len(next(iter(rows.values())))
    with runtime.jax_scope(target.precision):
        parameters = {k: jnp.asarray(v) for k, v in answer.items()}
        parts = [_free(target, parameters, {k: jnp.asarray(v[i : i + size], target.precision) for k, v in rows.items()})
                 for i in range(0, count, size)]  # fmt: skip
        return -np.concatenate([np.asarray(p) for p in parts])


@jax.jit
def _free(target: Any, parameters: Any, rows: Any) -> Any:
    return free_energy.free(target, parameters, rows)
