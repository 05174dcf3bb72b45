"""Words of the shell as things: programs, data, settings, folders."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from probgen.algorithm import Inference

INTERRUPTED = 130  # the exit code
ARRAYS = ".npz", ".npy"
PICTURES = ".png", ".svg", ".pdf"
SOUNDS = (".wav",)

Folder = Annotated[Positional[Path], arg(metavar="RUN")]
Output = Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")]


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


def _data(path: Path | None) -> Any:
    """A file's data by name or, of .npy, its rows; a data set's name, or a tuple of both, as digits,inverted_digits says it."""
    from probgen.data.files import read_file
    from probgen.data.values.photographs import ENDINGS
    from probgen.data.values.sounds import is_sound
    from probgen.data.values.text import is_text

    if path is None:
        return None
    if "," in str(path) and not path.exists():
        return tuple(_array(word) if Path(word).suffix in ARRAYS else word for word in str(path).split(","))
    named = path.suffix.lower() in ENDINGS or is_text(str(path)) or is_sound(path.name)
    if named or (not path.suffix and not path.exists()):
        return str(path)
    return _array(path) if path.suffix == ".npy" else read_file(path)  # rows without a name, or data by name


def _array(word: str | Path) -> Any:
    """The one array of an .npz or .npy file."""
    import numpy as np

    found = np.load(word)
    if isinstance(found, np.ndarray):
        return found
    with found:
        if len(found.files) != 1:
            raise ValueError(f"{word} holds {', '.join(found.files)}; expected one array, the rows.")
        return found[found.files[0]]


def _value(word: str) -> Any:
    """A number, a list or a word as it is written; True, False and None as Python has them."""
    import json

    try:
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(word, word))
    except ValueError:
        return word


def _split(word: str, flag: str, such_as: str) -> tuple[str, str]:
    """NAME=VALUE taken apart."""
    name, equals, value = word.partition("=")
    if not equals or not name:
        raise ValueError(f"{flag} takes NAME=VALUE; got {word!r}. Say for example {flag} {such_as}")
    return name, value


def _check_new(path: Path | None, overwrite: bool) -> None:
    """FileExistsError for a file that is there already, unless it may be replaced."""
    if path is not None and path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already. Choose another file, or pass --overwrite.")


def _with(program: Any, data: Any, words: tuple[str, ...]) -> Any:
    """A program's data, with settings given as NAME=VALUE."""
    if not words:
        return data
    from probgen.run import given
    from probgen.run.conditioning import model_of

    settings = {k: _value(v) for k, v in (_split(word, "--set", "num_latents=4") for word in words)}
    cuts = {k: v for k, v in settings.items() if isinstance(data, str) and k in model_of(program).cuts}
    found = given(program, data, **cuts)
    return {**found, **{k: v for k, v in settings.items() if k not in cuts or k not in found}}


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
