"""What learners of a denoiser keep of their rows and record, on both engines."""

from __future__ import annotations

from typing import Any, NamedTuple

GRID = 1000  # times, on which a level of noise is found


class Held(NamedTuple):
    """Rows that are held out: (row,)."""

    held: Any


class Info(NamedTuple):
    """loss: the mean of what is minimised over the batch, a coordinate; no nats, and no bound."""

    loss: Any
    learning_rate: Any
    rollbacks: Any
