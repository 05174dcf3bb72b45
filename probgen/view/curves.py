"""The curves of a run, of its segments of draws: losses of a learner, traces of chains; each segment is read once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from probgen.view.reading import segments

POINTS = 400  # of a curve, at most
COORDINATES = 3  # of the unknowns, whose traces are shown
CHAINS = 8
FIRST = ("loss", "validation", "lp")
HIDDEN = ("converged", "last", "learning_rate")
RUNS = 8  # whose segments are kept in memory


class Curves:
    """Reads curves, and keeps what it has read of the runs asked for last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, dict[tuple[str, int, int], dict[str, np.ndarray]]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, directory: Path, num_warmup: int | None) -> dict[str, Any]:
        """Series by name, thinned: `every` so many steps, `values` (chain, point); and divergences after warm-up."""
        with self._lock:
            parts = self._parts(directory)
        names = (
            [k for k in parts[0] if all(k in part and len(part[k]) == len(parts[0][k]) for part in parts)]
            if parts
            else []
        )
        joined = {k: np.concatenate([part[k] for part in parts], axis=1) for k in names}
        found: dict[str, Any] = {"series": [_thinned(k, joined[k]) for k in sorted(joined, key=_order) if _shown(k)]}
        if "diverging" in joined:
            found["divergences"] = int(joined["diverging"][:, num_warmup or 0 :].sum())
        return found

    def _parts(self, directory: Path) -> list[dict[str, np.ndarray]]:
        was = self._kept.pop(directory, {})
        now: dict[tuple[str, int, int], dict[str, np.ndarray]] = {}
        for _, _, path in segments(directory):
            try:
                at = path.stat()
                key = (path.name, at.st_mtime_ns, at.st_size)
                now[key] = was[key] if key in was else _read(path)
            except Exception:  # whatever is in it: what follows on a segment that cannot be read is not shown
                break
        self._kept[directory] = now
        while len(self._kept) > RUNS:
            self._kept.popitem(last=False)
        return list(now.values())


def _read(path: Path) -> dict[str, np.ndarray]:
    """The records of a segment that are one number a step: (chain, step); of the unknowns the first coordinates."""
    found = {}
    with safe_open(str(path), framework="numpy") as content:
        for key in content.keys():  # noqa: SIM118
            part = content.get_slice(key)
            shape = part.get_shape()
            chains = min(CHAINS, shape[0])
            if len(shape) == 2:
                found[key] = part[:chains] if key != "diverging" else part[:]
            elif key == "z" and len(shape) == 3:
                few = part[:chains, :, : min(COORDINATES, shape[2])]
                found |= {f"z[{i}]": few[..., i] for i in range(few.shape[2])}
    return found


def _shown(key: str) -> bool:
    return key not in (*HIDDEN, "diverging")


def _order(key: str) -> tuple[int, str]:
    return (FIRST.index(key) if key in FIRST else len(FIRST), key)


def _thinned(key: str, values: np.ndarray) -> dict[str, Any]:
    """A series of at most POINTS points a chain: means of so many steps of a loss, one of so many of a trace."""
    values = values.astype(float)
    every = -(-values.shape[1] // POINTS)
    averaged = "loss" in key
    if averaged and every > 1:
        whole = values.shape[1] // every * every
        values = values[:, :whole].reshape(len(values), -1, every).mean(axis=2)
    else:
        values = values[:, ::every]
    return {"name": key, "every": every, "averaged": averaged and every > 1, "values": values.tolist()}
