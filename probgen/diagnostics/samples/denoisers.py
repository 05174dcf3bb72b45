"""Checks of diffusion models: the network at every level of noise, and whether the numbers that are had of its law agree.

A chain, or a reverse SDE, and the flow of the same network draw from two laws, which are one where the network is exact. The bound
is one on the first, the ODE's density is of the second: on held-out rows a bound that is well above the density is a contradiction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from probgen.algorithm import Incompatible
from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.verdict import Finding, Status
from probgen.fitted import FittedDenoiser, LogProb

ROWS, FEW, CELLS = 100, 8, 6400  # on which densities are compared: at most, at least, and their numbers
DRAWS = 200  # of a bound, a row
LEVELS = 10
LOST = 0.02, 0.2  # nats a coordinate that a network is behind a linear denoiser at a level
LEFT = 0.1, 1.0  # nats of a point of up to eight coordinates that are left at the end of the noise
ABOVE = 0.1, 0.5  # nats a coordinate of a bound above a density
APART = 0.5, 2.0  # nats a coordinate of a density above its bound
ERROR = 0.05, 0.5  # nats a row, of a density
EXACT = 32  # coordinates up to which a program's own density is without probes' noise
MASS, ABOUT, MOST_SIZE = 200, 20, 3  # points that a density is summed over, at most; rows a kernel reaches; coordinates
TOO_MUCH = 0.05, 0.5  # of a density's mass, above one
NARROW = 0.03, 0.15  # of a standard deviation that levels without a teacher lose


def _levels(evidence: Evidence) -> Finding | None:
    """Whether the network says more than a linear denoiser at every level of noise; which level lags."""
    fit = evidence.fit
    assert isinstance(fit, FittedDenoiser)
    try:
        found = fit.losses(LEVELS)
    except Incompatible:  # levels that are no noise, such as masks; noise that was paired with points
        return None
    remedy = "more steps, a wider network, or times='normal' with log_mean at that level"
    if not np.isfinite(found["error"]).all():
        return Finding("levels", "fail", np.nan, None, "the network's error is NaN or infinite at some level", remedy)
    sure = found["lost"] - 2 * found["lost_stderr"]
    worst = int(np.argmax(sure))
    value = max(float(sure[worst]), 0.0)
    where = f"log sigma / alpha {found['log_ratio'][worst]:.2g}"
    if value == 0:
        message = f"at all {LEVELS} levels of noise the network says more of a point than a linear denoiser does"
        return Finding("levels", "pass", value, LOST[0], message, remedy)
    message = f"at {where} the network is {value:.2g} nats a coordinate behind a linear denoiser; at most {LOST[0]}"
    return Finding("levels", _grade(value, LOST), value, LOST[0], message, remedy)


def _end(evidence: Evidence) -> Finding | None:
    """What is left of a point where the noise ends: samples begin from noise that knows nothing of it."""
    fit: Any = evidence.fit
    try:
        found = fit.schedule(2)
    except Incompatible:
        return None
    units = max(1.0, sum(v.size for v in fit.target.visible) / 8)
    left = float(4 * units * np.log1p(np.exp(found["log_snr"][-1])))  # at most, of a point of variance one
    bar = LEFT[0] * units
    message = f"at the end of the noise at most {left:.2g} nats of a point are left; at most {bar:.2g}"
    remedy = "a schedule that ends at more noise (`high`, or more levels): draws begin where learning never was"
    return Finding("end", _grade(left / units, LEFT), left, bar, message, remedy)


def _laws(evidence: Evidence) -> Finding | None:
    """Whether the bound on the chain's law is below the density of the flow, and how far apart they are."""
    fit: Any = evidence.fit
    bound, ode = _pair(fit)
    if bound is None or ode is None:
        return None
    size = sum(v.size for v in fit.target.visible)
    gap = np.asarray(ode.value, float) - np.asarray(bound.value, float)
    mean, error = float(np.mean(gap)), float(np.std(gap) / np.sqrt(len(gap)))
    told = (
        f"{len(gap)} rows: the bound on the {'chain' if fit.target.chained else 'reverse SDE'} is "
        f"{np.mean(bound.value):.4g} nats a row, the flow's density {np.mean(ode.value):.4g} "
        f"(difference {mean:.2g}, standard error {error:.2g})"
    )
    remedy = "more steps, a wider network: chain and flow are two laws where the network is not exact"
    if not np.isfinite(mean):
        return Finding("laws", "fail", mean, 0.0, told, "see 'density'")
    above = (-mean - 3 * error) / size
    if above > ABOVE[0]:
        message = f"{told}: a bound above the density is a contradiction, unless the laws are far apart"
        return Finding("laws", _grade(above, ABOVE), mean, 0.0, message, remedy)
    if (far := (mean - 3 * error) / size) > APART[0]:
        message = f"{told}: the laws are far apart, or the density is too large; at most {APART[0]:g} nats a coordinate"
        return Finding("laws", _grade(far, APART), mean, APART[0] * size, message, remedy)
    return Finding("laws", "pass", mean, 0.0, told, remedy)


def _density(evidence: Evidence) -> Finding | None:
    """Whether the ODE was solved, and how large its errors are."""
    fit: Any = evidence.fit
    ode = _pair(fit)[1]
    if ode is None:
        return None
    value, error = (np.asarray(x, float) for x in (ode.value, ode.stderr))
    remedy = "a smoother network (weight_decay, fewer units), or `rtol` and `max_steps` of the program's solver"
    if lost := int((~np.isfinite(value)).sum()):
        message = f"the solver gave up on {lost} of {len(value)} rows, whose density is NaN"
        return Finding("density", "fail", float(lost), 0.0, message, remedy)
    typical = float(np.sqrt(np.mean(error**2)))
    if (own := _own(fit, value)) is not None:
        return own
    message = f"halving the tolerance, and probes of the divergence, change a density by {typical:.2g} nats; at most {ERROR[0]}"
    size = sum(v.size for v in fit.target.visible)
    return Finding("density", _grade(typical / max(1.0, size / 32), ERROR), typical, ERROR[0], message, remedy)


def _own(fit: Any, value: np.ndarray) -> Finding | None:
    """Whether a program's own rough solver says another density, which all but `log_prob` go by; None where it does not."""
    words = getattr(fit.target, "rough_solver", str)()
    if not words or sum(v.size for v in fit.target.visible) > EXACT:
        return None
    apart = float(np.sqrt(np.mean((-np.asarray(fit.energy(**_few(fit)), float) - value) ** 2)))
    if apart <= ERROR[0]:
        return None
    message = (
        f"the program's own solver ({words}) changes a density by {apart:.2g} nats; at most {ERROR[0]}. fit.energy, 'mle' and "
        "chains go by it, fit.log_prob and this verdict by a finer one"
    )
    remedy = "leave out `solver` of the program, or give it smaller tolerances, or more steps"
    return Finding("density", _grade(apart, ERROR), apart, ERROR[0], message, remedy)


def _mass(evidence: Evidence) -> Finding | None:
    """Whether the density sums to no more than one about held-out rows: what is too good to be true shows here, whatever it is.

    By importance sampling from a normal about each of up to `MASS` rows, as wide as the distance to its `ABOUT` nearest.
    """
    fit: Any = evidence.fit
    size = sum(v.size for v in fit.target.visible)
    if size > MOST_SIZE or fit.target.inputs or _pair(fit)[1] is None:
        return None
    (site,) = fit.target.visible
    rows = np.asarray(next(iter(fit.held_out.values())), float).reshape(-1, size)[: 5 * MASS]
    x, log_q = _about(rows, min(MASS, len(rows)))
    names = {site: k for k, site in fit.target.keywords.items()}
    ode = _asked(fit, {names.get(site.name, site.name): x.reshape(-1, *site.shape)}, method="ode")
    if ode is None:
        return None
    share = np.exp(np.asarray(ode.value, float) - log_q)
    mass, error = float(np.mean(share)), float(np.std(share) / np.sqrt(len(share)))
    message = f"the flow's density sums to {mass:.3g} about held-out rows (standard error {error:.2g}); at most 1"
    remedy = (
        "it overclaims by the logarithm of its mass, in nats a row: see 'density', and look in the network for stop_gradient or "
        "detach, which hide a part of its divergence"
    )
    if not np.isfinite(mass):
        return Finding("mass", "fail", mass, 1.0, message, remedy)
    return Finding("mass", _grade(mass - 1 - 3 * error, TOO_MUCH), mass, 1.0, message, remedy)


def _about(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points about rows (row, size), and the log density of that mixture: (count, size), (count,)."""
    centre, spread, rng = rows.mean(0), rows.std(0) + 1e-12, np.random.default_rng(0)
    rows, size = (rows - centre) / spread, rows.shape[1]
    square = lambda a: ((a[:, None] - rows) ** 2).sum(-1)  # noqa: E731
    near = min(ABOUT, len(rows) - 1)
    width = np.sqrt(np.sort(square(rows), axis=1)[:, near]) + 1e-3
    at = np.arange(count) * len(rows) // count
    x = rows[at] + width[at, None] * rng.normal(size=(count, size))
    each = -0.5 * square(x) / width**2 - size * np.log(width)
    log_q = logsumexp(each, axis=1) - np.log(len(rows)) - 0.5 * size * np.log(2 * np.pi) - np.log(spread).sum()
    return centre + spread * x, log_q


def _narrow(evidence: Evidence) -> Finding | None:
    """How much narrower than normal data one step's draws are, for want of a teacher."""
    fit: Any = evidence.fit
    narrows = getattr(fit.inference, "narrows", None)
    if narrows is None or (left := narrows(fit.target)) is None:
        return None
    levels = fit.inference.num_levels
    message = (
        f"learned without a teacher at {levels} levels: of N(0, 1) data draws in one step keep {left:.3g} of the standard "
        f"deviation; at least {1 - NARROW[0]:g}"
    )
    remedy = f"num_levels={2 * levels}, or init= a fit by 'denoising' or 'flow_matching'"
    return Finding("narrow", _grade(1 - left, NARROW), left, 1 - NARROW[0], message, remedy)


def _grade(value: float, bars: tuple[float, float]) -> Status:
    return "pass" if value <= bars[0] else "warn" if value <= bars[1] else "fail"


def _pair(fit: Any) -> tuple[LogProb | None, LogProb | None]:
    """The bound and the density of a few held-out rows, made once; None where there is none, and of whole numbers."""
    kept = vars(fit)
    if "_laws" not in kept:
        kept["_laws"] = _compared(fit)
    return kept["_laws"]


def _compared(fit: Any) -> tuple[LogProb | None, LogProb | None]:
    if any(v.kind != "reals" for v in fit.target.visible):
        return None, None
    rows = _few(fit)
    return _asked(fit, rows, method="bound", num_draws=DRAWS), _asked(fit, rows, method="ode")


def _few(fit: Any) -> dict[str, np.ndarray]:
    """A few held-out rows, and their inputs, by keyword."""
    names = {site: k for k, site in fit.target.keywords.items()}
    count = min(ROWS, max(FEW, CELLS // sum(v.size for v in fit.target.visible)))
    return {names.get(k, k): v[:count] for k, v in fit.held_out.items()}


def _asked(fit: Any, rows: Any, **how: Any) -> LogProb | None:
    try:
        return fit.log_prob(**how, **rows)
    except Incompatible:
        return None


CHECKS = (_levels, _end, _laws, _density, _mass, _narrow)
