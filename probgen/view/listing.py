"""The runs of a folder and of the folders in it: looked for anew at every question, read again where they changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from probgen.run.store import BEGUN
from probgen.view.reading import RECORD, Marks, Told, marks, read

DEEPEST = 32  # folders within folders
MOST = 20_000  # folders that are looked into


class Listing:
    """What is in a folder. Runs are asked for by their id, the path from the folder; an id is never made a path."""

    def __init__(self, root: Path):
        self.root = root.resolve()
        self.left_out: list[str] = []  # links that lead out of the folder
        self.not_looked: list[str] = []  # folders too deep, or after too many others
        self._known: dict[str, tuple[Marks, Told]] = {}
        self._found: dict[str, Path] = {}
        self._lock = threading.Lock()

    def runs(self) -> list[Told]:
        """All of them, the last written first."""
        with self._lock:
            self.left_out, self.not_looked = [], []
            self._found = dict(self._look(self.root, 0, {self.root}))
            told = [self._told(id, path) for id, path in self._found.items()]
            self._known = {run.id: self._known[run.id] for run in told}
        return sorted(told, key=lambda run: (-(run.moved or run.begun or 0.0), run.id))

    def run(self, id: str) -> tuple[Told, Path]:
        """One run and its directory; KeyError where there is none of that id, or none any more."""
        if id not in self._found:
            self.runs()
        path = self._found[id]
        if not path.is_dir():
            raise KeyError(id)
        with self._lock:
            return self._told(id, path), path

    def _told(self, id: str, path: Path) -> Told:
        now = marks(path)
        was = self._known.get(id)
        if was is None or was[0] != now:
            self._known[id] = was = (now, read(self.root, id, path))
        return was[1]

    def _look(self, folder: Path, depth: int, seen: set[Path]) -> Iterator[tuple[str, Path]]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return
        names = {entry.name for entry in entries}
        if RECORD in names or (names <= BEGUN and names - {"draws"}):
            yield _words(folder.relative_to(self.root)), folder
            return
        for entry in entries:
            if inside := self._inside(entry, seen):
                if depth < DEEPEST and len(seen) < MOST:
                    seen.add(inside)
                    yield from self._look(folder / entry.name, depth + 1, seen)
                else:
                    self.not_looked.append(_words(Path(entry.path).relative_to(self.root)))

    def _inside(self, entry: os.DirEntry[str], seen: set[Path]) -> Path | None:
        """The folder that an entry is, where it lies in the root and was not seen yet."""
        if not entry.is_symlink():
            return Path(entry.path) if entry.is_dir() and not entry.name.startswith(".") else None
        try:
            where = Path(entry.path).resolve()
        except (OSError, RuntimeError):  # a link to itself
            return None
        if not where.is_dir() or where in seen:
            return None
        if where.is_relative_to(self.root):
            return None  # it is found where it lies
        self.left_out.append(_words(Path(entry.path).relative_to(self.root)))
        return None


def _words(path: Path) -> str:
    """A path as words that a browser takes, whatever bytes its names have."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()
