"""The record of a run: what is written down when it begins, and the run that it makes again."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from probgen import catalog, engine
from probgen.algorithm import Incompatible, Inference, fitting
from probgen.data import dims, fixed
from probgen.engine import drawing
from probgen.fits import seal
from probgen.model import Model
from probgen.programs import arguments
from probgen.programs.arguments import Arranged
from probgen.run.conditioning import Program, apart, arranged_as, conditioned, declared, model_of
from probgen.run.programs import COMPANIONS, find_program, references
from probgen.run.runner import Run, scope_of
from probgen.run.store import Store
from probgen.target import START, Generative, Target
from probgen.versions import versions


def begun_at(target: Target, answer: Mapping[str, np.ndarray]) -> Target:
    """The target whose parameters begin at learned ones."""
    if not isinstance(target, Generative):
        raise TypeError("init is for programs with parameters that are learned from rows; this one has none.")
    found = target.begun(answer)
    found.notes = target.notes
    if _plays(found) and not any(k.endswith(START) and " (critic" in k for k in found.data):
        found.notes = (*target.notes, "init has no critic of these shapes: the critic began anew.")
    return found


def _plays(target: Generative) -> bool:
    """Whether a target is learned against a critic."""
    with contextlib.suppress(Incompatible):  # an engine without
        return bool(drawing.pack(target))
    return False


def arrays_of(target: Target) -> dict[str, np.ndarray]:
    return fixed.written(target.data)[0]


def record_of(
    program: Program, model: Model, algorithm: Inference, target: Target, seed: int, precision: str
) -> dict[str, Any]:
    static = fixed.written(target.data)[1]
    layout = arguments.written(model.program.layout) if isinstance(model.program, Arranged) else None
    record = {
        "probgen": versions()["probgen"],
        "program": references(program, model),
        "engine": target.engine,
        "by_row": model.by_row,
        "dims": {k: list(v) for k, v in model.dims.items()},
        "coords": dims.to_json(model.coords),
        "inference": {"name": algorithm.name, "settings": algorithm.settings()},
        "seed": seed,
        "precision": precision,
        "static": static,
        **({"layout": layout} if layout else {}),
        "versions": versions(),
    }
    return record | {"seal": seal.sealed(record, target, arrays_of(target))}


def restored_run(store: Store, program: Program | None, data: Mapping[str, Any] | None = None) -> Run:
    record = store.record()
    given = store.arrays("data.safetensors")[0]
    arrays = {k: v for k, v in given.items() if not k.endswith(START)}
    starts = {k.removesuffix(START): v for k, v in given.items() if k.endswith(START)}
    algorithm = catalog.inference(record["inference"]["name"], _tuples(record["inference"]["settings"]))
    chosen = program if program is not None else find_program(record["program"])
    data = fixed.restored(arrays, record["static"]) if data is None else apart(chosen, data)[1]
    if labels := record["program"].get("parameters"):
        base = catalog.model(chosen).program if isinstance(chosen, str) else chosen
        chosen = engine.load(record["engine"]).with_parameters(base, data, labels.split(" "), record["precision"])
    if kept := {k: v for k, v in record["program"].items() if k in COMPANIONS}:
        base: Any = catalog.model(chosen) if isinstance(chosen, str) else chosen
        base = base if isinstance(base, Model) else Model(base)
        own = {k for k in kept if program is not None and getattr(base, k) is not None}
        chosen = dataclasses.replace(base, **{k: find_program(v) for k, v in kept.items() if k not in own})
    by_row = record.get(
        "by_row", issubclass(algorithm.needs, Generative) or None
    )  # runs of before it was said are of rows
    chosen = declared(chosen, None, by_row)
    if layout := record.get("layout"):
        chosen = model_of(chosen)
        chosen = arranged_as(chosen, arguments.arranged(chosen.program, arguments.read(layout)))
    model, target = conditioned(chosen, data, record["engine"], record["precision"])
    named = {"dims": record["dims"], "coords": dims.from_json(record["coords"])}
    model = dataclasses.replace(model, **{k: {**getattr(model, k), **v} for k, v in named.items()})
    target = fitting(algorithm, target, list)
    target = begun_at(target, starts) if starts else target
    run = Run(model, target, algorithm, record["seed"], record["precision"], store)
    run.starts = store.arrays("starts.safetensors")[0] if store.has("starts.safetensors") else {}
    run.begin_at = store.arrays("begin.safetensors")[0] if store.has("begin.safetensors") else None
    return run


def changes(store: Store, run: Run) -> list[str]:
    """What of a run is not as it was begun, in words."""
    record = store.record()
    if "seal" not in record:
        run.target.notes = (*getattr(run.target, "notes", ()), seal.UNSEALED)
        return []
    with scope_of(run):
        return seal.changes(record, run.target, store.arrays("data.safetensors")[0])


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
