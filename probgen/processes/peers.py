"""Processes of one fit: they tell each other what they found. By jax.distributed they meet at a coordinator; or see `torchrun`.

They meet twice: over a plain connection, which ends in an error that says what is wrong, then by JAX, which ends the process.
What they tell goes as bytes: JAX would round 64-bit numbers to 32 bits where x64 is off.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from probgen import runtime, watch
from probgen.data.whole_numbers import whole
from probgen.processes import meeting

Arrays = Mapping[str, np.ndarray]
ERROR = "error "  # begins the name of what a process could not do
SMALLEST = 1024  # bytes of a message: one compiled program serves all that are shorter


class PeerFailed(ConnectionError):
    """Another process of the same fit raised an error, or is gone."""


class Team:
    """The processes of one fit: `num` of them, of which this is number `index`."""

    def __init__(self, num: int, index: int):
        self.num, self.index, self.over = num, index, False

    def refuses(self, engine: str, chains: bool) -> str:
        """Why they cannot make a run on an engine; empty where they can. chains: whether it is of chains."""
        if chains or engine == "numpyro":
            return ""
        return (
            "Processes share the rows of a Pyro learner where torchrun starts them: leave coordinator, num_processes and "
            "process_id out.\nCoordinator is for chains, and for learners of NumPyro programs."
        )

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def share(self, count: int, of: str = "chains") -> range:
        """Which of so many this process has; ValueError where one would have none. of: "chains", or "rows" of a batch."""
        return self.shares(count, of)[self.index]

    def shares(self, count: int, of: str = "chains") -> list[range]:
        """Which each of them has."""
        if count < self.num:
            more = {"chains": "num_chains", "rows": "batch_size"}[of]
            raise ValueError(f"{count} {of} over {self.num} processes: each needs one. Raise {more}, or start fewer.")
        ends = [count * i // self.num for i in range(self.num + 1)]
        return [range(*pair) for pair in pairwise(ends)]

    def gather(self, make: Callable[[], Arrays]) -> list[dict[str, np.ndarray]]:
        """What `make` returns in each process, by number. What it raises in one is raised there, and PeerFailed elsewhere."""
        try:
            own, failed = dict(make()), None
        except BaseException as error:
            own, failed = {f"{ERROR}{type(error).__name__}: {error}": np.zeros(0)}, error
        found = self._all(own)
        if failed is not None:
            raise failed
        return found

    def _all(self, own: Arrays) -> list[dict[str, np.ndarray]]:
        from safetensors.numpy import load, save

        said = save({k: np.ascontiguousarray(v) if np.ndim(v) else np.asarray(v) for k, v in own.items()})
        try:
            found = [load(message) for message in self.messages(said)]
        except BaseException as error:
            self.over = True
            if not isinstance(error, Exception):
                raise
            raise self.gone(error) from error
        errors = [(i, k.removeprefix(ERROR)) for i, one in enumerate(found) for k in one if k.startswith(ERROR)]
        self.over = 0 < len(errors) < self.num  # where all of them failed in the same way, they go on in step
        if errors and self.index not in [i for i, _ in errors]:
            raise PeerFailed(f"Process {errors[0][0]} of the fit ended: {errors[0][1]}")
        return found

    def gone(self, error: BaseException) -> PeerFailed:
        """What is raised where another process cannot be reached any more."""
        self.over = True
        return PeerFailed(f"Another process of the fit is gone: {error}\n{GO_ON}")

    def messages(self, own: bytes) -> list[bytes]:
        """The message of every process; in a thread, which Ctrl-C can leave."""
        with watch.doing("waiting for the other processes of the fit"):
            return watch.apart([lambda: _gathered(own)])[0]

    def agreed(self, size: int, stops: bool) -> tuple[int, bool]:
        """How many steps come next, by the first process, and whether any of them stops."""
        found = self.gather(lambda: {"size": np.array(size), "stops": np.array(stops)})
        return int(found[0]["size"]), any(bool(each["stops"]) for each in found)

    def records(self, own: Mapping[str, Any]) -> list[Any]:
        """What each of them has written down, as JSON has it."""
        text = json.dumps(own, default=str).encode()
        return [
            json.loads(each["text"].tobytes()) for each in self.gather(lambda: {"text": np.frombuffer(text, np.uint8)})
        ]

    def leave(self, error: BaseException | None) -> None:
        """The last message of a fit: that it is done, or why it is not; nothing where that is known already."""
        if self.over:
            return
        if error is None:
            self.gather(dict)
            return
        with contextlib.suppress(PeerFailed):
            self._all({f"{ERROR}{type(error).__name__}: {error}": np.zeros(0)})


GO_ON = "What is on disk is whole: pg.resume goes on with it, with as many processes as you like."


def _gathered(message: bytes) -> list[bytes]:
    """The message of every process."""
    from jax.experimental.multihost_utils import process_allgather

    with runtime.no_compile_cache():
        sizes = [(a << 24) + b for a, b in process_allgather(np.array(divmod(len(message), 1 << 24), np.int32))]
        most = max(SMALLEST, 1 << (max(map(int, sizes)) - 1).bit_length())
        padded = np.frombuffer(message.ljust(most, b"\0"), np.uint8)
        return [row[: int(size)].tobytes() for row, size in zip(process_allgather(padded), sizes, strict=True)]


def connected(coordinator: str, num_processes: int | None, process_id: int | None) -> Team:
    """Connect this process with the others, if it is not: before JAX runs in it."""
    if num_processes is None or process_id is None:
        raise TypeError("coordinator needs num_processes and process_id, the number of this one, from 0.")
    num, index = whole("num_processes", num_processes), whole("process_id", process_id)
    if num < 1:
        raise ValueError(f"num_processes is {num}; it must be above 0")
    if not 0 <= index < num:
        raise ValueError(f"process_id is {index}; with {num} processes it is 0 to {num - 1}.")
    _initialised(coordinator, num, index)
    return Team(num, index)


def _initialised(coordinator: str, num: int, index: int) -> None:
    """jax.distributed, if it is not there already; raises where it cannot be."""
    import jax

    host, port = meeting.address(coordinator)
    if jax.distributed.is_initialized():
        if (there := (jax.process_count(), jax.process_index())) != (num, index):
            raise RuntimeError(
                f"jax.distributed is initialised already, as process {there[1]} of {there[0]}; asked for {index} of {num}."
            )
        return
    if runtime.started():
        raise RuntimeError(
            "JAX has run in this process, and cannot join others any more: call pg.fit(..., coordinator=...) before anything "
            "else of JAX, with data as NumPy arrays."
        )
    patience = _seconds("PROBGEN_COORDINATOR_TIMEOUT", 300)
    meeting.meet(host, port, num, index, patience)
    with _ends_at_sigterm():
        jax.distributed.initialize(
            coordinator, num, index, initialization_timeout=patience,
            heartbeat_timeout_seconds=_seconds("PROBGEN_HEARTBEAT_TIMEOUT", 100),
        )  # fmt: skip


@contextlib.contextmanager
def _ends_at_sigterm() -> Iterator[None]:
    """JAX's service for preemption, which takes SIGTERM and goes on, is not begun: a scheduler's polite end is to be one."""
    import jax

    config: Any = jax.config
    before = config.jax_enable_preemption_service
    try:
        config.update("jax_enable_preemption_service", False)
        yield
    finally:
        config.update("jax_enable_preemption_service", before)


def _seconds(name: str, default: int) -> int:
    said = os.environ.get(name, "") or str(default)
    if not said.isdecimal() or not int(said):
        raise ValueError(f"{name} is {said!r}; expected a number of seconds, such as {default}.")
    return int(said)
