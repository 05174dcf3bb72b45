"""Which steps of a run are logged, and what of them: the same ones however the run was cut into chunks and sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

POINTS = 1000  # of a series over the whole run, about
HIDDEN = ("converged", "last", "diverging", "lp")
NAMES = {"validation": "held_out_loss"}


def after(step: int, total: int) -> int:
    """The step logged next: every one up to 100, then every tenth, and so on, at most a thousandth of the run apart.

    A matter of steps alone, not of the clock.
    """
    spacing = 10 ** max(0, len(str(step)) - 2)
    return step + min(spacing, max(1, -(-total // POINTS)))


def points(
    records: Sequence[Mapping[str, np.ndarray]], last: int, step: int, total: int, over: bool, num_warmup: int | None
) -> Iterator[tuple[int, dict[str, float]]]:
    """Steps after `last` up to `step` with their numbers; where the run is over its last step is one of them.

    Of held-out rows there is no loss before the first look at them.

    records: (chain, step, ...) of all steps from 0, in chunks. num_warmup: of a sampler; None of a learner.
    """
    tail = _Tail(records)
    diverged = 0.0 if num_warmup is None else tail.diverged(num_warmup, last)
    looked = "validation" in tail.keys and last > 0 and bool(np.isfinite(tail.of("validation", 0, last)).any())
    while last < step:
        stop = after(last, total)
        if stop > step:
            if not over:
                return
            stop = step
        if num_warmup is None:
            found = _learned(tail, last, stop)
            looked = looked or bool(np.isfinite(found.get("held_out_loss", np.inf)))
            yield stop, {k: v for k, v in found.items() if looked or k != "held_out_loss"}
        else:
            diverged += tail.diverged(max(num_warmup, last), stop)
            yield stop, _drawn(tail, last, stop, num_warmup, diverged)
        last = stop


class _Tail:
    """Columns of records by step, joined only where they are asked for."""

    def __init__(self, records: Sequence[Mapping[str, np.ndarray]]):
        self.records, self.ends = records, np.cumsum([next(iter(r.values())).shape[1] for r in records])
        self.keys = [k for k, v in records[-1].items() if v.ndim == 2] if records else []

    def of(self, key: str, start: int, stop: int) -> np.ndarray:
        """(chain, stop - start): the values of steps start..stop-1."""
        parts = []
        for i in range(int(np.searchsorted(self.ends, start, "right")), len(self.records)):
            begun = int(self.ends[i - 1]) if i else 0
            if begun >= stop:
                break
            parts.append(self.records[i][key][:, max(0, start - begun) : stop - begun])
        return np.concatenate(parts, axis=1)

    def diverged(self, start: int, stop: int) -> float:
        """How many transitions of steps start..stop-1 diverged."""
        return float(self.of("diverging", start, stop).sum()) if "diverging" in self.keys and start < stop else 0.0


def _learned(tail: _Tail, start: int, stop: int) -> dict[str, float]:
    """Means of losses over the steps since the last point, of all else the last value."""
    found = {}
    for key in tail.keys:
        if key in HIDDEN:
            continue
        values = tail.of(key, start, stop).astype(float)
        found[NAMES.get(key, key)] = float(values.mean() if "loss" in key else values[:, -1].mean())
    return found


def _drawn(tail: _Tail, start: int, stop: int, num_warmup: int, diverged: float) -> dict[str, float]:
    """Draws of all chains so far, divergences after warm-up so far, the mean log density since the last point."""
    chains = next(iter(tail.records[-1].values())).shape[0]
    found: dict[str, float] = {"draws": float(chains * max(0, stop - num_warmup))}
    if "lp" in tail.keys:
        found["log_density"] = float(tail.of("lp", start, stop).astype(float).mean())
    return found | ({"divergences": diverged} if "diverging" in tail.keys else {})
