"""What learners tell at every step, on both engines: of a likelihood and of a bound."""

from __future__ import annotations

from typing import Any, NamedTuple

ACTIVE = 0.01  # variance over rows of a posterior mean, above which a unit is active (Burda et al.)
ROWS = 500  # on which activity is judged


class Watch(NamedTuple):
    """Rows that are held out, the parameters that were best on them, their loss, the last one, and how many looks ago that was."""

    rows: Any
    parameters: Any
    best: Any
    last: Any
    age: Any


class OfLikelihood(NamedTuple):
    """loss: minus the mean log likelihood of the batch, in nats; validation: of the held-out rows, at the last look."""

    loss: Any
    learning_rate: Any
    rollbacks: Any
    validation: Any
    converged: Any


class OfBound(NamedTuple):
    """loss: minus the bound on log p of a row of the batch, in nats; kl: of guide and prior; active: hidden coordinates in use."""

    loss: Any
    kl: Any
    active: Any
    learning_rate: Any
    rollbacks: Any
