"""Data whose words mean something else than those of an engine's arrays: `y.std()` of a pandas Series divides by n - 1, JAX's by n.

    loc, scale = y.mean(), y.std()      y a Series: holes are left out of the mean, and n - 1 is below the scale
    y[0]                                the entry with the label 0, which need not be the first

A program is given arrays of its engine where that makes no difference. Where it may, both are tried and compared by the log density
of every site; see `probgen.data.looking`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probgen.programs.reads import reads_of

OTHERWISE = frozenset(["std", "var", "repeat", "transpose", "nonzero"])  # methods on which libraries disagree
OWN = {"numpyro": ("numpy", "jax", "jaxlib"), "pyro": ("torch",)}  # whose arrays mean what those of an engine do
CLOSE = {"float64": 1e-9, "float32": 1e-4}  # of two log densities of one program


def doubtful(program: Callable[..., Any], given: Mapping[str, Any], engine: str) -> list[str]:
    """Names of the arrays whose words may mean something else to a program of this engine.

    given: arrays of any library by name.
    """
    foreign = {k: v for k, v in given.items() if hasattr(v, "dtype") and _library(v) not in OWN[engine]}
    if not foreign:
        return []
    odd = [k for k, v in foreign.items() if _is_labelled(v)]
    if len(odd) < len(foreign) and OTHERWISE & reads_of(getattr(program, "base", program)).words:
        return list(foreign)
    return odd


def alike(probe: Callable[[Any], Mapping[str, Any]], one: Any, other: Any) -> bool:
    """Whether two targets of a program are the same, as far as that can be told. probe: see `probgen.engine`."""
    with contextlib.suppress(Exception):
        first, second = probe(one), probe(other)
        close = CLOSE[one.precision]
        return all(
            np.allclose(first[k], second[k], rtol=close, atol=close, equal_nan=True) for k in {*first} & {*second}
        )
    return True


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _is_labelled(value: Any) -> bool:
    """Whether entries have names of their own, or holes that sums leave out."""
    if hasattr(value, "dims"):  # xarray's, which are matched by the names of their axes
        return True
    if not hasattr(value, "index") or callable(value.index):
        return False
    counted = np.array_equal(np.asarray(value.index), np.arange(len(value)))
    return not counted or bool(value.isna().any())
