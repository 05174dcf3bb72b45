"""Draws of a learned energy: exact where its states can be counted or its plane can be tabled, else the ends of Markov chains.

Two groups of chains move by the conditionals of the energy's units, or by Hamiltonian Monte Carlo. One begins at rows of the data,
the other at independent units with the rows' means, annealed: f_beta = (1 - beta) f_0 + beta f, beta from 0 to 1. The groups meet
only where chains mix, or where the data are the energy's law and no chain finds another place.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from probgen import runtime
from probgen.data.grey import as_bits
from probgen.data.whole_numbers import generator
from probgen.engine.numpyro.sums import energy
from probgen.engine.numpyro.sums.exact import TooLarge, enumerated_sites, numbered_state
from probgen.evaluate import _path, ais, partition
from probgen.evaluate.energy import log_sums, number_of
from probgen.fitted import FittedParameters
from probgen.target import Conditional

STATES = 2**16  # that are counted
TABLED = 2  # real unknowns, at most, whose density is tabled
COARSE = 128  # cells of an axis of a first table: of all that rows reach, and twice as far on both sides
FINE = 192  # of the second, of what holds the mass
BESIDE = 1e-3  # of the mass, at the table's edge
CANDIDATES, EFFECTIVE = 4, 0.5  # for each draw of a table; of them that must count
SWEEPS, ROUNDS, COST = 125, 8, 4e9  # of chains: a round, rounds at most, multiplications in all rounds
FEWEST, MOST = 100, 500  # chains of a group
KEPT = 25  # densities of each chain of a round


class Chains(NamedTuple):
    """Ends of chains that began at rows and of those that began anew, {site: (chain, *event)}, and how they went.

    log_density: of the joint points in the last round, (2, chain, draw), up to a constant; sweeps: of every chain.
    """

    from_rows: Mapping[str, np.ndarray]
    anew: Mapping[str, np.ndarray]
    log_density: np.ndarray
    sweeps: int


# ---- exact -------------------------------------------------------------------------------------------------------


def exact(fit: FittedParameters, count: int, seed: int) -> tuple[dict[str, np.ndarray], str] | None:
    """Independent draws {site: (draw, *event)}, and how they were made; None where that is out of reach."""
    target: Any = fit.condition()
    return _counted(target, count, seed) if isinstance(target, Conditional) else _tabled(fit, target, count, seed)


def _counted(target: Any, count: int, seed: int) -> tuple[dict[str, np.ndarray], str] | None:
    """By the probabilities of all states of one side, and the other side given them."""
    core = target.pruned()
    try:
        blocked = core.blocked(evaluate=True)
        states = number_of(enumerated_sites(blocked)[0])
    except (TooLarge, energy.NotConditional):
        return None
    if states > STATES:
        return None
    logs, rest, summed = log_sums(blocked)
    p = np.exp(logs - logs.max())
    if not np.isfinite(p.sum()):
        return None
    index = generator(seed, 3).choice(len(p), count, p=p / p.sum())
    with runtime.jax_scope(blocked.precision):
        drawn = _completed(jax.random.key(seed % 2**63), blocked, tuple(rest), tuple(summed), jnp.asarray(index))
    values = {k: np.asarray(v) for k, v in drawn.items()}
    values = target.completed(values, seed + 1) if core is not target else values
    return values, "exact" if states == 1 else f"exact, by the probabilities of {states:,} states"


@functools.partial(jax.jit, static_argnums=(2, 3), compiler_options=_path.QUICKLY)
def _completed(key: Any, target: Any, rest: tuple, summed: tuple, index: Any) -> Any:
    """Points of numbered states of one side, the other drawn given it: {site: (draw, *event)}."""

    def one(key: Any, index: Any) -> Any:
        values = numbered_state(index, list(rest), jnp.result_type(float))
        if not summed:
            return values
        zero = {v.name: jnp.zeros(v.shape, jnp.result_type(float)) for v in summed}
        return {**values, **energy.draw(key, target.joint, {**values, **zero}, list(summed))[0]}

    return jax.vmap(one)(jax.random.split(key, len(index)), index)


def _tabled(fit: FittedParameters, target: Any, count: int, seed: int) -> tuple[dict[str, np.ndarray], str] | None:
    """By the density of one or two reals in cells of a table, and in the cells by weights."""
    if target.dim > TABLED:
        return None
    rows = fit._rows({})
    points = np.concatenate([np.asarray(v, float).reshape(len(v), -1) for v in rows.values()], axis=1)
    if points.shape[1] != target.dim:
        return None
    rng = generator(seed, 3)
    reach = np.maximum(np.ptp(points, axis=0), 1e-300)
    low, high = points.min(0) - 2 * reach, points.max(0) + 2 * reach
    with runtime.jax_scope(target.precision):
        for cells in (COARSE, FINE):
            centres, log_p = _table(target, low, high, cells)
            if not np.isfinite(log_p.max()):
                return None
            p = np.exp(log_p - log_p.max())
            p /= p.sum()
            if cells == COARSE:
                if _at_edge(p) > BESIDE:
                    return None
                low, high = _holding(p, low, high)
        cell = (high - low) / cells
        picked = rng.choice(p.size, CANDIDATES * count, p=p.ravel())
        z = centres[picked] + cell * (rng.random((len(picked), target.dim)) - 0.5)
        gain = np.asarray(_densities(target, jnp.asarray(z)), float) - log_p.ravel()[picked]
    weights = np.exp(gain - gain.max())
    weights /= weights.sum()
    if not 1 / np.sum(weights**2) >= EFFECTIVE * len(weights):
        return None
    z = z[rng.choice(len(z), count, replace=False, p=weights)]
    drawn = {k: v[0] for k, v in target.constrain(z[None]).items()}
    return drawn, f"by its density in {FINE**target.dim:,} cells"


def _table(target: Any, low: np.ndarray, high: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the cells of a box, (cell, dim), and the log density there, in the shape of the table."""
    axes = [a + (np.arange(cells) + 0.5) * (b - a) / cells for a, b in zip(low, high, strict=True)]
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, target.dim)
    found = np.asarray(_densities(target, jnp.asarray(centres)), float)
    return centres, np.where(np.isnan(found), -np.inf, found).reshape((cells,) * target.dim)


@jax.jit
def _densities(target: Any, points: Any) -> Any:
    return jax.vmap(target.log_density)(points)


def _at_edge(p: np.ndarray) -> float:
    """The mass of the outer cells of a table."""
    return float(1 - p[(slice(1, -1),) * p.ndim].sum())


def _holding(p: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The box, of whole cells and one more on each side, that has all but a millionth of the mass along every axis."""
    ends, cells = [], len(p)
    for axis in range(p.ndim):
        along = p.sum(axis=tuple(i for i in range(p.ndim) if i != axis)).cumsum()
        first, last = np.searchsorted(along, [1e-6, 1 - 1e-6])
        ends.append([max(first - 1, 0), min(last + 2, cells)])
    share = np.array(ends, float) / cells
    return low + share[:, 0] * (high - low), low + share[:, 1] * (high - low)


# ---- chains ------------------------------------------------------------------------------------------------------


def chains(fit: FittedParameters, rows: np.ndarray, seed: int, agreed: Any) -> Chains:
    """Chains from rows of these numbers and from independent units, until `agreed(chains)` or they cost too much."""
    target, every = partition.core(fit)
    every, core = as_bits(fit.target, every), cast("Any", target)
    rng = generator(seed, 4)
    with runtime.jax_scope("float32"):
        k_start, k_anew, k_run = jax.random.split(jax.random.key(seed % 2**63), 3)
        if isinstance(target, Conditional):
            core = core if core.structure.blocks else core.blocked(evaluate=True)
            core = ais.single(core)
            count = _number(_evaluations(core) * _numbers(core))
            begun = {k: jnp.asarray(np.asarray(v)[rng.choice(rows, count)], "float32") for k, v in every.items()}
            begun = _path.typical(k_start, core, begun)
            path: Any = _path.gibbs_path(core, begun, ())
            cost = 2 * count * _evaluations(core) * _numbers(core)
        else:
            count = _number(5 * _numbers(core))
            picked = rng.choice(rows, count)
            points = [core.unconstrain({k: np.asarray(v)[i] for k, v in every.items()}) for i in picked]
            begun = jnp.asarray(np.array(points), "float32")
            path = _path.hamiltonian_path(ais.single(core), np.array(points, "float32"))
            cost = 2 * count * path.num_leapfrog * _numbers(core)
        new = jax.vmap(path.start)(jax.random.split(k_anew, count))
        x, size = jax.tree.map(lambda a, b: jnp.concatenate([a, b.astype(a.dtype)]), begun, new), jnp.asarray(0.1)
        rounds = int(np.clip(COST / (SWEEPS * cost), 1, ROUNDS))
        for number in range(rounds):
            betas = np.minimum(1.0, np.arange(1, SWEEPS + 1) / (SWEEPS // 2)) if number == 0 else np.ones(SWEEPS)
            key = jax.random.fold_in(k_run, number)
            x, size, logs = _advanced(key, path, x, size, jnp.asarray(betas, "float32"), jnp.asarray(number == 0))
            found = _split(core, target, fit, x, np.asarray(logs, float), count, SWEEPS * (number + 1), seed)
            if agreed(found):
                break
    return found


def _number(cost: float) -> int:
    """How many chains a group has, by the multiplications that move one."""
    return int(np.clip(2e6 / cost, FEWEST, MOST))


def _numbers(target: Any) -> int:
    """Numbers that one evaluation of the density reads."""
    return sum(int(np.size(v)) for v in target.arrays.values()) + target.dim


def _evaluations(target: Any) -> int:
    """Evaluations of the density that a sweep takes."""
    total = 0
    for block in target.structure.blocks:
        total += 2 if block.colours is None else (max(block.colours) + 1) * 2
    return total


@functools.partial(jax.jit, compiler_options=_path.QUICKLY)
def _advanced(key: Any, path: Any, x: Any, size: Any, betas: Any, adapts: Any) -> tuple[Any, Any, Any]:
    """Chains (chain, ...), the second half of them at these temperatures, moved; their step size, KEPT log densities of each."""
    number = len(jax.tree.leaves(x)[0])
    second = jnp.arange(number) >= number // 2

    def one(i: Any, carry: Any) -> Any:
        x, size, logs = carry
        keys = jax.random.split(jax.random.fold_in(key, i), number)
        fields = jax.vmap(path.fields)(x)
        beta = jnp.where(second, betas[i], 1.0)
        x, accept = jax.vmap(path.move, in_axes=(0, 0, 0, 0, None))(keys, x, fields, beta, size)
        size = jnp.where(adapts, size * jnp.exp(0.1 * (accept.mean() - ais.TARGET_ACCEPT)), size)
        at = (i * KEPT) // len(betas)
        return x, size, logs.at[at].set(fields[0])

    return jax.lax.fori_loop(0, len(betas), one, (x, size, jnp.zeros((KEPT, number))))


def _split(
    core: Any, target: Any, fit: Any, x: Any, logs: np.ndarray, count: int, sweeps: int, seed: int
) -> Chains:  # fmt: skip
    """Both groups, with the sites on which no other depends."""
    if isinstance(target, Conditional):
        values = {k: np.asarray(v) for k, v in x.items()}
        whole = fit.condition()
        if set(values) != {v.name for v in whole.variables}:
            values = whole.completed(values, seed + 1)
    else:
        values = {k: v[0] for k, v in target.constrain(np.asarray(x, float)[None]).items()}
    parts = [{k: v[half] for k, v in values.items()} for half in (slice(count), slice(count, None))]
    return Chains(parts[0], parts[1], np.stack([logs.T[:count], logs.T[count:]]), sweeps)
