"""Numbers that say what they are."""

from __future__ import annotations

from typing import Any, NamedTuple


class LogProb(NamedTuple):
    """A log probability in nats, its Monte Carlo standard error, and what kind of number it is."""

    value: Any
    stderr: Any
    kind: str
