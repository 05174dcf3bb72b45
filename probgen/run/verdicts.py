"""A verdict beside its run: `verdict.json`, with a stamp of what it judged. Where the run has gone on, it counts no more."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from probgen.run.store import Store

NAME = "verdict.json"
JUDGED = ("data.safetensors", "state.safetensors", "answer.safetensors")


def stamp(directory: Path) -> dict[str, Any]:
    """What tells one state of a run from another: its last checkpoint, its record and the sizes of what was judged.

    Raises OSError or SafetensorError where there is no checkpoint that can be read.
    """
    with safe_open(str(directory / "state.safetensors"), framework="numpy") as state:
        note = json.loads((state.metadata() or {}).get("note", "{}"))
    record = hashlib.blake2b((directory / "run.json").read_bytes(), digest_size=16).hexdigest()
    sizes = {name: (directory / name).stat().st_size for name in JUDGED if (directory / name).exists()}
    return {"step": note["step"], "seconds": note["seconds"], "record": record, "sizes": sizes}


def written(verdict: Any) -> dict[str, Any]:
    """A verdict as what JSON takes."""
    return {"findings": [dataclasses.asdict(f) for f in verdict.findings], "notes": list(verdict.notes)}


@contextlib.contextmanager
def keeping(directory: Path | None) -> Any:
    """Gives a function that keeps a verdict beside the run of a directory, if the run is still what it was at the start.

    Where the directory cannot be written to, or the run goes on meanwhile, nothing is kept.
    """
    before = _stamp(directory)

    def keep(verdict: Any) -> None:
        if directory and before and before == _stamp(directory):
            with contextlib.suppress(OSError):
                Store(directory).write_json(NAME, {"stamp": before, **written(verdict)})

    yield keep


def _stamp(directory: Path | None) -> dict[str, Any] | None:
    with contextlib.suppress(Exception):  # a run without a checkpoint, or one that cannot be read
        return stamp(directory) if directory else None
    return None


def kept(directory: Path, now: Mapping[str, Any]) -> dict[str, Any] | None:
    """The verdict that was kept, its findings and notes, where it judged the run as it is `now`; else None."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((directory / NAME).read_text())
        if found["stamp"] == now and all(f["status"] in ("pass", "warn", "fail") for f in found["findings"]):
            return {"findings": found["findings"], "notes": found["notes"]}
    return None
