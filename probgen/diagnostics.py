"""The verdict on a Fit: pass, warn or fail, every check with its number, its bar and the remedy.

A check is a function of the `Evidence` that gives one Finding, or None where it does not apply. Sources: R-hat, ESS and
MCSE, Vehtari et al. 2021 (doi:10.1214/20-BA1221); k-hat, Vehtari et al. 2024 (JMLR 25(72)) and Yao et al. 2018
(arXiv:1802.02538); BFMI, Betancourt 2017 (arXiv:1701.02434).
"""

from __future__ import annotations

import functools
import html
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from probgen.algorithm import Learner
from probgen.target import Conditional, Continuous, Learnable

if TYPE_CHECKING:
    from probgen.result import Fit

Status = Literal["pass", "warn", "fail"]
SEVERITY: Mapping[str, int] = {"pass": 0, "warn": 1, "fail": 2}
NUM_PROBES = 64  # points at which gradients are checked
SMALLEST_MODE = 0.01  # share of the mass below which a mode may be missed


@dataclass(frozen=True)
class Finding:
    """What one check says. value: its number; bar: where "pass" ends; both None for a check without a number."""

    check: str
    status: Status
    value: float | None
    bar: float | None
    message: str
    remedy: str

    def __str__(self) -> str:
        line = f"  {self.status.upper() if self.status != 'pass' else self.status}  {self.check:<12} {self.message}"
        return line if self.status == "pass" else f"{line}\n        {'':<12} -> {self.remedy}"


@dataclass(frozen=True)
class Verdict:
    """All findings on one fit, the worst first. As a truth value: whether nothing failed."""

    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The worst status of the findings."""
        return max((f.status for f in self.findings), key=SEVERITY.__getitem__, default="pass")

    @property
    def exit_code(self) -> int:
        """0 for pass, 1 for warn, 2 for fail."""
        return SEVERITY[self.status]

    def __bool__(self) -> bool:
        return self.status != "fail"

    def __getitem__(self, check: str) -> Finding:
        """The finding of one check; KeyError, with the known names, where it was not made."""
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(f"No check {check!r} on this fit. Made: {', '.join(f.check for f in self.findings)}.")

    @property
    def headline(self) -> str:
        """One line: the status and how many checks did not pass."""
        count = {word: sum(f.status == word for f in self.findings) for word in SEVERITY}
        parts = [f"{count[word]} {word}" for word in ("fail", "warn", "pass") if count[word]]
        return f"{self.status}: {', '.join(parts)} of {len(self.findings)} checks"

    def __str__(self) -> str:
        return "\n".join([self.headline, *map(str, self.findings)])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><b>{f.status}</b></td><td>{html.escape(f.check)}</td>"
            f"<td style='text-align:left'>{html.escape(f.message)}{_html_remedy(f)}</td></tr>"
            for f in self.findings
        )
        return f"<p><b>{html.escape(self.headline)}</b></p><table>{rows}</table>"


def _html_remedy(finding: Finding) -> str:
    return "" if finding.status == "pass" else f"<br><i>{html.escape(finding.remedy)}</i>"


class Scalars(NamedTuple):
    """The scalar components of latent and deterministic sites: names, and draws (scalar, chain, draw)."""

    names: tuple[str, ...]
    draws: np.ndarray

    def pick(self, keep: Any) -> Scalars:
        """Some of them, by an array of indices or booleans."""
        index = np.arange(len(self.names))[keep]
        return Scalars(tuple(self.names[i] for i in index), self.draws[index])


class Weights(NamedTuple):
    """Pareto-smoothed importance weights, normalised: (chain * draw,), and the tail's shape estimate k-hat."""

    weights: np.ndarray
    khat: float


@dataclass(frozen=True)
class Evidence:
    """What checks read: the fit, its scalars that vary and are finite, and the records after warm-up (chain, draw)."""

    fit: Fit
    scalars: Scalars
    records: Mapping[str, np.ndarray]

    @property
    def settings(self) -> dict[str, Any]:
        """The algorithm's settings."""
        return self.fit.inference.settings()

    @functools.cached_property
    def weights(self) -> Weights | None:
        """Importance weights of a guide's draws; None where there are none or they are not finite."""
        answer = self.fit.answer
        if "log_q" not in answer or not np.isfinite(_log_ratios(answer)).any() or np.isnan(_log_ratios(answer)).any():
            return None
        return smoothed_weights(self.fit)


def diagnose(fit: Fit) -> Verdict:
    """The verdict on a fit: every check that applies to it, the worst first."""
    found = _findings(fit)
    return Verdict(tuple(sorted(found, key=lambda f: -SEVERITY[f.status])))


def _findings(fit: Fit) -> list[Finding]:
    learned = isinstance(fit.inference, Learner)
    if _has_draws(fit) and fit.z.shape[1] == 0:
        message = f"there are no draws: the run stopped in its warm-up, at step {fit.num_steps}"
        return [Finding("draws", "fail", 0.0, 1.0, message, _going_on(fit))]
    records = {k: v[:, fit.num_warmup :] for k, v in fit.records.items() if k != "z"}
    every = scalars(fit) if _has_draws(fit) else Scalars((), np.zeros((0, 1, 1)))
    if isinstance(fit.target, Conditional) and not learned:
        every = _with_summaries(fit, every)
    evidence = Evidence(fit, every.pick(varying(every.draws)), fit.records if learned else records)
    checks = (_finite, *(LEARNER_CHECKS if learned else CHAIN_CHECKS), _complete)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ's, on chains that do not move: the checks name them
        return [finding for check in checks if (finding := check(evidence)) is not None]


def _has_draws(fit: Fit) -> bool:
    """Whether there are draws of unknowns; a learner of parameters alone has none."""
    return "z" in (fit.answer if isinstance(fit.inference, Learner) else fit.records)


def scalars(fit: Fit) -> Scalars:
    """Every scalar component of the latent and deterministic sites, named as in ArviZ's tables."""
    names, draws = [], []
    for key, value in fit.draws.items():
        labels = [_labels(fit, key, axis, size) for axis, size in enumerate(value.shape[2:])]
        names += [f"{key}[{', '.join(index)}]" if index else key for index in product(*labels)]
        draws.append(np.moveaxis(value.reshape(*value.shape[:2], -1), -1, 0).astype(float))
    return Scalars(tuple(names), np.concatenate(draws) if draws else np.zeros((0, *fit.z.shape[:2])))


def _with_summaries(fit: Fit, found: Scalars) -> Scalars:
    """The scalars of an energy's chains, with every site's mean and the log density: single bits hide slow modes."""
    shape = fit.z.shape[:2]
    means = {f"mean of {k}": v.reshape(*shape, -1).mean(axis=2) for k, v in fit.draws.items() if v.ndim > 2}
    more = means | {"log density": fit.records["lp"][:, fit.num_warmup :]}
    return Scalars((*found.names, *more), np.concatenate([found.draws, np.array([*more.values()], float)]))


def _swaps(evidence: Evidence) -> Finding | None:
    """How often neighbouring temperatures of a ladder change places."""
    if "swap_rate" not in evidence.records:
        return None
    value = float(np.nanmin(evidence.records["swap_rate"].mean(axis=(0, 1))))
    message = f"the rarest swap of two temperatures is accepted {value:.1%} of the time; at least 10 %"
    remedy = f"num_temperatures={2 * evidence.settings.get('num_temperatures', 8)}"
    return Finding("swaps", _grade(-value, -0.1, -0.02), value, 0.1, message, remedy)


def _labels(fit: Fit, key: str, axis: int, size: int) -> list[str]:
    dims = list(fit.model.dims.get(key, ()))
    coords = fit.model.coords.get(dims[axis]) if axis < len(dims) else None
    return [str(label) for label in (coords if coords is not None and len(coords) == size else range(size))]


def varying(draws: np.ndarray) -> np.ndarray:
    """Which scalars (scalar, chain, draw) are finite and not constant, as a Cholesky factor's zeros are."""
    low, high = draws.min(axis=(1, 2)), draws.max(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        return np.isfinite(low) & np.isfinite(high) & (high - low > 1e-12 * np.maximum(abs(low), abs(high)))


def _grade(value: float, warn: float, fail: float) -> Status:
    """The status of a number that is better the smaller it is; NaN fails."""
    return "pass" if value <= warn else "warn" if value <= fail else "fail"


def _going_on(fit: Fit) -> str:
    return f"pg.resume({str(fit.directory)!r})" if fit.directory else "fit again, without stopping it"


def _more(evidence: Evidence) -> str:
    if isinstance(evidence.fit.target, Conditional):
        return "inference='tempering', which crosses between modes; or more draws"
    more = 4 * evidence.settings.get("num_samples", 1000)
    return f"num_samples={more}; if that does not help, reparametrise the program"


# ---- every fit ---------------------------------------------------------------------------------------------------


def _finite(evidence: Evidence) -> Finding | None:
    """Draws that are NaN or infinite."""
    fit = evidence.fit
    if not _has_draws(fit):
        return None
    arrays = {"the unconstrained position": fit.z, **fit.draws}
    bad = {key: ~np.isfinite(value) for key, value in arrays.items() if value.dtype.kind == "f"}
    worst = {key: int(mask.sum()) for key, mask in bad.items() if mask.any()}
    remedy = "look at the program at those draws: an overflow, or a log or division at the edge of its domain"
    if not worst:
        return Finding("finite", "pass", 0.0, 0.0, "all draws are finite", remedy)
    chain, draw = np.argwhere(next(iter(bad[key] for key in worst)))[0][:2]
    named = ", ".join(f"{key} ({count} values)" for key, count in worst.items())
    message = f"draws are NaN or infinite: {named}; the first in chain {chain}, draw {draw}"
    return Finding("finite", "fail", float(sum(worst.values())), 0.0, message, remedy)


def _complete(evidence: Evidence) -> Finding | None:
    """Whether the run came to its end."""
    fit = evidence.fit
    done, total = fit.num_steps, fit.inference.total_steps
    if fit.complete:
        return Finding("complete", "pass", float(done), float(total), f"all {done} steps were done", _going_on(fit))
    message = f"the run was stopped at step {done} of {total}"
    return Finding("complete", "warn", float(done), float(total), message, _going_on(fit))


# ---- Markov chains -----------------------------------------------------------------------------------------------


def _r_hat(evidence: Evidence) -> Finding | None:
    """The largest rank-normalised split R-hat; of one chain, between its quarters."""
    names, draws = evidence.scalars
    if not names:
        return None
    value, name = _worst(r_hat(draws), names, np.nanargmax, np.inf)
    message = f"largest R-hat {value:.3f} ({name}); at most 1.01"
    return Finding("r_hat", _grade(value, 1.01, 1.05), value, 1.01, message, _more(evidence))


def r_hat(draws: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat of scalars (scalar, chain, draw): (scalar,)."""
    from arviz_stats.base import array_stats

    if draws.shape[1] == 1:
        half = draws.shape[2] // 2
        draws = draws[:, 0, : 2 * half].reshape(len(draws), 2, half)
    return array_stats.rhat(draws)


def _worst(values: np.ndarray, names: tuple[str, ...], arg: Callable[[Any], Any], missing: float) -> tuple[float, str]:
    """The worst of the values and whose it is; a NaN is the worst of all."""
    index = int(np.argmax(np.isnan(values))) if np.isnan(values).any() else int(arg(values))
    return float(values[index]) if np.isfinite(values[index]) else missing, names[index]


def _ess_of(evidence: Evidence, kind: str, **keywords: Any) -> Finding | None:
    from arviz_stats.base import array_stats

    names, draws = evidence.scalars
    if not names:
        return None
    value, name = _worst(array_stats.ess(draws, method=kind, **keywords), names, np.nanargmin, np.nan)
    bar = 100.0 * draws.shape[1]
    status = _grade(-value, -bar, -bar / 4)
    message = f"smallest {kind} ESS {value:.0f} ({name}); at least {bar:.0f}, 100 a chain"
    return Finding(f"ess_{kind}", status, value, bar, message, _more(evidence))


def _ess_bulk(evidence: Evidence) -> Finding | None:
    """The smallest effective sample size of the bulk."""
    return _ess_of(evidence, "bulk")


def _ess_tail(evidence: Evidence) -> Finding | None:
    """The smallest effective sample size of the 5 % and 95 % quantiles."""
    return _ess_of(evidence, "tail", prob=(0.05, 0.95))


def _mcse(evidence: Evidence) -> Finding | None:
    """The largest Monte Carlo standard error of a mean, in posterior sds."""
    from arviz_stats.base import array_stats

    names, draws = evidence.scalars
    if not names:
        return None
    value, name = _worst(array_stats.mcse(draws) / draws.std(axis=(1, 2), ddof=1), names, np.nanargmax, np.nan)
    message = f"largest error of a mean {value:.3f} sd ({name}); at most 0.1 sd"
    return Finding("mcse", _grade(value, 0.1, np.inf), value, 0.1, message, _more(evidence))


def _divergences(evidence: Evidence) -> Finding | None:
    """Transitions whose energy error was so large that the integrator has lost the trajectory."""
    if "diverging" not in evidence.records:
        return None
    diverging = evidence.records["diverging"]
    count, share = int(diverging.sum()), float(diverging.mean())
    current = evidence.settings.get("target_accept") or 0.8
    remedy = f"target_accept={0.95 if current < 0.95 else 0.99}" + ", or reparametrise: a hierarchy non-centred"
    message = f"{count} of {diverging.size} transitions diverged ({share:.2%}); none may"
    return Finding("divergences", _grade(share, 0.0, 0.005), float(count), 0.0, message, remedy)


def _bfmi(evidence: Evidence) -> Finding | None:
    """Whether momentum resampling moves the energy enough."""
    from arviz_stats.base import array_stats

    if "energy" not in evidence.records or evidence.records["energy"].shape[1] < 4:
        return None
    values = array_stats.bfmi(evidence.records["energy"])
    value = float(values.min()) if np.isfinite(values).all() else np.nan
    message = f"smallest BFMI {value:.2f} (chain {int(np.argmin(values))}); at least 0.3"
    remedy = "reparametrise: a heavy tail or a funnel is explored too slowly along the energy; num_warmup=2000 may help"
    return Finding("bfmi", _grade(-value, -0.3, -0.2), value, 0.3, message, remedy)


def _tree_depth(evidence: Evidence) -> Finding | None:
    """Trajectories that ended at their largest allowed length instead of at a U-turn."""
    limit = evidence.settings.get("max_tree_depth")
    if limit is None or "tree_depth" not in evidence.records:
        return None
    share = float((evidence.records["tree_depth"] >= limit).mean())
    message = f"{share:.2%} of trajectories were cut at max_tree_depth={limit}; none should be"
    remedy = f"max_tree_depth={limit + 2}, or rescale or reparametrise strongly correlated unknowns"
    return Finding("tree_depth", _grade(share, 0.0, 0.05), share, 0.0, message, remedy)


def _stuck(evidence: Evidence) -> Finding | None:
    """Chains that stand still: the longest run of equal draws, as a share of the chain."""
    z = evidence.fit.z
    if z.shape[1] < 2:
        return None
    runs = np.array([_longest_run((chain[1:] == chain[:-1]).all(axis=1)) for chain in z])
    worst, share = int(runs.argmax()), float(runs.max() / z.shape[1])
    status = _grade(share, max(0.1, 20 / z.shape[1]), 0.5)
    message = f"longest stand-still {share:.0%} of the draws (chain {worst}); at most 10 %"
    accepted = evidence.records["acceptance_rate"].mean(axis=1) if "acceptance_rate" in evidence.records else None
    if accepted is not None and not evidence.fit.inference.bias and accepted.min() < 0.01:
        worst, status = int(accepted.argmin()), "fail"
        message = f"chain {worst} accepts {accepted[worst]:.1%} of its proposals; it does not move"
    remedy = "start='uniform' or another seed if the start is bad; num_warmup=2000 if the step size is"
    return Finding("stuck", status, share, 0.1, message, remedy)


def _longest_run(same: np.ndarray) -> int:
    """Length of the longest run of True, counted in steps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _gradient(evidence: Evidence) -> Finding | None:
    """The site whose gradient is not finite where the density is; looked for where a symptom calls for it."""
    fit, records = evidence.fit, evidence.records
    if not _has_draws(fit) or not isinstance(fit.target, Continuous):
        return None
    symptom = (
        "loss" in records and not np.isfinite(records["loss"]).all(),
        "skipped" in records and records["skipped"].any(),
        "diverging" in records and records["diverging"].any(),
        not np.isfinite(fit.z).all(),
        fit.z.shape[1] > 1 and (fit.z[:, 1:] == fit.z[:, :-1]).all(axis=(1, 2)).any(),
    )
    if not any(symptom):
        return None
    values, gradients = fit.target.gradients(_probes(fit.z, fit.seed))  # type: ignore[attr-defined]
    bad = ~np.isfinite(gradients) & np.isfinite(values)[:, None]
    share = float(bad.any(axis=1).mean())
    remedy = (
        "make both branches of a where finite: jnp.where(ok, f(x), 0) differentiates f even where it is not ok; "
        "write f(jnp.where(ok, x, 1)) inside it"
    )
    if not bad.any():
        message = f"finite at {NUM_PROBES} points on and around the draws"
        return Finding("gradient", "pass", 0.0, 0.0, message, remedy)
    sites = ", ".join(_sites_of(fit.target, np.flatnonzero(bad.any(axis=0))))
    message = (
        f"the gradient with respect to {sites} is NaN or infinite at {share:.0%} of points where the density is finite"
    )
    return Finding("gradient", "fail", share, 0.0, message, remedy)


def _probes(z: np.ndarray, seed: int) -> np.ndarray:
    """Points at which to look at gradients: the chains' last positions, draws, and points around them: (point, dim)."""
    rng = np.random.default_rng(seed)
    flat = z.reshape(-1, z.shape[-1])
    flat = flat[np.isfinite(flat).all(axis=1)]
    if not len(flat):
        return rng.normal(size=(NUM_PROBES, z.shape[-1]))
    ends = z[:, -1][np.isfinite(z[:, -1]).all(axis=1)][:8]
    picked = flat[rng.integers(len(flat), size=NUM_PROBES - len(ends))]
    spread = np.where(flat.std(axis=0) > 0, flat.std(axis=0), 1.0)
    noise = rng.normal(size=picked.shape) * (np.arange(len(picked)) >= 8)[:, None]
    return np.concatenate([ends, picked + 2 * spread * noise])


def _sites_of(target: Any, coordinates: np.ndarray) -> list[str]:
    """Names of the latent sites behind coordinates of z: the first that moves with each."""
    origin = np.zeros((1, 1, target.dim))
    moved = origin + np.eye(target.dim)[coordinates][:, None]
    values = target.constrain(np.concatenate([origin, moved]))
    latent = [name for name in target.named("latent") if name in values]

    def site(row: int) -> str:
        changed = (n for n in latent if not np.array_equal(values[n][row + 1], values[n][0], equal_nan=True))
        return repr(next(changed, f"coordinate {coordinates[row]}"))

    return list(dict.fromkeys(site(row) for row in range(len(coordinates))))


def _chains(evidence: Evidence) -> Finding | None:
    """Whether there is more than one chain to compare."""
    count = evidence.fit.z.shape[0]
    several = count > 1
    message = (
        f"{count} chains" if several else "one chain: R-hat compares only its own parts, and cannot see another mode"
    )
    return Finding("chains", "pass" if several else "warn", float(count), 2.0, message, "num_chains=4")


def _sampler_bias(evidence: Evidence) -> Finding | None:
    """An algorithm whose draws are biased, with the acceptance that the correction it leaves out would have had."""
    text = evidence.fit.inference.bias
    if not text:
        return None
    rate = evidence.records.get("acceptance_rate")
    value = None if rate is None else float(rate.mean())
    measured = "" if value is None else f"; a Metropolis correction would have accepted {value:.1%} of the steps"
    return Finding("bias", "warn", value, None, text.rstrip(".") + measured, "inference='nuts', or a smaller step size")


def _modes(evidence: Evidence) -> Finding | None:
    """Modes that the search for starting points found and no draw came near."""
    fit = evidence.fit
    starts = fit.starts
    if not np.size(starts.get("elbos", ())) or "lp" not in evidence.records or not np.isfinite(fit.z).all():
        return None
    share = unvisited_mass(fit.z, evidence.records["lp"], starts["ends"], starts["elbos"])
    remedy = (
        "num_chains=16 and another seed; or reparametrise, or break the symmetry between the modes (ordered parameters)"
    )
    found = "no mode was found that the draws do not visit"
    if share > 0:
        found = f"a mode holding at least about {share:.1%} of the mass was not visited; at most {SMALLEST_MODE:.0%}"
    return Finding("modes", _grade(share, SMALLEST_MODE, SMALLEST_MODE), share, SMALLEST_MODE, found, remedy)


def unvisited_mass(z: np.ndarray, lp: np.ndarray, ends: np.ndarray, elbos: np.ndarray) -> float:
    """About the least share of the mass in the heaviest mode that no draw came near; 0 where every mode was visited.

    z: draws (chain, draw, dim); lp: their log densities (chain, draw). ends: (..., dim), centres of the best normal
    approximations along paths up the density; elbos: (...), their ELBOs, in nats, whose exponential bounds the mass
    around an end from below.
    """
    ends, elbos = ends.reshape(-1, z.shape[-1]), elbos.ravel()
    usable = np.isfinite(elbos) & np.isfinite(ends).all(axis=1)
    ends, elbos, flat = ends[usable], elbos[usable], z.reshape(-1, z.shape[-1])
    if len(flat) < 100 or not len(ends):
        return 0.0
    scale, directions = np.linalg.eigh(np.atleast_2d(np.cov(flat, rowvar=False)))
    if scale.max() <= 0:
        return 0.0
    scale = np.maximum(scale, 1e-12 * scale.max())
    whitened = [(x - flat.mean(axis=0)) @ directions / np.sqrt(scale) for x in (ends, z)]
    far = _far(*whitened)
    if not far.any():
        return 0.0
    visited = _log_mass(whitened[1].reshape(flat.shape), lp.ravel()) + 0.5 * np.log(scale).sum()
    return float(1 / (1 + np.exp(np.clip(visited - elbos[far].max(), -700, 700))))


def _log_mass(whitened: np.ndarray, lp: np.ndarray) -> float:
    """The log of the mass that draws stand for, in nats, by the reciprocal of a normal truncated to their inner half.

    whitened: (draw, dim), lp: (draw,). Source: Geweke 1999, doi:10.1080/07474939908800428, the modified harmonic mean.
    """
    from scipy.special import logsumexp
    from scipy.stats import chi2

    dim, square = whitened.shape[1], (whitened**2).sum(axis=1)
    edge = np.median(square)
    inside = square <= edge
    log_g = -0.5 * (square[inside] + dim * np.log(2 * np.pi)) - chi2.logcdf(edge, dim)
    return float(np.log(len(lp)) - logsumexp(log_g - lp[inside]))


def _far(ends: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Which whitened ends (end, dim) lie far from all whitened draws (chain, draw, dim).

    Either beyond the furthest draw in the end's own direction by more than two sds, or more than twice as far from the
    nearest draw as any draw is from the nearest one of its past or future.
    """
    from scipy.spatial.distance import cdist

    flat = draws.reshape(-1, draws.shape[-1])
    size = np.linalg.norm(ends, axis=1)
    beyond = size - (flat @ (ends / np.maximum(size, 1e-300)[:, None]).T).max(axis=0) > 2.0
    rows = flat[:: max(1, len(flat) // 2000)]
    probe = np.arange(0, len(rows), max(1, len(rows) // 200))
    between = cdist(rows[probe], rows)
    between[abs(probe[:, None] - np.arange(len(rows))) < len(rows) // 50] = np.inf
    return beyond | (cdist(ends, rows).min(axis=1) > 2 * between.min(axis=1).max())


CHAIN_CHECKS = (
    _r_hat, _ess_bulk, _ess_tail, _mcse, _divergences, _bfmi, _tree_depth, _stuck, _swaps, _gradient, _modes, _chains,
    _sampler_bias,
)  # fmt: skip


# ---- learners ----------------------------------------------------------------------------------------------------


def smoothed_weights(fit: Fit) -> Weights:
    """Pareto-smoothed importance weights p/q of a guide's draws, normalised: (chain * draw,), and k-hat.

    Raises TypeError for a fit without a guide's density, ValueError where log p - log q is NaN or nowhere finite.
    """
    from arviz_stats.base import array_stats

    if "log_q" not in fit.answer:
        raise TypeError(f"{fit.inference.name} has no guide density; importance weights need log_p and log_q.")
    ratios = _log_ratios(fit.answer)
    if np.isnan(ratios).any() or not np.isfinite(ratios).any():
        raise ValueError(
            f"log p - log q is NaN at {int(np.isnan(ratios).sum())} of {ratios.size} draws, finite at "
            f"{int(np.isfinite(ratios).sum())}.\nLook at the program there, or fit with a smaller learning_rate."
        )
    if np.ptp(np.sort(ratios)[-max(5, ratios.size // 10) :]) < 1e-10:  # equal weights: there is no tail to fit
        weights = np.exp(ratios - ratios.max())
        return Weights(weights / weights.sum(), -np.inf)
    log_weights, khat = array_stats.psislw(-ratios)
    weights = np.exp(log_weights)
    return Weights(weights / weights.sum(), float(khat))


def _log_ratios(answer: Mapping[str, np.ndarray]) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (answer["log_p"].astype(float) - answer["log_q"]).ravel()


def _loss(evidence: Evidence) -> Finding | None:
    """Steps whose loss or gradient was NaN or infinite; a few before the last quarter do no harm, and are told."""
    records = evidence.records
    bad = ~np.isfinite(records["loss"]) | records.get("skipped", False)
    count, steps = int(bad.sum()), bad.shape[1]
    remedy = "a smaller learning_rate, or look at the program's density and gradient away from its start"
    if not count:
        return Finding("loss", "pass", 0.0, 0.0, "finite at every step", remedy)
    late = float(bad[:, -max(1, steps // 4) :].mean())
    message = (
        f"the loss or its gradient was NaN or infinite at {count} of {steps} steps, {late:.1%} of the last quarter"
    )
    status: Status = "fail" if late > 0.01 or count > steps / 10 else "warn"
    return Finding("loss", status, float(count), 0.0, message, remedy)


def _convergence(evidence: Evidence) -> Finding | None:
    """Whether the loss has come to rest: the algorithm's own rule, else its fall over the last quarter of the steps."""
    records, steps = evidence.records, evidence.fit.num_steps
    remedy = f"num_steps={4 * evidence.settings.get('num_steps', steps)}, or a larger learning_rate"
    loss = records["loss"].mean(axis=0)
    drop, error = loss_drop(loss[np.isfinite(loss)])
    if isinstance(evidence.fit.target, Learnable) and not records.get("converged", np.zeros((1, 1)))[:, -1].all():
        return _at_rest(loss, drop, error, remedy)
    falling = f"the loss still falls by {drop:.3g} nats (standard error {error:.2g}) in 1000 steps; at most 0.1"
    if "converged" in records and records["converged"][:, -1].all():
        return Finding("convergence", "pass", drop, 0.1, f"the loss came to rest after {steps} steps", remedy)
    if not drop - 2 * error <= 0.1:
        return Finding("convergence", "fail", drop, 0.1, f"stopped early: {falling}", remedy)
    if "converged" in records:
        return Finding("convergence", "warn", drop, 0.1, f"stopped early, at step {steps}: {falling}", remedy)
    return Finding("convergence", _grade(drop + 2 * error, 0.1, np.inf), drop, 0.1, falling, remedy)


def _at_rest(loss: np.ndarray, drop: float, error: float, remedy: str) -> Finding:
    """Of a learner of parameters: the loss falls by less than 1 % in 1000 steps, as far as its noise lets that be seen."""
    bar = 0.01 * float(np.nanmean(abs(loss[-max(100, len(loss) // 4) :]))) + 0.01
    word, remedy = ("rises", "a smaller learning_rate") if drop < 0 else ("falls", remedy)
    message = (
        f"the loss {word} by {abs(drop):.3g} (standard error {error:.2g}) in 1000 steps at the end; at most {bar:.2g}"
    )
    rest = drop - 2 * error <= bar and -drop - 2 * error <= 10 * bar  # a slow rise is what learning by an estimate has
    return Finding("convergence", "pass" if rest else "warn", drop, bar, message, remedy)


def _rollbacks(evidence: Evidence) -> Finding | None:
    """How often training ran away and was taken back to its last good state, with a smaller step."""
    if "rollbacks" not in evidence.records:
        return None
    found = evidence.records["rollbacks"][0]
    count, steps = int(found[-1]), np.flatnonzero(np.diff(found, prepend=0))
    remedy = f"learning_rate={evidence.settings['learning_rate'] * 0.3 ** max(count, 1):.2g}"
    if not count:
        return Finding("rollbacks", "pass", 0.0, 0.0, "training never ran away", remedy)
    where = ", ".join(map(str, steps[:5] + 1)) + (", ..." if len(steps) > 5 else "")
    message = f"training ran away {count} times (step {where}); each time it went back, with 0.3 of the step size"
    late = steps[-1] > 0.75 * len(found)
    return Finding("rollbacks", "fail" if late or count > 2 else "warn", float(count), 0.0, message, remedy)


def _grid(evidence: Evidence) -> Finding | None:
    """Whether the best setting of a grid lies within it."""
    if "edge" not in evidence.records:
        return None
    best, edge = float(evidence.records["best"][0, -1]), bool(evidence.records["edge"][0, -1])
    message = f"the best of the grid, {best:.3g}, is {'at its edge' if edge else 'not at its edge'}"
    return Finding("grid", "warn" if edge else "pass", best, None, message, "a grid that reaches further on that side")


def _components(evidence: Evidence) -> Finding | None:
    """Rows of a mixture's smallest component."""
    if "smallest" not in evidence.records:
        return None
    value = float(evidence.records["smallest"][0, -1])
    message = f"the smallest component holds {value:.1f} rows; at least 2"
    remedy = "fewer components: this one describes single points, or nothing"
    return Finding("components", "warn" if value < 2 else "pass", value, 2.0, message, remedy)


def _activity(evidence: Evidence) -> Finding | None:
    """Posterior collapse: hidden coordinates whose guide is the prior, whatever the row."""
    if "active" not in evidence.records or evidence.fit.num_steps < 100:
        return None
    active = int(evidence.records["active"][0, -1])
    total = sum(v.size for v in evidence.fit.target.hidden if v.kind == "reals")  # type: ignore[attr-defined]
    if not total:
        return None
    message = f"{active} of {total} hidden coordinates are in use; at least a quarter"
    remedy = (
        "kl_warmup, free_bits, fewer hidden coordinates, or a weaker decoder: the others have collapsed to the prior"
    )
    status: Status = "fail" if not active else "warn" if active < total / 4 else "pass"
    return Finding("activity", status, float(active), total / 4, message, remedy)


def _codes(evidence: Evidence) -> Finding | None:
    """A dead codebook: vectors that no row uses."""
    if "perplexity" not in evidence.records or evidence.fit.num_steps < 100:
        return None
    used, perplexity = (float(evidence.records[k][0, -1]) for k in ("used", "perplexity"))
    message = f"{used:.0%} of a codebook's codes are in use, perplexity {perplexity:.1f}; at least half"
    remedy = "fewer codes, a larger revive, a smaller learning_rate, or codebook='ema': the other codes are dead"
    status: Status = "fail" if used < 0.1 or not perplexity > 1.1 else "warn" if used < 0.5 else "pass"
    return Finding("codes", status, used, 0.5, message, remedy)


def _critic(evidence: Evidence) -> Finding | None:
    """Whether a critic still has something to teach: one that tells data from the model's points every time has not."""
    settings, steps = evidence.settings, evidence.fit.num_steps
    without = not (settings.get("adversarial", 1.0) or settings["perceptual"])
    if "right" not in evidence.records or steps < 100 or without:
        return None
    right = float(evidence.records["right"][0, -max(100, steps // 10) :].mean())
    message = (
        f"the critic tells {right:.0%} of data and model's points apart; at most 95 %; what was learned is no bound"
    )
    remedy = "a smaller critic, or a decoder with more parameters: the critic has won, and its slope says little"
    return Finding("critic", _grade(right, 0.95, 0.995), right, 0.95, message, remedy)


def _objective(evidence: Evidence) -> Finding | None:
    """Whether what was maximised is a bound on log p(x)."""
    settings, steps = evidence.settings, evidence.fit.num_steps
    if "kl_weight" not in settings:
        return None
    parts = [f"the KL counts {settings['kl_weight']:g} times"] if settings["kl_weight"] != 1 else []
    parts += [f"{settings['free_bits']:g} nats of KL a coordinate are free"] if settings["free_bits"] else []
    parts += [f"the KL's weight still rises at step {steps}"] if settings["kl_warmup"] >= steps else []
    remedy = "kl_weight=1, free_bits=0 and a kl_warmup below num_steps; fit.log_prob gives a bound in any case"
    if parts:
        message = f"what was maximised is no bound on log p(x): {', '.join(parts)}"
        return Finding("objective", "warn", None, None, message, remedy)
    since = f" from step {settings['kl_warmup']} on" if settings["kl_warmup"] else ""
    target: Any = evidence.fit.target
    beside = "".join(f"; the guide's {k!r} is learned beside it" for k in target.beside)
    return Finding("objective", "pass", None, None, f"a bound on log p(x){since}{beside}", remedy)


def loss_drop(loss: np.ndarray) -> tuple[float, float]:
    """By how much a loss (step,) falls in 1000 steps, by its last quarter, and the standard error; NaN if too short."""
    window = loss[-max(100, len(loss) // 4) :]
    count = min(20, len(window) // 2)
    if count < 4:
        return np.nan, np.nan
    size = len(window) // count
    means = window[-count * size :].reshape(count, size).mean(axis=1)
    x = np.arange(count) - (count - 1) / 2
    slope = (x @ means) / (x @ x)
    residual = means - means.mean() - slope * x
    error = np.sqrt(residual @ residual / (count - 2) / (x @ x))
    return float(-slope * 1000 / size), float(error * 1000 / size)


def _k_hat(evidence: Evidence) -> Finding | None:
    """How heavy the tail of the importance weights p/q is: whether the guide covers the posterior."""
    if "log_q" not in evidence.fit.answer:
        return None
    value = np.nan if evidence.weights is None else evidence.weights.khat
    message = f"k-hat of the importance weights {value:.2f}; at most 0.5, unusable above 0.7"
    remedy = "fit.resample() up to 0.7; above it a richer guide (full rank, flow), or inference='nuts'"
    return Finding("k_hat", _grade(value, 0.5, 0.7), value, 0.5, message, remedy)


def _weights(evidence: Evidence) -> Finding | None:
    """The effective share of a guide's draws once they are weighted."""
    if evidence.weights is None:
        return None
    weights = evidence.weights.weights
    value = float(1 / (weights @ weights) / weights.size)
    message = f"weighted, {value:.1%} of the draws are effective; at least 5 %"
    return Finding("weights", _grade(-value, -0.05, -0.01), value, 0.05, message, "a richer guide, or inference='nuts'")


def _guide_sd(evidence: Evidence) -> Finding | None:
    """How far the guide's sds are from those of its weighted draws: k-hat alone misses a guide with halved scales."""
    if evidence.weights is None:
        return None
    _, ratios, error = _weighted(evidence)
    off = abs(np.log(ratios))
    index = int(np.argmax(off))
    value, excess = float(np.exp(off[index])), float(np.exp(off[index] - 2 * error))
    word = "small" if ratios[index] > 1 else "large"
    where = _of_site(evidence, index, 2 * error)
    message = f"an sd of the guide is too {word} by a factor of {value:.2f}{where}; at most 1.25"
    remedy = "fit.resample(), a richer guide (full rank, flow), or inference='nuts'"
    return Finding("guide_sd", _grade(excess, 1.25, 1.5), value, 1.25, message, remedy)


def _guide_mean(evidence: Evidence) -> Finding | None:
    """How far the guide's means are from those of its weighted draws, in sds."""
    if evidence.weights is None:
        return None
    shifts, _, error = _weighted(evidence)
    index = int(np.argmax(abs(shifts)))
    value = float(abs(shifts[index]))
    message = f"a mean of the guide is off by {value:.2f} sd{_of_site(evidence, index, 3 * error)}; at most 0.3"
    remedy = "fit.resample(), more steps, or a richer guide"
    return Finding("guide_mean", _grade(value - 3 * error, 0.3, 1.0), value, 0.3, message, remedy)


def _of_site(evidence: Evidence, coordinate: int, noise: float) -> str:
    return f" (site {_sites_of(evidence.fit.target, np.array([coordinate]))[0]}; noise {noise:.2f})"


def _weighted(evidence: Evidence) -> tuple[np.ndarray, np.ndarray, float]:
    """Weighted minus own mean of each coordinate of z, in sds, ratio of sds, and the ratio's standard error."""
    assert evidence.weights is not None
    weights, z = evidence.weights.weights, evidence.fit.z.reshape(-1, evidence.fit.z.shape[-1])
    mean, own = weights @ z, z.std(axis=0)
    return (
        (mean - z.mean(axis=0)) / own,
        np.sqrt(weights @ (z - mean) ** 2) / own,
        float(np.sqrt(weights @ weights / 2)),
    )


def _point(evidence: Evidence) -> Finding | None:
    """An answer that is one point."""
    if "z" not in evidence.fit.answer or "log_q" in evidence.fit.answer:
        return None
    message = "a point estimate: its draws carry no uncertainty"
    finite = isinstance(evidence.fit.target, Conditional)
    remedy = "inference='gibbs' for a distribution" if finite else "inference='laplace' or 'nuts' for a posterior"
    return Finding("point", "warn", None, None, message, remedy)


def _learner_bias(evidence: Evidence) -> Finding | None:
    """A guide that cannot match every posterior; a warning unless the weights say that it matches this one."""
    text = evidence.fit.inference.bias
    if not text:
        return None
    khat = None if evidence.weights is None else evidence.weights.khat
    small = khat is not None and khat <= 0.5
    measured = "" if khat is None else f"; here k-hat is {khat:.2f}"
    remedy = "a richer guide, or inference='nuts'"
    return Finding("bias", "pass" if small else "warn", khat, 0.5, text.rstrip(".") + measured, remedy)


LEARNER_CHECKS = (
    _loss,
    _rollbacks,
    _convergence,
    _grid,
    _components,
    _activity,
    _codes,
    _critic,
    _objective,
    _k_hat,
    _weights,
    _guide_sd,
    _guide_mean,
    _point,
    _gradient,
    _learner_bias,
)
