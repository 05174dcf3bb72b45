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

from probgen.data.inputs import first
from probgen.programs.reads import reads_of

OTHERWISE = frozenset(["std", "var", "repeat", "transpose", "nonzero"])  # methods on which libraries disagree
OWN = {"numpyro": ("numpy", "jax", "jaxlib"), "pyro": ("torch",)}  # whose arrays mean what those of an engine do
CHANCE = frozenset([
    "choice", "choices", "gauss", "getrandbits", "integers", "monotonic", "normal", "normalvariate", "now", "perf_counter",
    "permutation", "poisson", "rand", "randint", "randn", "random", "randrange", "shuffle", "standard_normal", "time", "time_ns",
    "today", "uniform", "urandom", "uuid4",
])  # words of random numbers in Python, and of clocks  # fmt: skip
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


def check_chance(program: Callable[..., Any], target: Any, probe: Callable[[Any], Any]) -> None:
    """Raise ValueError for a program that is another one at every run: it draws random numbers in Python, or reads the clock."""
    words = CHANCE & reads_of(getattr(program, "base", program)).words
    if words and not alike(probe, target, target):
        raise ValueError(
            f"The program has another density at every run ({', '.join(sorted(words))}): what is fitted would be one of many.\n"
            "Draw random numbers before, and pass them as data; what is unknown is drawn with `sample`."
        )


def check_ends(
    target: Any, data: Mapping[str, Any], prepare: Callable[[dict[str, Any]], Any], probe: Callable[[Any], Any]
) -> None:
    """Raise ValueError for whole numbers of which those below 0 count from the end, to entries that others stand for, too.

    So is -1, pandas' code of a missing category, in `effect[group]`: the last group.
    """
    known = getattr(getattr(target, "structure", None), "looked_up", None)
    for name, v in data.items():
        if known is not None and name not in known.sources:
            continue
        if not are_whole(v) or not -int(v.max()) - 1 <= int(v.min()) < 0:
            continue
        entries = int(v.max()) + 1
        put = lambda to, name=name, low=v < 0, v=v: prepare({**data, name: np.where(low, to, v)})  # noqa: E731
        if _counts_from_end(target, put, v + entries, probe):
            raise ValueError(from_end(name, v, entries))


def are_whole(value: Any) -> bool:
    """Whether a datum is an array of integers."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.size > 0


def from_end(name: str, v: np.ndarray, entries: int) -> str:
    """What to say of an index that has values below 0."""
    below = int(v[v < 0][0])
    return (
        f"Data {name!r} is an index; {name}{first(v < 0)} is {below}, which counts from the end: the entry that "
        f"{entries + below} stands for.\nLeave out rows that are missing, or give them an entry of their own; if it is "
        f"meant, pass {name} % {entries}."
    )


def _counts_from_end(target: Any, put: Callable[[Any], Any], ends: Any, probe: Callable[[Any], Any]) -> bool:
    """Whether densities are the same where the entries counted from the end are written out, and others where they are 0.

    put: gives the target of other values there.
    """
    with contextlib.suppress(Exception):  # on other numbers it may not run
        return alike(probe, target, put(ends)) and not alike(probe, target, put(0))
    return False


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
