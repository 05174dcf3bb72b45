"""The catalogue: what the folders `models/` and `inference/` hold, and what other packages add by entry points.

A model is a file with a module-level `model`; an algorithm is a file with one public `Inference` class. Files whose name
begins with an underscore are parts of others. Nothing is registered, and listing imports nothing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pkgutil
from typing import Any

from probgen.algorithm import Inference, closest, configure, offered
from probgen.model import Model
from probgen.target import Target


@functools.cache
def modules(group: str) -> dict[str, str]:
    """Names and modules of a group, "probgen.models" or "probgen.inference"."""
    package = importlib.import_module(group)
    found = {}
    for folder in pkgutil.iter_modules(package.__path__, f"{group}."):
        if folder.ispkg:
            inner = importlib.import_module(folder.name)
            for file in pkgutil.iter_modules(inner.__path__, f"{folder.name}."):
                word = file.name.rpartition(".")[2]
                if not word.startswith("_"):
                    found[word] = file.name
    for point in importlib.metadata.entry_points(group=group):
        found.setdefault(point.name, point.value)
    return found


def _find(group: str, word: str, what: str) -> Any:
    known = modules(group)
    if word not in known:
        raise ValueError(f"Unknown {what} {word!r}.{closest(word, known)}\nKnown: {', '.join(sorted(known))}.")
    module, _, attribute = known[word].partition(":")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in ("pyro", "torch"):
            raise
        raise ModuleNotFoundError(
            f"The {what} {word!r} needs torch and pyro-ppl: pip install 'probgen[pyro]'", name=error.name
        ) from error
    return getattr(loaded, attribute) if attribute else loaded


def model(word: str) -> Model:
    """The model of one name; an unknown one is a ValueError that lists the known ones."""
    found = _find("probgen.models", word, "model")
    return found if isinstance(found, Model) else found.model


def algorithm(word: str) -> type[Inference]:
    """The class of one algorithm; an unknown one is a ValueError that lists the known ones."""
    found = _find("probgen.inference", word, "inference")
    return found if isinstance(found, type) else _public(found)


def _public(module: Any) -> type[Inference]:
    own = [
        thing
        for key, thing in vars(module).items()
        if isinstance(thing, type) and issubclass(thing, Inference) and thing.__module__ == module.__name__
        and not key.startswith("_")
    ]  # fmt: skip
    (only,) = own
    return only


def inference(word: str | Inference, settings: dict[str, Any]) -> Inference:
    """An algorithm by name or as settings, with further settings; unknown ones are errors that list the known ones."""
    if isinstance(word, str):
        word = algorithm(word)()
    elif isinstance(word, type) and issubclass(word, Inference):
        word = word()
    if not isinstance(word, Inference):
        raise TypeError(f"inference is a {type(word).__name__}; expected a name or a settings object, such as 'nuts'.")
    return configure(word, settings)


def algorithms_for(target: Target | type[Target], engine: str) -> list[str]:
    """Names of the algorithms whose types a target offers; see `probgen.run.suggestions` for those that take it."""
    return [
        word
        for word in modules("probgen.inference")
        if offered(algorithm(word), target) and engine in algorithm(word).engines
    ]
