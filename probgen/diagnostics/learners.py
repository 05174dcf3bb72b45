"""Checks of learners: the loss, runaways, codes and coordinates in use, and what was maximised."""

from __future__ import annotations

from typing import Any

import numpy as np

from probgen.diagnostics import convergence
from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.verdict import Finding, Status, grade
from probgen.engine.drawable import weighed
from probgen.target import Diffused, Generative


def loss(evidence: Evidence) -> Finding | None:
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
    values = records["loss"].mean(axis=0)
    drop, error = loss_drop(values[np.isfinite(values)])
    if isinstance(evidence.fit.target, Generative) and not records.get("converged", np.zeros((1, 1)))[:, -1].all():
        return convergence.learned(evidence)
    falling = f"the loss still falls by {drop:.3g} nats (standard error {error:.2g}) in 1000 steps; at most 0.1"
    if "converged" in records and records["converged"][:, -1].all():
        return Finding("convergence", "pass", drop, 0.1, f"the loss came to rest after {steps} steps", remedy)
    if not drop - 2 * error <= 0.1:
        return Finding("convergence", "fail", drop, 0.1, f"stopped early: {falling}", remedy)
    if "converged" in records:
        return Finding("convergence", "warn", drop, 0.1, f"stopped early, at step {steps}: {falling}", remedy)
    return Finding("convergence", grade(drop + 2 * error, 0.1, np.inf), drop, 0.1, falling, remedy)


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
    target: Any = evidence.fit.target
    total = 0 if isinstance(target, Diffused) else sum(v.size for v in target.hidden if v.kind == "reals")
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
    if settings.get("adversarial") and "weight" in evidence.records:
        weight = evidence.records["weight"][0]
        if not weight.any():
            message += "; the program has not felt it at any step"
            remedy = f"more than {steps} steps, or a smaller adversarial_from"
            return Finding("critic", "warn", right, 0.95, message, remedy)
        first = int(np.argmax(weight > 0))
        message += f"; the program felt it from step {first + 1} on, by a weight of {np.median(weight[first:]):.2g}"
    return Finding("critic", grade(right, 0.95, 0.995), right, 0.95, message, remedy)


def _objective(evidence: Evidence) -> Finding | None:
    """Whether what was maximised is a bound on log p(x)."""
    settings, steps = evidence.settings, evidence.fit.num_steps
    if "kl_weight" not in settings:
        return None
    parts = [f"the KL counts {settings['kl_weight']:g} times"] if settings["kl_weight"] != 1 else []
    parts += [f"{settings['free_bits']:g} nats of KL a coordinate are free"] if settings["free_bits"] else []
    parts += [f"a scale counts {name!r}" for name in weighed(evidence.fit.target)]
    parts += [f"the KL's weight still rises at step {steps}"] if settings["kl_warmup"] >= steps else []
    remedy = (
        "kl_weight=1, free_bits=0, a kl_warmup below num_steps and no scale; but for a scale fit.log_prob gives a bound"
    )
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


CHECKS = (loss, _rollbacks, _convergence, _grid, _components, _activity, _codes, _critic, _objective)
