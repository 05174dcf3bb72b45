"""The content of values as digests: of arrays, containers, instances, classes, of any library."""

from __future__ import annotations

import collections
import contextlib
import enum
import functools
import hashlib
import importlib.util
import logging
import marshal
import pickle
import sys
import sysconfig
import types
import weakref
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from probgen.programs.lazies import defining

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented), range, slice)


_FLAT = frozenset((type(None), bool, int, float, complex, str, bytes))


_BY_PICKLE = ("polars", "pyarrow", "datetime", "pathlib", "decimal", "fractions", "re", "uuid")


_DESCRIPTORS = (
    types.WrapperDescriptorType, types.MethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
    types.MethodWrapperType, types.ClassMethodDescriptorType,
)  # fmt: skip


_OURS = frozenset(
    ("probgen", "numpyro", "pyro", "jax", "torch", "funsor")
)  # libraries, from a checkout too (pip install -e)
_OF_CLASSES = frozenset((
    "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__annotate__", "__annotate_func__",
    "__annotations_cache__", "__abstractmethods__", "_abc_impl", "__dataclass_fields__", "__dataclass_params__", "__match_args__",
    "__parameters__", "__orig_bases__", "__firstlineno__", "__static_attributes__", "__slots__", "__subclasshook__",
    "__abstractvars__", "__abstractclassvars__",
))  # fmt: skip


@dataclass
class Reads:
    """parts: a digest of everything that is read, by its name in the program; unknown: what has no content to compare.

    jitted: functions with a cache of traces of their own, which must forget what they saw. words: all names of globals and
    attributes in the code of the user's functions.
    """

    parts: dict[str, bytes] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    jitted: list[Any] = field(default_factory=list)
    words: set[str] = field(default_factory=set)
    mutable: bool = False  # whether anything that is read could change in place

    @property
    def mark(self) -> bytes | None:
        """One digest of it all; None where something has no content to compare."""
        if self.unknown:
            return None
        digest = hashlib.blake2b(digest_size=16)
        for name in sorted(self.parts):
            digest.update(name.encode() + b"\0" + self.parts[name])
        return digest.digest()

    def differing(self, other: Reads) -> list[str]:
        """Names of what differs."""
        names = {**self.parts, **other.parts}
        return [name for name in names if self.parts.get(name) != other.parts.get(name)]


def is_library(module: str | None) -> bool:
    """Whether a module belongs to Python, to probgen, or to an installed package: its code does not change."""
    root = (module or "").partition(".")[0]
    return root in _OURS or _installed(root)


_places: dict[str, bool] = {}


def _installed(root: str) -> bool:
    if root in ("__main__", "__mp_main__", ""):
        return False
    if root not in _places:
        place = _place(root)
        if not place and root not in sys.modules:
            return root in sys.stdlib_module_names  # it may come yet
        stdlib = sysconfig.get_path("stdlib").replace("\\", "/")
        installed = "/site-packages/" in place or "/dist-packages/" in place or place.startswith(f"{stdlib}/")
        _places[root] = installed or root in sys.builtin_module_names or (not place and root in sys.stdlib_module_names)
    return _places[root]


def _place(root: str) -> str:
    """The file or folder of a module; empty where it has none."""
    found = sys.modules.get(root)
    places = [getattr(found, "__file__", None), *getattr(found, "__path__", ())]
    if found is None:
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(root)
            places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    return next((str(p).replace("\\", "/") for p in places if p), "")


_immutable: dict[int, tuple[Any, bytes]] = {}  # digests of arrays of JAX, by identity


def _hash(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


class Contents:
    """Digests of values by their content. What cannot be known goes to `found`; functions are for `reads.Walk`."""

    def __init__(self, apart: Collection[int] = ()) -> None:
        self.found, self.apart = Reads(), apart
        self.done: dict[int, bytes] = {}
        self.open: dict[int, int] = {}
        self.alive: list[Any] = []
        self.globals: set[tuple[int, tuple[str, ...]]] = set()

    def note(self, name: str, digest: bytes) -> None:
        """Keep a digest under a name that no other one has."""
        free, i = name, 1
        while self.found.parts.get(free, digest) != digest:
            i += 1
            free = f"{name} ({i})"
        self.found.parts[free] = digest

    def unknown(self, what: str) -> bytes:
        self.found.unknown.append(what)
        return _hash(b"unknown", what.encode())

    def function(self, function: types.FunctionType) -> bytes:
        """A function: what its code does; what it reads goes to `found`."""
        raise NotImplementedError

    def value(self, value: Any) -> bytes:
        """A digest of a value's content."""
        kind = type(value)
        if kind in _PLAIN:
            return _hash(kind.__name__.encode(), repr(value).encode() if kind is not bytes else value)
        key = id(value)
        if key in self.done:
            return self.done[key]
        if key in self.open:  # a cycle
            return _hash(b"cycle", str(len(self.open) - self.open[key]).encode())
        self.open[key] = len(self.open)
        try:
            digest = self._object(value, kind)
        except (RecursionError, KeyboardInterrupt):
            raise
        except Exception as error:
            digest = self.unknown(f"{kind.__name__}: {type(error).__name__}")
        finally:
            del self.open[key]
        self.done[key] = digest
        self.alive.append(value)
        return digest

    def _object(self, value: Any, kind: type) -> bytes:
        if isinstance(value, types.FunctionType):
            return self.function(value)
        if isinstance(value, types.ModuleType):
            return _hash(b"module", value.__name__.encode()) if is_library(value.__name__) else self.unknown("a module")
        if isinstance(value, type):
            return self._class(value)
        if (found := self._callable(value)) is not None:
            return found
        self.found.mutable = True
        root = kind.__module__.partition(".")[0]
        if (found := self._array(value, kind, root)) is not None:
            return found
        if root in ("pandas", "xarray") and (table := _table(value)) is not None:
            return _hash(kind.__name__.encode(), self.value(table))
        if isinstance(value, enum.Enum):
            return _hash(self._class(kind), value.name.encode())
        if (found := self._container(value, kind)) is not None:
            return found
        if isinstance(value, logging.Logger):
            return _hash(b"logger", value.name.encode())
        if isinstance(value, weakref.ReferenceType | types.GeneratorType):
            return self.unknown(kind.__name__)
        return self._instance(value, kind, root)

    def _callable(self, value: Any) -> bytes | None:
        """Methods, partials, descriptors, and whatever wraps a function."""
        join = lambda word, *things: _hash(word, *map(self.value, things))  # noqa: E731
        if isinstance(value, types.MethodType):
            return join(b"method", value.__func__, value.__self__)
        if isinstance(value, functools.partial):
            return join(b"partial", value.func, list(value.args), dict(value.keywords), vars(value))
        if isinstance(value, property):
            return join(b"property", value.fget)
        if isinstance(value, staticmethod | classmethod):
            return join(type(value).__name__.encode(), value.__func__)
        if isinstance(value, functools.cached_property):
            return join(b"cached", value.func)
        if isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            owner = None if isinstance(owner, types.ModuleType) else owner
            return _hash(b"builtin", f"{value.__module__}.{value.__qualname__}".encode(), self.value(owner))
        if isinstance(value, _DESCRIPTORS):
            return _hash(b"builtin", repr(getattr(value, "__qualname__", value)).encode())
        wrapped = getattr(value, "__wrapped__", None) if callable(value) else None
        if isinstance(wrapped, types.FunctionType | types.MethodType | functools.partial):
            self.found.mutable = True
            if hasattr(value, "clear_cache"):
                self.found.jitted.append(value)
            extra = {k: v for k, v in getattr(value, "__dict__", {}).items() if k != "__wrapped__"}
            return join(type(value).__name__.encode(), wrapped, extra)
        return None

    def _array(self, value: Any, kind: type, root: str) -> bytes | None:
        """Arrays of NumPy, JAX and torch."""
        import numpy as np

        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
            said = _hash(kind.__name__.encode(), str(array.dtype).encode(), str(array.shape).encode())
            if array.dtype.hasobject:
                return _hash(said, self.value(array.tolist()))
            flat = np.ascontiguousarray(array)
            own = _hash(said, flat.reshape(-1).view(np.uint8).data if flat.size else b"")
            mask = getattr(value, "mask", None) if isinstance(value, np.ma.MaskedArray) else None
            return own if mask is None else _hash(own, self.value(np.asarray(mask)))
        if root in ("jax", "jaxlib") and hasattr(value, "addressable_shards"):
            return self._jax(value)
        if root == "torch" and hasattr(value, "untyped_storage") and hasattr(value, "detach"):
            bare = value.detach().cpu().contiguous()
            said = _hash(kind.__name__.encode(), f"{bare.dtype} {tuple(bare.shape)} {value.requires_grad}".encode())
            if id(value) in self.apart or not bare.numel():
                return said
            return _hash(said, bare.reshape(-1).view(sys.modules["torch"].uint8).numpy().data)
        if kind in (bytearray, memoryview) or (root == "array" and kind.__name__ == "array"):
            return _hash(kind.__name__.encode(), bytes(value))
        return None

    def _jax(self, value: Any) -> bytes:
        """An array of JAX, which never changes: hashed once."""
        import numpy as np

        kept = _immutable.get(id(value))
        if kept is not None and kept[0]() is value:
            return kept[1]
        bare = value
        if str(value.dtype).startswith("key<"):
            bare = sys.modules["jax"].random.key_data(value)
        array = np.asarray(bare)
        said = f"{value.dtype} {value.shape} {getattr(value, 'weak_type', False)}".encode()
        digest = _hash(b"jax", said, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b"")
        key = id(value)
        _immutable[key] = (weakref.ref(value, lambda _: _immutable.pop(key, None)), digest)
        return digest

    def _container(self, value: Any, kind: type) -> bytes | None:
        """Lists, tuples, dictionaries, sets, and subclasses of them and of plain types."""
        word, more = kind.__name__.encode(), b""
        if not isinstance(
            value, (list, tuple, dict, set, frozenset, collections.deque, types.MappingProxyType, *_PLAIN)
        ):
            return None
        if kind.__module__ not in ("builtins", "collections"):
            more = _hash(self._class(kind), self._state(value))
        if isinstance(value, _PLAIN):
            return _hash(word, more, repr(value).encode() if not isinstance(value, str) else str.encode(value))
        if isinstance(value, dict | types.MappingProxyType):
            items = [self.value(x) for pair in value.items() for x in pair]
            return _hash(word, more, *items, self.value(getattr(value, "default_factory", None)))
        if isinstance(value, set | frozenset):
            return _hash(word, more, *sorted(map(self.value, value)))
        if kind in (list, tuple) and len(value) > 8 and set(map(type, value)) <= _FLAT:
            return _hash(word, more, marshal.dumps(list(value), 2))
        return _hash(word, more, *map(self.value, value))

    def _state(self, value: Any) -> bytes:
        """The attributes of an instance."""
        slots = {
            name
            for base in type(value).__mro__
            for name in _words(base.__dict__.get("__slots__", ()))
            if name not in ("__dict__", "__weakref__") and isinstance(name, str)
        }
        parts = []
        for name in sorted(slots):
            mangled = name  # private names of slots are mangled: `__x` of C is `_C__x`
            for base in type(value).__mro__:
                if name.startswith("__") and not name.endswith("__"):
                    mangled = f"_{base.__name__.lstrip('_')}{name}"
                if hasattr(value, mangled):
                    parts += [name.encode(), self.value(getattr(value, mangled))]
                    break
        for name, part in sorted(defining(value).items(), key=lambda item: str(item[0])):
            parts += [str(name).encode(), self.value(part)]
        return _hash(*parts)

    def _instance(self, value: Any, kind: type, root: str) -> bytes:
        slotted = any(base.__dict__.get("__slots__") for base in kind.__mro__)
        library = is_library(kind.__module__)
        bare = not slotted and not hasattr(value, "__dict__")
        if library and (root in _BY_PICKLE or bare or kind.__module__.startswith("numpy.random")):
            if bare and kind is not object and not _says_its_state(kind):
                return self.unknown(kind.__name__)
            return _hash(f"{kind.__module__}.{kind.__qualname__}".encode(), pickle.dumps(value, 5))
        return _hash(self._class(kind), self._state(value))

    def _class(self, kind: type) -> bytes:
        """A class: of a library its name; of the user's its attributes and methods, and its bases."""
        name = f"{kind.__module__}.{kind.__qualname__}".encode()
        if is_library(kind.__module__) and not _made(kind):
            return _hash(b"class", name)
        self.found.mutable, key = True, id(kind)
        if key in self.done:
            return self.done[key]
        self.done[key] = _hash(b"class", name)  # for classes that name themselves
        self.alive.append(kind)
        parts = [name, *map(self._class, kind.__bases__)]
        for word, part in sorted(vars(kind).items()):
            if word not in _OF_CLASSES:
                parts += [word.encode(), self.value(part)]
        self.done[key] = _hash(b"class", *parts)
        return self.done[key]


def _table(value: Any) -> Any:
    """A table of pandas or xarray as arrays in plain containers; None for anything else of theirs."""
    if hasattr(value, "iloc") and hasattr(value, "columns"):
        columns = [value.iloc[:, i].to_numpy() for i in range(value.shape[1])]
        return [list(map(str, value.columns)), value.index.to_numpy(), *columns]
    if hasattr(value, "iloc"):
        return [str(value.name), value.index.to_numpy(), value.to_numpy()]
    if hasattr(value, "coords") and hasattr(value, "to_dict"):
        return value.to_dict(data="array")
    return value.to_numpy() if hasattr(value, "to_numpy") else None


def _words(slots: Any) -> Iterable[Any]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _says_its_state(kind: type) -> bool:
    """Whether instances that have no attributes in Python can be written down all the same."""
    words = ("__reduce_ex__", "__reduce__", "__getstate__")
    return any(getattr(kind, word, None) is not getattr(object, word, None) for word in words)


def _made(kind: type) -> bool:
    """Whether a class of a library's was made in a function of it, perhaps around something of the user's."""
    return "<locals>" in kind.__qualname__
