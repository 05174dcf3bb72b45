"""What a function's code names: the globals that it reads with the attributes that follow, its imports, what it rebinds."""

from __future__ import annotations

import dis
import hashlib
import types
import weakref
from collections.abc import Iterable, Iterator
from typing import NamedTuple

Path = tuple[str, ...]

_SILENT = ("EXTENDED_ARG", "NOP", "PUSH_NULL", "CACHE", "RESUME", "PRECALL", "COPY_FREE_VARS")
_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD")


class Names(NamedTuple):
    """Of a code object and those nested in it.

    digest: of what it does, without file names and line numbers.
    paths: globals that are read, with the attributes taken of them: ("cfg", "scale"); taken: the same of enclosing functions'
    variables.
    imports: (level, module, name or "") of imports inside.
    words: all names of globals and attributes.
    rebinds: whether it assigns globals; cells: variables of enclosing functions that it assigns; stores: whether it assigns
    items or attributes of anything.
    """

    digest: bytes
    paths: frozenset[Path]
    taken: frozenset[Path]
    imports: frozenset[tuple[int, str, str]]
    words: frozenset[str]
    rebinds: bool
    cells: frozenset[str]
    stores: bool


_known: weakref.WeakValueDictionary[int, types.CodeType] = weakref.WeakValueDictionary()
_names: dict[int, Names] = {}


def names_of(code: types.CodeType) -> Names:
    """What a code object names; looked at once."""
    key = id(code)
    if _known.get(key) is not code:
        if len(_names) > 4096:
            _names.clear()
            _known.clear()
        _known[key], _names[key] = code, _examined(code)
    return _names[key]


def _examined(code: types.CodeType) -> Names:
    inner = [names_of(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    paths: set[Path] = set()
    taken: set[Path] = set()
    imports: set[tuple[int, str, str]] = set()
    opcodes = set()
    cells = set()
    instructions = [i for i in dis.get_instructions(code) if i.opname not in _SILENT]
    for at, i in enumerate(instructions):
        opcodes.add(i.opname)
        if i.opname.startswith("LOAD_") and (i.opname == "LOAD_NAME" or "GLOBAL" in i.opname):
            paths.add((str(i.argval), *_attributes(instructions[at + 1 :])))
        elif i.opname.startswith("LOAD_") and i.opname.endswith("DEREF"):
            taken.add((str(i.argval), *_attributes(instructions[at + 1 :])))
        elif i.opname == "IMPORT_NAME":
            imports |= set(_imported(instructions, at))
        elif i.opname == "STORE_DEREF" and i.argval in code.co_freevars:
            cells.add(str(i.argval))
    return Names(
        _digest(code, inner),
        frozenset(paths).union(*(n.paths for n in inner)),
        frozenset(taken).union(*(n.taken for n in inner)),
        frozenset(imports).union(*(n.imports for n in inner)),
        frozenset(code.co_names).union(*(n.words for n in inner)),
        bool(opcodes & {"STORE_GLOBAL", "DELETE_GLOBAL"}) or any(n.rebinds for n in inner),
        frozenset(cells).union(*(n.cells for n in inner)),
        bool(opcodes & {"STORE_SUBSCR", "DELETE_SUBSCR", "STORE_ATTR"}) or any(n.stores for n in inner),
    )


def _attributes(following: Iterable[dis.Instruction]) -> Iterator[str]:
    """The attributes that are taken at once of what was loaded."""
    for i in following:
        if i.opname not in _ATTRIBUTE:
            return
        yield str(i.argval)


def _imported(instructions: list[dis.Instruction], at: int) -> Iterator[tuple[int, str, str]]:
    """(level, module, name) of one import: a name for each of `from module import name`, else ""."""
    levels = [i.argval for i in instructions[max(at - 2, 0) : at] if isinstance(i.argval, int)]
    level, module, found = (levels or [0])[0], str(instructions[at].argval), False
    for i in instructions[at + 1 :]:
        if i.opname == "IMPORT_FROM":
            found = True
            yield level, module, str(i.argval)
        elif not i.opname.startswith("STORE_"):
            break
    if not found:
        yield level, module, ""


def _digest(code: types.CodeType, inner: list[Names]) -> bytes:
    digest = hashlib.blake2b(code.co_code, digest_size=16)
    constants = [_constant(c) for c in code.co_consts if not isinstance(c, types.CodeType)]
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    said = (constants, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, shape)
    digest.update(repr(said).encode())
    digest.update(getattr(code, "co_exceptiontable", b""))
    for names in inner:
        digest.update(names.digest)
    return digest.digest()


def _constant(value: object) -> str:
    """A constant of code with its type; sets in an order that does not depend on the process."""
    if isinstance(value, frozenset):
        return f"frozenset({sorted(map(_constant, value))})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    return f"{type(value).__name__} {value!r}"
