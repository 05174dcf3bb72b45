"""What a run belongs to: its program's density, its data, its settings. Written down when it begins, compared when it is read.

The density is known by its values at fixed points, site by site, which any version of an engine gives up to rounding. A branch that
no point visits shows in none of them: beside is a digest of the code and of what it reads, which the same Python gives again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from probgen import engine
from probgen.programs.pinned import Changed, pins
from probgen.versions import versions

# Relative tolerance, beside 1 nat: on the machine and with the versions of the run, and elsewhere.
TOLERANCE = {"float64": (1e-7, 1e-5), "float32": (1e-5, 2e-3)}
GUIDE = "the guide's "  # begins the names of what a guide draws; runs of before it was probed have none of them
REWRITTEN = "the code, or what it reads, was changed, though the density is the same at the points that were compared"
UNSEALED = (
    "This run was written by a version of probgen that kept no trace of its program: whether program, data and settings "
    "are still those that it was begun with cannot be told."
)


class ChangedRun(ValueError):
    """A run's program, data or settings are not those that it was begun with."""


def sealed(record: Mapping[str, Any], target: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What is written down. record: run.json without it; arrays: the data."""
    return {
        "settings": _written(record),
        "data": {k: _digest(v) for k, v in arrays.items()},
        "sites": _sites(target),
        "density": _probed(target),
        "content": _content(target),
        "machine": _machine(record),
    }


def _written(record: Mapping[str, Any]) -> dict[str, str]:
    return {k: json.dumps(v) for k, v in _settings(record)}


def resealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """run.json with other settings that belong to the same run."""
    return {**record, "seal": {**record["seal"], "settings": _written(record)}}


def changes(record: Mapping[str, Any], target: Any, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """What of a run is not as it was begun, in words; raises ChangedRun where its draws cannot be read at all."""
    seal = record["seal"]
    found = list(_changed_settings(seal["settings"], dict(_settings(record))))
    changed = sorted(k for k in {**seal["data"], **arrays} if seal["data"].get(k) != _digest(arrays.get(k)))
    if changed:
        found.append(f"the data {', '.join(changed)} (data.safetensors was edited)")
    if seal["sites"] != (now := _sites(target)):
        old, new = ", ".join(seal["sites"]), ", ".join(now)
        raise ChangedRun(
            f"The program has the unknowns {new or 'none'} {_shapes(now)}; the draws of this run are of {old or 'none'} "
            f"{_shapes(seal['sites'])}.\nPass the program that the run was begun with, or fit anew."
        )
    probed = _probed(target)
    _check_parameters(seal["density"] or {}, probed or {})
    return found + list(_changed_density(seal, probed, target.precision, record))


def _check_parameters(was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ChangedRun where a program has other parameters than those that were learned: what was learned fits nothing then."""
    old, new = ({k for k in found if k.startswith("parameter ") and not _of_a_guide(k)} for found in (was, now))
    if old and new and old != new:
        more = [
            f"{names[0]!r} is {word}"
            for names, word in ((sorted(new - old), "new"), (sorted(old - new), "gone"))
            if names
        ]
        raise ChangedRun(
            f"The program has other parameters than this run learned: {', '.join(more)}.\n"
            "Pass the program that the run was begun with, in the version that it was begun with, or fit anew."
        )


def between(record: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In words, what of a run is other than in another one, from what is written of both when they begin."""
    was, now = record["seal"], other["seal"]
    found = [
        f"the setting {k} (there {was['settings'].get(k, 'absent')}, now {now['settings'].get(k, 'absent')})"
        for k in sorted({**was["settings"], **now["settings"]})
        if was["settings"].get(k) != now["settings"].get(k)
    ]
    data = sorted(k for k in {**was["data"], **now["data"]} if was["data"].get(k) != now["data"].get(k))
    found += [f"the data {', '.join(data)}"] if data else []
    if was["sites"] != now["sites"]:
        return [*found, f"the program's unknowns (there {', '.join(was['sites'])}, now {', '.join(now['sites'])})"]
    if data:
        return found
    changed = list(_changed_density(was, now["density"], other["precision"], record))
    if not changed and _rewritten(record, now.get("content"), other["versions"]):
        changed = [f"the program ({REWRITTEN})"]
    return found + changed


def rewritten(record: Mapping[str, Any], target: Any) -> str:
    """What to tell of a run whose program has other code than it was begun with, where nothing else is known to differ."""
    told = f"Of this run's program {REWRITTEN}: whether all of its draws are of one posterior cannot be told."
    return told if _rewritten(record, _content(target), versions()) else ""


def _rewritten(record: Mapping[str, Any], content: str | None, now: Mapping[str, str]) -> bool:
    was = record["seal"].get("content")
    return (
        was is not None
        and content is not None
        and was != content
        and record["versions"].get("python") == now.get("python")
    )


def _content(target: Any) -> str | None:
    """A digest of the programs' code and of what they read, as far as that has content to compare."""
    parts = sorted({(name, part) for pin in pins(target) for name, part in pin.reads.parts.items()})
    digest = hashlib.blake2b(digest_size=16)
    for name, part in parts:
        digest.update(name.encode() + b"\0" + part)
    return digest.hexdigest() if parts else None


def _sites(target: Any) -> dict[str, list[int]]:
    """The unknowns, whose order and shapes the draws have."""
    return {site.name: list(site.shape) for site in target.sites if site.kind == "latent"}


def _shapes(sites: Mapping[str, list[int]]) -> str:
    return f"(of shapes {', '.join(str(tuple(v)) for v in sites.values())})" if sites else ""


def _settings(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What of run.json decides on the run: names and values."""
    yield "inference", record["inference"]["name"]
    yield from record["inference"]["settings"].items()
    yield from ((k, record[k]) for k in ("seed", "precision", "engine"))
    yield from ((f"data {k}", v) for k, v in record["static"].items())


def _changed_settings(old: Mapping[str, str], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        was, now = old.get(name), json.dumps(new[name]) if name in new else None
        if was != now:
            yield f"the setting {name} (it was {was or 'absent'}, run.json now says {now or 'nothing'})"


def _digest(array: Any) -> str | None:
    if array is None:
        return None
    said = hashlib.blake2b(f"{array.dtype} {array.shape}".encode(), digest_size=16)
    said.update(np.ascontiguousarray(array).tobytes())
    return said.hexdigest()


def _probed(target: Any) -> dict[str, list[str]] | None:
    """The density's values as text, which keeps NaN and infinities; None where it is random or has none."""
    with contextlib.suppress(Exception):
        probe = engine.load(target.engine).probe
        first = probe(target)
        again = probe(target) if any(pin.reads.unknown for pin in pins(target)) else first  # it may draw by itself
        if all(_close(a, b, 1e-9) for k in first for a, b in zip(first[k], again[k], strict=True)):
            return {k: [repr(x) for x in v] for k, v in first.items()}
    return None


def remember(target: Any) -> None:
    """Keep the density's values with a target whose program reads what has no content to compare, such as files."""
    if any(pin.reads.unknown for pin in pins(target)):
        target.seen = _probed(target)


def check_seen(target: Any) -> None:
    """Raise Changed where the density of such a target is not what it was."""
    was = getattr(target, "seen", None)
    if was is None:
        return
    now = _probed(target) or {}
    if names := [k for k in {**was, **now} if not _same(was.get(k), now.get(k), TOLERANCE[target.precision][0])]:
        reads = sorted({word for pin in pins(target) for word in pin.reads.unknown})
        sites = ", ".join(map(repr, names[:4]))
        raise Changed(
            f"The program's density changed after it was fitted (at {sites}; it reads {', '.join(reads)}): what is computed now "
            "would mix two programs.\nPut it back, or fit again; what should vary belongs to the data."
        )


def _machine(record: Mapping[str, Any]) -> str:
    return f"{platform.node()} {platform.machine()} {sorted(record['versions'].items())}"


def _changed_density(seal: Mapping[str, Any], now: Any, precision: str, record: Mapping[str, Any]) -> Iterator[str]:
    was = seal["density"]
    if was is None:  # it could not be told when the run began
        return
    if now is None:
        yield "the program (its density is random now, or cannot be computed)"
        return
    here = _machine({**record, "versions": versions()})
    tolerance = TOLERANCE[precision][seal["machine"] != here]
    known = {k: v for k, v in now.items() if k in was or not _of_a_guide(k) or any(map(_of_a_guide, was))}
    names = [k for k in {**was, **known} if not _same(was.get(k), now.get(k), tolerance)]
    if names:
        few = ", ".join(map(repr, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        yield f"the program (its density differs at {few}{_example(was, now, names[0])})"


def _of_a_guide(name: str) -> bool:
    return name.startswith(GUIDE)


def _same(was: list[str] | None, now: list[str] | None, tolerance: float) -> bool:
    if was is None or now is None:
        return False
    return all(_close(float(a), float(b), tolerance) for a, b in zip(was, now, strict=True))


def _close(a: float, b: float, tolerance: float) -> bool:
    if not (math.isfinite(a) and math.isfinite(b)):
        return a == b or (math.isnan(a) and math.isnan(b))
    return abs(a - b) <= tolerance * max(1.0, abs(a), abs(b))


def _example(was: Mapping[str, list[str]], now: Mapping[str, list[str]], name: str) -> str:
    if name not in was or name not in now:
        return f": {name!r} is in one of them only"
    return f": {float(was[name][0]):.6g} there, {float(now[name][0]):.6g} here"
