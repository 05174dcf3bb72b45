"""Reports and verdicts of runs, made when they are asked for: one at a time, by a process of their own, in a temporary folder.

A process of its own, since a report imports the run's program and compiles it: what hangs or crashes there leaves the page alive.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probgen.view.reading import Told

LONGEST = 3600.0  # seconds of one report
KEPT = 50  # reports


@dataclass
class Job:
    """One report: waiting, being made, done or failed; `error` says why."""

    number: int
    id: str
    directory: Path
    stamp: Mapping[str, Any] | None
    asked: float
    state: str = "waiting"
    error: str = ""
    page: bytes = b""
    verdict: Mapping[str, Any] | None = None


class Reports:
    """Makes reports one after the other, and keeps the last ones."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="probgen-view-")
        self._jobs: dict[int, Job] = {}
        self._changed = threading.Condition()
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._worker = threading.Thread(target=self._work, daemon=True, name="probgen-reports")
        self._worker.start()

    def ask(self, run: Told, directory: Path) -> Job:
        """The report of a run as it is: one that is there or on its way, else a new one."""
        with self._changed:
            for job in reversed(self._jobs.values()):
                if job.id == run.id and (job.state in ("waiting", "making") or _holds(job, run)):
                    return job
            job = Job(max(self._jobs, default=0) + 1, run.id, directory, run.stamp, time.time())
            self._jobs[job.number] = job
            for old in [j for j in self._jobs.values() if j.page or j.error][:-KEPT]:
                del self._jobs[old.number]
            self._changed.notify_all()
        return job

    def job(self, number: int) -> Job | None:
        """One that was asked for."""
        return self._jobs.get(number)

    def verdict(self, run: Told) -> Mapping[str, Any] | None:
        """The verdict of a report that judged the run as it is now."""
        done = [j for j in list(self._jobs.values()) if j.id == run.id and j.state == "done" and _holds(j, run)]
        return done[-1].verdict if done else None

    def under_way(self, id: str) -> Job | None:
        """A report of a run that is not ready yet."""
        return next((j for j in list(self._jobs.values()) if j.id == id and j.state in ("waiting", "making")), None)

    def close(self) -> None:
        """End what is under way, and remove what was made."""
        with self._changed:
            self._ended = True
            child = self._child
            self._changed.notify_all()
        if child is not None:
            _end(child)
        self._worker.join(10)
        self._folder.cleanup()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._ended and not self._next():
                    self._changed.wait()
                job = self._next()
                if self._ended or job is None:
                    return
                job.state = "making"
            try:
                self._make(job)
            except Exception as error:  # no room on the disk, no memory for a process: told on the page
                job.error, job.state = f"{type(error).__name__}: {error}", "failed"

    def _next(self) -> Job | None:
        return next((job for job in self._jobs.values() if job.state == "waiting"), None)

    def _make(self, job: Job) -> None:
        out = Path(self._folder.name) / str(job.number)
        out.mkdir()
        given = str(job.directory.absolute()), str(out), str(os.getpid())
        words = [sys.executable, "-P", "-m", "probgen.view.child", *given]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "agg"}
        with open(out / "said", "wb") as said, self._changed:
            if self._ended:
                return
            self._child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, start_new_session=True
            )
        try:
            code = self._child.wait(LONGEST)
        except subprocess.TimeoutExpired:
            _end(self._child)
            job.error, job.state = f"It was not ready after {LONGEST / 60:.0f} minutes, and was given up.", "failed"
            return
        finally:
            self._child = None
        if code == 0:
            job.page = (out / "report.html").read_bytes()
            job.verdict = json.loads((out / "verdict.json").read_text())
            job.state = "done"
        else:
            job.error, job.state = _failure(out, code), "failed"


def _holds(job: Job, run: Told) -> bool:
    """Whether a report that is done, or failed, is of the run as it is now."""
    return job.stamp == run.stamp and run.stamp is not None and job.state == "done"


def _failure(out: Path, code: int) -> str:
    with contextlib.suppress(OSError):
        return (out / "error").read_text(encoding="utf-8")
    said = (out / "said").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "\n".join([f"Its process ended with code {code}.", *said[-5:]])


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        child.terminate()
    try:
        child.wait(3)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
