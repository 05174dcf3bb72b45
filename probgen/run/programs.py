"""How a program is found again: by its name in the catalogue, in a module or in a file."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from probgen import catalog
from probgen.algorithm import closest
from probgen.model import Model
from probgen.programs.arguments import Arranged
from probgen.programs.autoguides import recorded, restored, unwrapped
from probgen.programs.pinned import Pinned
from probgen.run.conditioning import Program


def reference(program: Program, function: Callable[..., Any]) -> dict[str, str]:
    """How to find a program again: a catalogue name, or the module or file and the name in it."""
    if isinstance(program, str):
        return {"model": program}
    if isinstance(function, Pinned | Arranged):
        return reference(function.program, function.program)
    if base := getattr(function, "base", None):  # a program with learned parameters
        return {**reference(base, base), "parameters": " ".join(function.parameters)}
    owner = function.func if isinstance(function, functools.partial) else function
    module = getattr(owner, "__module__", "") or ""
    for word, path in catalog.modules("probgen.models").items():
        if path == module and catalog.model(word).program is function:
            return {"model": word}
    where = sys.modules.get(module)
    file = getattr(where, "__file__", None) or ""
    label = getattr(function, "__qualname__", "")
    if _at(where, label) is not function:  # a partial, a callable object, a decorated function
        label = next((key for key, value in vars(where).items() if value is function), "") if where else ""
    return {"module": module, "file": str(Path(file).resolve()) if file else "", "name": label}


_known: contextvars.ContextVar[Mapping[str, Any] | None] = contextvars.ContextVar("known", default=None)


@contextlib.contextmanager
def known_as(found: Mapping[str, Any]) -> Iterator[None]:
    """For the time of the block programs are found again so: in a worker process, where they lie as they were sent."""
    token = _known.set(found)
    try:
        yield
    finally:
        _known.reset(token)


def references(program: Program, model: Model) -> dict[str, Any]:
    """How to find a program again, with its guide and its critic."""
    return dict(_known.get() or reference(program, model.program) | companions(program, model))


COMPANIONS = ("guide", "critic")


def companions(program: Program, model: Model) -> dict[str, Any]:
    """How to find a guide and a critic again that are not the catalogue's own."""
    if isinstance(program, str):
        return {}
    found = {k: getattr(model, k) for k in COMPANIONS}
    made = {k: recorded(*unwrapped(v), model.program) for k, v in found.items() if v is not None}
    return {k: made[k] or reference(v, v) for k, v in found.items() if v is not None}


def _at(module: Any, path: str) -> Any:
    try:
        return functools.reduce(getattr, path.split("."), module)
    except AttributeError:
        return None


def find_program(reference: Mapping[str, str]) -> Program:
    if "auto" in reference:
        return restored(reference)
    if "model" in reference:
        return reference["model"]
    module, name, file = reference["module"], reference["name"], reference["file"]
    running = sys.modules.get("__main__")
    same = getattr(running, "__file__", None)
    try:
        if not name:
            raise ImportError("no variable of its module holds it")
        if not file and module == "__main__":
            raise ImportError("it was typed into a notebook or a shell")
        of_a_file = module in ("__main__", "__mp_main__") or module.startswith(FILE)
        if not of_a_file and importlib.util.find_spec(module) is not None:
            return functools.reduce(getattr, name.split("."), importlib.import_module(module))
        if same and file and Path(same).resolve() == Path(file):
            return functools.reduce(getattr, name.split("."), running)
        return from_file(file, name)
    except (AttributeError, ImportError, LookupError, OSError, ValueError) as error:
        raise LookupError(
            f"The program {name!r} of {file or module} cannot be imported again ({error}).\n"
            "Pass it: pg.resume(directory, program)."
        ) from error


FILE = "probgen_file_"  # begins the name of a module that was made of a file


def from_file(path: str | Path, name: str) -> Program:
    """A program, or a Model, of a Python file; the file is imported under a name that no other module has.

    Imported again where it has been edited.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    module = f"{FILE}{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if getattr(sys.modules.get(module), "__probgen_content__", None) != content:
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec is not None
        loaded: Any = importlib.util.module_from_spec(spec)
        loaded.__probgen_content__ = content
        sys.modules[module] = loaded
        try:
            source = file.read_bytes()  # not by the loader, whose bytecode is that of an edit in the same second
            exec(compile(source, str(file), "exec"), vars(loaded))
        except BaseException:
            del sys.modules[module]
            raise
    try:
        return functools.reduce(getattr, name.split("."), sys.modules[module])
    except AttributeError as error:
        raise LookupError(f"{path} has no {name!r}.{closest(name, vars(sys.modules[module]))}") from error
