"""What came of simulations, in a folder: a file each, beside what the study is of."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probgen.calibration.ranking import Ranked, Simulation, Study
from probgen.fits import seal
from probgen.run.lock import Lock
from probgen.run.record import record_of
from probgen.versions import versions

STUDY = "study.json"


@contextlib.contextmanager
def kept(folder: Path, program: Any, study: Study, seed: int, overwrite: bool) -> Iterator[Kept]:
    """The files of one study, written by one process at a time.

    Raises ChangedRun where those that are there are of another study, unless `overwrite`; RunInUse while another process writes.
    """
    if folder.exists() and (not folder.is_dir() or (folder / "run.json").exists()):
        raise FileExistsError(f"out, {folder}, is a run or a file; choose another folder for the simulations.")
    record = record_of(program, study.model, study.algorithm, study.target, seed, study.precision)
    folder.mkdir(parents=True, exist_ok=True)
    with Lock(folder):
        yield Kept(folder, record, overwrite)


class Kept:
    """What `kept` gives: simulations by their number."""

    def __init__(self, folder: Path, record: Mapping[str, Any], overwrite: bool):
        self.folder = folder
        changed = self._changes(record)
        if changed and not overwrite:
            raise seal.ChangedRun(
                f"{folder} holds simulations of something else: {'; '.join(changed)}.\n"
                "Put it back, choose another out, or pass overwrite=True to make them anew."
            )
        if changed:
            for file in folder.glob("[0-9]*.json"):
                file.unlink()
        self._write(STUDY, record)

    def _changes(self, record: Mapping[str, Any]) -> list[str]:
        file = self.folder / STUDY
        if not file.exists():
            return []
        try:
            return seal.between(json.loads(file.read_text()), record)
        except (ValueError, LookupError, TypeError):
            return [f"{file} cannot be read"]

    def _write(self, name: str, content: Any) -> None:
        """In one move of the file system."""
        scratch = self.folder / f"{name}.{os.getpid()}.part"
        scratch.write_text(json.dumps(content, default=str))
        os.replace(scratch, self.folder / name)

    def note(self, number: int, simulation: Simulation, found: Ranked | str) -> None:
        """Write down what came of a simulation."""
        what = {"failed": found} if isinstance(found, str) else {k: v.tolist() for k, v in found._asdict().items()}
        self._write(f"{number:05d}.json", {"of": _mark(simulation), **what})

    def those(self, simulations: Mapping[int, Simulation]) -> dict[int, Ranked | str]:
        """What is there already; what cannot be read, or is of other data or other versions, is not."""
        found: dict[int, Ranked | str] = {}
        for number, simulation in simulations.items():
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                told = json.loads((self.folder / f"{number:05d}.json").read_text())
                if told["of"] == _mark(simulation):
                    ranks = "failed" not in told and Ranked(np.array(told["ranks"]), np.array(told["ess"]))
                    found[number] = ranks or str(told["failed"])
        return found


def _mark(simulation: Simulation) -> str:
    """A digest of unknowns, data and seed, and of the versions that fit them."""
    said = hashlib.sha256(repr((simulation.seed, sorted(versions().items()))).encode())
    for part in _parts(simulation.truth):
        said.update(part)
    return said.hexdigest()


def _parts(truth: Mapping[str, np.ndarray]) -> Iterable[bytes]:
    for name, value in sorted(truth.items()):
        array = np.asarray(value)
        yield f"{name} {array.dtype} {array.shape} ".encode()
        yield array.tobytes()
