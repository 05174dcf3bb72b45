"""What is asked of learned programs with a denoiser, many rows at once; see `probgen.engine.denoising`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from probgen import runtime
from probgen.engine.denoising import Draw
from probgen.engine.drawing import great_circle
from probgen.engine.numpyro.noise.calibrating import calibration as calibration
from probgen.engine.numpyro.noise.calibrating import columns as columns
from probgen.engine.numpyro.noise.diffused import Diffusing, apart
from probgen.fitted import LogProb
from probgen.nets.diffusion.chains import Backward, Noised
from probgen.nets.diffusion.denoiser import Denoiser
from probgen.nets.diffusion.flow import ProbabilityFlow, Solver, carried, is_exact, moved, signs
from probgen.nets.diffusion.grids import time_of
from probgen.nets.diffusion.guidance import Guided
from probgen.nets.diffusion.sampling import DRAWN, edited, end, sample
from probgen.target import Arrays

AT_ONCE = 2_000  # rows
CELLS = 4_000_000  # numbers of rows and draws at once
FINE = Solver(rtol=1e-5, atol=1e-5)
ROUGH = Solver(rtol=1e-3, atol=1e-3)  # of points that are looked at
PROBES = 8
CLEAN = 13.0  # log SNR at which the bound of an SDE ends
BOXES = 4  # draws of the noise of whole numbers


# ---- draws


def own_draws(
    target: Diffusing, answer: Arrays, rows: Arrays, count: int, seed: int, num_steps: int | None = None
) -> dict[str, np.ndarray]:
    return _mapped(functools.partial(_own, num_steps), target, answer, rows, count, seed, "sample")


@functools.partial(jax.jit, static_argnums=0)
def _own(num_steps: int | None, target: Any, parameters: Any, keys: Any, rows: Any) -> Any:
    forward = functools.partial(_forward, num_steps)
    return jax.vmap(lambda key, row: target.drawn_by(forward, key, parameters, row))(keys, rows)


def _forward(num_steps: int | None, fn: Any, shape: tuple[int, ...], key: Any) -> Any:
    """The first level of a chain, or the point of a flow, by the program's own law; num_steps: of a chain of tokens, by so many."""
    found = apart(fn)
    if found is None:
        return fn.first(key) if num_steps is None else fn.first(key, num_steps)
    point = fn.base_dist.sample(key)
    for transform in (*found[0], found[1]):
        point = transform(point)
    return point


def draws(
    target: Diffusing, answer: Arrays, rows: Arrays, count: int, seed: int, draw: Draw, start: Any = None
) -> dict[str, np.ndarray]:
    from probgen.nets.diffusion.samplers import named

    named(draw.sampler)  # which raises for one that is not known
    _check_line(target, answer)
    given = dict(rows) | ({} if start is None else {target.visible[0].name: start})
    one = functools.partial(_sampled, draw, start is not None)
    return _mapped(one, target, answer, given, count, seed, "sample")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sampled(draw: Draw, begun: bool, target: Any, parameters: Any, keys: Any, rows: Any) -> Any:
    def one(key: Any, row: Any) -> Any:
        row = row if begun else row | _nothing(target)
        denoiser, seen = _guided(target, parameters, row, draw.guidance)
        if begun:
            y = edited(denoiser, key, seen, draw.level or 1.0, draw.num_steps, draw.sampler, times=draw.times)
        else:
            k_end, key = jax.random.split(key)
            z = end(denoiser.schedule, k_end, seen.shape)
            y = sample(denoiser, key, z, draw.num_steps, draw.sampler, times=draw.times)
        return target.unmeasured(parameters, row, y)

    return jax.vmap(one)(keys, rows)


def jumped(
    target: Diffusing, answer: Arrays, rows: Arrays, count: int, seed: int, learner: str, num_steps: int
) -> dict[str, np.ndarray]:
    _check_line(target, answer)
    return _mapped(functools.partial(_jumped, learner, num_steps), target, answer, rows, count, seed, "sample")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _jumped(learner: str, num_steps: int, target: Any, parameters: Any, keys: Any, rows: Any) -> Any:
    def one(key: Any, row: Any) -> Any:
        row = row | _nothing(target)
        denoiser, seen = target.denoised(parameters, row)
        return target.unmeasured(parameters, row, DRAWN[learner](denoiser, key, seen.shape, num_steps))

    return jax.vmap(one)(keys, rows)


def _nothing(target: Any) -> dict[str, Any]:
    """A point of zeros, where only the denoiser is wanted."""
    (site,) = target.visible
    return {site.name: jnp.zeros(site.shape, target.precision)}


def _guided(target: Any, parameters: Any, row: Any, guidance: float) -> tuple[Denoiser, Any]:
    denoiser, seen = target.denoised(parameters, row)
    if guidance == 1:
        return denoiser, seen
    hidden = row | {k: jnp.full_like(row[k], -1) for k in target.labels}
    return Guided(denoiser, target.denoised(parameters, hidden)[0], guidance), seen


def paths(
    target: Diffusing, answer: Arrays, rows: Arrays, count: int, seed: int, draw: Draw
) -> Mapping[str, np.ndarray]:
    _check_line(target, answer)
    found = _mapped(functools.partial(_paths, draw), target, answer, rows, count, seed, "trajectory")
    return {"times": found["times"][0], "z": found["z"]}


@functools.partial(jax.jit, static_argnums=0)
def _paths(draw: Draw, target: Any, parameters: Any, keys: Any, rows: Any) -> Any:
    def one(key: Any, row: Any) -> Any:
        denoiser, seen = _guided(target, parameters, row | _nothing(target), draw.guidance)
        k_end, key = jax.random.split(key)
        z = end(denoiser.schedule, k_end, seen.shape)
        x, path = sample(denoiser, key, z, draw.num_steps, draw.sampler, times=draw.times, trajectory=True)
        return {"times": jnp.append(path.times, 0.0), "z": jnp.concatenate([path.z, x[None]])}

    return jax.vmap(one)(keys, rows)


def schedule(target: Diffusing, answer: Arrays, num_times: int) -> Mapping[str, np.ndarray]:
    with runtime.jax_scope(target.precision):
        parameters, rows = _ready(target, answer, {k: v[:1] for k, v in target.all_rows().items()})
        denoiser, _ = target.denoised(parameters, jax.tree.map(lambda x: x[0], rows))
        times = jnp.linspace(max(denoiser.schedule.first, 1e-4), 1 - 1e-4, num_times)
        alpha, sigma = jax.vmap(denoiser.schedule.scales)(times)
        found = {"times": times, "alpha": alpha, "sigma": sigma, "log_snr": jax.vmap(denoiser.schedule.log_snr)(times)}
    return {k: np.asarray(v, float) for k, v in found.items()}


def between(
    target: Diffusing, answer: Arrays, rows: Arrays, pair: np.ndarray, num_points: int
) -> dict[str, np.ndarray]:
    (site,) = target.visible
    _check_line(target, answer)
    with runtime.jax_scope(target.precision):
        parameters, given = _ready(target, answer, rows)
        ends = {k: v[:2] for k, v in given.items()} | {site.name: jnp.asarray(pair, target.precision)}
        noise = np.asarray(_to_noise(target, parameters, ends))
        line = great_circle(noise[0], noise[1], np.linspace(0, 1, num_points))
        found = _from_noise(target, parameters, given, jnp.asarray(line, target.precision))
    return {k: np.asarray(v) for k, v in found.items()}


def moved_rows(target: Diffusing, answer: Arrays, rows: Arrays, x: np.ndarray, where: str) -> np.ndarray:
    (site,) = target.visible
    _check_line(target, answer)
    with runtime.jax_scope(target.precision):
        parameters, given = _ready(target, answer, rows)
        parts = []
        for at in _parts(target, len(x), where, 1):
            part, each = {k: v[at] for k, v in given.items()}, jnp.asarray(x[at], target.precision)
            if where == "to noise":
                parts.append(np.asarray(_to_noise(target, parameters, part | {site.name: each})))
            else:
                parts.append(np.asarray(_from_noise(target, parameters, part, each)[site.name]))
    return np.concatenate(parts)


@jax.jit
def _to_noise(target: Any, parameters: Any, rows: Any) -> Any:
    def one(row: Any) -> Any:
        denoiser, seen = target.denoised(parameters, row)
        return moved(ProbabilityFlow(denoiser), seen, ROUGH, False)

    return jax.vmap(one)(rows)


@jax.jit
def _from_noise(target: Any, parameters: Any, rows: Any, noise: Any) -> Any:
    def one(row: Any, z: Any) -> Any:
        row = row | _nothing(target)
        y = moved(ProbabilityFlow(target.denoised(parameters, row)[0]), z, ROUGH)
        return target.unmeasured(parameters, row, y)

    return jax.vmap(one)(rows, noise)


# ---- likelihoods


def bound(target: Diffusing, answer: Arrays, rows: Arrays, num_draws: int, seed: int) -> LogProb:
    """Levels are spread out evenly over draws; the error is by neighbours, which share a level nearly."""
    if num_draws < 2:
        raise ValueError(f"num_draws is {num_draws}; it must be at least 2")
    found = _mapped(functools.partial(_bounds, num_draws), target, answer, rows, _count(rows), seed, "bound", num_draws)
    draws = found["draws"].astype(float)
    error = np.sqrt(0.5 * np.mean(np.diff(draws, axis=1) ** 2, 1) / num_draws)
    return LogProb(draws.mean(1), error, f"lower bound: {'chain' if target.chained else 'reverse SDE'}")


@functools.partial(jax.jit, static_argnums=0)
def _bounds(num_draws: int, target: Any, parameters: Any, keys: Any, rows: Any) -> Any:
    """{"draws": (row, draw)}."""

    def one(key: Any, row: Any) -> Any:
        times = (jnp.arange(num_draws) + jax.random.uniform(jax.random.fold_in(key, 0))) / num_draws
        keys = jax.random.split(jax.random.fold_in(key, 1), num_draws)
        if target.chained:
            draw = lambda at: target.terms(at[0], parameters, row, at[1]).log_ratio  # noqa: E731
        else:
            denoiser, seen, volume = target.measured(parameters, row)
            draw = lambda at: _reversed(denoiser, seen, *at) + volume  # noqa: E731
        return jax.lax.map(draw, (keys, times), batch_size=min(num_draws, 100))

    return {"draws": jax.vmap(one)(keys, rows)}


def _reversed(denoiser: Denoiser, x: Any, key: Any, time: Any) -> Any:
    """One draw of the bound on the density of the reverse SDE, infinitely many levels from noise to log SNR CLEAN, in nats: ().

    Song, Durkan, Murray and Ermon 2021 (arXiv:2101.09258); what is left of the noise at the end is normal.
    """
    first = jnp.maximum(time_of(denoiser.schedule, CLEAN), denoiser.schedule.first)
    times = jnp.stack([first, jnp.ones_like(first)]).astype(x.dtype)
    q, p = Noised(x, denoiser.schedule, times), Backward(denoiser, x.shape, times, "bridge", continuous=True)
    z, at = q.lazily(key, time)
    alpha, sigma = denoiser.schedule.scales(times[0])
    left = jnp.sum(jax.scipy.stats.norm.logpdf(x, z / alpha, sigma / alpha))
    return left - p.end_gap(q) - p.gap(q, at)


def density(target: Diffusing, answer: Arrays, rows: Arrays, seed: int) -> LogProb:
    (site,) = target.visible
    _check_line(target, answer)
    whole = site.kind in ("bits", "levels")
    found = _mapped(functools.partial(_densities, whole), target, answer, rows, _count(rows), seed, "density")
    value, solver, noise = (found[k].astype(float) for k in ("value", "solver", "noise"))
    kind = "lower bound: dequantised ODE density" if whole else "ODE density"
    lost = int((~np.isfinite(value)).sum())
    told = f"; the solver gave up on {lost} of {len(value)} rows, which are NaN" if lost else ""
    return LogProb(value, np.hypot(solver, noise), kind + told)


@functools.partial(jax.jit, static_argnums=0)
def _densities(whole: bool, target: Any, parameters: Any, keys: Any, rows: Any) -> Any:
    (site,) = target.visible

    def at(key: Any, row: Any) -> Any:
        k_box, k_probe = jax.random.split(key)
        if whole:
            row = row | {site.name: row[site.name] + jax.random.uniform(k_box, site.shape, minval=-0.5, maxval=0.5)}
        denoiser, seen, volume = target.measured(parameters, row)
        probes = None if is_exact(None, seen.shape) else signs(k_probe, PROBES, seen.shape)
        velocity = ProbabilityFlow(denoiser)
        scale = jnp.sqrt(jnp.sum(jnp.square(jnp.stack(denoiser.schedule.scales(jnp.ones(()))))))
        rough, fine = (_flowed(velocity, seen, how, scale, probes) + volume for how in (FINE, FINE.finer()))
        noise = jnp.zeros(()) if probes is None else jnp.std(fine, ddof=1) / math.sqrt(PROBES)
        return jnp.mean(fine), jnp.abs(jnp.mean(fine) - jnp.mean(rough)), noise

    def one(key: Any, row: Any) -> Any:
        if not whole:
            value, solver, noise = at(key, row)
            return {"value": value, "solver": solver, "noise": noise}
        value, solver, noise = jax.vmap(lambda k: at(k, row))(jax.random.split(key, BOXES))
        noise = jnp.std(value, ddof=1) / math.sqrt(BOXES)  # that of probes is in it
        return {"value": jnp.mean(value), "solver": jnp.mean(solver), "noise": noise}

    return jax.vmap(one)(keys, rows)


def _flowed(velocity: Any, x: Any, solver: Solver, scale: Any, probes: Any) -> Any:
    noise, volume = carried(velocity, x, solver, False, probes)
    return jnp.sum(jax.scipy.stats.norm.logpdf(noise, scale=scale)) - volume


# ---- errors by level of noise


def losses(target: Diffusing, answer: Arrays, rows: Arrays, num_levels: int, seed: int) -> Mapping[str, np.ndarray]:
    if num_levels < 1:
        raise ValueError(f"num_levels is {num_levels}; it must be at least 1.")
    with runtime.jax_scope(target.precision):
        parameters, given = _ready(target, answer, rows)
        found = _errors(num_levels, target, parameters, jax.random.split(jax.random.key(seed), _count(rows)), given)
    return {k: np.asarray(v, float) for k, v in found.items()}


@functools.partial(jax.jit, static_argnums=0)
def _errors(num_levels: int, target: Any, parameters: Any, keys: Any, rows: Any) -> Any:
    seen = jax.vmap(lambda row: target.denoised(parameters, row)[1])(rows)
    variance = jnp.var(seen, 0)

    def one(key: Any, row: Any, index: Any) -> Any:
        denoiser, x = target.denoised(parameters, row)
        schedule = denoiser.schedule
        k_time, k_noise = jax.random.split(jax.random.fold_in(key, index))
        t = schedule.first + (1 - schedule.first) * (index + jax.random.uniform(k_time)) / num_levels
        noise = jax.random.normal(k_noise, x.shape, x.dtype)
        z = schedule.noised(x, noise, t)
        (alpha, sigma), lam = schedule.scales(t), schedule.log_snr(t)
        _, slope = jax.jvp(schedule.log_snr, (t,), (jnp.ones_like(t),))
        linear = jnp.mean(variance * sigma**2 / (alpha**2 * variance + sigma**2))
        missed = jnp.mean((x - denoiser(z, t).mean) ** 2)
        share = -0.5 * slope * (1 - schedule.first) / num_levels * jnp.exp(lam)
        return -0.5 * lam, missed, linear, share

    def level(index: Any) -> Any:
        ratio, missed, linear, share = jax.vmap(lambda key, row: one(key, row, index))(keys, rows)
        error, spread = jnp.mean(missed / linear), jnp.std(missed / linear) / jnp.sqrt(len(missed))
        nats, lost = jnp.mean(share * missed), share * (missed - linear)
        return {
            "log_ratio": jnp.median(ratio), "error": error, "stderr": spread, "nats": nats, "lost": jnp.mean(lost),
            "lost_stderr": jnp.std(lost) / jnp.sqrt(len(lost)),
        }  # fmt: skip

    return jax.lax.map(level, jnp.arange(num_levels))


# ---- parts


def _ready(target: Diffusing, answer: Arrays, rows: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and rows as JAX's arrays."""
    sites = {v.name for v in target.visible}
    parameters = {k: jnp.asarray(v, target.precision) for k, v in answer.items()}
    return parameters, {k: jnp.asarray(v, target.precision if k in sites else None) for k, v in rows.items()}


def _check_line(target: Diffusing, answer: Arrays) -> None:
    """Raise Incompatible for a chain whose points are not measured on a line, by the first row."""
    with runtime.jax_scope(target.precision):
        parameters = _ready(target, answer, {})[0]
        target.check_line(parameters, jax.tree.map(lambda x: x[0], target.rows(jnp.arange(1))))


def _count(rows: Arrays) -> int:
    return len(next(iter(rows.values())))


def _mapped(
    one: Callable[..., Any],
    target: Any,
    answer: Arrays,
    rows: Arrays,
    count: int,
    seed: int,
    label: str,
    draws: int = 1,
) -> dict[str, np.ndarray]:
    """What a compiled function of (target, parameters, keys, rows) says of rows, so many at a time that memory holds them."""
    with runtime.jax_scope(target.precision):
        parameters, given = _ready(target, answer, rows)
        keys = jax.random.split(jax.random.key(seed), count)
        parts = [
            one(target, parameters, keys[at], {k: v[at] for k, v in given.items()})
            for at in _parts(target, count, label, draws)
        ]
        parts = [jax.tree.map(np.asarray, part) for part in parts]
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def _parts(target: Any, count: int, label: str, draws: int) -> Iterator[slice]:
    """Slices of rows."""
    cells = draws * max(1, sum(v.size for v in target.visible))
    size = min(count, AT_ONCE, max(1, CELLS // cells))
    for begin in tqdm(range(0, count, size), desc=label, unit="part", delay=1, disable=None):
        yield slice(begin, begin + size)
