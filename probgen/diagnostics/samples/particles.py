"""Checks of particles that complete a point known in part: how many are effective, and whether runs agree."""

from __future__ import annotations

import numpy as np

from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.verdict import Finding, beside, grade
from probgen.programs.completable import FAR, OUTSIDE

FEW = 20.0, 5.0  # effective particles of a run, at the worst time
APART = 1.0, 3.0  # nats, the standard deviation of a run's log evidence
R_HAT = 1.05, 1.2  # of points of equal weight, some of which are the same
MUCH = 2.0  # ranges of the rows, by which what was seen is no longer likely to be of their kind
LEVELS = {"twisted_smc": (50, 10), "guided": (20, 5)}  # of noise; with fewer the answer is of another law
MISSED = 4.0, 25.0  # mean square of what is drawn less what is known, in units of the noise


def _more(evidence: Evidence) -> str:
    settings = evidence.settings
    return f"num_particles={4 * settings['num_particles']}, or num_steps={2 * settings['num_steps']}"


def _effective(evidence: Evidence) -> Finding | None:
    """The least effective number of a run's particles, over time."""
    if "ess" not in evidence.records:
        return None
    shares = evidence.records["ess"][0]
    value, at = float(shares.min() * evidence.settings["num_particles"]), int(np.argmin(shares)) + 1
    shown = beside(value, FEW[0], ".1f")
    message = f"at worst {shown} particles of a run are effective (step {at} of {len(shares)}); at least {FEW[0]:.0f}"
    return Finding("particles", grade(-value, -FEW[0], -FEW[1]), value, FEW[0], message, _more(evidence))


def _evidence(evidence: Evidence) -> Finding | None:
    """How far the runs' log evidences are apart: the mean of their exponentials is no better than that allows."""
    if "log_evidence" not in evidence.fit.answer:
        return None
    each = np.asarray(evidence.fit.answer["log_evidence"], float)[:, 0]
    if len(each) < 2:
        return None
    value = float(each.std(ddof=1))
    told = f"log evidence {', '.join(f'{v:.2f}' for v in each[:8])} nats by runs: sd {beside(value, APART[0], '.2f')}"
    return Finding(
        "evidence", grade(value, *APART), value, APART[0], f"{told}; at most {APART[0]:.0f}", _more(evidence)
    )


def _runs(evidence: Evidence) -> Finding | None:
    """Whether independent runs give the same points."""
    from probgen.diagnostics.chains import r_hat

    names, draws = evidence.scalars
    if not names or draws.shape[1] < 2 or draws.shape[2] < 4:
        return None
    found = r_hat(draws)
    index = int(np.nanargmax(found)) if np.isfinite(found).any() else 0
    value = float(found[index])
    message = f"largest R-hat between runs {beside(value, R_HAT[0], '.3f')} ({names[index]}); at most {R_HAT[0]}"
    return Finding("runs", grade(value, *R_HAT), value, R_HAT[0], message, _more(evidence))


def _known(evidence: Evidence) -> Finding | None:
    """Whether guided draws are what is known of them."""
    if evidence.fit.inference.name != "guided":
        return None
    value = float(evidence.records["loss"][0, -1])
    shown = beside(value, MISSED[0], ".2f")
    message = f"drawn, what is known is off by {shown} squared noises in the mean; at most {MISSED[0]:.0f}"
    return Finding(
        "known", grade(value, *MISSED), value, MISSED[0], message, f"num_steps={2 * evidence.settings['num_steps']}"
    )


def _bias(evidence: Evidence) -> Finding | None:
    """What no number of particles mends."""
    text = evidence.fit.inference.bias
    remedy = "inference='twisted_smc', whose particles are weighted for it"
    return Finding("bias", "warn", None, None, text, remedy) if text else None


def _levels(evidence: Evidence) -> Finding | None:
    """Whether there are enough levels of noise: points of a chain of few levels, and its evidence, are not the network's law."""
    known = LEVELS.get(evidence.fit.inference.name)
    if known is None:
        return None
    count, (enough, least) = int(evidence.settings["num_steps"]), known
    remedy = f"num_steps={2 * max(count, enough)}; what changes between the two is what levels cost"
    message = f"{count} levels of noise; from {enough} on a chain's law is near that of the network's flow"
    return Finding("levels", grade(-count, -enough, -least), count, enough, message, remedy)


def _outside(evidence: Evidence) -> Finding | None:
    """Whether what was seen is far from what rows hold: the network has learned nothing there."""
    told = next((np.asarray(v) for k, v in evidence.fit.target.data.items() if k.endswith(OUTSIDE)), None)
    if told is None:
        return None
    count, y, low, high, far = (float(v) for v in told)
    message = (
        f"{count:.0f} numbers that were seen are outside of what rows hold: {y:g}, and rows from {low:g} to {high:g}; "
        "the network has learned nothing there"
    )
    status = "fail" if far > MUCH else "warn"
    return Finding("seen", status, far, FAR, message, "look at the units and the order of what was seen")


CHECKS = (_outside, _levels, _effective, _evidence, _runs, _known, _bias)
