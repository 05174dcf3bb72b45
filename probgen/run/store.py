"""A run's directory: settings, data, segments of draws, and the state to go on from, each written atomically.

    run.json              program, inference, seed, versions
    data.safetensors      the data
    draws/000000-000512   records of steps 0..511 of every chain
    state.safetensors     the kernel's state after the last committed step
    starts.safetensors    where the starting paths ended
    answer.safetensors    what a learner read off its final state
    verdict.json          what a command judged of it, and of which state
    lock                  who is writing, while somebody is

A segment is on disk before the state that counts it: a kill at any moment leaves a state whose segments are all whole,
and what a later segment holds is written again, bit for bit the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from probgen.data.large import checksums, stored
from probgen.data.large.stored import Segment, Stored
from probgen.run import lock

# What a start leaves before run.json:
BEGUN = {"draws", "data.safetensors", "data.safetensors.part", "run.json.part", lock.NAME}

WRITTEN = {
    "program",
    "engine",
    "inference",
    "seed",
    "precision",
    "static",
    "dims",
    "coords",
    "versions",
}  # in any run.json
SEGMENT = re.compile(r"\d+-\d+")
SHARE = 0.03  # of a run's time that writing its states may take


class CorruptRun(ValueError):
    """A file of a run's directory cannot be read; the draws on disk are left as they are."""


class Store:
    """Reads and writes one run's directory."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def check_free(self, overwrite: bool) -> None:
        """FileExistsError if a run is there already and `overwrite` is false, or if something else is."""
        held = self._held()
        if (self.path.exists() and not self.path.is_dir()) or ("run.json" not in held and held - BEGUN):
            raise FileExistsError(f"{self.path} exists already and holds no run; choose another directory.")
        if "run.json" in held and not overwrite:
            raise FileExistsError(
                f"{self.path} holds a run already. Go on with pg.resume({str(self.path)!r}), or pass overwrite=True."
            )

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, nobody else writes here; raises `lock.RunInUse`, naming who does already."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with lock.Lock(self.path):
                yield
        finally:
            with contextlib.suppress(OSError):  # where nothing was begun
                self.path.rmdir()

    def _held(self) -> set[str]:
        return {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()

    def create(self, record: Mapping[str, Any], data: Mapping[str, np.ndarray], overwrite: bool) -> None:
        """A new directory, in place of what `check_free` lets go.

        run.json is written last and removed last: without it there is no run, and a start cut short begins again.
        """
        self.check_free(overwrite)
        for name in sorted(self._held() - {lock.NAME}, key="run.json".__eq__):
            entry = self.path / name
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        (self.path / "draws").mkdir(parents=True, exist_ok=True)
        self._write("data.safetensors", checksums.written(_contiguous(data)))
        self.rewrite(record)

    def _write(self, name: str, content: bytes) -> None:
        target, scratch = self.path / name, self.path / f"{name}.part"
        with open(scratch, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, target)
        folder = os.open(target.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def append(self, start: int, records: Mapping[str, np.ndarray]) -> None:
        """The records (chain, step, ...) of steps from `start`."""
        stop = start + next(iter(records.values())).shape[1]
        self._write(f"draws/{start:08d}-{stop:08d}", checksums.written(_contiguous(records)))

    def commit(self, state: Mapping[str, np.ndarray], note: Mapping[str, Any]) -> None:
        """The state after the steps appended so far, with a small note."""
        self._write("state.safetensors", checksums.written(_contiguous(state), {"note": json.dumps(note)}))

    def put(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Arrays that belong to the run as a whole: its starts, its answer."""
        self._write(f"{name}.safetensors", checksums.written(_contiguous(arrays)))

    def drop(self, name: str) -> None:
        """Remove what `put` wrote, where it is there."""
        (self.path / f"{name}.safetensors").unlink(missing_ok=True)

    def rewrite(self, record: Mapping[str, Any]) -> None:
        """Another run.json in place of the one that is there."""
        self.write_json("run.json", record)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """A file of JSON, in place of one that is there."""
        self._write(name, json.dumps(content, indent=1).encode())

    def remove(self) -> None:
        """Remove a run that could not begin."""
        shutil.rmtree(self.path)

    def record(self) -> dict[str, Any]:
        """run.json."""
        file = self.path / "run.json"
        if not file.exists():
            raise FileNotFoundError(f"{self.path} holds no run: there is no run.json in it.")
        try:
            found = json.loads(file.read_text())
        except ValueError as error:
            raise CorruptRun(f"{file} is not JSON: {error}") from error
        if missing := sorted(WRITTEN - {*(found if isinstance(found, dict) else ())}):
            raise CorruptRun(f"{file} does not say {', '.join(missing)}: it was edited, or damaged.")
        return found

    def arrays(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays of one file and its note; CorruptRun if it cannot be read."""
        with self._reading(name) as content:
            note = (content.metadata() or {}).get("note", "{}")
            return {key: content.get_tensor(key) for key in content.keys()}, json.loads(note)  # noqa: SIM118

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[Any]:
        """One file of arrays, open; CorruptRun if it cannot be read."""
        file = self.path / name
        try:
            checksums.check(file)
            with safe_open(str(file), framework="numpy") as content:
                yield content
        except (SafetensorError, ValueError, OSError) as error:
            raise CorruptRun(
                f"{file} cannot be read ({error}).\nThe draws in {self.path / 'draws'} are kept; pg.load reads them."
            ) from error

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return (self.path / name).exists()

    def steps(self) -> list[tuple[int, int, str]]:
        """Start, stop and file of the contiguous segments from step 0."""
        found = sorted(p.name for p in (self.path / "draws").glob("*-*") if SEGMENT.fullmatch(p.name))
        segments, at = [], 0
        for name in found:
            start, stop = (int(word) for word in name.split("-"))
            if start == at:
                segments.append((start, stop, f"draws/{name}"))
                at = stop
        return segments

    def draws(self, upto: int | None = None) -> tuple[dict[str, np.ndarray], int]:
        """The records of all contiguous segments up to a step, (chain, step, ...), and their number of steps."""
        parts, at = [], 0
        for _, stop, name in self.steps():
            if upto is None or stop <= upto:
                parts.append(self.arrays(name)[0])
                at = stop
        joined = {k: np.concatenate([p[k] for p in parts], axis=1) for k in parts[0]} if parts else {}
        return joined, at

    def records(self, upto: int | None = None) -> tuple[dict[str, Any], int]:
        """The same as `draws`; where they are too many to hold, what has more than one number a step stays on disk."""
        segments = self._segments(upto)
        if sum(segment.stamp[1] for segment in segments) <= stored.IN_MEMORY:
            return self.draws(upto)
        joined: dict[str, Any] = {}
        parts: list[dict[str, np.ndarray]] = []
        for segment in segments:
            name = f"draws/{segment.path.name}"
            with self._reading(name) as content:
                keys = content.keys()
                parts.append({k: content.get_tensor(k) for k in keys if len(content.get_slice(k).get_shape()) <= 2})
                wide = [k for k in keys if k not in parts[-1]]
                joined |= {k: self._wide(segments, k, content.get_slice(k)[:, :0]) for k in wide if k not in joined}
        joined |= {k: np.concatenate([p[k] for p in parts], axis=1) for k in parts[0]}
        return joined, segments[-1].stop

    def wide(self, upto: int, like: Mapping[str, np.ndarray]) -> dict[str, Stored]:
        """Records of more than one number a step, on disk; like: some of them, (chain, 0, *event)."""
        segments = self._segments(upto)
        return {k: self._wide(segments, k, v) for k, v in like.items()}

    def _wide(self, segments: tuple[Segment, ...], key: str, like: np.ndarray) -> Stored:
        return Stored(segments, key, 0, segments[-1].stop, like.shape[0], like.shape[2:], like.dtype)

    def _segments(self, upto: int | None) -> tuple[Segment, ...]:
        steps = [(self.path / name, start, stop) for start, stop, name in self.steps() if upto is None or stop <= upto]
        return tuple(Segment(path, start, stop, stored.stamp(path)) for path, start, stop in steps)

    def forget_after(self, step: int) -> None:
        """Remove segments past a step, which no state counts."""
        for file in (self.path / "draws").iterdir():
            if file.suffix == ".part" or (SEGMENT.fullmatch(file.name) and int(file.name.split("-")[1]) > step):
                file.unlink()


class Checkpoints:
    """Commits states of a run so seldom that this takes at most `SHARE` of its time: the first one, and the last by `write`.

    A kill loses the steps since the last one that was written; they are made again, bit for bit the same.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.perf_counter):
        self.store, self.clock = store, clock
        self._pending: tuple[Mapping[str, np.ndarray], Mapping[str, Any]] | None = None
        self._due = -np.inf

    def offer(self, state: Mapping[str, np.ndarray], note: Mapping[str, Any]) -> None:
        """The state after the steps appended so far: written now, or left to the next."""
        self._pending = state, note
        if self.clock() >= self._due:
            self.write()

    def write(self) -> None:
        """Writes the state that was offered last, where it is not on disk."""
        if self._pending is None:
            return
        begun = self.clock()
        self.store.commit(*self._pending)
        self._pending, now = None, self.clock()
        self._due = now + (now - begun) * (1 / SHARE - 1)


def _contiguous(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: np.ascontiguousarray(v) if np.ndim(v) else np.asarray(v) for k, v in arrays.items()}
