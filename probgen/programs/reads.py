"""What a program reads beside its arguments, by content.

Globals with their attributes, closures, defaults, what it is bound to, classes, and all of the same of every function of the
user's that it can reach. Code of libraries is not followed: only what it was given.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import re
import sys
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

from probgen.programs.bytecode import Names, names_of
from probgen.programs.contents import Contents, Reads, _hash, is_library

_OUTSIDE = re.compile(  # words for what is read from elsewhere
    "(read|open|load)(_.*|txt|mat)?|environ|getenv|genfromtxt|fromfile|memmap|import_module|urlopen|f_globals|f_locals"
    "|__globals__|__closure__"
)


_BUILTINS = frozenset(("globals", "locals", "eval", "exec", "open", "input", "__import__", "vars"))


_MODULES = frozenset(
    ["os", "time", "random", "secrets", "sys", "io", "subprocess", "socket", "glob", "gc"]
)  # a state of the process


_DRAWS = ("numpy.random", "scipy.stats.rvs")


ONLY_WRITE = {list: ("append", "extend", "insert", "clear"), set: ("add", "clear"), dict: ("clear",)}  # and return None


def _only_written(name: str, value: Any, names: Names) -> bool:
    """Whether a variable of an enclosing function is but a list or set that the code appends to, as a counter of its runs is."""
    paths, words = [path for path in names.taken if path[0] == name], ONLY_WRITE.get(type(value), ())
    return bool(paths) and all(len(path) > 1 and path[1] in words for path in paths)


def reads_of(program: Callable[..., Any], apart: Collection[int] = ()) -> Reads:
    """What a program reads now; apart: identities of arrays of which only the shapes count."""
    walk = Walk(apart)
    try:
        walk.note(getattr(program, "__name__", type(program).__name__), walk.value(program))
    except (RecursionError, RuntimeError) as error:  # a dictionary that another thread changes, say
        walk.found.unknown.append(type(error).__name__)
    return walk.found


def digest_of(value: Any) -> bytes | None:
    """A digest of a value's content; None where it has none to compare."""
    walk = Walk()
    try:
        digest = walk.value(value)
    except RecursionError:
        return None
    rest = Reads(walk.found.parts).mark  # what its functions read
    return None if walk.found.unknown else _hash(digest, rest or b"")


def _canonical(function: types.FunctionType, module: str | None) -> bool:
    """Whether a library's function is what its name says, and no closure made by it."""
    if function.__closure__ is None and "<" not in function.__qualname__:
        return True
    found: Any = sys.modules.get(module or "")
    try:
        return functools.reduce(getattr, function.__qualname__.split("."), found) is function
    except AttributeError:
        return False


def _plainly(value: Any, name: str) -> tuple[Any] | None:
    """An attribute that is simply there, of an instance or a class of the user's; None where code stands behind it."""
    kind = value if isinstance(value, type) else type(value)
    meta = type if isinstance(value, type) else object
    if is_library(kind.__module__) and kind is not types.SimpleNamespace:
        return None
    if isinstance(value, type) and type(value) is not type:
        return None
    if not isinstance(value, type) and kind.__getattribute__ is not meta.__getattribute__:
        return None
    try:
        found = inspect.getattr_static(value, name)
    except AttributeError:
        return None
    return None if hasattr(type(found), "__get__") else (found,)


class Walk(Contents):
    """Goes through everything that a program can reach: `function` adds what a function reads to `found`."""

    def function(self, function: types.FunctionType) -> bytes:
        """A function: what its code does; what it reads goes to `found`."""
        module = function.__globals__.get("__name__")
        own = not is_library(module)
        if not own and _canonical(function, module):
            return _hash(b"library", f"{module}.{function.__qualname__}".encode())
        names = names_of(function.__code__)
        label = function.__name__
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:
                self.note(name, b"empty")
            else:
                if content is not function and not _only_written(name, content, names):
                    self.read(name if own else f"{label}: {name}", content, names)
        defaults, code = function.__defaults__ or (), function.__code__
        positional = code.co_varnames[: code.co_argcount]
        given = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
        for name, default in {**given, **(function.__kwdefaults__ or {})}.items():
            if default is not None:
                self.read(f"the default of {name}", default, names)
        extra = {k: v for k, v in vars(function).items() if k != "__wrapped__"}
        if extra:
            self.note(f"attributes of {label}", self.value(extra))
        if own:
            self.found.words |= names.words
            self.found.mutable |= names.rebinds or bool(names.cells)
            self._follow(function, names)
        return _hash(b"function", names.digest)

    def _follow(self, function: types.FunctionType, names: Names) -> None:
        """What a function of the user's reads of its module, and of those that it imports."""
        space = function.__globals__
        for path in sorted(names.paths):
            if (id(space), path) not in self.globals:
                self.globals.add((id(space), path))
                self._global(space, path, names)
        for level, module, name in sorted(names.imports):
            self._import(space, level, module, name, names)
        if words := sorted(filter(_OUTSIDE.fullmatch, names.words)):
            self.unknown(words[0])

    def _import(self, space: Mapping[str, Any], level: int, module: str, name: str, names: Names) -> None:
        if level:
            package = str(space.get("__package__") or "").rsplit(".", level - 1)[0]
            module = f"{package}.{module}" if module else package
        if is_library(module):
            return
        self.found.mutable = True
        loaded = sys.modules.get(module)
        if loaded is None:
            self.note(module, b"not imported")
        elif name:
            self._global({name: getattr(loaded, name, None)}, (name,), names)
        else:
            self._module(module, loaded, names)

    def _global(self, space: Mapping[str, Any], path: tuple[str, ...], names: Names) -> None:
        """A global with the attributes taken of it."""
        name, rest = path[0], list(path[1:])
        if name not in space:
            if not hasattr(builtins, name):
                self.note(name, b"absent")
            elif name in _BUILTINS:
                self.unknown(name)
            return
        value, label, library = space[name], name, False
        while isinstance(value, types.ModuleType):
            library = is_library(value.__name__)
            self.found.mutable |= not library
            if not rest:
                self._module(label, value, names)
                return
            if library and (value.__name__ in _MODULES or f"{value.__name__}.{rest[0]}" in _DRAWS):
                self.unknown(f"{label}.{rest[0]}")
                return
            try:
                value = getattr(value, word := rest.pop(0))
            except AttributeError:
                self.note(f"{label}.{word}", b"absent")
                return
            label = f"{label}.{word}"
        if library and (callable(value) or isinstance(value, type)):
            return
        while rest and (found := _plainly(value, rest[0])):
            self.found.mutable = True
            value, label = found[0], f"{label}.{rest.pop(0)}"
        if rest and rest[0] in ONLY_WRITE.get(type(value), ()):
            return
        self.read(label, value, names)

    def _module(self, label: str, module: types.ModuleType, names: Names) -> None:
        """A module as a whole: everything in it that the code has a word for."""
        if not is_library(module.__name__):
            for word in sorted(names.words & vars(module).keys()):
                self._global(vars(module), (word,), names)

    def read(self, label: str, value: Any, names: Names) -> None:
        """One thing that is read."""
        if isinstance(value, types.ModuleType):
            self._module(label, value, names)
            return
        self.note(label, self.value(value))
