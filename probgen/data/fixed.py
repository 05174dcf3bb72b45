"""What a program is given beside arrays: settings, and data that it takes as they are.

`Fixed` holds a datum that is no argument of compiled code: a table, a function, words, or an array at whose values a program looks
in Python. It is known by its content, so that compiled code is found again for the same content, and made anew for another.
"""

from __future__ import annotations

import copy
import functools
import importlib
import itertools
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from probgen.data.inputs import is_numbers
from probgen.programs.reads import digest_of

_others = itertools.count()
ARRAY, PLAIN, TABLE, NAME, LOST = "array", "plain", "table", "name", "lost"


class Fixed:
    """A datum given to the program as the user gave it; equal to another one with the same content."""

    __slots__ = ("mark", "value")

    def __init__(self, value: Any):
        self.value = _own(value)
        self.mark = digest_of(self.value) or f"{next(_others)}".encode()  # without a content: equal to no other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fixed) and self.mark == other.mark

    def __hash__(self) -> int:
        return hash(self.mark)

    def __repr__(self) -> str:
        return f"Fixed({type(self.value).__name__}, {self.mark.hex()})"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an array of numbers; AttributeError for anything else."""
        if not is_numbers(self.value):
            raise AttributeError("shape")
        return np.shape(self.value)


def _own(value: Any) -> Any:
    """A copy, so that what the caller changes in place later changes no fit; functions, classes and modules as they are."""
    if callable(value):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # what has no copy
        return value


def is_setting(value: Any) -> bool:
    """Whether a datum is no array of the program's: Python's numbers, booleans, strings and None, and what is fixed."""
    return isinstance(value, bool | int | float | str | None | Fixed) and not isinstance(value, np.generic)


def plain(value: Any) -> Any:
    """What the program is given for a datum."""
    return value.value if type(value) is Fixed else value


def arrays_of(data: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The numbers among data as NumPy arrays, those that the program looks at included; no integers, which count things."""
    found = {}
    for name, value in data.items():
        known = plain(value)
        if not is_setting(value) or isinstance(known, float) or (type(value) is Fixed and is_numbers(known)):
            found[name] = np.asarray(known)
    return found


# ---- on disk -------------------------------------------------------------------------------------------------------


def written(data: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Data as arrays, and all else as JSON: what `restored` reads."""
    arrays: dict[str, np.ndarray] = {}
    static: dict[str, Any] = {}
    for name, value in data.items():
        if type(value) is Fixed:
            static[name] = _written(name, value.value, arrays)
        elif is_setting(value):
            static[name] = value
        else:
            arrays[name] = np.asarray(value)
    return arrays, static


def _written(name: str, value: Any, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        arrays[name] = value
        return {"fixed": ARRAY}
    if _is_plain(value):
        return {"fixed": PLAIN, "value": value}
    if type(value).__module__.startswith("pandas") and type(value).__name__ == "DataFrame" and _is_simple(value):
        table: Any = value
        words = {str(c): _column(name, c, table[c].to_numpy(), arrays) for c in table.columns}
        return {"fixed": TABLE, "columns": words}
    label = f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '')}"
    if callable(value) and _named(label) is value:
        return {"fixed": NAME, "value": label}
    return {"fixed": LOST, "value": type(value).__name__}


def _is_plain(value: Any) -> bool:
    """Whether JSON gives the value back as it is."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(type(k) is str and _is_plain(v) for k, v in value.items())
    return type(value) in (bool, int, float, str, type(None))


def _is_simple(table: Any) -> bool:
    """A table of numbers and words, its columns with names and its rows without."""
    kinds = {table[c].to_numpy().dtype.kind for c in table.columns} if table.columns.is_unique else {"?"}
    words = all(isinstance(v, str) for c in table.columns for v in table[c] if table[c].dtype.kind == "O")
    return (
        kinds <= set("fiubO")
        and words
        and all(isinstance(c, str) for c in table.columns)
        and type(table.index).__name__ == "RangeIndex"
    )


def _column(name: str, column: str, values: np.ndarray, arrays: dict[str, np.ndarray]) -> Any:
    if values.dtype.kind == "O":
        return list(values)
    arrays[key := f"{name}[{column}]"] = values
    return {"array": key}


def _named(label: str) -> Any:
    module, _, name = label.partition(":")
    if module in ("__main__", "") or "<" in name:
        return None
    try:
        return functools.reduce(getattr, name.split("."), sys.modules.get(module) or importlib.import_module(module))
    except (AttributeError, ImportError):
        return None


def restored(arrays: Mapping[str, np.ndarray], static: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a run on disk. LookupError for what could not be written down."""
    found, used = {}, set()
    for name, value in static.items():
        if not isinstance(value, Mapping):
            found[name] = value
            continue
        kind = value["fixed"]
        if kind == LOST or (kind == NAME and _named(value["value"]) is None):
            raise LookupError(
                f"The data {name!r} ({value['value']}) cannot be kept on disk.\nPass them: pg.resume(directory, data={{...}})."
            )
        if kind == TABLE:
            import pandas as pd

            columns = {c: arrays[v["array"]] if isinstance(v, Mapping) else v for c, v in value["columns"].items()}
            used |= {v["array"] for v in value["columns"].values() if isinstance(v, Mapping)}
            found[name] = Fixed(pd.DataFrame(columns))
        else:
            read = {ARRAY: lambda name=name: arrays[name], NAME: lambda value=value: _named(value["value"])}
            found[name] = Fixed(read.get(kind, lambda value=value: value["value"])())
            used |= {name} if kind == ARRAY else set()
    return {k: v for k, v in arrays.items() if k not in used} | found
