"""`pg.sweep`: fits of a grid of settings side by side, each a run on disk."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probgen import watch
from probgen.data.whole_numbers import whole
from probgen.processes import pool, sending
from probgen.processes.outcomes import DIED, Outcome
from probgen.run import suggestions
from probgen.run.conditioning import Program
from probgen.sweeps import asking, table
from probgen.sweeps.asking import Asked
from probgen.sweeps.fitting import Job, read
from probgen.sweeps.grid import Point, grid

if TYPE_CHECKING:
    import xarray as xr


@watch.interruptible()
def sweep(
    program: Program,
    settings: Mapping[str, Sequence[Any]] | None = None,
    data: Any = None,
    inference: Any = suggestions.AUTO,
    *,
    seeds: int | Sequence[int] = range(3),
    out: str | Path = "runs/sweep",
    client: Any = None,
    num_workers: int | None = None,
    num_threads: int | None = None,
    part: tuple[int, int] | None = None,
    overwrite: bool = False,
    progress: bool = True,
    init: Any = None,
    **fixed: Any,
) -> xr.Dataset:
    """Fit a program at every point of a grid, side by side, and tell what came of each.

    program: as in `pg.fit`. settings: lists by the names of settings, {"num_warmup": [100, 500]}: each is a dimension.
    data: as in `pg.fit`; a list of such, or a dictionary of them by names that are none of the program's, is a dimension.
    inference: as in `pg.fit`; a list, or a dictionary of them by name, is a dimension.
    seeds: how many, from 0, or a list: the last dimension.
    out: the folder of the runs, one each. The same sweep again reuses what is done and goes on with what is not.
    client: a client of dask.distributed, on whose workers it runs; they share the folder `out`.
    num_workers: fits at once, each in a process of its own; by default as many as there are cores, on an accelerator 1.
    num_threads: of each fit; by default its share of the cores, on dask 1.
    part: (i, n), the i-th of n parts of the grid, from 1: for machines that share nothing but the folder.
    overwrite: fit anew what is there of another program, other data or other settings.
    progress: a line on stderr for every fit that is done.
    init: where all fits begin, as in `pg.fit`: a fit, or its directory, or values by site.
    fixed: what is the same for all fits, as in `pg.fit`: settings, guide, precision, args, ...

    Returns an xarray.Dataset with a dimension for every axis: `status` (pass, warn, fail, error), `error`, `seconds`, `run`, and
    figures of the fits; what a fit raises is an error there. Raises what is wrong with all of them before anything is fitted;
    ChangedRun where runs are there of something else. Ctrl-C stops all workers and raises; the same call again goes on.
    """
    workers, threads = pool.asked(client, num_workers, num_threads)
    plan = grid(program, settings, data, inference, seeds, fixed)
    table.check(plan)
    chosen, folder = _chosen(plan.points, part), _free(out)
    everything = asking.checked(program, plan, plan.points, fixed, init)
    changed = asking.others(folder, everything)
    if not overwrite:
        asking.refuse(folder, changed)
    asked = {point: everything[point] for point in chosen}
    jobs, done = _jobs(folder, asked, changed)
    tell = _Told(len(asked), len(done), progress)
    if jobs:
        folder.mkdir(parents=True, exist_ok=True)
        sent = sending.pickled(asking.task(program, plan, asked, fixed))
        with contextlib.closing(pool.outcomes(sent, jobs, folder, client, workers, threads)) as each:
            for point, outcome in each:
                done[point] = _as_asked(folder / point.folder, asked[point], outcome)
                tell(point, done[point])
    rest = (point for point in everything if point not in asked and point not in changed)
    there = {point: found for point in rest if (found := read(folder / point.folder))}
    return table.dataset(plan, folder, {**there, **done}, table.told(program, everything, fixed))


def _free(out: Any) -> Path:
    """The folder; TypeError where none is named, FileExistsError where it is something else than one of runs."""
    if not out or not isinstance(out, str | os.PathLike):
        raise TypeError(f"out is {out!r}; expected a folder, which will hold the runs of the sweep.")
    folder = Path(out)
    if (folder / "run.json").exists() or (folder.exists() and not folder.is_dir()):
        what = "a run" if folder.is_dir() else "a file"
        raise FileExistsError(
            f"out, {folder}, is {what}; choose another folder, which will hold the runs of the sweep."
        )
    return folder


def _chosen(points: list[Point], part: Any) -> list[Point]:
    """The points of a part, spread over the grid."""
    if part is None:
        return points
    if not (isinstance(part, tuple | list) and len(part) == 2):
        raise TypeError(f"part is {part!r}; expected two numbers, such as (1, 8) for the first of eight parts.")
    i, n = (whole("part", number) for number in part)
    if not 1 <= i <= n:
        raise ValueError(f"part is {(i, n)}; the first of {n} parts is (1, {n}), the last ({n}, {n}).")
    return points[i - 1 :: n]


def _jobs(
    folder: Path, asked: Mapping[Point, Asked], changed: Mapping[Point, list[str]]
) -> tuple[dict[Point, Job], dict[Point, Outcome]]:
    """What is to be fitted, and what is done already."""
    jobs: dict[Point, Job] = {}
    done: dict[Point, Outcome] = {}
    for point, one in asked.items():
        where = folder / point.folder
        if point not in changed and (found := read(where)):
            done[point] = found
        else:
            words = {k: v for k, v in point.settings.items() if k not in one.own}
            words |= {} if one.init is None else {"init": one.init}
            jobs[point] = Job(
                str(where.absolute()), point.data, point.inference, one.own, words, point.seed, one.record["program"],
                point in changed,
            )  # fmt: skip
    return jobs, done


def _as_asked(directory: Path, asked: Asked, outcome: Outcome) -> Outcome:
    """The outcome; an error where what a worker fitted is not what was asked for here, as of a module that was edited."""
    if outcome.status in ("error", DIED):
        return outcome._replace(status="error")
    told = f"The run is not in {directory}: is out a folder that all workers share?"
    if (directory / "run.json").exists():
        if not (changed := asking.differences(directory, asked)):
            return outcome
        told = f"The worker fitted something else than this process has: {'; '.join(changed)}"
    return outcome._replace(status="error", error=told)


class _Told:
    """A line for every fit that is done."""

    def __init__(self, total: int, done: int, shown: bool):
        self.total, self.done, self.shown = total, done, shown
        if done:
            self._say(f"{done} of {total} fits are there already")

    def __call__(self, point: Point, outcome: Outcome) -> None:
        self.done += 1
        why = f"  {outcome.error.splitlines()[0]}" if outcome.error else ""
        seconds = "" if outcome.seconds != outcome.seconds else f"  {outcome.seconds:.1f} s"
        self._say(f"{self.done}/{self.total}  {outcome.status:5}  {point.words}{seconds}{why}")

    def _say(self, line: str) -> None:
        if self.shown:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
