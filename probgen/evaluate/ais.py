"""log Z of any energy between a forward and a reverse estimate by annealed importance sampling with resampling.

    f_beta = (1 - beta) f_0 + beta f,   0 = beta_0 < ... < beta_K = 1
    Z / Z_0 ~ prod_k sum_i W_i exp(f_beta_k(x_i) - f_beta_(k-1)(x_i)),   x_i then moved under f_beta_k

Forward: islands of particles from the base f_0 to the model f. The estimate of Z is unbiased, so that of log Z is too small
on average. Reverse: each island has one particle on a path that was annealed down from a point of the model; the mean of
1/Z is then unbiased, and log Z too large on average, if that point is a draw from the model. A pilot run puts the
temperatures where the density changes fastest; a block of units that do not interact is summed out of the weights.

Neal 2001 (doi:10.1023/A:1008923215028); Salakhutdinov and Murray 2008 (doi:10.1145/1390156.1390266); reverse: Burda, Grosse and
Salakhutdinov 2015 (arXiv:1412.8566), Grosse, Ghahramani and Adams 2015 (arXiv:1511.02543); islands with a given path: Andrieu,
Doucet and Holenstein 2010 (doi:10.1111/j.1467-9868.2009.00736.x).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probgen import runtime
from probgen.data.whole_numbers import generator
from probgen.evaluate._path import QUICKLY, gibbs_path, hamiltonian_path, typical
from probgen.fitted import LogProb
from probgen.target import Conditional, Continuous

SPREAD = 0.25  # sd of the log weights' growth in one step of the pilot run
PILOT = 200  # its particles
LONGEST = 4000  # its steps
RESAMPLE = 0.5  # below this effective fraction of an island's particles
TARGET_ACCEPT = 0.8
MAX_GAP = 0.5  # nats between forward and reverse, beyond three standard errors, that are still trusted
MIN_ESS = 50
SMALL = 10**8  # unit updates that take no longer than the compiler does
SEGMENTS = 20
ROWS = 500  # of the data, with hidden units drawn given them


class Schedule(NamedTuple):
    """Inverse temperatures from 0 to 1 (temperature,), and a step size for the moves at each."""

    betas: Any
    steps: Any


class Estimate(NamedTuple):
    """log Z in nats, from below and from above.

    forward, reverse: below and above log Z on average; reverse is NaN where it was not asked for.
    value, stderr: their mean, with half of their gap in its standard error.
    ess: effective sample size of the forward weights; num_chains: how many there are.
    trusted: whether they agree and are not carried by a few chains; message says so in words.
    """

    value: float
    stderr: float
    forward: float
    forward_stderr: float
    reverse: float
    reverse_stderr: float
    ess: float
    num_chains: int
    num_temperatures: int
    trusted: bool
    message: str


def log_z(target: Any, rows: Mapping[str, Any] | None = None, seed: int = 0, **settings: Any) -> LogProb:
    """log Z of an energy; see `estimate`."""
    found = estimate(target, rows, seed, **settings)
    return LogProb(found.value, found.stderr, found.message)


def estimate(
    target: Any,
    rows: Mapping[str, Any] | None = None,
    seed: int = 0,
    *,
    num_chains: int = 1000,
    num_islands: int = 20,
    num_temperatures: int = 1000,
    num_pilot: int = 250,
    num_burn: int = 1000,
    reverse: bool = True,
) -> Estimate:
    """log Z of a blocked conditional target or of a continuous one, forward and reverse.

    rows: data {site: (row, *event)}; the base has their means, and the reverse runs start from them. Without data they
        start from where the forward runs end.
    num_chains: particles, in `num_islands` groups that do not know of each other.
    num_temperatures: of the main runs. num_pilot: of a forward run before them, which shows where islands come to differ
        for lack of mixing: more temperatures go there; 0 for none.
    num_burn: moves of the reverse runs' starting points under the model.
    """
    size = num_chains // num_islands
    if num_islands < 2 or size < 2 or num_temperatures < 2:
        raise ValueError("AIS needs at least 2 islands, 2 chains in each and 2 temperatures.")
    with runtime.jax_scope("float32"):
        path, starts = _path(target, rows or {}, seed, num_islands)
        k_pilot, k_look, k_forward, k_burn, k_down, k_up = jax.random.split(jax.random.key(seed), 6)
        schedule = _pilot(k_pilot, path)
        if num_pilot:
            schedule = _refined(schedule, num_pilot)
            growth = _run(k_look, path, schedule, num_islands, size)[0]
            schedule = _retimed(schedule, np.asarray(growth, float), num_temperatures)
        else:
            schedule = _refined(schedule, num_temperatures)
        base = float(path.log_z())
        growth, points, weights = _run(k_forward, path, schedule, num_islands, size)
        logs = base + np.asarray(growth, float).sum(0)
        forward, forward_stderr = _log_mean(logs)
        ess = _ess(logs, size)
        if not reverse:
            return _judged(forward, forward_stderr, np.nan, 0.0, ess, num_islands * size, num_temperatures)
        if starts is None:
            starts = _chosen(seed, points, logs[:, None] + np.asarray(weights, float))
        starts = _burnt(k_burn, path, starts, schedule.steps[-1], num_burn)
        given = _down(k_down, path, schedule, starts)
        growth = _run(k_up, path, schedule, num_islands, size, given)[0]
        above, above_stderr = _log_mean(-(base + np.asarray(growth, float).sum(0)))
    return _judged(forward, forward_stderr, -above, above_stderr, ess, num_islands * size, num_temperatures)


# ---- the parts of an estimate ------------------------------------------------------------------------------------


def _path(model: Any, rows: Mapping[str, Any], seed: int, num: int) -> tuple[Any, Any]:
    """The path to a target, in single precision, and the points of the model that the data give: (num, ...) or None."""
    target, rng = model, generator(seed)
    count = len(next(iter(rows.values()))) if rows else 0
    if isinstance(model, Conditional):
        if target.known:
            raise ValueError("log Z is of the whole model; this target has known parts. Condition on nothing.")
        if not target.structure.blocks:
            target = target.blocked()
        target = single(target)
        picked = rng.permutation(count)[:ROWS]
        points = typical(jax.random.key(seed), target, {k: jnp.asarray(v[picked], "float32") for k, v in rows.items()})
        path = gibbs_path(target, {**points, **rows})
        chosen = rng.choice(len(next(iter(points.values()))), num)
        return path, {k: v[chosen] for k, v in path.kept(points).items()} if count else None
    if isinstance(target, Continuous):
        few = rng.choice(count, min(count, ROWS), replace=False)
        points = [target.unconstrain({k: np.asarray(v)[i] for k, v in rows.items()}) for i in few]
        array = np.array(points, "float32") if points else None
        path = hamiltonian_path(single(target), array)
        return path, None if array is None else jnp.asarray(array[rng.choice(len(array), num, replace=len(few) < num)])
    raise TypeError(f"AIS needs an energy; this target offers {target.offers}.")


def single(target: Any) -> Any:
    """The target in single precision."""
    arrays = {k: jnp.asarray(v, "float32") if v.dtype.kind == "f" else v for k, v in target.arrays.items()}
    return type(target)(_in_single(target.structure), arrays)


@functools.lru_cache(maxsize=64)
def _in_single(structure: Any) -> Any:
    """The same object for the same structure, so that compiled code is found again."""
    return structure if structure.precision == "float32" else dataclasses.replace(structure, precision="float32")


def _refined(pilot: Schedule, count: int) -> Schedule:
    """`count` temperatures beside 0, evenly many in every step of the pilot run."""
    at = np.linspace(0, len(pilot.betas) - 1, count + 1)
    each = np.arange(len(pilot.betas))
    betas, steps = (np.interp(at, each, np.asarray(x, float)) for x in pilot)
    return Schedule(jnp.asarray(betas, "float32"), jnp.asarray(steps, "float32"))


def _retimed(schedule: Schedule, growth: np.ndarray, count: int) -> Schedule:
    """The same path with temperatures where islands come to differ in their estimates, for lack of mixing.

    growth: of log Z, (temperature, island). A segment of n steps whose growth has variance s^2 between islands gets a share
    in proportion to s sqrt(n), which makes the sum of variances s^2 n / n_new least; three tenths of all are spread evenly.
    """
    old = np.linspace(0, len(growth), SEGMENTS + 1).astype(int)
    parts = np.array([growth[a:b].sum(0).std() for a, b in itertools.pairwise(old)])
    share = 0.3 / SEGMENTS + 0.7 * parts / parts.sum() if parts.sum() else np.full(SEGMENTS, 1 / SEGMENTS)
    at = np.interp(np.linspace(0, 1, count + 1), np.append(0, np.cumsum(share)), old)
    at[-1] = old[-1]
    betas, steps = (np.interp(at, np.arange(old[-1] + 1), np.asarray(x, float)) for x in schedule)
    return Schedule(jnp.asarray(betas, "float32"), jnp.asarray(steps, "float32"))


def _chosen(seed: int, points: Any, log_weights: np.ndarray) -> Any:
    """One particle for every island, out of all: arrays (island, ...)."""
    weights = np.exp(log_weights - log_weights.max()).ravel()
    picked = generator(seed).choice(weights.size, len(log_weights), p=weights / weights.sum())
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[picked], points)


def _log_mean(logs: np.ndarray) -> tuple[float, float]:
    """log of the mean of exp, and its standard error by the delta method."""
    weights = np.exp(logs - logs.max())
    stderr = weights.std(ddof=1) / weights.mean() / np.sqrt(len(logs))
    return float(logs.max() + np.log(weights.mean())), float(stderr)


def _ess(logs: np.ndarray, size: int) -> float:
    """n / (1 + c), c the squared coefficient of variation that n independent weights would have for islands to differ so."""
    weights = np.exp(logs - logs.max())
    spread = weights.var(ddof=1) / weights.mean() ** 2
    return float(len(logs) * size / (1 + size * spread))


def _judged(
    forward: float, below: float, reverse: float, above: float, ess: float, num_chains: int, num_temperatures: int
) -> Estimate:
    one_sided = bool(np.isnan(reverse))
    gap = 0.0 if one_sided else reverse - forward
    allowed = MAX_GAP + 3 * float(np.hypot(below, above))
    trusted = bool(ess >= MIN_ESS and abs(gap) <= allowed and np.isfinite(forward))
    bounds = f"forward {forward:.2f}" if one_sided else f"forward {forward:.2f}, reverse {reverse:.2f}"
    message = f"AIS estimate ({bounds}, ESS {ess:.0f} of {num_chains})"
    if not trusted:
        message += ", not to be trusted: " + ("too few effective chains" if ess < MIN_ESS else "the two disagree")
    value = forward if one_sided else (forward + reverse) / 2
    stderr = below if one_sided else float(np.sqrt((below**2 + above**2 + gap**2) / 4))
    return Estimate(
        value, stderr, forward, below, reverse, above, ess, num_chains, num_temperatures, trusted, message
    )  # fmt: skip


# ---- compiled loops ----------------------------------------------------------------------------------------------


def _pilot(key: Any, path: Any) -> Schedule:
    """Temperatures a constant spread of the weights apart, found by one annealed run of a few particles."""
    last, betas, steps = _piloted(key, path)
    if int(last) >= LONGEST:
        raise ValueError(f"The path has no end after {LONGEST} pilot steps; the density may have no constant.")
    return Schedule(np.asarray(betas)[: int(last) + 1], np.asarray(steps)[: int(last) + 1])


@functools.partial(jax.jit, compiler_options=QUICKLY)
def _piloted(key: Any, path: Any) -> tuple[Any, Any, Any]:
    k_start, k_run = jax.random.split(key)
    x = jax.vmap(path.start)(jax.random.split(k_start, PILOT))

    def body(carry: Any) -> Any:
        i, x, log_w, betas, steps = carry
        beta, step = betas[i], steps[i]
        fields = jax.vmap(path.fields)(x)
        grown = lambda new: jax.vmap(lambda f: path.increment(f, beta, new))(fields)  # noqa: E731
        rate = jax.jvp(grown, (beta,), (jnp.ones(()),))[1]
        weights = jax.nn.softmax(log_w)
        deviation = jnp.sqrt(weights @ (rate - weights @ rate) ** 2)
        new = jnp.minimum(1.0, beta + jnp.clip(SPREAD / deviation, 1e-6, 0.05))
        log_w = log_w + grown(new)
        key = jax.random.fold_in(k_run, i)
        x, log_w, accept = _moved(key, path, x, fields, new, step, log_w[None])
        step = step * jnp.exp(0.5 * (accept - TARGET_ACCEPT))
        return i + 1, x, log_w[0], betas.at[i + 1].set(new), steps.at[i + 1].set(step)

    going = lambda carry: jnp.logical_and(carry[3][carry[0]] < 1, carry[0] < LONGEST)  # noqa: E731
    betas, steps = jnp.zeros(LONGEST + 1), jnp.zeros(LONGEST + 1).at[0].set(0.5)
    last, _, _, betas, steps = jax.lax.while_loop(going, body, (jnp.int32(0), x, jnp.zeros(PILOT), betas, steps))
    return last, betas, steps


def _moved(
    key: Any, path: Any, x: Any, fields: Any, beta: Any, step: Any, log_w: Any, given: Any = None
) -> tuple[Any, Any, Any]:
    """Particles (island * particle, ...) moved, then resampled in islands that need it; log_w: (island, particle).

    given: whether, and (island, ...) where the first particle of every island is to be. Gives the mean acceptance, too.
    """
    islands, size = log_w.shape
    k_move, k_pick = jax.random.split(key)
    keys = jax.random.split(k_move, islands * size)
    x, accept = jax.vmap(lambda k, x, f: path.move(k, x, f, beta, step))(keys, x, fields)
    if given is not None:
        x = _put(x, given[0], given[1], size)
    weights = jax.nn.softmax(log_w, axis=1)
    # Systematic resampling from a random start: of any weight, or of the first particle's where that must survive.
    top = jnp.ones((islands, 1)) if given is None else jnp.where(given[0], weights[:, :1], 1.0)
    offset = jax.random.uniform(k_pick, (islands, 1)) * top
    at = (offset + jnp.arange(size) / size) % 1.0
    ends = jnp.cumsum(weights, axis=1)
    ends = ends / ends[:, -1:]
    ancestors = jnp.minimum(jax.vmap(jnp.searchsorted)(ends, at), size - 1)
    if given is not None:
        ancestors = jnp.where(given[0], ancestors.at[:, 0].set(0), ancestors)
    poor = 1 / jnp.sum(weights**2, axis=1, keepdims=True) < RESAMPLE * size
    ancestors = jnp.where(poor, ancestors, jnp.arange(size))
    flat = (ancestors + size * jnp.arange(islands)[:, None]).reshape(-1)
    log_w = jnp.where(poor, 0.0, log_w - log_w.max(axis=1, keepdims=True))
    return jax.tree.map(lambda a: a[flat], x), log_w, accept.mean()


def _put(x: Any, given: Any, points: Any, size: int) -> Any:
    """The first particle of every island put at a point (island, ...), if `given`."""
    return jax.tree.map(lambda a, p: a.at[::size].set(jnp.where(given, p.astype(a.dtype), a[::size])), x, points)


def _run(key: Any, path: Any, schedule: Schedule, islands: int, size: int, given: Any = None) -> tuple[Any, Any, Any]:
    """All islands from base to model: the growth of log Z at every step (temperature, island), and the last particles.

    given: paths for the first particle of each island, (temperature + 1, island, ...), as `_down` makes them.
    """
    small = islands * size * len(schedule.betas) * path.target.dim < SMALL
    run, on = _ran_quickly if small else _ran, jnp.array(given is not None)
    if given is None:
        one = jax.eval_shape(lambda: path.packed(path.start(jax.random.key(0))))
        nowhere = lambda a: jnp.zeros((len(schedule.betas), islands, *a.shape), a.dtype)  # noqa: E731
        given = jax.tree.map(nowhere, one)
    return run(key, path, schedule, islands, size, on, given)


def _islands(key: Any, path: Any, schedule: Schedule, islands: int, size: int, given: Any, points: Any) -> Any:
    k_start, k_run = jax.random.split(key)
    x = jax.vmap(path.start)(jax.random.split(k_start, islands * size))
    x = _put(x, given, jax.tree.map(lambda p: p[0], points), size)

    def body(carry: Any, now: Any) -> Any:
        x, log_w = carry
        i, beta, new, step, there = now
        fields = jax.vmap(path.fields)(x)
        grown = jax.vmap(lambda f: path.increment(f, beta, new))(fields).reshape(islands, size)
        growth = jax.nn.logsumexp(log_w + grown, axis=1) - jax.nn.logsumexp(log_w, axis=1)
        x, log_w, _ = _moved(jax.random.fold_in(k_run, i), path, x, fields, new, step, log_w + grown, (given, there))
        return (x, log_w), growth

    later = jax.tree.map(lambda p: p[1:], points)
    each = (jnp.arange(len(schedule.betas) - 1), schedule.betas[:-1], schedule.betas[1:], schedule.steps[1:], later)
    (x, log_w), growth = jax.lax.scan(body, (x, jnp.zeros((islands, size))), each)
    log_w = log_w - jax.nn.logsumexp(log_w, axis=1, keepdims=True)
    return growth, jax.tree.map(lambda a: a.reshape(islands, size, *a.shape[1:]), x), log_w


_ran = jax.jit(_islands, static_argnums=(3, 4))
_ran_quickly = jax.jit(_islands, static_argnums=(3, 4), compiler_options=QUICKLY)


@functools.partial(jax.jit, static_argnums=4, compiler_options=QUICKLY)
def _burnt(key: Any, path: Any, points: Any, step: Any, count: int) -> Any:
    """Points after some moves under the model."""
    number = len(jax.tree.leaves(points)[0])

    def one(i: Any, x: Any) -> Any:
        keys = jax.random.split(jax.random.fold_in(key, i), number)
        return jax.vmap(lambda k, x: path.move(k, x, path.fields(x), jnp.ones(()), step)[0])(keys, x)

    return jax.lax.fori_loop(0, count, one, points)


@functools.partial(jax.jit, compiler_options=QUICKLY)
def _down(key: Any, path: Any, schedule: Schedule, points: Any) -> Any:
    """Points annealed from model to base by the reversed moves: where they are at every temperature, from 0 to 1."""
    number = len(jax.tree.leaves(points)[0])
    count = len(schedule.betas) - 1

    def body(x: Any, now: Any) -> Any:
        i, beta, step = now
        keys = jax.random.split(jax.random.fold_in(key, i), number)
        move = lambda k, x: path.move(k, x, path.fields(x), beta, step, backward=True)[0]  # noqa: E731
        new = jax.vmap(move)(keys, x)
        return new, path.packed(new)

    each = (jnp.arange(count), schedule.betas[1:], schedule.steps[1:])
    _, below = jax.lax.scan(body, points, each, reverse=True)
    return jax.tree.map(lambda b, p: jnp.concatenate([b, p[None]]), below, path.packed(points))
