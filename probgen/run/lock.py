"""One writer a directory: a lock that the operating system gives back when its process ends, however it ends.

lock    {"pid": 4711, "host": "kepler", "since": "2026-01-31 12:00:00"}
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: only this process's own runs are told apart
    fcntl = None

NAME = "lock"
LARGEST = 4096  # bytes of a lock
MOMENT = 10.0  # seconds between the making of a lock and its writing, at most

_ours: dict[str, str] = {}  # directories that this process writes to, and since when
_files: set[int] = set()
_guard = threading.Lock()


def _leave() -> None:
    """In a forked child: the lock is its parent's, and ends with it."""
    for file in _files:
        os.close(file)
    _files.clear()
    _ours.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)


class RunInUse(OSError):
    """Another process, or another fit of this one, writes to a run's directory."""


def held(directory: Path) -> dict[str, Any] | None:
    """Who writes to a directory, told without touching its lock: None, or pid, host, since, and `alive`, whether it runs still.

    alive is None where that cannot be told: the lock is of another machine, or is being written. What has been there for longer
    than a moment and cannot be read is no lock: alive is False, and host is empty.
    """
    try:
        said, since = _said(directory / NAME)
        found = {"pid": int(said["pid"]), "host": str(said["host"]), "since": str(said["since"])}
    except FileNotFoundError:
        return None
    except Exception:  # in the moment between its making and its writing, or what anybody put there
        return {"pid": 0, "host": "", "since": "", "alive": None if _young(directory / NAME) else False}
    return found | {"alive": _lives(found["pid"], since) if found["host"] == socket.gethostname() else None}


def _young(path: Path) -> bool:
    """Whether a file was written within the moment that a lock takes to be; one of the future was not."""
    try:
        return abs(time.time() - path.stat().st_mtime) < MOMENT
    except OSError:
        return False


def _said(path: Path) -> tuple[Any, float]:
    """What a lock says, and since when; ValueError for what is no file: a pipe would be waited for, for ever."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        if not stat.S_ISREG((now := os.fstat(file)).st_mode):
            raise ValueError(f"{path} is no file.")
        return json.loads(os.read(file, LARGEST)), now.st_mtime
    finally:
        os.close(file)


def _lives(pid: int, since: float) -> bool:
    """Whether a process of this machine runs that was there at a time, in seconds since 1970."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError):  # no Linux
        return True
    age = up - int(fields[18]) / os.sysconf("SC_CLK_TCK")
    return state not in "ZX" and time.time() - age <= since + 2.0


class Lock:
    """`with Lock(directory): ...`; raises RunInUse, naming the holder. The directory must exist."""

    def __init__(self, directory: Path):
        self.directory, self.file = directory, directory / NAME
        self.key = str(directory.resolve())
        self.open: int | None = None

    def __enter__(self) -> Lock:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with _guard:
            if self.key in _ours:
                raise self._in_use(f"another fit of this process (pid {os.getpid()})", _ours[self.key])
            self.open = self._taken()
            _ours[self.key] = since
            _files.add(self.open)
        said = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        os.ftruncate(self.open, 0)
        os.pwrite(self.open, said.encode(), 0)
        return self

    def __exit__(self, *error: Any) -> None:
        with _guard:
            if self.open in _files:  # not in a forked child
                with contextlib.suppress(OSError):  # while it is still locked: nobody else has this file
                    self.file.unlink()
                _files.remove(self.open)
                os.close(self.open)
            _ours.pop(self.key, None)

    def _taken(self) -> int:
        """The lock's file, open and locked.

        A file that its last holder removed between opening and locking is another one: try again.
        """
        while True:
            file = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = self._holder(file)
                os.close(file)
                raise self._in_use(*holder) from error
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(self.file)):
                    return file
            os.close(file)

    def _holder(self, file: int) -> tuple[str, str]:
        with contextlib.suppress(ValueError, OSError):
            said = json.loads(os.pread(file, 4096, 0))
            return f"process {said['pid']} on {said['host']}", said["since"]
        return "another process", ""

    def _in_use(self, who: str, since: str) -> RunInUse:
        when = f" since {since}" if since else ""
        return RunInUse(
            f"{self.directory} is being written by {who}{when}.\n"
            "Wait for it, stop it, or choose another directory; pg.load reads what is there already."
        )
