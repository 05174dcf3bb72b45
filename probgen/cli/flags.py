"""Flags: of the commands, and of the algorithm that --inference names."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import MISSING, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_type_hints

import tyro
from tyro.conf import Positional, arg, subcommand

from probgen.algorithm import FORMER, closest
from probgen.cli.collection import List, Matrix, Show
from probgen.cli.compare import Compare
from probgen.cli.evaluate import Evaluate
from probgen.cli.pages import Plot, Report
from probgen.cli.runs import Diagnose, Extend, Fit, Resume, Sample
from probgen.cli.sweeps import Sweep
from probgen.cli.view import View
from probgen.cli.words import _data, _field_docs, _program

COMMANDS: dict[str, type] = {
    "list": List, "show": Show, "matrix": Matrix, "fit": Fit, "resume": Resume, "extend": Extend,
    "sample": Sample, "diagnose": Diagnose, "evaluate": Evaluate, "compare": Compare,
    "sweep": Sweep, "plot": Plot, "report": Report, "view": View,
}  # fmt: skip


def _parse(words: list[str]) -> Any:
    """The command that the words say; an unknown flag is a TypeError that names the known ones."""
    commands = dict(COMMANDS)
    words = _said_once(words, "--set")
    if words[:1] == ["fit"]:
        words = [_by_its_name_now(word) for word in words]
        commands["fit"] = _with_settings(*_meant(words))
    choice: Any = Union[tuple(Annotated[kind, subcommand(name)] for name, kind in commands.items())]  # noqa: UP007
    command, rest = tyro.cli(
        choice, args=words or ["--help"], prog="probgen", return_unknown_args=True, config=(tyro.conf.OmitArgPrefixes,),
        description="Generative models as plain NumPyro and Pyro programs, and any inference by one word.\n"
        "--version tells the version; --debug shows the traceback of an error.",
    )  # fmt: skip
    if words[:1] == ["sample"] and rest and isinstance(command, Sample):
        found, rest = _inputs(rest)
        command = replace(command, given=(*command.given, *found))
    if rest:
        raise TypeError(_unknown(words[0], commands[words[0]], rest))
    return command


def _inputs(rest: list[str]) -> tuple[list[str], list[str]]:
    """Flags of no command, --label 7 or --label=7, as NAME=VALUE; those that are close to one of the command's are left."""
    known = [f"--{f.name.replace('_', '-')}" for f in fields(Sample)]
    found, left, words = [], [], list(rest)
    while words:
        flag, equals, value = words.pop(0).partition("=")
        follows = equals or (words and not words[0].startswith("--"))
        if not flag.startswith("--") or closest(flag, known) or not follows:
            left.append(flag + equals + value)
            continue
        found.append(f"{flag[2:].replace('-', '_')}={value if equals else words.pop(0)}")
    return found, left


def _said_once(words: list[str], flag: str) -> list[str]:
    """The words with a flag of several values that is said several times said once, where it stands first."""
    found: list[str] = []
    given: list[str] = []
    inside, at = False, 0
    for word in words:
        head, equals, value = word.partition("=")
        if head == flag:
            inside, at = not equals, at if given else len(found)
            given += [value] if equals else []
        elif inside and not word.startswith("-"):
            given.append(word)
        else:
            inside = False
            found.append(word)
    return [*found[:at], flag, *given, *found[at:]] if given else words


def _by_its_name_now(word: str) -> str:
    """A flag of a setting that had another name once."""
    flag, equals, value = word.partition("=")
    now = FORMER.get(flag.removeprefix("--")) if flag.startswith("--") else None
    return f"--{now}{equals}{value}" if now else word


def _named(words: list[str], *flags: str) -> str | None:
    """The value of a flag, seen before the words are parsed."""
    for i, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in flags:
            return value if equals else next(iter(words[i + 1 :]), None)
    return None


def _meant(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The algorithm of the words, and settings that suit their model, where it can be found yet."""
    from probgen import run

    word, file = _named(words, "--inference", "-i"), _named(words, "--data")
    models = [w for before, w in itertools.pairwise(words) if not w.startswith("-") and not before.startswith("-")]
    if models:
        with contextlib.suppress(Exception):  # told where the run begins
            program, data = _program(models[0]), _data(Path(file) if file else None)
            word = word or run.default_algorithm(program, data, engine=_named(words, "--engine"))
            return run.meant(word, program, data)
    return word or "nuts", {}


def _with_settings(inference: str, suggested: Mapping[str, Any]) -> type[Fit]:
    """`Fit` with the settings of one algorithm as further fields."""
    from probgen import catalog

    kind = catalog.algorithm(inference)
    hints, documented, own = get_type_hints(kind, include_extras=True), _field_docs(kind), {f.name for f in fields(Fit)}
    extra = []
    for f in fields(kind):
        if f.name in own:
            raise TypeError(f"{kind.__name__}.{f.name} is also a flag of probgen fit; rename the setting")
        kept = {k: getattr(f, k) for k in ("default", "default_factory") if getattr(f, k) is not MISSING}
        kept = {"default": suggested[f.name]} if f.name in suggested else kept
        extra.append((f.name, Annotated[hints[f.name], arg(help=documented.get(f.name, ""))], field(**kept)))
    extra.append(("inference", get_type_hints(Fit, include_extras=True)["inference"], field(default=inference)))
    return make_dataclass("Fit", extra, bases=(Fit,), frozen=True, kw_only=True, namespace={"__doc__": Fit.__doc__})


def _unknown(name: str, command: type, rest: list[str]) -> str:
    positional = get_args(Positional[str])[1]
    hints = get_type_hints(command, include_extras=True)
    flags = [f"--{f.name.replace('_', '-')}" for f in fields(command) if positional not in get_args(hints[f.name])]
    flag = next((word.partition("=")[0] for word in rest if word.startswith("-")), None)
    if flag is None:
        return f"Unexpected {' '.join(rest)!r}.\nSee probgen {name} --help."
    return f"Unknown flag {flag!r} of probgen {name}.{closest(flag, flags)}\nKnown: {', '.join([*flags, '--help'])}."
