"""The chains of one run over several processes: each has its share, and all of them know all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probgen.processes.peers import Team


class SharedChains:
    """An executor of all chains, of which this process runs its share. make: the engine's, of a share."""

    def __init__(self, team: Team, make: Callable[[range], Any], num_chains: int):
        self.team, self.shares = team, team.shares(num_chains)
        self.share = self.shares[team.index]
        self.own = make(self.share)

    @property
    def compiling(self) -> float:
        """Seconds that went into this process's code."""
        return getattr(self.own, "compiling", 0.0)

    def init(self, begin: Any = None) -> None:
        """A state for every chain."""

        def made() -> dict[str, np.ndarray]:
            self.own.init(_part(begin, self.share))
            return {}

        self.team.gather(made)

    def advance(self, start: int, num_steps: int) -> dict[str, np.ndarray]:
        """Steps of every chain: records (chain, step, ...)."""
        return _joined(self.team.gather(lambda: self.own.advance(start, num_steps)))

    def read(self, field: str) -> np.ndarray:
        """One field of every chain's state: (chain, ...)."""
        return _joined(self.team.gather(lambda: {"field": self.own.read(field)}))["field"]

    def state(self) -> dict[str, np.ndarray]:
        """The states as named arrays, as one process would write them."""
        return self.own.joined(self.team.gather(self.own.state), self.shares)

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state`, whatever number of processes wrote it."""

        def taken() -> dict[str, np.ndarray]:
            self.own.restore(self.own.part(arrays, self.share))
            return {}

        self.team.gather(taken)


def _part(begin: Any, share: range) -> Any:
    """What a share of the chains begins at: nothing, an array (chain, ...), or such arrays by name."""
    if isinstance(begin, Mapping):
        return {k: v[share.start : share.stop] for k, v in begin.items()}
    return None if begin is None else begin[share.start : share.stop]


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
