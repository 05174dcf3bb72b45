"""Whether a learner has learned what it can: what a longer run would gain, by the loss of this one.

With L(t) the loss around step t, a run of T steps has gained

    a = L(T/4) - L(T/2),   b = L(T/2) - L(T)

in its last two doublings, and is expected to gain max(b, b r / (1 - r), a / 4) in those to come: gains that shrink by r = b / a at
every doubling add up to b r / (1 - r); r counts at most 3/4. A loss in nats a row is held to an absolute bar, which a shift of the
data's units or of the base measure leaves alone; any other to a share of all that was gained. The bar means something only where
the loss's noise is below it: a loss too noisy to tell is no pass.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.verdict import Finding, Status

BAR = 0.1  # nats a row, at most: a hundred rows hardly tell models apart that are so close
FINE = 0.03  # nats a coordinate, in few of them
PSEUDO, BIT = 0.5, 0.01  # of the pseudo-likelihood, at most and for each bit: it falls further than the likelihood does
SHARE = 0.02  # of all that was gained, for a loss that is no likelihood
STRAIGHT = 0.7  # of the second half's share in all steps, by their sizes: the share in the gain that it has in a run hardly begun
FEWEST = 200  # steps by which a trend can be told
LOOKS = 30  # at a loss by which a trend can be told: three of them in L(half)
WIDTH = 0.2  # of the steps up to t that L(t) is the mean of


class Level(NamedTuple):
    """The mean of a loss over a stretch of steps, and its standard error."""

    mean: float
    error: float


class Gain(NamedTuple):
    """What the run gained in its last two doublings and what is left to gain, with the standard error of the last doubling's."""

    before: float
    last: float
    left: float
    error: float
    total: float


def learned(evidence: Evidence) -> Finding:
    """The finding on a learner of parameters whose own rule has not stopped it."""
    loss, of, bar = _curve(evidence)
    steps = evidence.fit.num_steps
    remedy = f"num_steps={4 * evidence.settings.get('num_steps', steps)}, or a larger learning_rate"
    if steps < FEWEST or np.isfinite(loss).sum() < 20:
        message = f"{steps} steps are too few to tell whether {of} has come to rest; at least {FEWEST}"
        return Finding("convergence", "warn", float(steps), float(FEWEST), message, remedy)
    if (ema := evidence.settings.get("ema", 0.0)) and 1 / (1 - ema) > steps / 10:
        message = f"the answer is an average over {1 / (1 - ema):.0f} of {steps} steps, and lags behind the loss; at most a tenth"
        return Finding(
            "convergence", "warn", 1 / (1 - ema), steps / 10, message, f"ema={1 - 20 / steps:.4g}, or more steps"
        )
    if seldom(loss):
        every = between_looks(loss)
        message = (
            f"{of} was looked at every {every} steps, too seldom in {steps} to tell; at least {LOOKS * every} steps"
        )
        return Finding("convergence", "warn", float(steps), float(LOOKS * every), message, remedy)
    gain = gained(loss)
    if bar is None:
        return _by_share(gain, of, remedy)
    return _by_nats(gain, of, bar, remedy, _second_half(evidence.records))


def _by_nats(gain: Gain, of: str, bar: float, remedy: str, half: float) -> Finding:
    """Of a loss in nats a row."""
    told = f"{gain.left:.2g} nats a row (standard error {gain.error:.2g})"
    if not gain.error <= bar / 2:
        message = f"{of} is too noisy to tell: a longer run would gain {told}; the error may be {bar / 2:.2g}"
        return Finding("convergence", "warn", gain.left, bar, message, f"a larger batch_size, or {remedy}")
    if gain.last < -max(bar, 4 * gain.error):
        message = (
            f"{of} has risen by {-gain.last:.2g} nats a row (standard error {gain.error:.2g}) over the second half"
        )
        return Finding("convergence", "warn", gain.last, -bar, message, "a smaller learning_rate, or validation=0.1")
    if gain.last > 4 * gain.error and gain.last > STRAIGHT * half * gain.total:
        message = (
            f"{of} falls in a straight line, by {gain.last:.2g} nats a row in its second half (error {gain.error:.2g})"
        )
        return Finding("convergence", "warn", gain.last, bar, message, remedy)
    status: Status = "pass" if gain.left <= bar else "warn"
    message = f"by {of} a longer run would gain {told}; at most {bar:.2g}"
    return Finding("convergence", status, gain.left, bar, message, remedy)


def _second_half(records: Any) -> float:
    """The share of the second half in all steps, by their sizes."""
    rate = records["learning_rate"].mean(axis=0) if "learning_rate" in records else np.ones(2)
    return float(rate[len(rate) // 2 :].sum() / max(rate.sum(), 1e-300))


def _by_share(gain: Gain, of: str, remedy: str) -> Finding:
    """Of a loss in other units."""
    if not gain.total > 5 * gain.error:
        message = f"{of} has not fallen by more than its noise ({gain.total:.2g}, standard error {gain.error:.2g}): it cannot tell"
        return Finding("convergence", "warn", None, None, message, "compare with a run of four times the steps")
    share, error = gain.left / gain.total, gain.error / gain.total
    message = f"by {of} a longer run would gain {share:.1%} (standard error {error:.1%}) of what was gained; at most {SHARE:.0%}"
    status: Status = "pass" if share <= SHARE and error <= SHARE / 2 else "warn"
    return Finding("convergence", status, share, SHARE, message, remedy)


def _curve(evidence: Evidence) -> tuple[np.ndarray, str, float | None]:
    """The loss to be judged, what it is called, and its bar in nats a row; None for a loss in other units."""
    records = evidence.records
    target: Any = evidence.fit.target
    learner: Any = evidence.fit.inference
    bar = min(BAR, FINE * sum(v.size for v in target.visible))
    if "validation" in records and np.isfinite(records["validation"][0]).sum() >= 20:
        return records["validation"].mean(axis=0), "the loss of held-out rows", bar
    loss = records["loss"].mean(axis=0)[getattr(learner, "settles", 0) :]
    if learner.loss_of == "likelihood":
        return loss, "the loss", bar
    bits = any(v.kind == "bits" for v in target.visible)
    if learner.loss_of == "pseudo-likelihood" and bits:
        size = sum(v.size for v in target.visible)
        return loss, "the pseudo-likelihood", min(PSEUDO, BIT * size)
    stages = sum(k.startswith("W") for k in evidence.fit.answer) if evidence.fit.inference.name == "greedy" else 1
    return loss[-(len(loss) // max(stages, 1)) :], "the loss, which is no likelihood,", None  # of the last layer


def between_looks(loss: np.ndarray) -> int:
    """How many steps lie between two looks at a loss (step,), told from where it changes; 1 where each step has its own."""
    finite = loss[np.isfinite(loss)]
    at = np.flatnonzero(np.diff(finite))
    return int(np.gcd.reduce(np.diff(at))) if len(at) > 1 else int(at[0]) + 1 if len(at) else len(finite)


def seldom(loss: np.ndarray) -> bool:
    """Whether a loss (step,) was looked at too few times to tell a trend.

    Between two looks it does not move, which is no rest; one that was the same at three looks of the second half is at rest.
    """
    every, half = between_looks(loss), loss[len(loss) // 2 :]
    rests = len(half) >= 3 * every and np.isfinite(half).all() and np.ptp(half) <= 1e-6 * abs(half).max()
    return len(loss) < LOOKS * every and not rests


def gained(loss: np.ndarray) -> Gain:
    """What a loss (step,) says of the run's last two doublings and of those to come."""
    late, mid, early = (level(loss, share) for share in (1.0, 0.5, 0.25))
    a, b = early.mean - mid.mean, mid.mean - late.mean
    ratio = np.clip(b / a, 0.0, 0.75) if a > 0 else 0.75 if b > 0 else 0.0
    left = float(max(b, b * ratio / (1 - ratio), a / 4, 0.0))
    first = loss[np.isfinite(loss)][: max(1, len(loss) // 100)]
    return Gain(a, b, left, float(np.hypot(mid.error, late.error)), float(first.mean() - late.mean))


def level(loss: np.ndarray, share: float) -> Level:
    """The loss at a share of the steps, the mean of the last of them; its standard error by means of ten parts, less a trend."""
    end = int(share * len(loss))
    window = loss[int((1 - WIDTH) * end) : end]
    window = window[np.isfinite(window)]
    if len(window) and np.ptp(window) <= 1e-6 * abs(window).max():  # a loss without noise that is at rest
        return Level(float(window.mean()), 0.0)
    values = (
        window[np.concatenate([[True], np.diff(window) != 0])] if len(window) else window
    )  # looked at every few steps
    if len(values) < 3:
        return Level(float(window.mean()) if len(window) else np.nan, np.inf)
    if len(values) < 8:
        return Level(float(window.mean()), float(np.diff(values).std() / np.sqrt(2 * len(values))))
    count = min(10, len(values) // 2)
    size = len(values) // count
    means = values[-count * size :].reshape(count, size).mean(axis=1)
    x = np.arange(count) - (count - 1) / 2
    rest = means - means.mean() - (x @ means) / (x @ x) * x
    return Level(float(window.mean()), float(np.sqrt(rest @ rest / max(count - 2, 1) / count)))
