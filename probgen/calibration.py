"""Simulation-based calibration: does an algorithm, on a program, return the posterior?

Draw unknowns from the prior and data from the program given them, fit the data, and rank the unknowns among the draws
of the fit: ranks are uniform where those are draws of the posterior (Talts, Betancourt, Simpson, Vehtari and Gelman
2018, arXiv:1804.06788). The joint log density is ranked as well, which sees a fit that ignores the data (Modrák et al.
2023, arXiv:2211.02383). Uniformity is tested by simultaneous bands of the distribution function (Säilynoja, Bürkner and
Vehtari 2022, arXiv:2103.10522).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probgen import catalog, engine, runtime, watch
from probgen.algorithm import Inference, Learner, Sampler, fitting
from probgen.data.checks import on_host
from probgen.data.fixed import Fixed, arrays_of, plain
from probgen.diagnostics import Finding, Verdict
from probgen.model import Model
from probgen.run import suggestions
from probgen.target import Continuous, Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_RANKED = 100  # thinned draws of a fit among which the truth is ranked
NUM_NULL = 4000  # simulated uniform samples behind a p-value
WARN, FAIL = 0.01, 0.001  # false-alarm rates


@dataclass(frozen=True)
class SBC:
    """The outcome of simulation-based calibration.

    names: scalars, the last of them the joint log density; ranks: (simulation, scalar), from 0 to num_ranked.
    p_values: (scalar,), of uniformity, each by itself. ess: (simulation, scalar), effective numbers of thinned draws.
    failures: what went wrong in simulations that are left out.
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    num_ranked: int
    p_values: np.ndarray
    ess: np.ndarray
    failures: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """Uniform ranks, no failed simulations, thinned draws that are nearly independent."""
        return Verdict((self._uniform(), self._failed(), self._thinned()))

    def __bool__(self) -> bool:
        return bool(self.verdict)

    def __str__(self) -> str:
        return str(self.verdict)

    def _repr_html_(self) -> str:
        return self.verdict._repr_html_()

    def _uniform(self) -> Finding:
        worst = int(np.argmin(self.p_values))
        value = float(min(1.0, self.p_values[worst] * len(self.names)))
        status = "pass" if value >= WARN else "warn" if value >= FAIL else "fail"
        shape = "" if status == "pass" else f": {_shape(self._uniforms()[:, worst])}"
        message = (
            f"smallest p-value of uniform ranks {value:.2g} ({self.names[worst]}{shape}), {len(self.names)} scalars at "
            f"once, {len(self.ranks)} simulations; at least {WARN}"
        )
        remedy = "sbc.plot() shows the ranks; longer chains or another inference if they say too narrow or biased"
        return Finding("uniform", status, value, WARN, message, remedy)

    def _failed(self) -> Finding:
        total = len(self.ranks) + len(self.failures)
        share = len(self.failures) / total
        first = f"; the first: {self.failures[0]}" if self.failures else ""
        message = f"{len(self.failures)} of {total} simulations could not be fitted and are left out{first}"
        remedy = "a narrower prior: its draws give data that cannot be fitted"
        status = "pass" if not share else "warn" if share <= 0.05 else "fail"
        return Finding("failed", status, share, 0.0, message, remedy)

    def _thinned(self) -> Finding:
        typical = np.median(self.ess, axis=0)
        value, worst = float(typical.min() / self.num_ranked), self.names[int(typical.argmin())]
        message = f"of {self.num_ranked} thinned draws {value:.0%} are effective ({worst}); at least 50 %"
        remedy = "a larger num_samples: ranks among dependent draws are not uniform even for the right posterior"
        return Finding("thinned", "pass" if value >= 0.5 else "warn", value, 0.5, message, remedy)

    def _uniforms(self) -> np.ndarray:
        return _uniforms(self.ranks, self.num_ranked)

    def plot(self) -> Figure:
        """Distribution functions of the ranks minus that of even ones, with the band that holds 95 % of them.

        An arch above the line: the truth lies low among the draws, they are biased upwards; below it, downwards. First
        above and then below: the draws are too narrow; the other way round, too wide. At most 24 scalars, worst first.
        """
        from probgen.pictures.draws import MOST
        from probgen.pictures.style import BAD, COLOURS, INK, grid, style

        worst = np.argsort(self.p_values, kind="stable")[:MOST]
        uniforms = self._uniforms()
        points, low, high = _band(len(uniforms))
        with style():
            picture, panels = grid(len(worst), min(4, len(worst)), 1.7)
            for panel, i in zip(panels, worst, strict=True):
                share = np.searchsorted(np.sort(uniforms[:, i]), points, side="right") / len(uniforms)
                outside = bool(((share < low) | (share > high)).any())
                panel.fill_between(points, low - points, high - points, color=INK, alpha=0.12, lw=0, step="mid")
                panel.plot(points, share - points, color=BAD if outside else COLOURS[0], lw=1.2)
                panel.axhline(0, color=INK, lw=0.5)
                panel.set_title(f"{self.names[i]}, p = {self.p_values[i]:.2g}")
        return picture


@watch.interruptible()
def sbc(
    program: str | Model | Callable[..., Any],
    inference: str | Inference = "nuts",
    *,
    num_simulations: int = 100,
    seed: int = 0,
    data: Mapping[str, Any] | None = None,
    precision: str = "float64",
    engine: str | None = None,
    **settings: Any,
) -> SBC:
    """Simulation-based calibration of an algorithm on a program.

    program, inference, precision, engine, settings: as for `pg.fit`; a sampler named by a word runs one chain.
    num_simulations: data sets drawn and fitted. One compiled program serves all of them.
    data: its shapes, settings and covariates are used; the observed arrays are replaced by simulated ones.

    The verdict's false-alarm rate is at most 1 % for a warning and 0.1 % for a failure. Raises ValueError where the
    program cannot simulate its data: it has a factor, an improper prior, an observed value that is not an argument by
    itself, or the data are also an input, as lagged values are.
    """
    from probgen.run import conditioned

    if num_simulations < 20:
        raise ValueError(f"num_simulations is {num_simulations}; a test of uniformity needs 20 or more.")
    algorithm = catalog.inference(inference, settings)
    if isinstance(inference, str) and isinstance(algorithm, Sampler) and "num_chains" not in settings:
        algorithm = catalog.inference(algorithm, {"num_chains": 1})
    model, target = conditioned(program, data, engine, precision)
    if target.points:
        raise ValueError(f"{target.points[0]!r} is a parameter, which has no prior to be drawn from: give it one.")
    target = fitting(algorithm, target, lambda: suggestions.best(target, algorithm))
    study = _Study(model, target, algorithm, _observed_keywords(target), precision)
    with runtime.compile_cache() if target.engine == "numpyro" else contextlib.nullcontext():
        return _summarised(study, _ranked(study, study.simulate(seed, num_simulations), seed))


class _Ranked(NamedTuple):
    """Of one simulation and every scalar: the truth's rank, and the effective number of thinned draws."""

    ranks: np.ndarray
    ess: np.ndarray


@dataclass(frozen=True)
class _Study:
    model: Model
    target: Target
    algorithm: Inference
    keywords: Mapping[str, str]  # observed site -> the argument that holds its value
    precision: str

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
        from probgen.run import prepared

        data = on_host(self.target.data)
        for site, keyword in self.keywords.items():
            drawn = np.asarray(truth[site], np.asarray(plain(data[keyword])).dtype)
            data[keyword] = Fixed(drawn) if type(data[keyword]) is Fixed else drawn
            if not np.isfinite(drawn).all():
                raise ValueError(f"the simulated {site!r} is not finite")
        program = getattr(self.target.structure, "program", self.model.program)
        model = replace(self.model, program=program)
        return fitting(self.algorithm, prepared(model, data, self.target.engine, self.precision), list)

    def simulate(self, seed: int, count: int) -> list[dict[str, np.ndarray]]:
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

    def rank(self, truth: Mapping[str, np.ndarray], seed: int) -> _Ranked | str:
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
        return _Ranked((ours < theirs).sum(axis=0), _ess(ours))


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


def _ranked(study: _Study, rows: list[dict[str, np.ndarray]], seed: int) -> list[_Ranked | str]:
    """Every simulation's ranks; on a CPU a thread a core for NumPyro, after a first one that traces everything."""

    def job(given: tuple[Mapping[str, np.ndarray], int]) -> _Ranked | str:
        with runtime.several():
            return study.rank(*given)

    seeds = np.random.SeedSequence(seed).generate_state(len(rows) + 1)[1:]
    jobs = [(row, int(s) >> 1) for row, s in zip(rows, seeds, strict=True)]
    if study.target.engine != "numpyro" or runtime.accelerator():
        return [study.rank(*job) for job in jobs]
    work = [functools.partial(job, given) for given in jobs]
    return watch.apart(work[:1]) + watch.apart(work[1:], runtime.cores())


def _summarised(study: _Study, found: list[_Ranked | str]) -> SBC:
    good = [f for f in found if isinstance(f, _Ranked)]
    failures = tuple(f for f in found if isinstance(f, str))
    if len(good) < 20:
        raise ValueError(f"{len(failures)} of {len(found)} simulations could not be fitted; the first: {failures[0]}.")
    ranks = np.stack([f.ranks for f in good])
    drawn = study.algorithm.settings().get("num_samples") or study.algorithm.settings().get("num_draws") or NUM_RANKED
    chains = study.algorithm.num_chains if isinstance(study.algorithm, Sampler) else 1
    num_ranked = min(NUM_RANKED, drawn * chains)
    p_values = uniformity(_uniforms(ranks, num_ranked))
    return SBC(study.names, ranks, num_ranked, p_values, np.stack([f.ess for f in good]), failures)


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


# ---- uniformity --------------------------------------------------------------------------------------------------


def _uniforms(ranks: np.ndarray, num_ranked: int) -> np.ndarray:
    """Ranks from 0 to num_ranked spread evenly over their intervals in [0, 1]."""
    return (ranks + np.random.default_rng(0).uniform(size=ranks.shape)) / (num_ranked + 1)


def _shape(uniform: np.ndarray) -> str:
    """In words, how a sample (simulation,) departs from the uniform distribution: shifted, too narrow or too wide."""
    count = len(uniform)
    shift = (uniform.mean() - 0.5) * np.sqrt(12 * count)
    spread = (uniform.var() - 1 / 12) * np.sqrt(180 * count)
    if abs(shift) > abs(spread):
        return "the draws are too low" if shift > 0 else "the draws are too high"
    return "the draws are too narrow" if spread > 0 else "the draws are too wide"


def uniformity(uniform: np.ndarray) -> np.ndarray:
    """p-values that each column of (simulation, scalar) is a sample of the uniform distribution: (scalar,)."""
    count = len(uniform)
    null = _null(count)
    levels = _levels(uniform.T)
    rare = null[len(null) // 100]  # below it the distribution of levels is linear to within a few per cent
    empirical = np.searchsorted(null, levels, side="right") / len(null)
    return np.where(levels < rare, 0.01 * levels / rare, np.minimum(1.0, empirical))


def _points(count: int) -> np.ndarray:
    size = min(count, 100)
    return np.arange(1, size) / size


@functools.lru_cache(maxsize=8)
def _tails(count: int) -> tuple[np.ndarray, np.ndarray]:
    """P(Binomial(count, point) <= k) and P(... >= k), each (point, k)."""
    from scipy.stats import binom

    k, points = np.arange(count + 1), _points(count)[:, None]
    return binom.cdf(k, count, points), binom.sf(k - 1, count, points)


def _levels(uniform: np.ndarray) -> np.ndarray:
    """The smallest two-sided pointwise level along the distribution function of each row of (sample, simulation)."""
    points, (below, above) = _points(uniform.shape[1]), _tails(uniform.shape[1])
    counts = np.stack([np.searchsorted(row, points, side="right") for row in np.sort(uniform, axis=1)])
    at = np.arange(len(points))
    return 2 * np.minimum(below[at, counts], above[at, counts]).min(axis=1)


@functools.lru_cache(maxsize=8)
def _null(count: int) -> np.ndarray:
    """Sorted levels of uniform samples."""
    return np.sort(_levels(np.random.default_rng(0).uniform(size=(NUM_NULL, count))))


def _band(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, and the simultaneous 95 % band of the distribution function of a uniform sample there."""
    from scipy.stats import binom

    level, points = np.quantile(_null(count), 0.05), _points(count)
    return points, binom.ppf(level / 2, count, points) / count, binom.isf(level / 2, count, points) / count
