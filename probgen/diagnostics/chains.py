"""Checks of Markov chains.

R-hat, ESS and MCSE: Vehtari et al. 2021 (doi:10.1214/20-BA1221); BFMI: Betancourt 2017 (arXiv:1701.02434).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from probgen.data.large import blocks
from probgen.diagnostics import convention, fresh
from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.verdict import Finding, beside, grade
from probgen.target import Conditional

FEWEST = 4  # draws of a chain below which its halves say nothing


def _r_hat(evidence: Evidence) -> Finding | None:
    """The largest rank-normalised split R-hat; of one chain, between its quarters."""
    names, draws = evidence.scalars
    if not names:
        return None
    value, name = _worst(r_hat(draws), names, np.nanargmax, np.inf)
    if draws.shape[2] < FEWEST:
        return _too_few(evidence, "r_hat", "R-hat", value, 1.01)
    message = f"largest R-hat {beside(value, 1.01, '.3f')} ({name}); at most 1.01{evidence.told}"
    return Finding("r_hat", grade(value, 1.01, 1.05), value, 1.01, message, _more(evidence))


def _too_few(evidence: Evidence, check: str, what: str, value: float, bar: float) -> Finding:
    """Of chains too short, or too still, for a number."""
    count = evidence.fit.z.shape[1]
    message = f"the {what} cannot be estimated from {count} draws a chain; take 100 or more"
    return Finding(check, "fail", value, bar, message, _more(evidence))


def r_hat(draws: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat of scalars (scalar, chain, draw): (scalar,)."""
    from arviz_stats.base import array_stats

    if draws.shape[1] == 1:
        half = draws.shape[2] // 2
        draws = draws[:, 0, : 2 * half].reshape(len(draws), 2, half)
    return blocks.by_scalar(array_stats.rhat, draws)


def _worst(values: np.ndarray, names: tuple[str, ...], arg: Callable[[Any], Any], missing: float) -> tuple[float, str]:
    """The worst of the values and whose it is; a NaN is the worst of all."""
    index = int(np.argmax(np.isnan(values))) if np.isnan(values).any() else int(arg(values))
    return float(values[index]) if np.isfinite(values[index]) else missing, names[index]


def _ess_of(evidence: Evidence, kind: str, of: Callable[[np.ndarray], Any]) -> Finding | None:
    names, draws = evidence.scalars
    if not names:
        return None
    value, name = _worst(blocks.by_scalar(of, draws), names, np.nanargmin, np.nan)
    bar = 100.0 * draws.shape[1]
    if not np.isfinite(value):
        return _too_few(evidence, f"ess_{kind}", f"{kind} ESS", value, bar)
    status = grade(-value, -bar, -bar / 4)
    shown = beside(value, bar, ".0f")
    message = f"smallest {kind} ESS {shown} ({name}); at least {bar:.0f}, 100 a chain{evidence.told}"
    return Finding(f"ess_{kind}", status, value, bar, message, _more(evidence))


def _ess_bulk(evidence: Evidence) -> Finding | None:
    """The smallest effective sample size of the bulk."""
    from arviz_stats.base import array_stats

    return _ess_of(evidence, "bulk", array_stats.ess)


def _ess_tail(evidence: Evidence) -> Finding | None:
    """The smallest effective sample size of the tails' quantiles, those of `fit.summary()`."""
    return _ess_of(evidence, "tail", convention.tail_ess)


def _mcse(evidence: Evidence) -> Finding | None:
    """The largest Monte Carlo standard error of a mean, in posterior sds."""
    from arviz_stats.base import array_stats

    names, draws = evidence.scalars
    if not names:
        return None
    error = blocks.by_scalar(lambda x: array_stats.mcse(x) / x.std(axis=(1, 2), ddof=1), draws)
    value, name = _worst(error, names, np.nanargmax, np.nan)
    if not np.isfinite(value):
        return _too_few(evidence, "mcse", "error of a mean", value, 0.1)
    message = f"largest error of a mean {beside(value, 0.1, '.3f')} sd ({name}); at most 0.1 sd{evidence.told}"
    return Finding("mcse", grade(value, 0.1, np.inf), value, 0.1, message, _more(evidence))


def _divergences(evidence: Evidence) -> Finding | None:
    """Transitions whose energy error was so large that the integrator has lost the trajectory."""
    if "diverging" not in evidence.records:
        return None
    diverging = evidence.records["diverging"]
    count, share = int(diverging.sum()), float(diverging.mean())
    current = evidence.settings.get("target_accept") or 0.8
    remedy = f"target_accept={0.95 if current < 0.95 else 0.99}" + ", or reparametrise: a hierarchy non-centred"
    message = f"{count} of {diverging.size} transitions diverged ({share:.2%}); none may"
    return Finding("divergences", grade(share, 0.0, 0.005), float(count), 0.0, message, remedy)


def _bfmi(evidence: Evidence) -> Finding | None:
    """Whether momentum resampling moves the energy enough."""
    from arviz_stats.base import array_stats

    if "energy" not in evidence.records or evidence.records["energy"].shape[1] < 4:
        return None
    values: Any = array_stats.bfmi(evidence.records["energy"])
    value = float(values.min()) if np.isfinite(values).all() else np.nan
    message = f"smallest BFMI {beside(value, 0.3, '.2f')} (chain {int(np.argmin(values))}); at least 0.3"
    remedy = "reparametrise: a heavy tail or a funnel is explored too slowly along the energy; num_warmup=2000 may help"
    return Finding("bfmi", grade(-value, -0.3, -0.2), value, 0.3, message, remedy)


def _tree_depth(evidence: Evidence) -> Finding | None:
    """Trajectories that ended at their largest allowed length instead of at a U-turn."""
    limit = evidence.settings.get("max_tree_depth")
    if limit is None or "tree_depth" not in evidence.records:
        return None
    share = float((evidence.records["tree_depth"] >= limit).mean())
    message = f"{beside(share, 0.0, '.2%')} of trajectories were cut at max_tree_depth={limit}; none should be"
    remedy = f"max_tree_depth={limit + 2}, or rescale or reparametrise strongly correlated unknowns"
    return Finding("tree_depth", grade(share, 0.0, 0.05), share, 0.0, message, remedy)


def _stuck(evidence: Evidence) -> Finding | None:
    """Chains that stand still: the longest run of equal draws, as a share of the chain.

    Draws from exact conditionals may repeat for good reasons: units that are certain stay as they are. There a long
    stand-still counts only where the chains stand apart, or at a point that others beat; see `_settled`.
    """
    fit, z = evidence.fit, evidence.fit.z
    if z.shape[1] < 2:
        return None
    remedy = "start='uniform' or another seed if the start is bad; num_warmup=2000 if the step size is"
    accepted = evidence.records["acceptance_rate"].mean(axis=1) if "acceptance_rate" in evidence.records else None
    finite = isinstance(fit.target, Conditional)
    if accepted is not None and not fit.inference.bias and accepted.min() < 0.01 and not finite:
        worst, value = int(accepted.argmin()), float(accepted.min())
        message = f"chain {worst} accepts {value:.1%} of its proposals: it does not move; at least 1 %"
        return Finding("stuck", "fail", value, 0.01, message, remedy)
    runs = np.array([_longest_run(chain) for chain in blocks.still(z)])
    worst, share = int(runs.argmax()), float(runs.max() / z.shape[1])
    bar = max(0.1, 20 / z.shape[1])
    if finite and share > bar:
        return _settled(evidence, share)
    message = f"longest stand-still {beside(share, bar, '.0%')} of the draws (chain {worst}); at most {100 * bar:.3g} %"
    return Finding("stuck", grade(share, bar, 0.5), share, bar, message, remedy)


def _settled(evidence: Evidence, share: float) -> Finding:
    """Of chains of finite unknowns that hardly move: whether all of them stand at the same point."""
    z, lp = evidence.fit.z, evidence.records.get("lp")
    points = {tuple(point) for point in z[:, -1].tolist()}
    remedy = "inference='tempering', which crosses between modes"
    still = f"draws stand still for {share:.0%} of the run"
    target: Any = evidence.fit.target
    all_finite = all(v.levels for v in target.variables)
    if len(points) == 1 and lp is not None and all_finite:
        value = fresh.missed(evidence.fit)
        found = f"{fresh.NUM_CHAINS} chains from new starts found {beside(value, 0.01, '.1%')} of the mass elsewhere"
        message = f"{still}, at one point; {found}; at most 1 %"
        return Finding("stuck", grade(value, 0.01, 0.01), value, 0.01, message, remedy)
    if (z[:, -1:] != z).any(axis=(1, 2)).all():
        message = f"{still}, as units that are certain do; all chains have moved"
        return Finding("stuck", "pass", None, None, message, remedy)
    if len(z) == 1:
        return Finding("stuck", "warn", None, None, f"{still}, and there is no other chain to compare", "num_chains=4")
    heights = "" if lp is None else f", {np.ptp(lp[:, -1]):.3g} nats apart"
    return Finding("stuck", "fail", None, None, f"{still}: chains stand at {len(points)} points{heights}", remedy)


def _longest_run(same: np.ndarray) -> int:
    """Length of the longest run of True, counted in steps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _swaps(evidence: Evidence) -> Finding | None:
    """How often neighbouring temperatures of a ladder change places."""
    if "swap_rate" not in evidence.records:
        return None
    value = float(np.nanmin(evidence.records["swap_rate"].mean(axis=(0, 1))))
    message = f"the rarest swap of two temperatures is accepted {beside(value, 0.1, '.1%')} of the time; at least 10 %"
    remedy = f"num_temperatures={2 * evidence.settings.get('num_temperatures', 8)}"
    return Finding("swaps", grade(-value, -0.1, -0.02), value, 0.1, message, remedy)


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


def _more(evidence: Evidence) -> str:
    if getattr(evidence.fit.target, "takes_turns", False):
        return "thin=10; or inference='nuts', where it can sum the finite unknowns out"
    if isinstance(evidence.fit.target, Conditional):
        return "inference='tempering', which crosses between modes; or more draws"
    more = 4 * evidence.settings.get("num_samples", 1000)
    return f"num_samples={more}; if that does not help, reparametrise the program"


CHECKS = (_r_hat, _ess_bulk, _ess_tail, _mcse, _divergences, _bfmi, _tree_depth, _stuck, _swaps, _chains, _sampler_bias)
