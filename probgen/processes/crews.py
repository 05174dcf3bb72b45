"""Worker processes: each is a Python of its own, started anew and not forked, with its share of the cores.

A worker that dies loses nothing: its job is given once more to a new one, which goes on from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probgen.processes.child import READY, UNREADABLE
from probgen.processes.outcomes import DIED, STOPPED, Job, Outcome

START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from probgen.processes.child import main; main()"
THREADS = ("PROBGEN_CORES", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")  # NPROC: XLA's
TRIES = 2  # workers that one job may take with it
GRACE = 15.0  # seconds in which a worker ends its chunk


class Died(Exception):
    """A worker process ended before its answer; says how."""


class Unreadable(TypeError):
    """A worker process could not read what it was sent."""


def environment(num_threads: int, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker: so many threads for every library, memory of an accelerator taken as it is needed."""
    found = {**given, **dict.fromkeys(THREADS, str(num_threads))}
    found.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return found


class Worker:
    """A worker process. task: a pickled `Work`; log: a file that what it says is appended to."""

    def __init__(self, task: bytes, num_threads: int, log: Path):
        path = [os.path.abspath(entry) for entry in sys.path]
        with open(log, "ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, json.dumps(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
                env=environment(num_threads, os.environ), start_new_session=True,
            )  # fmt: skip
        self.task: bytes | None = task

    @property
    def alive(self) -> bool:
        """Whether it could take a job."""
        return self.process.poll() is None

    def run(self, job: Job) -> Outcome:
        """The outcome of a job; raises Died, and Unreadable where the task cannot be read there."""
        try:
            if self.task is not None:
                word, told = self._asked(self.task)
                if word == UNREADABLE:
                    raise Unreadable(told)
                assert word == READY
                self.task = None
            import cloudpickle

            return self._asked(cloudpickle.dumps(job))
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            self.end()
            raise Died(_how(self.process.returncode)) from error

    def _asked(self, message: bytes) -> Any:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        pickle.dump(message, stdin)
        stdin.flush()
        return pickle.load(stdout)

    def stop(self) -> None:
        """Ask it to end; `end` waits for it."""
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def end(self, grace: float = GRACE) -> None:
        """Wait until it has ended; killed after so many seconds."""
        self.stop()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"its worker process ended by itself, with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"its worker process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _record(job: Job) -> bytes | None:
    """run.json of a job's run, None where there is none."""
    with contextlib.suppress(OSError):
        return (Path(job.path) / "run.json").read_bytes()
    return None


class Crew:
    """Workers of one task, as many as jobs run at once; `run` may be called from several threads."""

    def __init__(self, task: bytes, num_threads: int, log: Path):
        self.task, self.num_threads, self.log = task, num_threads, log
        self._lock = threading.Lock()
        self._free: list[Worker] = []
        self._busy: set[Worker] = set()
        self._over = False

    def run(self, job: Job) -> Outcome:
        """The outcome of a job; an error where two workers died of it."""
        told, was = "", _record(job)
        for _ in range(TRIES):
            worker = self._taken()
            if worker is None:
                return Outcome(STOPPED)
            try:
                found = worker.run(job)
                if found.status != STOPPED or self._over:
                    self._put(worker, free=True)
                    return found
                told = "it was interrupted"
                self._put(worker, free=True)
            except Died as died:
                told = str(died)
                self._put(worker, free=False)
            except BaseException:
                self._put(worker, free=False)
                worker.end()
                raise
            job = job._replace(anew=job.anew and _record(job) == was)  # once it is begun it goes on from the checkpoint
        return Outcome(DIED, f"{told}, {TRIES} times. What it said: {self.log}")

    def _taken(self) -> Worker | None:
        """A worker that has nothing to do, or a new one; None where all have been stopped."""
        with self._lock:
            if self._over:
                return None
            while self._free:
                worker = self._free.pop()
                if worker.alive:
                    break
            else:
                worker = Worker(self.task, self.num_threads, self.log)
            self._busy.add(worker)
            return worker

    def _put(self, worker: Worker, free: bool) -> None:
        with self._lock:
            self._busy.discard(worker)
            if free:
                self._free.append(worker)

    def stop(self) -> None:
        """Stop all of them: what runs is left so that it can be gone on with."""
        with self._lock:
            self._over = True
            workers = [*self._free, *self._busy]
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.end()
