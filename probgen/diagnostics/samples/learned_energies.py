"""Checks of learned energies: whether their draws are to be trusted, and are of the law of the rows.

Few of their learners minimise a likelihood: a loss at rest says nothing of what the model draws. Where log probabilities of rows of
few units are exact, so is the divergence of the rows' frequencies f from the model,

    KL(f | p) = - H(f) - mean log p(row),

which is above 0 for rows of the model too, by about (states - 1) / (2 rows): that of as many exact draws is taken from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.samples import beside, energies
from probgen.diagnostics.samples.gathered import gathered, is_energy
from probgen.diagnostics.verdict import Finding, Status
from probgen.programs.pinned import Changed

UNITS = 16  # of a row, at most, whose frequencies say something
NATS = 0.1, 1.0  # of the divergence beyond chance that are a warning and a failure
SMALL = 0.5  # nats, at most, of rows too few for chance to be told
LONGER = "pg.evaluate(fit) draws by chains of 1000 sweeps"


def _judged(evidence: Evidence) -> bool:
    """Whether it is an energy that was learned from rows as a density: patterns that are stored are none."""
    return is_energy(evidence.fit.target) and "load" not in evidence.records


def _draws(evidence: Evidence) -> Finding | None:
    """Whether there are draws that can be judged, and rows to judge them by."""
    if not _judged(evidence):
        return None
    fit, target = evidence.fit, evidence.fit.target
    if lost := beside.not_finite(fit):
        return lost
    if why := _unreachable(target):
        return Finding("draws", "warn", None, None, f"the draws were not compared with rows: {why}", "pg.evaluate")
    found = gathered(fit)
    made = energies.kept(fit)
    if found is None or made.draws is None:
        return Finding("draws", "warn", None, None, f"the draws were not compared with rows: {made.told}", "more data")
    if found.bad:
        count = len(found.draws) + found.bad
        message = f"{found.bad} of {count} draws are NaN or infinite"
        return Finding("draws", "fail", float(found.bad), 0.0, message, "a smaller learning_rate")
    if not made.trusted:
        message = f"the draws are not to be trusted: {made.told}; at most {energies.R_HAT}"
        remedy = f"{LONGER}; weights that are smaller (weight_decay=1e-3, a smaller learning_rate) mix better"
        return Finding("draws", "warn", made.value, energies.R_HAT, message, remedy)
    rows = len(made.against)
    if rows < beside.FEWEST and not _close(evidence):
        message = f"{rows} rows are too few to judge draws by; at least {beside.FEWEST}"
        return Finding("draws", "warn", float(rows), float(beside.FEWEST), message, "more data")
    message = f"{len(found.draws)} draws to be held against rows that it learned from, {made.told}"
    return Finding("draws", "pass", None, None, message, "")


def _unreachable(target: Any) -> str:
    """Why draws are not made; nothing where they are."""
    if target.engine != "numpyro":
        return f"those of energies are for NumPyro programs; this is a {target.engine} program"
    if target.inputs:
        return f"they depend on inputs ({', '.join(target.inputs)})"
    return ""


def _known(evidence: Evidence) -> bool:
    """Whether there are draws that are held against rows."""
    if not _judged(evidence) or beside.not_finite(evidence.fit) or _unreachable(evidence.fit.target):
        return False
    return gathered(evidence.fit) is not None


def _told(evidence: Evidence, check: Any) -> Finding | None:
    """A check of draws beside rows. What draws that are not trusted do well is no pass, for they began at rows."""
    if not _known(evidence):
        return None
    finding = check(evidence)
    trusted = energies.kept(evidence.fit).trusted
    return finding if trusted or finding is None or finding.status != "pass" else None


def _two_sample(evidence: Evidence) -> Finding | None:
    """Whether a classifier tells draws from rows."""
    return _told(evidence, beside.two_sample)


def _coverage(evidence: Evidence) -> Finding | None:
    """Whether regions of the data have no draws."""
    return _told(evidence, beside.coverage) if _known(evidence) and energies.kept(evidence.fit).trusted else None


def _quality(evidence: Evidence) -> Finding | None:
    """Whether draws lie where rows do."""
    return _told(evidence, beside.quality) if _known(evidence) and energies.kept(evidence.fit).trusted else None


# ---- of few units ------------------------------------------------------------------------------------------------


def _divergence(evidence: Evidence) -> Finding | None:
    """How far the rows' frequencies are from the model's probabilities."""
    found = _nats(evidence)
    if found is None:
        return None
    value, chance, error, count = found
    more = value - chance
    status: Status = "pass" if more <= NATS[0] or more <= 3 * error else "warn" if more <= NATS[1] else "fail"
    steps = 4 * evidence.settings.get("num_steps", evidence.fit.num_steps)
    remedy = f"num_steps={steps}, or more hidden units"
    if count < beside.FEWEST:
        few: Status = "pass" if value <= SMALL else "warn"
        message = (
            f"the frequencies of {count} rows diverge from the model by {value:.2g} nats; of so few at most {SMALL}"
        )
        return Finding("divergence", few, value, SMALL, message, remedy)
    message = (
        f"the frequencies of {count} rows diverge from the model by {value:.2g} nats, those of as many exact draws by "
        f"{chance:.2g} (standard error {error:.1g}); at most {NATS[0]} more"
    )
    return Finding("divergence", status, more, NATS[0], message, remedy)


def _close(evidence: Evidence) -> bool:
    """Whether rows are so likely that no other model could make them much likelier."""
    found = _nats(evidence)
    return found is not None and found[0] <= SMALL


def _nats(evidence: Evidence) -> tuple[float, float, float, int] | None:
    """The divergence, that of as many exact draws, the standard error of the difference, and how many rows; kept with the fit."""
    kept = vars(evidence.fit)
    if "_nats" not in kept:
        kept["_nats"] = _divergences(evidence)
    return kept["_nats"]


def _divergences(evidence: Evidence) -> tuple[float, float, float, int] | None:
    if not _known(evidence):
        return None
    fit: Any = evidence.fit
    visible, made = fit.target.visible, energies.kept(fit)
    if any(not v.levels for v in visible) or sum(v.units for v in visible) > UNITS or made.value is not None:
        return None
    found = gathered(fit)
    if found is None or found.bad or made.draws is None:
        return None
    shapes = {v.name: v.shape for v in visible}
    rows = {k: v[made.against[: energies.DRAWS]] for k, v in energies.rows(fit).items() if k in shapes}
    count, log_p = len(next(iter(rows.values()))), []
    keywords = {site: k for k, site in fit.target.keywords.items()}
    try:
        for points in (rows, made.draws):
            given = {keywords.get(k, k): np.asarray(points[k], float).reshape(-1, *shapes[k]) for k in shapes}
            log_p.append(np.asarray(fit.log_prob(**given).value, float))
    except Changed:  # what the fit is of is not there any more
        raise
    except (Incompatible, TypeError, ValueError, NotImplementedError):  # units that cannot be summed
        return None
    value = _from_model(rows, log_p[0])
    sets = range(0, len(log_p[1]) - count + 1, count)
    chance = [_from_model({k: v[i : i + count] for k, v in made.draws.items()}, log_p[1][i : i + count]) for i in sets]
    error = float(np.sqrt((log_p[0].var() + log_p[1].var()) / count))
    return value, float(np.mean(chance)), error, count


def _from_model(points: Any, log_p: np.ndarray) -> float:
    """KL of the frequencies of points from their probabilities."""
    flat = np.concatenate([np.asarray(v).reshape(len(v), -1) for v in points.values()], axis=1)
    share = np.unique(flat, axis=0, return_counts=True)[1] / len(flat)
    return float((share * np.log(share)).sum() - log_p.mean())


CHECKS = (_draws, _two_sample, _coverage, _quality, _divergence)
