"""A program and its author's guide together: how both are read, and what "svi" is asked for by its settings object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from probgen import engine
from probgen.algorithm import Inference
from probgen.model import Model


def read_together(model: Model, data: Any, engine_name: str | None) -> Model:
    """The model read as program and guide are made for: by rows, or on the whole data; as it was where nothing says so."""
    if model.guide is None or model.reads_rows is not None or not isinstance(data, Mapping):
        return model
    found = engine.pair_by_row(model.program, model.guide, data, engine_name)
    if found is None:
        return model
    own = {"batch_size": found} if found > 1 else {}  # of the program's plate
    return dataclasses.replace(model, by_row=bool(found), settings={**model.settings, **own})


def as_word(inference: str | Inference, settings: dict[str, Any]) -> tuple[str | Inference, dict[str, Any]]:
    """The word "svi" and what differs from its defaults, of `pg.inference.SVI(...)` for a pair; anything else as it is."""
    if isinstance(inference, str) or inference.name != "svi":
        return inference, settings
    fields = {f.name: f.default for f in dataclasses.fields(inference) if f.name != "guide"}
    changed = {k: getattr(inference, k) for k, default in fields.items() if getattr(inference, k) != default}
    return "svi", changed | settings
