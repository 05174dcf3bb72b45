"""One fit of a sweep, where it is made: begun, gone on with or read again; judged; its figures written beside it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from probgen import catalog
from probgen.data.fixed import LOST
from probgen.diagnostics import SEVERITY
from probgen.fits.fit import Fit
from probgen.processes.outcomes import STOPPED, Outcome, said
from probgen.run import fit, given, programs, resume, verdicts
from probgen.run.conditioning import declared
from probgen.run.lock import RunInUse
from probgen.run.store import Store

NOTE = "sweep.json"  # in a run's directory
PATIENCE = 60.0  # seconds that a directory may be held by a worker that is ending


class Task(NamedTuple):
    """What all fits of a sweep share.

    datas: by label; inferences: by the labels of data and inference; fixed: further words of `pg.fit`.
    """

    program: Any
    datas: Mapping[Any, Any]
    inferences: Mapping[Any, Any]
    fixed: Mapping[str, Any]

    def outcome(self, job: Job) -> Outcome:
        """What came of one fit. status: pass, warn, fail or error, where there is no verdict."""
        return outcome(self, job)


class Job(NamedTuple):
    """One fit.

    own: settings that are the program's; settings: the others; reference: how the program and its guide are found again;
    anew: whether a run that is there is replaced.
    """

    path: str
    data: Any
    inference: Any
    own: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int
    reference: Mapping[str, Any]
    anew: bool = False


def outcome(task: Task, job: Job) -> Outcome:
    """The outcome of one fit; what it raises is an outcome as well."""
    try:
        done = _done(task, job)
        return judged(done) if done.complete else Outcome(STOPPED, seconds=done.seconds)
    except (Exception, SystemExit) as error:
        return Outcome("error", said(error))


def _done(task: Task, job: Job) -> Fit:
    """The fit; waits for a worker that held its directory and is ending."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _fitted(task, job)
        except RunInUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _fitted(task: Task, job: Job) -> Fit:
    with programs.known_as(job.reference):
        there = (Path(job.path) / "run.json").exists()
        if there and not job.anew and _resumable(job):
            return resume(job.path, _declared(task, job), data=_lost(task, job), progress=False)
        return fit(
            task.program, _data(task, job), task.inferences[job.data, job.inference], out=job.path, seed=job.seed,
            overwrite=there, progress=False, **{**task.fixed, **job.settings},
        )  # fmt: skip


def _data(task: Task, job: Job) -> Any:
    """The data, with the program's settings of the grid in place of its own."""
    data = task.datas[job.data]
    return {**given(task.program, data), **job.own} if job.own else data


def _resumable(job: Job) -> bool:
    """Whether the algorithm of a run is found by its name: not one that is defined in a notebook, which begins again."""
    return Store(job.path).record()["inference"]["name"] in catalog.modules("probgen.inference")


def _declared(task: Task, job: Job) -> Any:
    """The program with its guide, which may be one that cannot be imported again."""
    guide = {**task.fixed, **job.settings}.get("guide")
    return declared(task.program, guide if callable(guide) else None, None)


def _lost(task: Task, job: Job) -> Any:
    """The data, where what is on disk does not hold all of them, such as functions of a notebook."""
    kinds = [v.get("fixed") for v in Store(job.path).record()["static"].values() if isinstance(v, dict)]
    data = _data(task, job)
    return data if LOST in kinds and isinstance(data, Mapping) else None


def judged(done: Fit) -> Outcome:
    """The verdict's status and the figures, written beside the run."""
    from probgen.sweeps.figures import figures

    try:
        verdict = done.diagnose()
        found = Outcome(verdict.status, "", done.seconds, figures(done, verdict))
    except Exception as error:
        return Outcome("error", f"It was fitted, but cannot be judged: {said(error)}", done.seconds)
    if done.directory and (stamp := vars(done).get("_written")):
        write(done.directory, found, stamp)
    return found


def write(directory: Path, found: Outcome, stamp: Mapping[str, Any]) -> None:
    """Beside a run what was found of it, and of which state of it, in one move of the file system."""
    said = {"stamp": stamp, **found._asdict()}
    scratch = directory / f"{NOTE}.{os.getpid()}.part"
    scratch.write_text(json.dumps(said, indent=1))
    os.replace(scratch, directory / NOTE)


def read(directory: Path) -> Outcome | None:
    """What was found of a run; None where it is not there, or was told of another state of it, or by another version."""
    with contextlib.suppress(Exception):  # whatever is wrong there: it is gone on with, which tells
        told = json.loads((directory / NOTE).read_text())
        if told.pop("stamp") == verdicts.stamp(directory) and told["status"] in SEVERITY:
            return Outcome(**told)
    return None
