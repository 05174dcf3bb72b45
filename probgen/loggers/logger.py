"""What a logger is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class About:
    """A run that begins or goes on.

    settings: of the algorithm, by name. facts: model, algorithm, engine, precision, seed, versions.
    step: where it goes on, 0 for a new run. folder: the run's directory; None where nothing is written down.
    """

    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    step: int
    folder: Path | None


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    state: "finished", "stopped" by Ctrl-C, "failed" by an error. step: steps done.
    status: of the verdict on a finished run: "pass", "warn", "fail"; "" where it was not judged, for which `text` has the reason.
    text: the verdict as it is printed. findings: the status of each check, by its name.
    """

    state: str
    step: int
    status: str = ""
    text: str = ""
    findings: Mapping[str, str] | None = None


class Logger:
    """Of one run at a time: `begin`, then `log` after every checkpoint, then `end`, however the run ends.

    An object that has the three methods will do. What they raise ends their logging, not the fit; the fit's notes say it.
    """

    def check(self, out: Path | None, new: bool) -> None:
        """Raise where it cannot log a run of this directory, new or one that goes on: nothing has compiled yet."""

    def begin(self, about: About) -> int | None:
        """A run begins or goes on. Of one that goes on: the last step that is logged already; None where that is not known."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step: `loss`, `held_out_loss`, `seconds_per_step`, ...; steps only rise."""

    def flush(self) -> None:
        """Write what was logged, for who watches now."""

    def end(self, ending: Ending) -> None:
        """The run is over; free what is open."""


METHODS = ("begin", "log", "end")
