"""Net: what turns rows into features, with its name and the hash of what it computes by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from probgen.data.inputs import read

Outputs = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class Net:
    """Rows (row, *event) to features (row, dim) in float64, and class probabilities (row, class) where it has any.

    name: said beside every number; hash: sha256 of its weights, or what stands for them. apply: of one block of rows.
    block: rows at a time; the last block is filled up, so that features do not depend on how many rows there are.
    pictures: whether it takes pictures, (row, height, width, channel) from 0 to 1. num_classes: 0 where it tells no classes.
    channels: how many independent pictures a class is made of; 3 of stacked digits.
    """

    name: str
    hash: str
    apply: Callable[[np.ndarray], Outputs]
    pictures: bool = False
    num_classes: int = 0
    channels: int = 1
    block: int = 0
    note: str = ""

    def __call__(self, x: np.ndarray) -> Outputs:
        """Features and probabilities of all rows."""
        if not self.block:
            return self.apply(x)
        parts = []
        for start in range(0, len(x), self.block):
            part = x[start : start + self.block]
            rest = self.block - len(part)
            full = np.concatenate([part, np.zeros((rest, *x.shape[1:]), x.dtype)]) if rest else part
            parts.append([None if out is None else out[: len(part)] for out in self.apply(full)])
        features = np.concatenate([part[0] for part in parts])
        return features, None if parts[0][1] is None else np.concatenate([part[1] for part in parts])

    def __repr__(self) -> str:
        return f"Net({self.name}, sha256 {self.hash[:12]})"


def digest(*arrays: Any) -> str:
    """The sha256 of arrays, their shapes and types, and words."""
    found = hashlib.sha256()
    for array in arrays:
        if isinstance(array, str):
            found.update(array.encode())
            continue
        array = np.ascontiguousarray(array)
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def no_net() -> Net:
    """The rows themselves as features."""
    return Net("the rows themselves", digest("rows"), lambda x: (np.asarray(x.reshape(len(x), -1), float), None))


def yours(function: Callable[[np.ndarray], Any], rows: np.ndarray, block: int = 256) -> Net:
    """A net of your own: called with rows (row, *event), it returns features (row, dim), or a pair of these and probabilities.

    Its hash is that of its answers to the first 16 rows. ValueError where it answers the same rows differently when it is asked
    again (dropout left on), or in smaller batches (batch normalisation left on), or with another number of rows.
    """
    some = rows[:16]
    features, p = _answer(function, some)
    again = _answer(function, some)[0]
    alone = np.concatenate([_answer(function, some[i : i + 1])[0] for i in range(min(3, len(some)))])
    size = max(abs(features).max(), 1e-300)
    if abs(again - features).max() > 1e-6 * size:
        raise ValueError(
            "net gives other features for the same rows when it is called again: is dropout on? Set it to evaluate."
        )
    if abs(alone - features[: len(alone)]).max() > 1e-3 * size:
        raise ValueError(
            "net's features of a row depend on the rows beside it: is batch normalisation training? Set it to evaluate."
        )
    name = getattr(function, "__name__", type(function).__name__)
    shown = digest(np.float32(features))
    classes = 0 if p is None else p.shape[1]
    return Net(f"your {name}, hash of its features of 16 rows", shown, _blocks(function, block), num_classes=classes)


def _blocks(function: Callable[[np.ndarray], Any], block: int) -> Callable[[np.ndarray], Outputs]:
    def apply(x: np.ndarray) -> Outputs:
        parts: list[Any] = [_answer(function, x[i : i + block]) for i in range(0, len(x), block)]
        p = None if parts[0][1] is None else np.concatenate([part[1] for part in parts])
        return np.concatenate([part[0] for part in parts]), p

    return apply


def _answer(function: Callable[[np.ndarray], Any], x: np.ndarray) -> Outputs:
    found = function(x)
    features, p = found if isinstance(found, tuple) else (found, None)
    features = _read(features, len(x), "features")
    return features.reshape(len(x), -1), None if p is None else _read(p, len(x), "probabilities")


def _read(found: Any, n: int, what: str) -> np.ndarray:
    if type(found).__module__.startswith("torch"):
        found = found.detach().cpu()
    array = read(f"net's {what}", found, finite=False).astype(float)
    if array.ndim < 2 or len(array) != n:
        raise ValueError(f"net returned {what} of shape {array.shape} for {n} rows; expected ({n}, dim).")
    if not np.isfinite(array).all():
        raise ValueError(f"net's {what} are NaN or infinite for row {np.argwhere(~np.isfinite(array))[0][0]} of {n}.")
    return array
