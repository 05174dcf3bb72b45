"""Automatic guides of NumPyro and Pyro (`AutoNormal`, `AutoDelta`, ...) as `guide=`: told from others, written down, made again.

Neither library is imported here: a class tells by its module.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

HOME = ("numpyro.infer.autoguide", "numpyro.contrib.easyguide", "pyro.infer.autoguide")


PLAIN = (bool, int, float, str, type(None))


def is_auto(guide: Any) -> bool:
    """Whether a guide is an automatic one of a library, or a class of them."""
    kind = guide if isinstance(guide, type) else type(guide)
    return any(base.__module__.startswith(HOME) and base.__name__.startswith("Auto") for base in kind.__mro__)


def label(guide: Any) -> str:
    """The name of its class."""
    return (guide if isinstance(guide, type) else type(guide)).__name__


def parts(guide: Any) -> list[Any] | None:
    """The guides of an AutoGuideList; None for any other guide."""
    if isinstance(guide, type) or not any(base.__name__ == "AutoGuideList" for base in type(guide).__mro__):
        return None
    return list(guide)


def settings(guide: Any) -> dict[str, Any]:
    """What an automatic guide was made with, but for its model; those that are still at their defaults left out."""
    if isinstance(guide, type):
        return {}
    found: dict[str, Any] = {}
    beginning = _beginning(guide.model)
    for word, said in inspect.signature(type(guide).__init__).parameters.items():
        if word in ("self", "model") or said.kind in (said.VAR_POSITIONAL, said.VAR_KEYWORD):
            continue
        if word == "init_loc_fn" and beginning:
            found |= {} if _same(beginning[0], said.default) else {word: beginning[0]}
            continue
        for name in (word, f"_{word}"):
            if name in vars(guide):
                if not _same(vars(guide)[name], said.default):
                    found[word] = vars(guide)[name]
                break
    return found


def _same(value: Any, default: Any) -> bool:
    """Whether a setting is its default; functions that a class makes of None count as that."""
    if value is default or (default is None and getattr(value, "__name__", "") == "<lambda>"):
        return True
    return type(value) is type(default) and isinstance(value, PLAIN) and value == default


def recorded(guide: Any, given: Mapping[str, Any], program: Any) -> dict[str, Any] | None:
    """How to make an automatic guide of a program again, for a record; None where its settings cannot be written down.

    given: the settings of a class.
    """
    kind = guide if isinstance(guide, type) else type(guide)
    if not is_auto(guide) or parts(guide) is not None or not kind.__module__.startswith(HOME):
        return None
    if not isinstance(guide, type) and not of_program(guide, program):
        return None
    said = {k: _written(v) for k, v in (settings(guide) | dict(given)).items()}
    if any(v is None for v in said.values()):
        return None
    return {"auto": kind.__name__, "module": kind.__module__, "settings": said}


def _written(value: Any) -> Any:
    """A setting in JSON: itself, or a library's function by its place; None for another."""
    if isinstance(value, PLAIN):
        return {"value": value}
    if isinstance(value, list | tuple) and all(isinstance(v, PLAIN) for v in value):
        return {"value": list(value)}
    if isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, PLAIN) for k, v in value.items()):
        return {"value": dict(value)}
    if isinstance(value, functools.partial) and not value.args:
        inner, words = _written(value.func), {k: _written(v) for k, v in value.keywords.items()}
        if inner is None or any(v is None or "function" in v for v in words.values()):
            return None
        return {**inner, "keywords": {k: v["value"] for k, v in words.items()}}
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    where = sys.modules.get(module)
    if str(module).partition(".")[0] in ("numpyro", "pyro") and getattr(where, name, None) is value:
        return {"function": [module, name]}
    return None


def restored(record: Mapping[str, Any]) -> Any:
    """The automatic guide of a record: a class, or one with settings (`functools.partial` of the class)."""
    kind = getattr(importlib.import_module(record["module"]), record["auto"])
    said = {k: _read(v) for k, v in record["settings"].items()}
    return functools.partial(kind, **said) if said else kind


def _read(written: Mapping[str, Any]) -> Any:
    if "function" not in written:
        return written["value"]
    module, name = written["function"]
    found = getattr(importlib.import_module(module), name)
    return functools.partial(found, **written["keywords"]) if "keywords" in written else found


def unwrapped(guide: Any) -> tuple[Any, dict[str, Any]]:
    """A class with settings taken apart: the guide, or class, and its settings."""
    if isinstance(guide, functools.partial) and is_auto(guide.func):
        return guide.func, dict(guide.keywords)
    return guide, {}


def own_program(program: Any) -> Any:
    """The user's function in what an engine has made of it."""
    for _ in range(8):
        inner = getattr(program, "program", None)
        if inner is None or not type(program).__module__.startswith("probgen."):
            return program
        program = inner
    return program


def of_program(guide: Any, program: Any) -> bool:
    """Whether an automatic guide was made of this very program, with no handler about it."""
    model = inside(guide.model)
    return model is own_program(program) or model == own_program(program)


def inside(model: Any) -> Any:
    """The model in the handler that Pyro's guides put about it to begin somewhere."""
    found = _beginning(model)
    return found[1] if found else model


def _beginning(model: Any) -> tuple[Any, Any] | None:
    """How Pyro's guide begins, and its model."""
    wrapped = getattr(model, "func", None)
    if isinstance(wrapped, functools.partial) and len(wrapped.args) == 2:
        messenger, model = wrapped.args
        if type(messenger).__name__ == "InitMessenger":
            return messenger.init_fn, model
    return None
