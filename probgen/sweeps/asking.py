"""What a sweep is asked for, checked before any fit: programs on their data, settings, and runs that are there already."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from probgen import catalog, run
from probgen.algorithm import Inference
from probgen.fits import seal
from probgen.processes.sending import plain
from probgen.run import programs, starts, suggestions
from probgen.run.conditioning import model_of
from probgen.run.meaning import READINGS
from probgen.run.record import record_of
from probgen.run.store import CorruptRun, Store
from probgen.sweeps.fitting import Task
from probgen.sweeps.grid import Grid, Point
from probgen.target import Generative, Target

READING = ("precision", "engine", "by_row", "guide")  # words of `pg.fit` that say how the program is read


class Asked(NamedTuple):
    """What all points of one data set, one inference and one reading of the program have in common.

    inference: what `pg.fit` is given; own: settings of the grid that are the program's, by name; algorithm: what the inference
    means here; record: what the first of them writes down of its run; target: of the first; init: where it begins.
    """

    inference: Any
    own: Mapping[str, Any]
    algorithm: Inference
    record: Mapping[str, Any]
    target: Any = None
    init: Any = None


def key_of(point: Point, own: Mapping[str, Any]) -> tuple[Any, ...]:
    """Which points have it in common."""
    return (point.data, point.inference, repr(own), *(repr(point.settings.get(word)) for word in READING))


def checked(
    program: Any, grid: Grid, points: Sequence[Point], fixed: Mapping[str, Any], init: Any = None
) -> dict[Point, Asked]:
    """What every point asks for; raises what `pg.fit` would raise before it compiles, with the point that it is about."""
    if isinstance(program, Target):
        raise TypeError("sweep is for programs; this is a learned model with data.")
    init = run.load(init) if isinstance(init, str | Path) else init
    found: dict[tuple[Any, ...], Asked] = {}
    meant: dict[tuple[Any, Any], tuple[Any, set[str]]] = {}
    asked: dict[Point, Asked] = {}
    for point in points:
        try:
            either = point.data, point.inference
            inference, names = meant[either] = meant.get(either) or _meant(program, grid, point, fixed)
            own = {k: v for k, v in point.settings.items() if k in names}
            first = found.get(key := key_of(point, own))
            if first is None:
                one = _first(program, grid, point, fixed, inference, own, init)
            else:
                one = _as_first(first, point, init)
        except (TypeError, ValueError, LookupError, ImportError) as error:
            error.add_note(f"The first fit of the sweep that it is about: {point.words}.")
            raise
        found.setdefault(key, one)
        asked[point] = one
    return asked


def _meant(program: Any, grid: Grid, point: Point, fixed: Mapping[str, Any]) -> tuple[Any, set[str]]:
    """The inference, where it was left open, and which settings of the grid are the program's: those that are none of its."""
    data, inference = grid.datas[point.data], grid.inferences[point.inference]
    if isinstance(inference, str) and inference == suggestions.AUTO:
        words = {**fixed, **point.settings}
        said = {k: words[k] for k in (*READING, "args", "kwargs") if k in words}
        inference = run.default_algorithm(program, data, **said)
    named = point.settings.keys() - {*READING}
    own = named & _of_the_program(program, data) if named else set()
    if both := sorted(own & _settings_of(inference)):
        raise TypeError(
            f"{both[0]!r} is a setting of {_word(inference)} and a parameter of the program: which is meant?\n"
            f"For the one, pass inference={{'name': settings object, ...}}; for the other, data={{'name': {{...}}, ...}}."
        )
    return inference, own


def _word(inference: Any) -> str:
    return inference if isinstance(inference, str) else getattr(inference, "name", type(inference).__name__)


def _settings_of(inference: Any) -> set[str]:
    """Names of the settings of an inference, by every meaning that its word has."""
    if not isinstance(inference, str):
        return {f.name for f in fields(inference)} if is_dataclass(inference) else set()
    words = (inference, *READINGS.get(inference, {}).values())
    return {f.name for word in words for f in fields(catalog.algorithm(word))}


def _of_the_program(program: Any, data: Any) -> set[str]:
    """Names of what the program takes."""
    held = run.given(program, data)
    found: set[str] = {*held} if isinstance(held, Mapping) else set()
    with contextlib.suppress(TypeError, ValueError):  # a program without a signature
        found |= {*inspect.signature(model_of(program).program).parameters}
    return found


def _first(
    program: Any, grid: Grid, point: Point, fixed: Mapping[str, Any], inference: Any, own: Mapping[str, Any], init: Any
) -> Asked:
    data = grid.datas[point.data]
    data = {**run.given(program, data), **own} if own else data
    words = {**fixed, **{k: v for k, v in point.settings.items() if k not in own}}
    algorithm, _, precision, model, target = run.asked(program, data, inference, **words)
    target, _ = run.begun(init, target, algorithm, point.seed)
    record = record_of(program, model, algorithm, target, point.seed, precision)
    return _beginning(Asked(inference, own, algorithm, record, target), init)


def _beginning(one: Asked, init: Any) -> Asked:
    """What is asked for with where it begins, as it is written down and sent: parameters of a learned fit, or values of chains."""
    if init is None:
        return one
    if isinstance(one.target, Generative):
        return one._replace(init=starts.Learned(init.answer))
    record = {**one.record, "init": starts.digest(init, one.algorithm)}
    return one._replace(init=starts.values_of(init, one.algorithm), record=record)


def _as_first(first: Asked, point: Point, init: Any) -> Asked:
    """The same on the same target, with other settings."""
    changed = {k: v for k, v in point.settings.items() if k not in READING and k not in first.own}
    algorithm = catalog.inference(first.algorithm, changed)
    record = {
        **first.record,
        "seed": point.seed,
        "inference": {"name": algorithm.name, "settings": algorithm.settings()},
    }
    if init is not None and isinstance(first.target, Generative):
        algorithm.check_begun(first.target, init)
    return _beginning(first._replace(algorithm=algorithm, record=seal.resealed(record)), init)


# ---- runs that are there already -------------------------------------------------------------------------------------


def others(folder: Path, asked: Mapping[Point, Asked]) -> dict[Point, list[str]]:
    """Of points whose folder holds a run of something else: what is other there."""
    found = {point: differences(folder / point.folder, one) for point, one in asked.items()}
    return {point: told for point, told in found.items() if told}


def differences(directory: Path, asked: Asked) -> list[str]:
    """What a run on disk has other than what is asked for; empty where there is none, or where it cannot be read."""
    if not (directory / "run.json").exists():
        return []
    try:
        record = Store(directory).record()
    except CorruptRun:  # told where it is gone on with
        return []
    if "seal" not in record:
        return ["it was written by a version that kept no trace"]
    begins = ["where its chains begin (init)"] if record.get("init") != asked.record.get("init") else []
    return [*seal.between(record, asked.record), *_read_otherwise(record, asked.record), *begins]


def _read_otherwise(record: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """What of how a program is read, its guide and its critic, is other than in another record."""
    for word in programs.COMPANIONS:
        was, now = (_named(each["program"].get(word)) for each in (record, other))
        if was != now:
            yield f"the {word} (there {_called(was)}, now {_called(now)})"
    if record.get("by_row") != other["by_row"]:
        yield f"by_row (there {record.get('by_row')}, now {other['by_row']})"


def _named(reference: Any) -> dict[str, Any]:
    """How a guide is found again, but for where: its name, or its class and settings, as JSON has them."""
    found = json.loads(json.dumps(reference or {}, default=str))
    return {k: v for k, v in found.items() if k not in ("module", "file")}


def _called(named: Mapping[str, Any]) -> str:
    return str(named.get("name") or named.get("auto") or named or "none")


def refuse(folder: Path, changed: Mapping[Point, list[str]]) -> None:
    """Raise ChangedRun, naming runs that are of something else, and what that is."""
    if not changed:
        return
    lines = list(_told(changed))
    raise seal.ChangedRun(
        f"{folder} holds runs of something else ({len(changed)}), by what changed since:\n" + "\n".join(lines) + "\n"
        "Put it back, choose another out, or pass overwrite=True to fit these anew."
    )


def _told(changed: Mapping[Point, list[str]]) -> Iterator[str]:
    most = 3
    for point, told in list(changed.items())[:most]:
        yield f"  {point.folder}: {'; '.join(told)}"
    if len(changed) > most:
        yield f"  and {len(changed) - most} more"


def task(program: Any, grid: Grid, asked: Mapping[Point, Asked], fixed: Mapping[str, Any]) -> Task:
    """What all of them share."""
    inferences = {(point.data, point.inference): one.inference for point, one in asked.items()}
    return Task(program, {k: plain(v) for k, v in grid.datas.items()}, inferences, fixed)
