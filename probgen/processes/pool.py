"""Jobs given out to worker processes of this machine, or to dask's, and their outcomes as they come."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from probgen import machine
from probgen.data.whole_numbers import whole
from probgen.processes import clusters, sending, torchrun
from probgen.processes.crews import Crew, Unreadable
from probgen.processes.outcomes import Job, Outcome


def asked(client: Any, num_workers: Any, num_threads: Any) -> tuple[int | None, int | None]:
    """The two numbers, checked, and the client; raises TypeError or ValueError, and where each process of torchrun would ask."""
    torchrun.refuse("all of these fits")
    if client is not None:
        clusters.check(client)
        if num_workers is not None:
            raise TypeError("num_workers is of this machine; a client has its own workers.")
    return _count("num_workers", num_workers), _count("num_threads", num_threads)


def _count(name: str, value: Any) -> int | None:
    """A number above 0, or None."""
    if value is not None and (value := whole(name, value)) < 1:
        raise ValueError(f"{name} is {value}; it must be above 0")
    return value


def outcomes(
    work: bytes, jobs: Mapping[Any, Job], folder: Path, client: Any, num_workers: int | None, num_threads: int | None
) -> Generator[tuple[Any, Outcome], None, None]:
    """The outcomes of jobs as they come, by their names. work: pickled, see `sending`; folder: for what workers say.

    client: of dask, whose workers share the folder; by default worker processes of this machine, as many as there are cores.
    """
    if client is not None:
        return clusters.on_dask(client, work, jobs, folder, num_threads or 1)
    return _here(work, jobs, folder, *_shares(num_workers, num_threads, len(jobs)))


def _shares(workers: int | None, threads: int | None, jobs: int) -> tuple[int, int]:
    """How many jobs at once, and threads of each: together no more than there are cores, where nothing else is asked for."""
    cores = machine.cores()
    workers = min(workers or (1 if sending.on_accelerator() else max(1, cores // (threads or 1))), jobs)
    return workers, threads or max(1, cores // workers)


def _here(
    work: bytes, jobs: Mapping[Any, Job], folder: Path, workers: int, threads: int
) -> Generator[tuple[Any, Outcome], None, None]:
    """The outcomes of jobs as they come, by worker processes of this machine."""
    crew, left, found = Crew(work, threads, folder / "workers.log"), queue.SimpleQueue(), queue.SimpleQueue()
    for item in jobs.items():
        left.put(item)
    give_out = lambda: _until_empty(crew, left, found)  # noqa: E731
    started = [threading.Thread(target=give_out, daemon=True, name="probgen-pool") for _ in range(workers)]
    try:
        for thread in started:
            thread.start()
        for _ in jobs:
            name, outcome = _next(found)
            if isinstance(outcome, Unreadable):
                raise TypeError(f"A worker process cannot read the program: {outcome}.\n{sending.REMEDY}") from outcome
            if isinstance(outcome, BaseException):
                raise outcome
            yield name, outcome
    finally:
        crew.stop()


def _next(found: queue.SimpleQueue[Any]) -> Any:
    """The next item; looks up now and then, so that Ctrl-C is heard everywhere."""
    while True:
        with contextlib.suppress(queue.Empty):
            return found.get(timeout=1.0)


def _until_empty(crew: Crew, left: queue.SimpleQueue[Any], found: queue.SimpleQueue[Any]) -> None:
    name = None
    try:
        with contextlib.suppress(queue.Empty):
            while True:
                name, job = left.get_nowait()
                found.put((name, crew.run(job)))
    except BaseException as error:
        found.put((name, error))
