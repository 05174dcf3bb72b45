"""Checks of draws beside rows: a test that they are of one law, what is lost, what is off, what is copied, what is out of range."""

from __future__ import annotations

from typing import Any

import numpy as np

from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.samples.gathered import Gathered, gathered, is_energy
from probgen.diagnostics.samples.regions import copies, covered, inside, outside
from probgen.diagnostics.samples.told_apart import FEW, Told, told_apart, too_few
from probgen.diagnostics.verdict import Finding, Status, beside

FEWEST = 50  # rows by which draws can be judged
APART = 0.56, 0.8  # shares told right by a classifier that are a warning and a failure
SURE = 0.005  # p-value that is no chance
COVERED, INSIDE = (0.85, 0.6), (0.85, 0.5)  # of what a perfect sampler has
COPIED = 0.1, 0.5  # shares of draws


def told(evidence: Evidence) -> Told | None:
    """The two-sample test, made once for a fit; None where there is too little to tell by."""
    kept = vars(evidence.fit)
    if "_told_apart" not in kept:
        found = _usable(evidence)
        kept["_told_apart"] = found and told_apart(found.rows, found.beside, evidence.fit.seed, found.paired)
    return kept["_told_apart"]


def far(evidence: Evidence) -> bool:
    """Whether draws are told from rows by more than chance, and by more than a pass allows."""
    found = told(evidence)
    return found is not None and found.p_value < SURE and found.share > APART[0]


def _usable(evidence: Evidence) -> Gathered | None:
    found = gathered(evidence.fit)
    return found if found is not None and len(found.rows) >= FEWEST and len(found.draws) >= FEWEST else None


def _draws(evidence: Evidence) -> Finding | None:
    """Whether there are draws to be judged, and rows to judge them by."""
    fit = evidence.fit
    if lost := not_finite(fit):
        return lost
    found = gathered(fit)
    if found is None:
        message = (
            f"draws given inputs are for NumPyro programs: those of this {fit.target.engine} program were not looked at"
        )
        return Finding("draws", "warn", None, None, message, "fit.sample, and pg.evaluate on arrays")
    count = len(found.draws) + found.bad
    if found.bad:
        message = f"{found.bad} of {count} draws are NaN or infinite"
        remedy = "a smaller learning_rate, or look at the program where noise is large"
        return Finding("draws", "fail", float(found.bad), 0.0, message, remedy)
    if len(found.rows) < FEWEST:
        message = f"{len(found.rows)} rows are too few to judge draws by; at least {FEWEST}"
        return Finding("draws", "warn", float(len(found.rows)), float(FEWEST), message, "more data")
    return Finding("draws", "pass", 0.0, 0.0, f"{count} draws are finite", "")


def not_finite(fit: Any) -> Finding | None:
    """Of a fit whose learned parameters are NaN or infinite, so that there are no draws."""
    bad = [k for k, v in fit.answer.items() if not np.isfinite(v).all()]
    if not bad:
        return None
    message = f"the learned {bad[0]!r} is NaN or infinite: the gradient was, at some step"
    remedy = (
        "a smaller learning_rate; or look in the program for a square root or a logarithm of what is not above 0, also in the "
        "branch that a `where` does not take"
    )
    return Finding("draws", "fail", float(len(bad)), 0.0, message, remedy)


def two_sample(evidence: Evidence) -> Finding | None:
    """Whether a classifier tells draws from rows that were held out."""
    found, rows = told(evidence), _usable(evidence)
    if found is None or rows is None:
        return None
    share, chance = beside(found.share, APART[0], ".1%"), found.p_value >= SURE
    status: Status = "pass" if chance or found.share <= APART[0] else "warn" if found.share <= APART[1] else "fail"
    mixed = "rows, most of them learned from, for few were held out," if len(rows.held) else "rows that it learned from"
    of = "held-out rows" if rows.own else mixed
    lower = max(0.0, 2 * found.share - 1)
    apart = f", so that the laws are {lower:.0%} apart in total variation or more" if status != "pass" else ""
    if few := too_few(found, SURE):
        status, apart = "warn", f"; {few}"
    message = (
        f"a classifier tells {share} of {found.count // 2} {of} and as many draws right (standard error {found.error:.1%}, "
        f"p = {found.p_value:.2g}){apart}; at most {APART[0]:.0%}, 50 % is chance"
    )
    remedy = f"{_longer(evidence)}, {_wider(evidence)}, or another learner: what is wrong is among the other findings"
    remedy = f"more data: {FEW} rows or more" if few else remedy
    return Finding("two_sample", status, found.share, APART[0], message, remedy)


def coverage(evidence: Evidence) -> Finding | None:
    """Whether regions of the data have no draws: modes that are lost."""
    found = _usable(evidence)
    if found is None:
        return None
    rows = _rows(found)[:2000]
    share = covered(rows, found.draws)
    ratio = share.value / share.perfect
    status = _below(ratio, share.value - share.perfect, share.error, COVERED)
    message = (
        f"{share.value:.1%} of rows have a draw near, {share.perfect:.1%} of a perfect sampler: {max(0.0, 1 - ratio):.0%} of "
        f"the data is lost; at most {1 - COVERED[0]:.0%}"
    )
    remedy = f"too few kinds of points are drawn: more steps, if they still come closer; else {_wider(evidence)}"
    if _of_a_game(evidence):
        remedy += ", pack=2 to 4, inference='r3gan' or 'wgan_gp', a larger batch_size"
    return Finding("coverage", status, ratio, COVERED[0], message, remedy)


def quality(evidence: Evidence) -> Finding | None:
    """Whether draws lie where rows do."""
    found = _usable(evidence)
    if found is None:
        return None
    rows = _rows(found)
    apart = max(len(found.held), len(rows) // 3)
    share = inside(rows[apart : apart + 2000], found.draws, rows[: min(apart, 1000)])
    ratio = share.value / max(share.perfect, 1e-9)
    status = _below(ratio, share.value - share.perfect, share.error, INSIDE)
    message = (
        f"{share.value:.1%} of draws lie among rows, and {share.perfect:.1%} of other rows do: {max(0.0, 1 - ratio):.0%} of "
        f"draws are off the data; at most {1 - INSIDE[0]:.0%}"
    )
    remedy = f"{_longer(evidence)}, {_wider(evidence)}"
    if _of_a_game(evidence):
        remedy += ", or fit.sample(64, truncation=0.7), which has less variety too"
    return Finding("quality", status, ratio, INSIDE[0], message, remedy)


def _memorisation(evidence: Evidence) -> Finding | None:
    """Whether draws are copies of rows that were learned from."""
    found = _usable(evidence)
    if found is None:
        return None
    remedy = "fewer steps, a smaller network, more data, or augment='both' for pictures"
    if len(found.held) < 10:
        message = f"{len(found.held)} rows were held out: whether draws are copies of rows cannot be told; at least 10"
        return Finding("memorisation", "warn", None, None, message, "held_out=0.1, or more data")
    copied = copies(found.known, found.held, found.draws[:1000], evidence.fit.seed)
    if copied is None:
        message = "rows repeat in the data: a draw that equals one says nothing"
        return Finding("memorisation", "pass", None, None, message, remedy)
    sure = copied.p_value < 0.001
    status: Status = (
        "fail" if sure and copied.share > COPIED[1] else "warn" if sure and copied.share > COPIED[0] else "pass"
    )
    message = (
        f"{min(1.0, max(0.0, copied.share)):.0%} of draws are copies of rows that were learned from, by their nearest rows "
        f"(standard error {copied.error:.0%}, p = {copied.p_value:.2g}); at most {COPIED[0]:.0%}"
    )
    if status == "pass" and copied.share > COPIED[0]:
        message = f"no more draws than by chance are copies of rows that were learned from (p = {copied.p_value:.2g})"
    if copied.error > COPIED[1]:
        message = f"{copied.distinct} rows are the nearest of all draws: too few to tell copies by"
    return Finding("memorisation", status, copied.share, COPIED[0], message, remedy)


def _range(evidence: Evidence) -> Finding | None:
    """Whether values of draws lie out of the range of the data's."""
    found = _usable(evidence)
    if found is None:
        return None
    known, held, draws = found.values
    share = outside(known, held if len(held) else known, draws, found.groups)
    more = share.value - share.perfect - 3 * share.error
    status: Status = "fail" if more > 0.2 else "warn" if more > 0.01 else "pass"
    message = (
        f"{share.value:.1%} of the draws' values lie out of the data's range, by more than a twentieth of it, and "
        f"{share.perfect:.1%} of other rows' do; at most 1 % more"
    )
    remedy = "more steps; where the data have bounds, a last layer with them, such as a sigmoid's or tanh's"
    return Finding("range", status, share.value, 0.01, message, remedy)


def _rows(found: Gathered) -> np.ndarray:
    """All rows, those held out first."""
    return np.concatenate([found.held, found.known])


def _below(ratio: float, gap: float, error: float, bars: tuple[float, float]) -> Status:
    """The grade of a share by what it is of a perfect sampler's, where it is below that by more than chance."""
    if ratio >= bars[0] or gap > -3 * error:
        return "pass"
    return "warn" if ratio >= bars[1] else "fail"


def _of_a_game(evidence: Evidence) -> bool:
    learner: Any = evidence.fit.inference
    return learner.loss_of == "game"


def _wider(evidence: Evidence) -> str:
    """What a program that cannot be closer to the data lacks."""
    return "more hidden units" if is_energy(evidence.fit.target) else "a larger network"


def _longer(evidence: Evidence) -> str:
    return f"num_steps={4 * evidence.settings.get('num_steps', evidence.fit.num_steps)}"


CHECKS = (_draws, two_sample, coverage, quality, _memorisation, _range)
