"""A fit that is given by init= to be learned from: whether its parameters mean here what they mean there."""

from __future__ import annotations

from typing import Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.target import START, Diffused

UNSEEN = (
    "init hid no labels in learning, and knows nothing of a row without its label: learn with unlabelled=0.\n"
    "unlabelled is {0:g}."
)
TIMES = 0.1, 0.35, 0.65, 0.9
CLOSE = 1e-2  # of the largest velocity, by which two may differ in single precision
JUMPS = "init was learned by {0}: it jumps, and has no velocity to learn from.\nGive the fit that it was learned from itself."
OTHER = (
    "init is a fit of another program: with its parameters {0} differs between this program and its own.\n"
    "{1} goes on from a fit of the same program, with the same schedule of noise, kind of network and units."
)


def begins_at_a_fit(target: Any) -> bool:
    """Whether parameters begin at those of a fit, given by init=."""
    return any(k.endswith(START) for k in target.data)


def taught_by(learner: Any, target: Any, fit: Any) -> None:
    """Raise Incompatible where a target that begins at a fit's parameters has not the velocity that the fit has."""
    own: Any = fit.target
    if not isinstance(own, Diffused) or own.engine != target.engine:
        raise Incompatible(f"init is {fit}; {learner.name} learns from a fit with a denoiser on the same engine.")
    if getattr(fit.inference, "jumps", 0):
        raise Incompatible(JUMPS.format(fit.inference.name))
    if learner.unlabelled and target.labels and not getattr(fit.inference, "unlabelled", 0.0):
        raise ValueError(UNSEEN.format(learner.unlabelled))
    row = target.first_row()
    theirs: Any = own.begun(fit.answer)
    if set(row) != set(theirs.first_row()):
        raise Incompatible(OTHER.format("what a row is called", learner.name))
    (seen, velocity), (other_seen, other_velocity) = (found.looked_at(_look, row) for found in (target, theirs))
    if seen.shape != other_seen.shape or not _close(seen, other_seen):
        raise Incompatible(OTHER.format("what the network sees of a row", learner.name))
    if not _close(velocity, other_velocity):
        raise Incompatible(OTHER.format("the velocity", learner.name))


def _look(denoiser: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """The point, (*event), and velocities at a few times with noise on it: (time, *event)."""
    import jax.numpy as jnp

    noise = jnp.asarray(np.random.default_rng(0).normal(size=x.shape), x.dtype)
    at = [jnp.asarray(t, x.dtype) for t in TIMES]
    found = [denoiser.velocity(denoiser.schedule.noised(x, noise, t), t) for t in at]
    return np.asarray(x, float), np.stack([np.asarray(v, float) for v in found])


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.all(np.abs(a - b) <= CLOSE * max(float(np.abs(b).max()), 1e-6)))
