"""Words of the shell as things: programs, data, settings, folders."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probgen.algorithm import Inference

INTERRUPTED = 130  # the exit code


def _is_file(word: str) -> bool:
    return word.partition(":")[0].endswith(".py")


def _program(word: str) -> Any:
    """What pg.fit takes: a catalogue name as it is; file.py:function imported."""
    if not _is_file(word):
        return word
    from probgen.run import from_file

    path, _, name = word.partition(":")
    if not name:
        raise ValueError(f"Which function of {path}? Say {path}:NAME.")
    return from_file(path, name)


def _data(path: Path | None) -> dict[str, Any] | str | None:
    """The data of a file, or a data set's name."""
    from probgen.data.files import read_file

    if path is None:
        return None
    if not path.suffix and not path.exists():
        return str(path)
    return read_file(path)


def _with(program: Any, data: Any, words: tuple[str, ...]) -> Any:
    """A program's data, with settings given as NAME=VALUE."""
    if not words:
        return data
    import json

    from probgen.run import given

    settings = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"--set takes NAME=VALUE; got {word!r}. Say for example --set num_latents=4")
        try:
            settings[name] = json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
        except ValueError:
            settings[name] = value
    return {**given(program, data), **settings}


def _free_folder(program: str, inference: str, overwrite: bool) -> Path:
    """runs/MODEL-INFERENCE, or the first with a number that is not there yet."""
    first = Path("runs") / f"{program.rpartition(':')[2]}-{inference}"
    path, number = first, 2
    while path.exists() and not overwrite:
        path, number = first.with_name(f"{first.name}-{number}"), number + 1
    return path


def _field_docs(kind: type[Inference]) -> dict[str, str]:
    """What the docstrings of a class and its bases say of its fields: `name: text`, or `a, b: text; c: text`."""
    import re

    names = {f.name for f in fields(kind)}
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        joined = re.sub(r"\n {8,}", " ", base.__doc__ or "")
        for part in re.split(r"\n|; (?=\w+: )", joined):
            heads, _, text = part.strip().partition(": ")
            if names.issuperset(heads.split(", ")):
                found |= dict.fromkeys(heads.split(", "), text)
    return found
