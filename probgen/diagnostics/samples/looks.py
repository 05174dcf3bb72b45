"""Checks of how learning from draws went, by its looks: whether it came to rest, whether it turns in circles, and its critic.

A look, every hundred steps or so, holds draws against rows: their sliced Wasserstein distance under the average of the parameters
and under the last ones, the share of points that the critic tells right, and its slope at rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.samples.beside import far, told
from probgen.diagnostics.samples.gathered import gathered
from probgen.diagnostics.verdict import Finding, Status

FEWEST = 12  # looks by which a trend can be told
FALL = 0.1, 0.4  # of the distance, over the last quarter, that are a warning and a failure
TURNS = 1.5  # times the distance of the average that the last parameters may be off
SWING = 0.5  # relative sd of the distance, beyond which it swings
WON, SURELY = 0.95, 0.995
BEATEN = 0.55
FLAT = 1e-3  # logits over the spread of the data


class Trend(NamedTuple):
    """The mean of the last quarter of looks, the fall over a quarter, its standard error, and how many of these are no chance."""

    level: float
    fall: float
    error: float
    sure: float


def looks(evidence: Evidence, name: str) -> np.ndarray:
    """What every look found of one name: (look,)."""
    values = np.asarray(evidence.records[name][0], float)
    return values[evidence.fit.inference.period - 1 :: evidence.fit.inference.period]


def _convergence(evidence: Evidence) -> Finding | None:
    """Whether draws still come closer to the data as learning ends: a game's loss cannot say so."""
    steps, distance = evidence.fit.num_steps, looks(evidence, "distance")
    default = type(evidence.fit.inference).__dataclass_fields__["num_steps"].default
    remedy = f"num_steps={max(4 * evidence.settings.get('num_steps', steps), default)}"
    if len(distance) < FEWEST:
        fewest = FEWEST * evidence.fit.inference.period
        message = f"{steps} steps are too few to tell whether the draws' distance from the data still falls; at least {fewest}"
        return Finding("convergence", "warn", float(steps), float(fewest), message, remedy)
    ema = evidence.settings.get("ema", 0.0)
    if ema and 1 / (1 - ema) > steps / 10:
        message = (
            f"the answer is an average over {1 / (1 - ema):.0f} of {steps} steps, and lags behind; at most a tenth"
        )
        return Finding(
            "convergence", "warn", 1 / (1 - ema), steps / 10, message, f"ema={1 - 20 / steps:.4g}, or {remedy}"
        )
    found = trend(distance)
    share, sure = found.fall / max(found.level, 1e-300), abs(found.fall) > found.sure * found.error
    status: Status = "pass" if not sure or share <= FALL[0] else "warn" if share <= FALL[1] else "fail"
    early = "" if status == "pass" else "stopped early: "
    message = (
        f"{early}the draws' distance from held-out rows, {found.level:.3g}, fell by {max(found.fall, 0.0):.2g} (standard error "
        f"{found.error:.2g}) over the last quarter; at most {FALL[0]:.0%} of it"
    )
    if sure and -share > 2 * FALL[0]:
        message = f"the draws' distance from held-out rows rose by {-found.fall:.2g} to {found.level:.3g} over the last quarter"
        rate = evidence.settings["learning_rate"] / 3
        return Finding("convergence", "warn", -share, FALL[0], message, f"learning_rate={rate:.2g}, or decay='linear'")
    return Finding("convergence", status, share, FALL[0], message, remedy)


def trend(values: np.ndarray) -> Trend:
    """By a straight line through the last half of looks."""
    from scipy.stats import t as student

    size = len(values) // 4
    late = values[-2 * size :]
    x = np.arange(2 * size) - (2 * size - 1) / 2
    slope = float(x @ late / (x @ x))
    rest = late - late.mean() - slope * x
    error = np.sqrt(rest @ rest / (2 * size - 2) / (x @ x))
    return Trend(float(late[size:].mean()), -slope * size, float(error) * size, float(student.ppf(0.99, 2 * size - 2)))


def _oscillation(evidence: Evidence) -> Finding | None:
    """Whether the parameters go round: the last ones farther off than their average, or a distance that swings."""
    distance, last = looks(evidence, "distance"), looks(evidence, "last")
    if len(distance) < FEWEST:
        return None
    half = len(distance) // 2
    ours, theirs = distance[-half:], last[-half:]
    ratio, noise = float(theirs.mean() / max(ours.mean(), 1e-300)), float((theirs - ours).std() / np.sqrt(half))
    swing = float(theirs.std() / max(theirs.mean(), 1e-300))
    sure = theirs.mean() - ours.mean() > 3 * noise
    remedy = (
        f"learning_rate={evidence.settings['learning_rate'] / 3:.2g}, beta1=0, or a penalty on the critic's slope (r1=1 of 'gan', "
        "or inference='r3gan')"
    )
    message = (
        f"over the second half the last parameters are {ratio:.2g} times as far from the data as their average, and their distance "
        f"swings by {swing:.0%}; at most {TURNS:g} and {SWING:.0%}"
    )
    bad = (sure and ratio > TURNS) or swing > SWING
    return Finding("oscillation", "warn" if bad else "pass", ratio, TURNS, message, remedy)


def _critic(evidence: Evidence) -> Finding | None:
    """Whether the critic still teaches: it has won, or sees nothing, while draws are far from the data."""
    right, slope = looks(evidence, "right"), looks(evidence, "slope")
    if not _has_critic(evidence) or len(right) < 4:
        return None
    late = max(4, len(right) // 4)
    share, steep = float(right[-late:].mean()), float(slope[-late:].mean()) * _spread(evidence)
    tells = f"tells {share:.0%} of rows and draws right"
    if not far(evidence):
        return Finding("critic", "pass", share, WON, f"the critic {tells}, and draws are near the data", "")
    found = told(evidence)
    apart = f"a classifier tells {found.share:.0%}" if found else "draws are far"
    if share > WON:
        message = f"the critic has won: it {tells}; at most {WON:.0%} while draws are far from the data ({apart})"
        remedy = "a smaller critic or critic_rate=0.25, a penalty on its slope (r1=1 of 'gan', or 'r3gan'), or augment"
        return Finding("critic", "fail" if share > SURELY else "warn", share, WON, message, remedy)
    if share < BEATEN or steep < FLAT:
        flat = f" and is flat there, {steep:.1g} logits over the data's spread" if steep < FLAT else ""
        message = f"the critic is beaten: it {tells}{flat}, while {apart}; at least {BEATEN:.0%}"
        remedy = f"critic_steps={2 * evidence.settings.get('critic_steps', 1)}, critic_rate=4, or a larger critic"
        return Finding("critic", "warn", share, BEATEN, message, remedy)
    return Finding("critic", "pass", share, WON, f"the critic {tells}; between {BEATEN:.0%} and {WON:.0%}", "")


def _has_critic(evidence: Evidence) -> bool:
    return "critic_steps" in evidence.settings


def _spread(evidence: Evidence) -> float:
    """The root mean square sd of the data's coordinates."""
    found = gathered(evidence.fit)
    return 1.0 if found is None else float(np.sqrt(np.mean(found.values[0].var(0))))


CHECKS = (_convergence, _oscillation, _critic)
