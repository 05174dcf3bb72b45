"""Processes that torchrun started: they meet at its store, tell each other messages and add up numbers, by Gloo."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from probgen import watch
from probgen.processes.peers import Team

_apart: ContextVar[bool] = ContextVar("apart", default=False)


def started() -> int:
    """How many processes torchrun started, of which this is one; 0 where it is by itself, or the only one."""
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "MASTER_ADDR"} <= os.environ.keys()
    count = os.environ.get("WORLD_SIZE", "")
    return int(count) if by_torchrun and not _apart.get() and count.isdecimal() and int(count) > 1 else 0


def number() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if started() else 0


@contextmanager
def apart() -> Iterator[None]:
    """For the time of the block this process fits by itself: what one alone asks for, in the midst of its own work."""
    token = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(token)


def refuse(what: str) -> None:
    """Raise where torchrun started several processes: each would make the whole of what they cannot make together."""
    if count := started():
        raise ValueError(
            f"torchrun started {count} processes, and each would make {what} by itself.\n"
            "If each is to make something else, unset WORLD_SIZE in it."
        )


class Torchrun(Team):
    """They meet at the first message, so that what is wrong with a program is told before."""

    def __init__(self) -> None:
        super().__init__(started(), number())
        self._group: Any = None

    def refuses(self, engine: str, chains: bool) -> str:
        if engine == "pyro":
            return ""
        return (
            f"torchrun started {self.num} processes, which can share the work on a Pyro program; this is one for NumPyro. Pass "
            "coordinator='HOST:PORT', num_processes=int(os.environ['WORLD_SIZE']), process_id=int(os.environ['RANK']).\n"
            "If each is to fit something else, unset WORLD_SIZE in it."
        )

    def _met(self) -> Any:
        """torch.distributed and the group: the one that is there already, where it is Gloo's."""
        import torch.distributed as distributed

        if self._group is None:
            if not distributed.is_initialized():
                distributed.init_process_group("gloo")
            if (there := (distributed.get_world_size(), distributed.get_rank())) != (self.num, self.index):
                raise RuntimeError(f"torch.distributed counts other processes than torchrun: {there}.")
            gloo = distributed.get_backend() == "gloo"
            self._group = distributed.group.WORLD if gloo else distributed.new_group(backend="gloo")
        return distributed, self._group

    def messages(self, own: bytes) -> list[bytes]:
        """The message of every process."""
        with watch.doing("waiting for the other processes of the fit"):
            return watch.apart([lambda: self._gathered(own)])[0]

    def _gathered(self, own: bytes) -> list[bytes]:
        import torch

        distributed, group = self._met()
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.num)]
        distributed.all_gather(sizes, torch.tensor([len(own)]), group=group)
        most = max(int(size) for size in sizes)
        padded = torch.frombuffer(bytearray(own.ljust(most, b"\0")), dtype=torch.uint8)
        found = [torch.zeros_like(padded) for _ in range(self.num)]
        distributed.all_gather(found, padded, group=group)
        return [one.numpy()[: int(size)].tobytes() for one, size in zip(found, sizes, strict=True)]

    def add(self, numbers: Any) -> Any:
        """The sum over all processes of a tensor of the CPU, or of an array, which is changed in place."""
        import torch

        distributed, group = self._met()
        try:
            distributed.all_reduce(
                torch.from_numpy(numbers) if isinstance(numbers, np.ndarray) else numbers, group=group
            )
        except RuntimeError as error:
            raise self.gone(error) from error
        return numbers
