"""The engines: the only code that knows NumPyro or Pyro. Each is a module with `prepare` and `Executor`."""

from __future__ import annotations

import functools
import importlib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from probgen.programs.arguments import Arranged
from probgen.programs.contents import is_library

KNOWN = ("numpyro", "pyro")


def load(name: str) -> types.ModuleType:
    """The engine's module; importing it imports NumPyro or Pyro, and never both."""
    if name not in KNOWN:
        raise ValueError(f"Unknown engine {name!r}. Known: {', '.join(KNOWN)}.")
    try:
        return importlib.import_module(f"probgen.engine.{name}.engine")
    except ModuleNotFoundError as error:
        if name == "pyro" and error.name in ("pyro", "torch"):
            message = "Pyro programs need torch and pyro-ppl: pip install 'probgen[pyro]'"
            raise ModuleNotFoundError(message, name=error.name) from error
        raise


def detect(program: Callable[..., Any]) -> str:
    """Which engine a program is written for: "numpyro" or "pyro", by the packages that its code names.

    Raises ValueError where it names both or neither.
    """
    found = {root for root in _roots(program, set()) if root in KNOWN}
    if len(found) == 1:
        return found.pop()
    what = "uses both numpyro and pyro" if found else "uses neither numpyro nor pyro"
    label = getattr(program, "__name__", repr(program))
    raise ValueError(f"The program {label!r} {what}; say which it is written for with engine='numpyro' or 'pyro'.")


def has_parameters(program: Callable[..., Any], data: Mapping[str, Any], name: str | None = None) -> bool:
    """Whether a program registers parameters (`numpyro.param`, `pyro.param`, `pyro.module`), run forward on the data it needs."""
    return load(name or detect(program)).has_parameters(program, data)


def read_as(
    program: Callable[..., Any], data: Mapping[str, Any], name: str | None = None, by_row: bool | None = None
) -> str:
    """What a program is read as: "rows" to learn parameters from, "points" (parameters on the whole data) or "unknowns" alone."""
    from probgen.algorithm import Incompatible
    from probgen.data.checks import check
    from probgen.data.looking import kept, settled
    from probgen.engine.prediction import FAULTS
    from probgen.target import Learnable

    checked, chosen = check(program, kept(data)), load(name or detect(program))
    prepare = lambda some, whole=False: chosen.prepare(program, some, "float32", False if whole else by_row)  # noqa: E731
    try:
        target, _, _ = settled(program, data, checked, "float64", prepare, chosen.probe)
    except Incompatible:  # of rows that cannot be learned from
        return "rows"
    except FAULTS:  # what is wrong is told when the target is made
        return "unknowns"
    return "rows" if isinstance(target, Learnable) else "points" if target.points else "unknowns"


def pair_by_row(
    program: Callable[..., Any], guide: Callable[..., Any], data: Mapping[str, Any], name: str | None = None
) -> bool | int | None:
    """How program and guide are read together where nothing is declared: by rows, on the whole data, or as the program alone is."""
    from probgen.data.checks import check
    from probgen.engine.prediction import FAULTS

    try:
        return load(name or detect(program)).pair_by_row(program, guide, check(program, data))
    except FAULTS:  # what is wrong is told when the target is made
        return None


def _roots(thing: Any, seen: set[int]) -> Iterator[str]:
    """Root packages of everything that a callable's code names, following the user's own functions."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, types.ModuleType):
        yield thing.__name__.partition(".")[0]
    elif isinstance(thing, functools.partial):
        yield from _roots(thing.func, seen)
    elif isinstance(thing, types.MethodType):
        yield from _roots(thing.__func__, seen)
        yield from _object_roots(thing.__self__, seen)
    elif isinstance(thing, Arranged):
        yield from _roots(thing.program, seen)
    elif isinstance(thing, types.FunctionType):
        root = (thing.__module__ or "").partition(".")[0]
        yield root
        if root not in KNOWN:
            yield from _function_roots(thing, seen)
    else:
        kind = thing if isinstance(thing, type) else type(thing)
        yield kind.__module__.partition(".")[0]
        if not isinstance(thing, type):
            yield from _object_roots(thing, seen)


def _object_roots(thing: Any, seen: set[int]) -> Iterator[str]:
    """Of the functions that an object of a user's class holds, and of all its methods: one may call the others."""
    for part in getattr(thing, "__dict__", {}).values():
        if isinstance(part, types.FunctionType | types.MethodType | functools.partial):
            yield from _roots(part, seen)
    for base in type(thing).__mro__:
        if base.__module__.partition(".")[0] in KNOWN:
            yield base.__module__.partition(".")[0]
        elif not is_library(base.__module__):
            for part in vars(base).values():
                yield from _roots(part, seen) if isinstance(part, types.FunctionType) else ()


def _function_roots(function: types.FunctionType, seen: set[int]) -> Iterator[str]:
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
        for word in code.co_names:
            if word in function.__globals__:
                yield from _roots(function.__globals__[word], seen)
            yield word.partition(".")[0]
    for cell in function.__closure__ or ():
        try:
            yield from _roots(cell.cell_contents, seen)
        except ValueError:  # an empty cell
            continue
