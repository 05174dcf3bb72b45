"""What worker processes are given, and what they give back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

STOPPED = "stopped"  # the status of a job that was interrupted
DIED = "died"  # of one that took its workers with it


class Job(Protocol):
    """One piece of work, a named tuple. path: the directory of its run; anew: whether a run that is there is replaced."""

    @property
    def path(self) -> str: ...

    @property
    def anew(self) -> bool: ...

    def _replace(self, **changed: Any) -> Any: ...


class Outcome(NamedTuple):
    """What came of a job. status: in its task's own words, else `STOPPED` or `DIED`; error: why there is nothing."""

    status: str
    error: str = ""
    seconds: float = float("nan")
    figures: Mapping[str, Any] = {}


class Work(Protocol):
    """What all jobs share: it is sent once to every worker."""

    def outcome(self, job: Any) -> Outcome:
        """What comes of one job; what that raises is an outcome as well."""
        ...


def said(error: BaseException) -> str:
    """An error in words, with its kind where its words do not say it."""
    text = str(error).strip()
    return text if text and isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: {text}"
