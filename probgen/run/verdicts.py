"""A verdict beside its run: `verdict.json`, with a stamp of what it judged. Where the run has gone on, it counts no more."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from probgen.diagnostics.verdict import SEVERITY
from probgen.fitted import Fitted
from probgen.run.store import Store
from probgen.versions import own

NAME = "verdict.json"
LARGEST = 2**24  # bytes of one
JUDGED = ("data.safetensors", "state.safetensors", "answer.safetensors")


def stamp(directory: Path) -> dict[str, Any]:
    """What tells one state of a run from another: its last checkpoint, its record and the sizes of what was judged.

    With the version that judges: another one may judge otherwise.

    Raises OSError or SafetensorError where there is no checkpoint that can be read.
    """
    with safe_open(str(directory / "state.safetensors"), framework="numpy") as state:
        note = json.loads((state.metadata() or {}).get("note", "{}"))
    record = hashlib.blake2b((directory / "run.json").read_bytes(), digest_size=16).hexdigest()
    sizes = {name: (directory / name).stat().st_size for name in JUDGED if (directory / name).exists()}
    return {"step": note["step"], "seconds": note["seconds"], "record": record, "sizes": sizes, "probgen": own()}


def written(verdict: Any) -> dict[str, Any]:
    """A verdict as what JSON takes."""
    return {"findings": [dataclasses.asdict(f) for f in verdict.findings], "notes": list(verdict.notes)}


def keep(fit: Fitted, verdict: Any) -> None:
    """Keep a verdict beside the run of a fit, where the run is still that of the fit; nothing where it cannot be written."""
    directory = fit.directory
    with contextlib.suppress(Exception):  # whatever is wrong with the folder: the verdict itself stands
        now = stamp(directory) if directory else {}
        left = vars(fit).get("_written") or now  # of a run that this process wrote, as it left it
        if (
            directory
            and now == left
            and now["step"] == fit.num_steps
            and is_of(fit, directory)
            and now == stamp(directory)
        ):
            Store(directory).write_json(NAME, {"stamp": now, **written(verdict)})


def is_of(fit: Fitted, directory: Path) -> bool:
    """Whether the last checkpoint of a directory is a fit's state."""
    state, _ = Store(directory).arrays("state.safetensors")
    return state.keys() == fit.state.keys() and all(
        np.array_equal(value, fit.state[key], equal_nan=value.dtype.kind == "f") for key, value in state.items()
    )


def kept(directory: Path, now: Mapping[str, Any]) -> dict[str, Any] | None:
    """The verdict that was kept, its findings and notes, where it judged the run as it is `now`; else None."""
    file = directory / NAME
    with contextlib.suppress(Exception):  # whatever the file holds, it is no verdict then
        if file.is_file() and file.stat().st_size <= LARGEST:
            found = json.loads(file.read_text(encoding="utf-8"))
            if found["stamp"] == now and found["findings"] and all(map(_is_finding, found["findings"])):
                return {"findings": found["findings"], "notes": [str(note) for note in [*found["notes"]]]}
    return None


def _is_finding(said: Mapping[str, Any]) -> bool:
    return said["status"] in SEVERITY and all(isinstance(said[k], str) for k in ("check", "message", "remedy"))
