"""Programs held to what they read when they were fitted.

`pinned(program)` is one object for one content: the same program with the same reads gives the same object again, so that compiled
code is found, and any change of a global, a closure, a default, an attribute or a helper's code gives another. Its functions see
globals as they were; what cannot be held (objects that change in place) is compared before every run.
"""

from __future__ import annotations

import copy
import functools
import os
import types
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

from probgen.data.fixed import plain
from probgen.programs.about import About
from probgen.programs.arguments import Arranged
from probgen.programs.bytecode import names_of
from probgen.programs.contents import Reads, is_library
from probgen.programs.reads import reads_of

KEPT = 64  # programs that are found again
_MODULE = ("__name__", "__builtins__", "__package__", "__spec__", "__loader__", "__file__", "__path__")
_WRITERS = frozenset(
    ["append", "extend", "insert", "update", "setdefault", "pop", "popitem", "add", "clear", "remove", "sort"]
)  # methods that change

_found: OrderedDict[bytes, Pinned] = OrderedDict()


class Changed(ValueError):
    """What a program reads is not what it was when it was fitted."""


class Pinned(About):
    """A program as it was: called like it, found again by its content.

    program: the user's own; run: the same with its globals, closures and helpers held; reads: what it read.
    own: names of what the program itself changes when it runs, which is not compared.
    apart: arrays whose values are given at every run, such as the weights of a module that is learned: they are not compared.
    """

    def __init__(self, program: Callable[..., Any], run: Callable[..., Any], reads: Reads):
        self.program, self.run, self.reads = program, run, reads
        self.own: set[str] = set()
        self.apart: Callable[[], Collection[int]] = tuple

    def __call__(self, *given: Any, **data: Any) -> Any:
        return self.run(*given, **{k: plain(v) for k, v in data.items()})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("program", "run", "reads", "own", "apart"):
            raise AttributeError(name)
        return getattr(self.program, name)

    def __reduce__(self) -> Any:
        return _again, (self.program, type(self), self.reads.mark)

    def differing(self, now: Reads | None = None) -> list[str]:
        """Names of what it reads that is not what it was."""
        if not self.reads.mutable:
            return []
        return [name for name in self.reads.differing(now or self.look()) if name not in self.own]

    def look(self) -> Reads:
        """What it reads now."""
        return reads_of(self.run, self.apart())

    def settle(self) -> None:
        """After a first run: what differs now the program has changed itself."""
        self.own.update(self.differing())

    def given(self, apart: Callable[[], Collection[int]]) -> None:
        """From now on some arrays are given at every run."""
        self.apart = apart
        self.reads = self.look()

    def check(self, now: Reads | None = None) -> None:
        """Raise Changed where something that it reads has changed since."""
        if names := self.differing(now):
            raise Changed(
                f"The program {self.__name__} reads {', '.join(names)}, which changed after it was fitted: what is computed now "
                "would mix two programs.\nPut it back, or fit again; what should vary belongs to the data."
            )

    def watched(self, *given: Any, **data: Any) -> Any:
        """A run between two looks at what the program reads: a change before it is an error, one in it the program's own."""
        data = {k: plain(v) for k, v in data.items()}
        if not self.reads.mutable:
            return self.run(*given, **data)
        before = self.look()
        self.check(before)
        try:
            return self.run(*given, **data)
        finally:
            self.own.update(before.differing(self.look()))


class Watched(Pinned):
    """The same, watched at every run: for engines that run a program only to trace it."""

    def __call__(self, *given: Any, **data: Any) -> Any:
        return self.watched(*given, **data)


def pinned(program: Callable[..., Any], kind: type[Pinned] = Pinned) -> Callable[..., Any]:
    """The program held to what it reads now; itself where it is that already, or made by an engine."""
    if isinstance(program, Arranged):
        return program.held(lambda inner: pinned(inner, kind))
    if type(program).__module__.partition(".")[0] == "probgen":
        return program
    run = _held(program, {})
    reads = reads_of(run)
    mark = reads.mark
    key = None if mark is None else mark + str(kind.__name__).encode()
    known = _found.get(key) if key is not None else None
    if known is None or known.differing():
        _forget(reads.jitted)
        known = kind(program, run, reads)
        if shaky := known.differing():  # what has another digest at every look
            known.own.update(shaky)
            key = None
    if key is not None:
        _found[key] = known
        _found.move_to_end(key)
        while len(_found) > KEPT:
            _found.popitem(last=False)
    return known


def _again(program: Callable[..., Any], kind: type[Pinned], mark: bytes | None) -> Callable[..., Any]:
    """A held program in another process; Changed where it reads something else there."""
    found = pinned(program, kind)
    if isinstance(found, Pinned) and found.reads.mark != mark:
        raise Changed(
            f"The program {found.__name__} reads something else in process {os.getpid()} than where it was fitted."
        )
    return found


def _forget(jitted: list[Any]) -> None:
    """Traces that the user's own compiled functions keep hold what they read then as constants."""
    for function in jitted:
        function.clear_cache()


# ---- functions whose globals are held ------------------------------------------------------------------------------


def _held(value: Any, memo: dict[int, Any]) -> Any:
    """A function of the user's with globals, closure and defaults of its own, and so every function that it names."""
    if isinstance(value, types.MethodType):
        inner = _held(value.__func__, memo)
        return types.MethodType(inner, value.__self__ if _stores(value.__func__) else _copied(value.__self__))
    if type(value) is functools.partial:
        inner = _held(value.func, memo)
        held = functools.partial(inner, *map(_copied, value.args), **{k: _copied(v) for k, v in value.keywords.items()})
        held.__dict__.update(vars(value))
        return held
    if not isinstance(value, types.FunctionType):
        return _copied(value) if callable(value) and not isinstance(value, type) else value
    if is_library(value.__globals__.get("__name__")):
        return value
    names = names_of(value.__code__)
    if names.rebinds or names.words & {"globals", "__globals__", "exec", "eval"}:
        return value
    if id(value) not in memo:
        memo[id(value)] = _function(value, memo)
    return memo[id(value)]


def _function(function: types.FunctionType, memo: dict[int, Any]) -> types.FunctionType:
    names, space = names_of(function.__code__), function.__globals__
    held: dict[str, Any] = {k: space[k] for k in _MODULE if k in space}
    cells = tuple(
        cell if name in names.cells else types.CellType()
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    )
    made = types.FunctionType(function.__code__, held, function.__name__, function.__defaults__, cells or None)
    made.__module__, made.__qualname__, made.__doc__ = function.__module__, function.__qualname__, function.__doc__
    made.__annotations__ = function.__annotations__
    made.__dict__.update(vars(function))
    memo[id(function)] = made
    written = names.stores
    for new, cell in zip(cells, function.__closure__ or (), strict=True):
        if new is not cell:
            _fill(new, cell, written or bool(names.words & _WRITERS), memo)
    if not written:
        made.__defaults__ = tuple(map(_copied, function.__defaults__ or ())) or None
    kept = {k: v if written else _copied(v) for k, v in (function.__kwdefaults__ or {}).items()}
    made.__kwdefaults__ = kept or None
    writers = {path[0] for path in names.paths if len(path) > 1 and path[1] in _WRITERS}
    for name in {path[0] for path in names.paths} & space.keys():
        held[name] = _taken(space[name], written or name in writers, memo)
    return made


def _fill(new: types.CellType, cell: types.CellType, live: bool, memo: dict[int, Any]) -> None:
    try:
        new.cell_contents = _taken(cell.cell_contents, live, memo)
    except ValueError:  # an empty cell
        return


def _taken(value: Any, live: bool, memo: dict[int, Any]) -> Any:
    """What a held function has in place of something that the user's reads."""
    if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
        return _held(value, memo)
    return value if live else _copied(value)


def _copied(value: Any) -> Any:
    """Arrays and containers of plain data as copies, so that changes in place change nothing; all else as it is."""
    return copy.deepcopy(value) if _is_data(value, 0) else value


def _is_data(value: Any, depth: int) -> bool:
    kind, few = type(value), depth < 8
    if kind in (type(None), bool, int, float, complex, str, bytes):
        return True
    if kind.__module__ == "numpy" and (kind.__name__ == "ndarray" or hasattr(kind, "dtype")):
        dtype: Any = getattr(value, "dtype", None)
        return not dtype.hasobject
    if kind.__module__ == "torch" and kind.__name__ == "Tensor":
        return value.grad_fn is None and not value.requires_grad
    if kind in (list, tuple, set):
        return few and all(_is_data(x, depth + 1) for x in value)
    if kind is dict:
        return few and all(_is_data(x, depth + 1) for pair in value.items() for x in pair)
    plain = kind is types.SimpleNamespace or _is_record(kind)
    return plain and few and all(_is_data(x, depth + 1) for x in vars(value).values())


_COPIES = ("__deepcopy__", "__copy__", "__getattr__", "__getstate__", "__setstate__", "__del__", "__slots__")
_MAKES = ("__repr__", "__init__", "__post_init__", "__new__", "__setattr__", "__delattr__", "__replace__")


def _is_record(kind: type) -> bool:
    """Whether a class of the user's only holds attributes, which none of its methods changes."""
    own = [base for base in kind.__mro__ if base is not object]
    if type(kind) is not type or any(is_library(base.__module__) for base in own):
        return False
    words = {word: part for base in own for word, part in vars(base).items()}
    methods = [getattr(part, "__func__", part) for word, part in words.items() if word not in _MAKES]
    return not words.keys() & set(_COPIES) and not any(_stores(m) for m in methods)


def _stores(function: Any) -> bool:
    """Whether a function may change an object or a container that it is given."""
    if isinstance(function, property):
        return any(map(_stores, filter(None, (function.fget, function.fset))))
    if not isinstance(function, types.FunctionType):
        return hasattr(function, "__wrapped__") or hasattr(function, "func")
    names = names_of(function.__code__)
    return names.stores or bool(names.words & _WRITERS)


def pins(target: Any) -> list[Pinned]:
    """The programs of a target that are held: its own, its guide's and its critic's."""
    structure = getattr(target, "structure", None)
    found = [getattr(structure, word, None) for word in ("program", "one", "guide", "critic")]
    found += [getattr(target, word, None) for word in ("guide", "author_guide", "base")]
    return [p for p in map(innermost_pin, found) if p is not None]


def check_pins(target: Any) -> None:
    """Raise Changed where a target's programs read something that has changed."""
    for pin in pins(target):
        pin.check()


def innermost_pin(thing: Any) -> Pinned | None:
    """The held program that a program, or a target's, wraps; None where there is none."""
    for _ in range(8):
        if thing is None or isinstance(thing, Pinned):
            return thing
        thing = getattr(getattr(thing, "structure", thing), "program", None)
    return None
