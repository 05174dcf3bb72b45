"""What is asked of learned Pyro programs with a denoiser, many rows at once; see `probgen.engine.denoising`.

Rows are NumPy arrays, in and out; parts of them are done one after the other, each with random numbers of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from probgen.engine import measuring
from probgen.engine.drawing import great_circle
from probgen.engine.pyro.executor import OPS
from probgen.engine.pyro.noise.diffused import Diffusing, PyroChained
from probgen.fitted import LogProb
from probgen.nets.torch_diffusion import flow
from probgen.nets.torch_diffusion.chains import Backward, Noised
from probgen.nets.torch_diffusion.denoiser import probability_flow
from probgen.nets.torch_diffusion.grids import FARTHEST, time_of
from probgen.nets.torch_diffusion.guidance import Guided
from probgen.nets.torch_diffusion.samplers import named
from probgen.nets.torch_diffusion.sampling import edited, end, sample, times_of
from probgen.programs.pinned import check_pins
from probgen.target import Arrays

AT_ONCE = 500  # rows
FINE = flow.Solver(1e-5, 1e-5)
ROUGH = flow.Solver(1e-3, 1e-3)  # of points that are looked at
PROBES = 8
CLEAN = 13.0  # log SNR at which the bound of an SDE ends
BOXES = 4  # draws of the noise of whole numbers


# ---- draws


def own_draws(
    target: Diffusing, answer: Arrays, rows: Arrays, count: int, seed: int, num_steps: int | None = None
) -> dict[str, np.ndarray]:
    if num_steps is not None:
        raise ValueError(
            "num_steps is of a sampler, or of a chain of tokens: say which sampler, such as sampler='ddim'."
        )
    return _mapped(lambda given: target.forward(given), target, answer, rows, count, seed, "sample")


def draws(
    target: Diffusing, answer: Arrays, rows: Arrays, count: int, seed: int, draw: Any, start: Any = None
) -> dict[str, np.ndarray]:
    named(draw.sampler)  # which raises for one that is not known
    _check_line(target, answer)
    given = dict(rows) | ({} if start is None else {"start": start})  # between levels too, where rows are whole numbers

    def some(rows: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        rows = rows if start is None else {**rows, target.visible[0].name: rows["start"]}
        denoiser, seen = _guided(target, rows, draw.guidance)
        if start is None:
            y = sample(denoiser, end(denoiser.schedule, seen), draw.num_steps, draw.sampler, times=draw.times)
        else:
            y = edited(denoiser, seen, draw.level or 1.0, draw.num_steps, draw.sampler, times=draw.times)
        return target.unmeasured(rows, y)

    return _mapped(some, target, answer, given, count, seed, "sample")


def paths(
    target: Diffusing, answer: Arrays, rows: Arrays, count: int, seed: int, draw: Any
) -> Mapping[str, np.ndarray]:
    times = torch.zeros(0)
    _check_line(target, answer)

    def some(rows: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        nonlocal times
        denoiser, seen = _guided(target, rows, draw.guidance)
        z = end(denoiser.schedule, seen)
        seen_on_the_way: list[torch.Tensor] = []
        x = sample(denoiser, z, draw.num_steps, draw.sampler, times=draw.times, seen=seen_on_the_way)
        times = times_of(denoiser, named(draw.sampler), draw.num_steps, times=draw.times)
        return {"z": torch.stack([*seen_on_the_way, x], 1)}

    z = _mapped(some, target, answer, rows, count, seed, "trajectory")["z"]
    return {"times": np.append(times.numpy(), 0.0), "z": z}


def between(
    target: Diffusing, answer: Arrays, rows: Arrays, pair: np.ndarray, num_points: int
) -> dict[str, np.ndarray]:
    (site,) = target.visible
    ends = {k: np.asarray(v)[:2] for k, v in rows.items()} | {site.name: pair}
    _check_line(target, answer)

    def to_noise(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        denoiser, seen = target.denoised(given)
        velocity, first = probability_flow(denoiser)
        return {"z": flow.moved(velocity, seen, first, 1.0, ROUGH)}

    def from_noise(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        velocity, first = probability_flow(target.denoised(given)[0])
        y = flow.moved(velocity, given["z"], 1.0, first, ROUGH)
        return target.unmeasured(given, y)

    noise = _mapped(to_noise, target, answer, ends, 2, 0, "noise")["z"]
    line = great_circle(noise[0], noise[1], np.linspace(0, 1, num_points))
    return _mapped(from_noise, target, answer, {**rows, "z": line}, num_points, 0, "points")


def _guided(target: Diffusing, rows: Mapping[str, torch.Tensor], guidance: float) -> tuple[Any, torch.Tensor]:
    denoiser, seen = target.denoised(rows)
    if guidance == 1:
        return denoiser, seen
    hidden = {**rows, **{k: torch.full_like(rows[k], -1) for k in target.labels}}
    return Guided(denoiser, target.denoised(hidden)[0], guidance), seen


# ---- likelihoods


def bound(target: Diffusing, answer: Arrays, rows: Arrays, num_draws: int, seed: int) -> LogProb:
    """Levels are spread out evenly over draws; the error is by neighbours, which share a level nearly."""
    if num_draws < 2:
        raise ValueError(f"num_draws is {num_draws}; it must be at least 2")

    def some(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        count = _count(given)
        start = torch.rand(count, dtype=torch.get_default_dtype())
        times = ((i + start) / num_draws for i in range(num_draws))
        if isinstance(target, PyroChained):
            return {"draws": torch.stack([target.terms(given, time).log_ratio for time in times], 1)}
        denoiser, seen, volume = target.measured(given)
        return {"draws": torch.stack([_reversed(denoiser, seen, time) + volume for time in times], 1)}

    found = _mapped(some, target, answer, rows, _count(rows), seed, "bound")["draws"].astype(float)
    error = np.sqrt(0.5 * np.mean(np.diff(found, axis=1) ** 2, 1) / num_draws)
    return LogProb(found.mean(1), error, f"lower bound: {'chain' if target.chained else 'reverse SDE'}")


def schedule(target: Diffusing, answer: Arrays, num_times: int) -> Mapping[str, np.ndarray]:
    def some(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = target.denoised(given)[0].schedule
        times = torch.linspace(max(found.first, 1e-4), 1 - 1e-4, num_times)
        alpha, sigma = found.scales(times)
        return {"times": times, "alpha": alpha, "sigma": sigma, "log_snr": found.log_snr(times)}

    return _mapped(some, target, answer, {k: v[:1] for k, v in target.all_rows().items()}, 1, 0, "schedule")


def _reversed(denoiser: Any, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """One draw of the bound on the density of the reverse SDE, infinitely many levels from noise to log SNR CLEAN, in nats: (row,).

    Song, Durkan, Murray and Ermon 2021 (arXiv:2101.09258); what is left of the noise at the end is normal.
    """
    schedule = denoiser.schedule
    first = time_of(schedule, CLEAN).clamp(min=schedule.first)
    times = torch.stack([first, torch.ones_like(first)]).to(x)
    q, p = Noised(x, schedule, times), Backward(denoiser, x.shape[1:], times, "bridge", continuous=True)
    z, at = q.first(), q.level(time)
    alpha, sigma = schedule.scales(times[0])
    left = torch.distributions.Normal(z / alpha, sigma / alpha).log_prob(x).flatten(1).sum(1)
    return left - p.end_gap(q) - p.gap(q, at)


def density(target: Diffusing, answer: Arrays, rows: Arrays, seed: int) -> LogProb:
    (site,) = target.visible
    whole = target.most is not None
    _check_line(target, answer)

    def once(given: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if whole:
            x = given[site.name]
            given = {**given, site.name: x + torch.rand(x.shape) - 0.5}
        denoiser, seen, volume = target.measured(given)
        scale = torch.stack(denoiser.schedule.scales(torch.ones(()))).square().sum().sqrt()
        velocity, first = probability_flow(denoiser)
        found = flow.density(velocity, seen, first, scale, FINE, None, PROBES)
        return torch.stack([found.value + volume, found.solver, found.probes], 1)

    def some(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"found": torch.stack([once(given) for _ in range(BOXES if whole else 1)], 1)}

    found = _mapped(some, target, answer, rows, _count(rows), seed, "density")["found"].astype(float)
    value, solver, noise = np.moveaxis(found, -1, 0)  # (row, box)
    error = np.std(value, axis=1, ddof=1) / np.sqrt(BOXES) if whole else noise[:, 0]  # that of probes is in it
    value, solver = value.mean(1), solver.mean(1)
    lost = int((~np.isfinite(value)).sum())
    told = f"; the solver gave up on {lost} of {len(value)} rows, which are NaN" if lost else ""
    kind = "lower bound: dequantised ODE density" if whole else "ODE density"
    return LogProb(value, np.hypot(solver, error), kind + told)


# ---- errors by level of noise


def losses(target: Diffusing, answer: Arrays, rows: Arrays, num_levels: int, seed: int) -> Mapping[str, np.ndarray]:
    if num_levels < 1:
        raise ValueError(f"num_levels is {num_levels}; it must be at least 1.")
    seen = _mapped(lambda given: {"y": target.denoised(given)[1]}, target, answer, rows, _count(rows), seed, "rows")[
        "y"
    ]
    variance = torch.from_numpy(seen.var(0))
    found = [_errors(target, answer, rows, variance, (i, num_levels), seed) for i in range(num_levels)]
    return {k: np.array([each[k] for each in found], float) for k in found[0]}


def _errors(target: Diffusing, answer: Arrays, rows: Arrays, variance: Any, level: Any, seed: int) -> Mapping[str, Any]:
    """Of one level of noise among so many."""
    index, num_levels = level

    def some(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        denoiser, x = target.denoised(given)
        schedule, mean = denoiser.schedule, lambda y: y.flatten(1).mean(1)
        t = schedule.first + (1 - schedule.first) * (index + torch.rand(len(x))) / num_levels
        noise = torch.randn_like(x)
        z = schedule.noised(x, noise, t)
        alpha, sigma = denoiser.scales(z, t)
        linear = mean(variance * sigma**2 / (alpha**2 * variance + sigma**2))
        missed, log_snr = mean((x - denoiser(z, t).mean) ** 2), schedule.log_snr(t)
        share = -0.5 * schedule.fall(t) * (1 - schedule.first) / num_levels * torch.exp(log_snr)
        lost = share * (missed - linear)
        return {"ratio": -0.5 * log_snr, "error": missed / linear, "nats": share * missed, "lost": lost}

    at = _mapped(some, target, answer, rows, _count(rows), seed + index, f"level {index}")
    stderr = lambda value: value.std() / np.sqrt(len(value))  # noqa: E731
    return {
        "log_ratio": np.median(at["ratio"]), "error": at["error"].mean(), "stderr": stderr(at["error"]),
        "nats": at["nats"].mean(), "lost": at["lost"].mean(), "lost_stderr": stderr(at["lost"]),
    }  # fmt: skip


# ---- what is said of the denoiser of a point that is completed


def calibration(target: Diffusing, answer: Arrays, seed: int = 0) -> dict[str, np.ndarray]:
    """log_snr: (level,); gain, slope, offset: (level, *event); missed: x less what is believed then: (level, row, *event)."""
    rows = {k: v[measuring.picked(target, seed)] for k, v in target.all_rows().items()}
    with target.running(target.as_tensors(answer), 0), torch.no_grad():
        schedule = target.denoised(target.few())[0].schedule
        ends = torch.tensor([1.0, max(float(schedule.first), 1e-6)], dtype=torch.float64)
        low, high = schedule.log_snr(ends).clamp(*FARTHEST).tolist()
    log_snr = np.linspace(low, high, measuring.LEVELS)
    times = time_of(schedule, log_snr)

    def level(i: int) -> Any:
        def some(given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            denoiser, x = target.denoised(given)
            t = times[i].to(x)
            z = denoiser.schedule.noised(x, torch.randn_like(x), t)
            scale = torch.stack(denoiser.schedule.scales(t)).square().sum().sqrt()
            return {"x": x, "m": denoiser(z, t).mean, "z": z / scale}

        found = _mapped(some, target, answer, rows, _count(rows), seed + i, "calibration")
        return measuring.regressed(log_snr[i], **{k: v.astype(float) for k, v in found.items()})

    found = zip(*(level(i) for i in range(measuring.LEVELS)), strict=True)
    return dict(zip(measuring.FIELDS, (log_snr, *map(np.stack, found)), strict=True))


def columns(function: Any, points: np.ndarray) -> np.ndarray:
    """A function of one point, of many in double precision: (point, *event) -> (point, *value)."""
    found = [torch.as_tensor(function(point)) for point in torch.from_numpy(np.ascontiguousarray(points, float))]
    return torch.stack(found).detach().cpu().numpy()


# ---- parts


def _check_line(target: Diffusing, answer: Arrays) -> None:
    """Raise Incompatible for a chain whose rows are not measured on a line, by a few of them."""
    with target.running(target.as_tensors(answer), 0), torch.no_grad():
        target.check_line(target.few())


def _count(rows: Mapping[str, Any]) -> int:
    return len(next(iter(rows.values())))


def _mapped(
    one: Callable[..., Any], target: Any, answer: Arrays, rows: Arrays, count: int, seed: int, label: str
) -> dict[str, np.ndarray]:
    """What a function of rows, inside `running`, says of them, so many at a time; sites that are not given are zeros."""
    check_pins(target)
    given, parameters, found = target.from_host(rows), target.as_tensors(answer), []
    for i, at in enumerate(_parts(count, label)):
        size = len(range(count)[at])
        some = {**target.stand_ins(size), **{k: v[at] for k, v in given.items()}}
        with target.running(parameters, OPS.seed(OPS.fold_in(OPS.key(seed), i))), torch.no_grad():
            found.append({k: v.cpu().numpy() for k, v in one(some).items()})
    return {k: np.concatenate([part[k] for part in found]) for k in found[0]}


def _parts(count: int, label: str) -> Iterator[slice]:
    """Slices of rows."""
    for begin in tqdm(range(0, count, AT_ONCE), desc=label, unit="part", delay=1, disable=None):
        yield slice(begin, begin + AT_ONCE)
