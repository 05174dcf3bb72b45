"""Where code that calls LAPACK runs on a CPU, so that none of its calls waits for ever.

jaxlib cuts a batched call of LAPACK into tasks for the thread pool of XLA's client, and blocks a thread of that same pool until
they are done. Two executions at once, or two independent calls of one execution, can so occupy all its threads and wait
for each other for ever; a pool of any size can be filled. A pool of one thread is the exception: jaxlib then calls LAPACK
where it stands. So here are further clients, each with a pool of its own, from which an execution takes one:

- narrow ones, a thread each and one a core, for chains that run at once;
- a wide one, with as many threads as JAX's own client, for a program that runs alone: one execution after the other.

OpenBLAS gets one thread meanwhile: on matrices of some hundred rows its threads cost more than they bring, and on busy
cores they wait for each other.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import re
import threading
from collections.abc import Iterator
from typing import Any

import jax

from probgen import machine

LARGE = 512  # rows of a matrix from which a program that runs alone keeps OpenBLAS's threads


class Pool:
    """An XLA client for the CPU, with a thread pool of its own.

    device: where arrays must lie for it. One execution at a time is the caller's part: see `leased`.
    """

    def __init__(self, threads: int | None):
        self.client = _client(threads)
        self.device = self.client.devices()[0]


def _client(threads: int | None) -> Any:
    """A new client of the CPU; `threads` of its pool, None for XLA's choice."""
    from jaxlib import xla_client

    with _making:
        before = os.environ.get("NPROC")  # what XLA reads the size of a pool from, at this moment alone
        try:
            if threads is not None:
                os.environ["NPROC"] = str(threads)
            return xla_client.make_cpu_client(asynchronous=True, num_devices=1)
        finally:
            os.environ.pop("NPROC", None)
            if before is not None:
                os.environ["NPROC"] = before


_making = threading.RLock()
_wide: queue.LifoQueue[Pool | None] = queue.LifoQueue()  # holds the one pool while nothing runs on it
_narrow: queue.LifoQueue[Pool | None] = queue.LifoQueue()  # the last one used first: it has the code
_alone = threading.RLock()


@functools.cache
def _made() -> bool:
    """Makes room for every pool: a pool itself is made where it is first taken."""
    _wide.put(None)
    for _ in range(machine.cores()):
        _narrow.put(None)
    return True


@functools.cache
def side() -> Any:
    """The device, on a pool of one thread, for what threads other than the main one compute beside the chains."""
    return Pool(1).device


@functools.cache
def possible() -> bool:
    """Whether this jaxlib can make a client; otherwise such code runs one execution after the other on JAX's own."""
    try:
        return not machine.accelerator() and side().platform == "cpu"
    except (ImportError, AttributeError, TypeError, RuntimeError):
        return False


@contextlib.contextmanager
def leased(narrow: bool) -> Iterator[Pool]:
    """A pool that no one else uses for the time of the block; waits until one is free."""
    with _making:
        _made()
    free = _narrow if narrow else _wide
    pool = free.get()
    try:
        pool = pool or Pool(1 if narrow else None)
        yield pool
    finally:
        free.put(pool)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One execution after the other on JAX's own client, where there are no pools."""
    with _alone:
        yield


# ---- which code it is, and how it is compiled ------------------------------------------------------------------------


def rows(lowered: str) -> int:
    """Rows of the largest matrix that LAPACK gets in a lowered program (StableHLO); 0 where it calls no LAPACK."""
    calls = re.findall(r"@lapack_.*", lowered)
    first = [found.group(1) for call in calls if (found := re.search(r": \(tensor<([\dx]+)x\w", call))]
    sizes = [int(size) for shape in first for size in shape.split("x")[-2:]]  # what comes before is a batch
    return max(sizes, default=1) if calls else 0


ONE_BY_ONE: dict[str, Any] = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


@functools.cache
def one_by_one() -> dict[str, str]:
    """The compiler's option for one operation after the other, which a wide pool needs; empty where it is unknown."""
    try:
        jax.jit(lambda x: x).lower(0.0).compile(compiler_options=ONE_BY_ONE)
    except Exception:  # whatever a release raises at an option that it does not know
        return {}
    return ONE_BY_ONE


# ---- OpenBLAS's threads ------------------------------------------------------------------------------------------------


class OneThread:
    """A context in which BLAS has one thread, in this process: the first to enter sets it, the last to leave restores."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._before: list[tuple[Any, int]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = [(library, library.num_threads) for library in _libraries()]
                for library, _ in self._before:
                    library.set_num_threads(1)

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for library, threads in self._before:
                    library.set_num_threads(threads)


@functools.cache
def _libraries() -> list[Any]:
    """The OpenBLAS that SciPy brings, which is JAX's LAPACK on a CPU."""
    try:
        import scipy.linalg  # noqa: F401  loads it
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return []
    return [found for found in ThreadpoolController().lib_controllers if "scipy" in found.filepath]


one_blas_thread = OneThread()
