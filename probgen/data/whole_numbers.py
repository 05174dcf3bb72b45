"""Whole numbers that are given in other types: NumPy's, floats such as 1e3, arrays without an axis; and seeds."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

LARGEST_SEED = 2**63 - 2**10  # what follows a fit, as predictions, counts on from its seed


def whole(name: str, value: Any) -> int:
    """The value as a Python integer; TypeError, or ValueError for a fraction, that says what is expected."""
    if isinstance(value, bool | np.bool_ | str):
        raise TypeError(f"{name} is {value!r}; expected a whole number.")
    if isinstance(value, numbers.Integral):
        return int(value)
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    scalar = isinstance(value, numbers.Real) or (kind in "iuf" and kind and getattr(value, "shape", None) == ())
    if not scalar:
        raise TypeError(f"{name} is {_described(value)}; expected a whole number.")
    number: Any = value
    if not math.isfinite(number) or float(number) != int(number):
        raise ValueError(f"{name} is {float(number):g}; expected a whole number.")
    return int(number)


def counted(name: str, value: Any, least: int = 1) -> int:
    """The value as a Python integer, at least so many; TypeError or ValueError that says what is expected."""
    found = whole(name, value)
    if found < least:
        raise ValueError(f"{name} is {found}; it must be at least {least}.")
    return found


def _described(value: Any) -> str:
    """A value in few words."""
    shape = getattr(value, "shape", None)
    return f"an array of shape {tuple(shape)}" if shape is not None else f"a {type(value).__name__}"


def seed(value: Any) -> int:
    """A seed as a Python integer; TypeError that says what is expected, as for a key of JAX or a generator."""
    kind = str(getattr(value, "dtype", ""))
    shape = getattr(value, "shape", ())
    if kind.startswith("key<") or (kind == "uint32" and tuple(shape) == (2,)):
        raise TypeError("seed is a key of JAX; expected a whole number, of which every key is made: seed=0.")
    if hasattr(value, "bit_generator") or type(value).__name__ in ("Generator", "RandomState", "SeedSequence"):
        raise TypeError(f"seed is a {type(value).__name__}; expected a whole number: seed=0.")
    found = whole("seed", value)
    if not -LARGEST_SEED <= found < LARGEST_SEED:
        raise ValueError(f"seed is {found}; expected a whole number of 64 bits, its size below 2**63 - 2**10.")
    return found


def generator(seed: int, *which: int) -> np.random.Generator:
    """NumPy's generator of a seed, which may be below 0; which: numbers that tell one use of the seed from another."""
    return np.random.default_rng([seed % 2**64, *which])


def settled(settings: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for settings of an algorithm (a dataclass) as Python's own numbers, whole where they must be."""
    kinds = {field.name: field.type for field in dataclasses.fields(settings)}
    found = dict(given)
    for name, value in given.items():
        if kinds[name] in ("int", int) or (kinds[name] == "int | None" and value is not None):
            found[name] = whole(name, value)
        elif isinstance(value, np.generic):
            found[name] = value.item()
    return found
