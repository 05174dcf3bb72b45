"""Two sets of rows, checked: finite numbers of one shape, enough of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from probgen.data.inputs import read


def pair(x: Any, y: Any, least: int = 2, names: tuple[str, str] = ("samples", "data")) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (row, dim). ValueError for NaN (with the row), for rows of different size, and for fewer than `least`."""
    same_columns(x, y, names)
    x, y = flat(x, least, names[0]), flat(y, least, names[1])
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"Rows of {names[0]} have {x.shape[1]} numbers, those of {names[1]} {y.shape[1]}; expected as many."
        )
    return x, y


def flat(x: Any, least: int = 1, name: str = "samples") -> np.ndarray:
    """Rows as float64 (row, dim)."""
    x = checked(x, least, name)
    return np.ascontiguousarray(x.reshape(len(x), -1), float)


def checked(x: Any, least: int = 1, name: str = "samples") -> np.ndarray:
    """Rows (row, *event) of finite numbers in their own type; ValueError names the first bad row."""
    x = read(name, x, finite=False)
    if x.ndim == 0 or x.size == 0:
        raise ValueError(f"{name} has shape {x.shape}; expected rows (row, ...), not empty.")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(1))
        raise ValueError(f"{len(bad)} of {len(x)} rows of {name} have NaN or infinite values, the first row {bad[0]}.")
    if len(x) < least:
        raise ValueError(f"{name} has {len(x)} row{'s' * (len(x) != 1)}; expected at least {least}.")
    return x


def same_columns(x: Any, y: Any, names: tuple[str, str] = ("samples", "data")) -> None:
    """ValueError for two tables whose columns have other names, or another order: numbers are compared by their place."""
    ours, theirs = ([*getattr(table, "columns", ())] for table in (x, y))
    named = all(isinstance(word, str) for word in (*ours, *theirs))
    if ours and theirs and named and ours != theirs:
        raise ValueError(
            f"Columns of {names[0]} are {', '.join(ours)}; those of {names[1]} are {', '.join(theirs)}.\n"
            f"Columns are compared by their place: pass {names[1]}[[{', '.join(map(repr, ours))}]], or arrays."
        )


def varied(x: np.ndarray, name: str = "data") -> None:
    """ValueError where all rows of features are the same: nothing can be told from them."""
    if np.ptp(x, axis=0).max() == 0:
        raise ValueError(f"All {len(x)} rows of {name} have the same features: the net or the rows are constant.")
