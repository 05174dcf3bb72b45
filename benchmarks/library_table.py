"""The results of `library_models.py` as a table, a row for each file: `python benchmarks/library_table.py RESULTS.jsonl ...`.

Later results of a file take the place of earlier ones.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

Records = list[dict[str, Any]]


def by_file(paths: list[Path]) -> dict[str, Records]:
    """The records of the last run of each file; a run's records of a file stand together."""
    found: dict[str, Records] = {}
    before = ""
    for path in paths:
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if record["file"] != before:
                found[record["file"]] = []
            before = record["file"]
            found[before].append(record)
        before = ""
    return {k: found[k] for k in sorted(found)}


def density(record: dict[str, Any]) -> str:
    """The largest relative difference of log densities, where they were compared."""
    return "" if record.get("difference") is None else f"{record['difference']:.0e}"


def rows(files: dict[str, Records]) -> list[str]:
    found = []
    for name, records in files.items():
        for r in records:
            why = r.get("why", "").replace("\n", " ").replace("|", "/")[:90]
            end = r["outcome"] if r["outcome"] == "runs" else f"{r['outcome']}: {why}"
            seconds = r.get("seconds", "")
            found.append(f"| {name} | {r['model']} | {r.get('kind', '')} | {end} | {density(r)} | {seconds} |")
    return found


def summary(files: dict[str, Records]) -> str:
    models = [r for records in files.values() for r in records if r["outcome"] != "no model"]
    kinds = Counter(r["outcome"] for r in models)
    others = {k: v for k, v in kinds.items() if k != "runs"} or "none"
    compared = [r["difference"] for r in models if r.get("difference") is not None]
    none = sum(records[0]["outcome"] == "no model" for records in files.values())
    seconds = sum(r.get("seconds", 0) for r in models)
    return (
        f"{len(files)} files ({none} gave no model), {len(models)} models: {kinds['runs']} run as they are "
        f"({kinds['runs'] / max(1, len(models)):.0%}); others: {others}. Densities were "
        f"compared for {len(compared)}: the largest relative difference is {max(compared, default=0):.1e}. "
        f"{seconds:.0f} s in all in our fits."
    )


def main() -> None:
    files = by_file([Path(p) for p in sys.argv[1:]])
    packages = ("numpyro", "jax", "pyro-ppl", "torch")
    print(summary(files), "Versions:", ", ".join(f"{p} {version(p)}" for p in packages) + ".", end="\n\n")
    print("| file | model | handed to | outcome | difference | seconds |\n|---|---|---|---|---|---|")
    print("\n".join(rows(files)))


if __name__ == "__main__":
    main()
