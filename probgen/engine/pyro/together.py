"""The rows of a batch over processes: each has its share, and means over rows are summed over all (DDP's semantics)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from probgen.processes.peers import PeerFailed

Found = tuple[Any, float, Any]  # gradients, the loss and a number beside it, or None: means over rows


class Alone:
    """All rows are this process's."""

    def key(self, key: Any, fold_in: Callable[[Any, int], Any]) -> Any:
        """The key of what is drawn for this process's rows."""
        return key

    def mean(self, of: Callable[[Any], Found], rows: dict[str, torch.Tensor], leaves: dict[str, torch.Tensor]) -> Found:
        """`of` rows {site: (row, ...)}, whose gradients are in the order of `leaves`."""
        return of(rows)


class Together(Alone):
    """Rows that the processes of a team share; all of them are given the same rows, and return the same mean."""

    def __init__(self, team: Any) -> None:
        self.team = team

    def key(self, key: Any, fold_in: Callable[[Any, int], Any]) -> Any:
        """Other draws in each process; those of the first are those of one alone."""
        return key if self.team.first else fold_in(key, self.team.index)

    def mean(self, of: Callable[[Any], Found], rows: dict[str, torch.Tensor], leaves: dict[str, torch.Tensor]) -> Found:
        count = len(next(iter(rows.values())))
        share = self.team.share(count, "rows")
        gradients, loss, beside, failed = [], 0.0, None, None
        try:
            gradients, loss, beside = of({k: v[share.start : share.stop] for k, v in rows.items()})
        except BaseException as error:  # the others wait for this one
            failed = error
        weight = len(share) / count
        numbers = self.team.add(np.array([failed is not None, weight * loss, weight * (beside or 0.0)], float))
        if failed is not None:
            raise failed
        if numbers[0]:
            raise PeerFailed(f"{numbers[0]:.0f} of the other processes of the fit ended in this step, and say why.")
        total = self._summed(gradients, list(leaves.values()), weight)
        return total, float(numbers[1]), None if beside is None else float(numbers[2])

    def _summed(self, gradients: Any, leaves: list[torch.Tensor], weight: float) -> list[torch.Tensor]:
        """The weighted sum of gradients over processes, in one message; a gradient that is None is 0."""
        found = [torch.zeros_like(p) if g is None else g.detach() for g, p in zip(gradients, leaves, strict=True)]
        flat = torch.cat([(weight * g).reshape(-1) for g in found])
        flat = self.team.add(flat.cpu()).to(flat.device)
        parts = flat.split([g.numel() for g in found])
        return [part.view(g.shape).to(g.dtype) for part, g in zip(parts, found, strict=True)]


ALONE = Alone()
