"""One simulation: unknowns and data of the program, a fit of them, the ranks of the unknowns among its draws."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from probgen import catalog, engine, runtime
from probgen.algorithm import Inference, Learner, Sampler, fitting
from probgen.data.checks import on_host
from probgen.data.fixed import Fixed, arrays_of, plain
from probgen.model import Model
from probgen.processes.outcomes import Outcome, said
from probgen.run import conditioned, prepared, suggestions
from probgen.target import Continuous, Target

NUM_RANKED = 100  # thinned draws of a fit among which the truth is ranked
RANKED, FAILED, RAISED = "ranked", "failed", "raised"  # what comes of a simulation in a process of its own


@dataclass(frozen=True)
class Asked:
    """What is asked for, as it is sent to other processes; see `sbc`."""

    program: str | Model | Callable[..., Any]
    inference: str | Inference
    data: Mapping[str, Any] | None
    precision: str
    engine: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def study(self) -> Study:
        """Program and algorithm, checked; raises TypeError or ValueError where there is nothing to calibrate."""
        algorithm = catalog.inference(self.inference, dict(self.settings))
        if isinstance(self.inference, str) and isinstance(algorithm, Sampler) and "num_chains" not in self.settings:
            algorithm = catalog.inference(algorithm, {"num_chains": 1})
        model, target = conditioned(self.program, self.data, self.engine, self.precision)
        if target.points:
            raise ValueError(f"{target.points[0]!r} is a parameter, which has no prior to be drawn from: give it one.")
        target = fitting(algorithm, target, lambda: suggestions.best(target, algorithm))
        return Study(model, target, algorithm, _observed_keywords(target), self.precision)

    def outcome(self, job: Simulation) -> Outcome:
        """What comes of one simulation, in a process of its own."""
        try:
            with self.study.scope(), runtime.several():
                found = self.study.rank(job.truth, job.seed)
        except (Exception, SystemExit) as error:
            return Outcome(RAISED, said(error))
        return Outcome(FAILED, found) if isinstance(found, str) else Outcome(RANKED, figures=found._asdict())


class Simulation(NamedTuple):
    """Unknowns and data, and the seed of their fit. path: of what is kept of it, if anything is."""

    truth: Mapping[str, np.ndarray]
    seed: int
    path: str = ""
    anew: bool = False


class Ranked(NamedTuple):
    """Of one simulation and every scalar: the truth's rank, and the effective number of thinned draws."""

    ranks: np.ndarray
    ess: np.ndarray


@dataclass(frozen=True)
class Study:
    model: Model
    target: Target
    algorithm: Inference
    keywords: Mapping[str, str]  # observed site -> the argument that holds its value
    precision: str

    def scope(self) -> contextlib.AbstractContextManager[None]:
        """What compiled code is kept in between processes."""
        return runtime.compile_cache() if self.target.engine == "numpyro" else contextlib.nullcontext()

    @functools.cached_property
    def latent(self) -> tuple[str, ...]:
        """The continuous unknowns."""
        return tuple(s.name for s in self.target.sites if s.kind == "latent" and not s.discrete)

    @property
    def names(self) -> tuple[str, ...]:
        """Of every ranked scalar."""
        shapes = {s.name: s.shape for s in self.target.sites}
        index = {n: [f"[{', '.join(map(str, i))}]" if i else "" for i in np.ndindex(*shapes[n])] for n in self.latent}
        return (*(f"{name}{i}" for name, indices in index.items() for i in indices), "log density")

    def on(self, truth: Mapping[str, np.ndarray]) -> Target:
        """The target of simulated data; ValueError where they are not finite."""
        data = on_host(self.target.data)
        for site, keyword in self.keywords.items():
            drawn = np.asarray(truth[site], np.asarray(plain(data[keyword])).dtype)
            data[keyword] = Fixed(drawn) if type(data[keyword]) is Fixed else drawn
            if not np.isfinite(drawn).all():
                raise ValueError(f"the simulated {site!r} is not finite")
        program = getattr(self.target.structure, "program", self.model.program)
        model = replace(self.model, program=program)
        return fitting(self.algorithm, prepared(model, data, self.target.engine, self.precision), list)

    def simulations(self, seed: int, count: int) -> dict[int, Simulation]:
        """Unknowns, data and seeds of so many fits, by number."""
        rows = self._simulated(seed, count)
        seeds = np.random.SeedSequence(seed % 2**64).generate_state(count + 1)[1:]
        return {i: Simulation(row, int(s) >> 1) for i, (row, s) in enumerate(zip(rows, seeds, strict=True))}

    def _simulated(self, seed: int, count: int) -> list[dict[str, np.ndarray]]:
        """Unknowns and data from the program; ValueError where the data are also an input."""
        drawn = self.target.prior(seed, count)
        rows = [{name: value[i] for name, value in drawn.items()} for i in range(count)]
        usable = next((r for r in rows if all(np.isfinite(r[s]).all() for s in self.keywords)), None)
        if usable is None:
            raise ValueError("No simulated data are finite. Give the program a narrower, proper prior.")
        again = self.on(usable).prior(seed, count)
        for name, value in drawn.items():
            if not np.allclose(value, again[name], equal_nan=True):
                raise ValueError(
                    f"Site {name!r} depends on the data that are to be simulated: {', '.join(self.keywords.values())} "
                    "is also an input (a lagged value?).\nWrite a program that draws its data without looking at them."
                )
        return rows

    def rank(self, truth: Mapping[str, np.ndarray], seed: int) -> Ranked | str:
        """The ranks of one simulation, or why there are none."""
        try:
            target = self.on(truth)
            z, lp = _draws(self.algorithm, target, seed)
        except (ValueError, FloatingPointError) as error:
            return str(error).splitlines()[0]
        assert isinstance(target, Continuous)
        keep = np.linspace(0, len(z) - 1, min(NUM_RANKED, len(z))).astype(int)
        values = target.constrain(z[None, keep])
        origin = target.unconstrain({name: truth[name] for name in self.latent})
        height = target.gradients(origin[None])[0]
        ours = np.concatenate([*(values[n][0].reshape(len(keep), -1) for n in self.latent), lp[keep, None]], axis=1)
        theirs = np.concatenate([*(np.ravel(truth[n]) for n in self.latent), height])
        if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
            return "draws or their log densities are not finite"
        return Ranked((ours < theirs).sum(axis=0), _ess(ours))


def _ess(draws: np.ndarray) -> np.ndarray:
    """Bulk ESS of draws (draw, scalar); 1 where they do not move."""
    from arviz_stats.base import array_stats

    with np.errstate(all="ignore"):
        sizes = array_stats.ess(draws.T[:, None])
    return np.where(np.ptp(draws, axis=0) > 0, np.nan_to_num(sizes, nan=1.0), 1.0)


def _draws(algorithm: Inference, target: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws z (draw, dim) of one fit, chains end to end, and their log densities (draw,)."""
    chains = algorithm.num_chains if isinstance(algorithm, Sampler) else 1
    executor = engine.load(target.engine).Executor(algorithm, target, seed, chains)
    executor.init()
    if isinstance(algorithm, Sampler) and not np.isfinite(executor.read("log_density")).all():
        raise ValueError("no starting point with a finite log density was found")
    parts: list[Mapping[str, np.ndarray]] = []
    step = 0
    while step < algorithm.total_steps and not (parts and _converged(parts[-1])):
        parts.append(executor.advance(step, algorithm.total_steps - step))
        step += next(iter(parts[-1].values())).shape[1]
    if isinstance(algorithm, Learner):
        answer = executor.answer()
        return answer["z"].reshape(-1, target.dim), answer["log_p"].ravel()
    warmup = algorithm.num_warmup if isinstance(algorithm, Sampler) else 0
    kept = {k: np.concatenate([p[k] for p in parts], axis=1)[:, warmup:] for k in ("z", "lp")}
    return kept["z"].reshape(-1, target.dim), kept["lp"].ravel()


def _converged(records: Mapping[str, np.ndarray]) -> bool:
    return "converged" in records and bool(records["converged"][:, -1].all())


def _observed_keywords(target: Target) -> dict[str, str]:
    """For every observed site the argument whose array is its value: that of its name, else another."""
    if target.named("factor"):
        raise ValueError(
            f"The program has the factor {target.named('factor')[0]!r}, which has no draws.\n"
            "Simulation-based calibration needs a program that simulates its data: write the factor as a sample site."
        )
    arrays = arrays_of(target.data)
    found: dict[str, str] = {}
    for site, value in target.observed_values().items():
        same = [k for k in (site, *arrays) if k in arrays and _same(arrays[k], value) and k not in found.values()]
        if not same:
            raise ValueError(
                f"No argument of the program holds the value of the observed site {site!r}, shape {value.shape}; "
                f"its arrays: {', '.join(f'{k} {v.shape}' for k, v in arrays.items()) or 'none'}.\n"
                "Pass what is observed as an argument of its own, obs=y, with y in the data."
            )
        found[site] = same[0]
    if not found:
        raise ValueError("The program observes nothing: there are no data to simulate.")
    return found


def _same(argument: np.ndarray, value: np.ndarray) -> bool:
    return argument.shape == value.shape and bool(np.allclose(argument, value))
