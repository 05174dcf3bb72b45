"""One run told of its files alone: no engine is loaded, no program imported, nothing written."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from probgen.diagnostics.verdict import SEVERITY
from probgen.run import lock, verdicts
from probgen.versions import own

RECORD, STATE, ANSWER = "run.json", "state.safetensors", "answer.safetensors"
FILES = (RECORD, STATE, ANSWER, "data.safetensors", "starts.safetensors", "begin.safetensors", lock.NAME, verdicts.NAME)
LARGEST = 64 * 2**20  # bytes of a run.json
UNREADABLE = "Its file `lock` cannot be read: nobody who writes here is known of."
EXACT = 2**53  # the largest whole number of a browser below which there is no gap


class Outside(ValueError):
    """A file of a run is a link that leads out of the folder that is looked at."""


class Broken(ValueError):
    """What of a run cannot be read, in words."""


class Marks(NamedTuple):
    """What changes when a run does: of each file its time, size and inode, and whether its writer lives."""

    files: tuple[tuple[str, int, int, int], ...]
    writer: Any


@dataclass(frozen=True)
class Told:
    """One run, as rows and pages show it.

    state: running, finished, stopped (by Ctrl-C or an error), killed (its process ended without a word), or broken.
    reason: why it is broken, or what else to know of the state.
    begun, moved: seconds since 1970 of its record and of its last checkpoint.
    seconds: wall time of the run over all its sessions.
    stamp: the state that a verdict must have judged; see `probgen.run.verdicts`.
    """

    id: str
    state: str
    reason: str = ""
    model: str = ""
    algorithm: str = ""
    engine: str = ""
    precision: str = ""
    seed: int | None = None
    settings: Mapping[str, Any] | None = None
    where: str = ""
    versions: Mapping[str, str] | None = None
    step: int = 0
    total: int | None = None
    seconds: float | None = None
    begun: float | None = None
    moved: float | None = None
    verdict: Mapping[str, Any] | None = None
    stamp: Mapping[str, Any] | None = None


def marks(directory: Path) -> Marks:
    """What is compared to know whether a run must be read again."""
    found = []
    for name in FILES:
        try:
            at = (directory / name).stat()
            found.append((name, at.st_mtime_ns, at.st_size, at.st_ino))
        except OSError:
            continue
    return Marks(tuple(found), lock.held(directory) if any(f[0] == lock.NAME for f in found) else None)


def read(root: Path, id: str, directory: Path) -> Told:
    """A run; whatever is wrong with it is said in its `reason`, and raises nothing."""
    try:
        check_inside(root, directory)
        return _read(id, directory)
    except (Broken, Outside) as error:
        return Told(id, "broken", str(error))
    except Exception as error:  # of files that anybody may have written: told, whatever it is
        return Told(id, "broken", f"{type(error).__name__}: {error}")


def check_inside(root: Path, directory: Path) -> None:
    """Raise Outside where a file of a run is a link that leads out of the folder, Broken where it is no file."""
    inner: list[os.DirEntry[str]] = []
    with contextlib.suppress(OSError):
        inner = [entry for entry in os.scandir(directory / "draws") if not entry.is_file(follow_symlinks=False)]
    for path in (directory, directory / "draws", *(directory / name for name in FILES), *inner):
        if not Path(path).resolve().is_relative_to(root):
            raise Outside(f"{path.name} is a link that leads out of the folder; it is not followed.")
    for name in (*FILES, *(f"draws/{entry.name}" for entry in inner)):
        if (directory / name).exists() and not (directory / name).is_file():  # a pipe would be waited for, for ever
            raise Broken(f"{name} is no file.")


def _read(id: str, directory: Path) -> Told:
    writer = lock.held(directory)
    if not (directory / RECORD).exists():
        if writer and writer["alive"] is not False:
            return Told(id, "running", "It begins: nothing is written down yet.")
        raise Broken("There is no run.json: a start that was cut short. Fit again; nothing is lost.")
    record = _record(directory)
    about: dict[str, Any] = {**_about(id, record), "begun": (directory / RECORD).stat().st_mtime}
    try:
        found = about | _how_far(directory, record, writer)
    except Exception as error:
        reason = " ".join((str(error) or type(error).__name__, about["reason"])).strip()
        found = {**about, "reason": reason, "state": "broken"}
    return Told(**found)


def _record(directory: Path) -> dict[str, Any]:
    file = directory / RECORD
    if file.stat().st_size > LARGEST:
        raise Broken(f"run.json has {file.stat().st_size / 2**20:.0f} MB: it is no record of a run.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Broken(f"run.json is not JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("inference"), dict) or "program" not in found:
        newer = _newer(found) if isinstance(found, dict) else ""
        raise Broken(f"run.json is no record of a run: it names no program or no inference. {newer}".strip())
    return found


def _newer(record: Mapping[str, Any]) -> str:
    """A word where a run was written by a version of probgen after this one."""
    wrote = str(record.get("probgen", ""))
    if _number(wrote) > _number(own()):
        return f"Written by probgen {wrote}, newer than this one ({own()}): what is shown may lack something. Update probgen."
    return ""


def _number(version: str) -> tuple[int, ...]:
    parts = version.split("+")[0].split(".")
    return tuple(int(part) if part.isdigit() else 0 for part in parts[:3])


def _about(id: str, record: Mapping[str, Any]) -> dict[str, Any]:
    program, inference = record["program"], record["inference"]
    program = program if isinstance(program, dict) else {}
    settings = inference.get("settings")
    seed, versions = record.get("seed"), record.get("versions")
    return {
        "id": id,
        "reason": _newer(record),
        "model": str(program.get("model") or program.get("name") or "a program without a name"),
        "where": str(program.get("file") or program.get("module") or ""),
        "algorithm": str(inference.get("name", "")),
        "settings": settings if isinstance(settings, dict) else {},
        "engine": str(record.get("engine", "")),
        "precision": str(record.get("precision", "")),
        "seed": seed if isinstance(seed, int) else None,
        "versions": {str(k): str(v) for k, v in versions.items()} if isinstance(versions, dict) else {},
    }


def _how_far(directory: Path, record: Mapping[str, Any], writer: Mapping[str, Any] | None) -> dict[str, Any]:
    """The state, the steps, and the verdict on them where one was kept."""
    total, stamp = _total(record["inference"].get("settings") or {}), None
    found: dict[str, Any] = {}
    if (directory / STATE).exists():
        stamp = _stamp(directory)
        found = {
            "step": stamp["step"],
            "seconds": float(stamp["seconds"]),
            "moved": (directory / STATE).stat().st_mtime,
        }
    at = found.get("step", 0)
    over = stamp is not None and ((total is not None and at >= total) or _converged(directory, at))
    state, reason = _state(writer, over)
    if stamp is not None and not writer and (end := _end_of_draws(directory)) < at:
        raise Broken(f"Its draws end at step {end}, its state is at step {at}: files are missing in draws/.")
    verdict = verdicts.kept(directory, stamp) if stamp else None
    told = " ".join(filter(None, (reason, _newer(record))))
    return {**found, "total": total, "state": state, "reason": told, "stamp": stamp, "verdict": judged(verdict)}


def _stamp(directory: Path) -> dict[str, Any]:
    try:
        return verdicts.stamp(directory)
    except Exception as error:  # a corrupt file, or one without a note
        raise Broken(f"{STATE} cannot be read ({error}). Its draws are kept: pg.load reads them.") from error


def _total(settings: Mapping[str, Any]) -> int | None:
    """Steps of the whole run, as its settings say them."""
    if isinstance(steps := settings.get("num_steps"), int) and "num_samples" not in settings:
        return steps
    warmup, kept = settings.get("num_warmup"), settings.get("num_samples")
    return warmup + kept if isinstance(warmup, int) and isinstance(kept, int) else None


def _state(writer: Mapping[str, Any] | None, over: bool) -> tuple[str, str]:
    if writer is None:
        return ("finished", "") if over else ("stopped", "")
    who = f"process {writer['pid']} on {writer['host']}, since {writer['since']}"
    if writer["alive"] is False and not writer["host"]:
        return ("finished", UNREADABLE) if over else ("stopped", UNREADABLE)
    if writer["alive"] is None:
        return "running", f"Its lock says so ({who}); that cannot be checked from here." if writer["host"] else ""
    if writer["alive"]:
        return "running", f"By {who}."
    return ("finished", "") if over else ("killed", f"Its process ended without a word ({who}).")


def segments(directory: Path) -> list[tuple[int, int, Path]]:
    """Start, stop and file of the segments of draws that follow on each other from step 0."""
    found, at = [], 0
    for path in sorted((directory / "draws").glob("*-*")):
        start, _, stop = path.name.partition("-")
        if start.isdigit() and stop.isdigit() and int(start) == at:
            at = int(stop)
            found.append((int(start), at, path))
    return found


def _end_of_draws(directory: Path) -> int:
    found = segments(directory)
    return found[-1][1] if found else 0


def _converged(directory: Path, step: int) -> bool:
    """Whether a learner said at its last step that it is done."""
    from safetensors import safe_open

    found = [path for _, stop, path in segments(directory) if stop == step]
    if not found:
        return False
    with safe_open(str(found[-1]), framework="numpy") as content:
        return "converged" in content.keys() and bool(content.get_tensor("converged")[:, -1].all())  # noqa: SIM118


def judged(verdict: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Findings and notes with their status and a headline, the worst first."""
    if verdict is None:
        return None
    findings = sorted(verdict["findings"], key=lambda f: -SEVERITY[f["status"]])
    count = {word: sum(f["status"] == word for f in findings) for word in ("fail", "warn", "pass")}
    status = findings[0]["status"] if findings else "pass"
    parts = ", ".join(f"{number} {word}" for word, number in count.items() if number)
    return {"status": status, "headline": f"{parts} of {len(findings)} checks", **verdict, "findings": findings}


def plain(value: Any) -> Any:
    """What JSON of the web has: numbers that are not finite, or too large to be told exactly there, become words."""
    if isinstance(value, int) and abs(value) > EXACT:
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value
