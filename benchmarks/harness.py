"""What the benchmarks share: where the reference data lie, results that append and resume, tables, this machine."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("PROBGEN_SHARED", HERE.parents[1] / "shared"))
FOLDER = SHARED / "data" / "posteriordb"
PACKAGES = ("probgen", "jax", "numpyro", "blackjax", "pymc", "pytensor", "nutpie", "torch", "pyro-ppl", "numpy")

sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]  # for posteriordb, the twelve posteriors


def steps_of(executor: Any) -> Callable[[int], None]:
    """Takes so many more steps of a run that it begins, as `pg.fit` does in memory."""
    executor.init()
    done = 0

    def advance(steps: int) -> None:
        nonlocal done
        executor.advance(done, steps)
        done += steps

    return advance


def require_data() -> None:
    """End the program, with a reason, where the reference draws are absent."""
    if not FOLDER.is_dir():
        sys.exit(
            f"No reference draws in {FOLDER}.\nPut posteriordb's folders there, or set PROBGEN_SHARED to the folder "
            "that holds data/posteriordb."
        )


def names() -> list[str]:
    """The posteriors, in posteriordb's names."""
    return sorted(folder.name for folder in FOLDER.iterdir() if (folder / "data.json").is_file())


def chosen(words: Sequence[str] | None, known: Sequence[str], what: str) -> list[str]:
    """The known names that a user asks for, by the whole name or its beginning; all of them by default."""
    if not words:
        return list(known)
    found = []
    for word in words:
        exact = [name for name in known if name == word]
        matches = exact or [name for name in known if name.startswith(word)]
        if not matches:
            sys.exit(f"Unknown {what} {word!r}. Known: {', '.join(known)}.")
        found += [name for name in matches if name not in found]
    return found


class Results:
    """Records, one JSON line each, appended as they come; a later one replaces an earlier one of the same key."""

    def __init__(self, path: Path, key: Sequence[str], fresh: bool = False):
        self.path, self.key = path, tuple(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.unlink(missing_ok=True)
        self.records: dict[tuple, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                record = json.loads(line)
            except ValueError:  # a line that was being written when the process died
                continue
            self.records[tuple(record[k] for k in self.key)] = record

    def __contains__(self, key: tuple) -> bool:
        return key in self.records

    def get(self, *key: Any) -> dict[str, Any] | None:
        """The record of a key, if there is one."""
        return self.records.get(key)

    def add(self, record: dict[str, Any]) -> None:
        """Append a record."""
        self.records[tuple(record[k] for k in self.key)] = record
        broken = self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size
        with self.path.open("a") as file:
            file.write("\n" * bool(broken) + json.dumps(record) + "\n")


def child(script: Path, words: Sequence[str], settings: Mapping[str, str], timeout: float) -> dict[str, Any]:
    """The JSON line that `script --worker words` prints last, run in a process of its own.

    A line "draws S" says that the draws are on hand, S seconds of the time so far being the benchmark's own: the record
    then has "seconds", from the start of the interpreter. Raises RuntimeError, with the process's last words.
    """
    seconds, last = None, ""
    with tempfile.TemporaryFile("w+") as errors:
        begun = time.perf_counter()
        command = [sys.executable, str(script), "--worker", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(settings))
        stopped = threading.Event()
        alarm = threading.Timer(timeout, lambda: (stopped.set(), process.kill()))
        alarm.start()
        for line in process.stdout or ():
            if line.startswith("draws "):
                seconds = time.perf_counter() - begun - float(line.split()[1])
            last = line if line.startswith("{") else last
        code = process.wait()
        alarm.cancel()
        if code == 0 and last:
            return json.loads(last) | ({} if seconds is None else {"seconds": seconds})
        errors.seek(0)
        said = [line for line in errors.read().splitlines() if line.strip()]
    if stopped.is_set():
        raise RuntimeError(f"stopped after {timeout:.0f} s")
    raise RuntimeError(said[-1] if said else f"exit status {code}")


@contextmanager
def following(every: float = 60.0) -> Iterator[Path]:
    """A folder for a run, and a line each minute about it: steps done, the mean loss of the last 200, seconds of the processor.

    For where there is no terminal to see a bar on. The folder goes at the end.
    """
    done = threading.Event()
    with tempfile.TemporaryDirectory() as temporary:
        folder, begun = Path(temporary) / "run", time.process_time()

        def told() -> None:
            from safetensors.numpy import load_file

            while not done.wait(every):
                spent = time.process_time() - begun
                try:  # a segment each: loading the run would trace its program
                    segments = sorted((folder / "draws").iterdir())
                    loss = np.concatenate([load_file(s)["loss"].ravel() for s in segments])
                except Exception as error:  # nothing is there yet
                    say(f"{spent:.0f} s of the processor: nothing yet ({type(error).__name__})")
                    continue
                say(f"{spent:.0f} s of the processor: {len(loss)} steps, loss {loss[-200:].mean():.4g}")

        thread = threading.Thread(target=told, daemon=True)
        thread.start()
        try:
            yield folder
        finally:
            done.set()
            thread.join()


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table, aligned as text too; the first column to the left, numbers to the right."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    width = [max(3, *(len(row[i]) for row in cells)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        first, *rest = row
        numbers = [cell.rjust(w) for cell, w in zip(rest, width[1:], strict=True)]
        return "| " + " | ".join([first.ljust(width[0]), *numbers]) + " |"

    rule = "|" + "|".join(["-" * (width[0] + 2), *("-" * (w + 1) + ":" for w in width[1:])]) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def number(value: float | None, digits: int = 3) -> str:
    """A number to three figures, without an exponent; a dash for none."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value) or abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def geometric_mean(values: Iterable[float]) -> float:
    """exp of the mean logarithm; NaN of nothing."""
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def median(values: Sequence[float]) -> float:
    """The middle value; NaN of nothing."""
    ordered, size = sorted(values), len(values)
    return math.nan if not size else (ordered[(size - 1) // 2] + ordered[size // 2]) / 2


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """Processor, cores and versions, in a line: no ratio means anything without them."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return f"{processor}, {cores()} cores, Python {platform.python_version()}, {', '.join(versions())}"


def versions() -> list[str]:
    """Packages that are installed here, with their versions."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


def say(text: str) -> None:
    """A line of progress, at once."""
    print(text, flush=True)
