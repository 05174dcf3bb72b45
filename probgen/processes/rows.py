"""The rows of one optimisation over several processes: each takes its share of every batch, and all of them hold the same state."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probgen.processes.peers import Team

APART = 1e-3  # of an array's size, by which processors that round otherwise may differ


class SharedRows:
    """An executor of one optimisation, in step with those of other processes. make: the engine's, of a team."""

    def __init__(self, team: Team, make: Callable[[Team], Any]):
        self.team, self.own = team, make(team)

    @property
    def compiling(self) -> float:
        """Seconds that went into this process's code."""
        return getattr(self.own, "compiling", 0.0)

    def init(self, begin: Any = None) -> None:
        """The state, of which the first process says where it begins."""

        def made() -> dict[str, np.ndarray]:
            self.own.init(begin)
            return self.own.state() if self.team.first else {}

        self.restore(self.team.gather(made)[0])

    def advance(self, start: int, num_steps: int) -> dict[str, np.ndarray]:
        """Steps of all of them: records (1, step, ...). What fails in one ends the others in their next sum, not by a message."""
        try:
            return self.own.advance(start, num_steps)
        except BaseException:
            self.team.over = True
            raise

    def read(self, field: str) -> np.ndarray:
        """One field of the state: (1, ...)."""
        return self.own.read(field)

    def answer(self) -> dict[str, np.ndarray]:
        """What is read off the final state."""
        return self.own.answer()

    def state(self) -> dict[str, np.ndarray]:
        """The state as named arrays; RuntimeError where the processes hold different ones."""
        own = self.own.state()
        digests = self.team.gather(lambda: {"digest": np.array([zlib.crc32(v.tobytes()) for v in own.values()])})
        if any((other["digest"] != digests[0]["digest"]).any() for other in digests):
            _check_near(self.team.gather(lambda: {"sizes": np.array([_size(v) for v in own.values()])}), list(own))
        return own

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state`, whatever number of processes wrote it."""

        def taken() -> dict[str, np.ndarray]:
            self.own.restore(dict(arrays))
            return {}

        self.team.gather(taken)


def _size(array: np.ndarray) -> float:
    return float(np.abs(np.nan_to_num(array.astype(float))).sum()) if array.dtype.kind in "biuf" else 0.0


def _check_near(found: list[dict[str, np.ndarray]], names: list[str]) -> None:
    """Raise RuntimeError where an array of one process is not that of the first, up to rounding."""
    first = found[0]["sizes"]
    for number, other in enumerate(found[1:], 1):
        off = np.abs(other["sizes"] - first) > APART * np.abs(first)
        if off.any():
            raise RuntimeError(
                f"Process {number} holds other parameters than process 0 ({names[int(np.argmax(off))]}): the program does "
                "something else there.\nWhat is on disk is that of process 0."
            )
