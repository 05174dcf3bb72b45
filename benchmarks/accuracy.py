"""Right or wrong: every posterior by the defaults of several inferences, against the reference draws.

    python benchmarks/accuracy.py                          nuts, hmm..., see --help
    python benchmarks/accuracy.py --inference nuts --seed 3

Results are appended to a file as they come, and fits that are there already are skipped.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import say

INFERENCES = ("nuts", "hmc", "mala", "flow")
MAX_Z, MIN_ESS, GOOD_ESS = 4.5, 400, 1000
MAX_SHIFT, MAX_SCALE = 0.1, 0.1  # of a guide: means in sds, sds relative
BARS = {"nuts": 12, "hmc": 10, "mala": 8, "flow": 8}
GOOD_BAR = 10  # posteriors with at least GOOD_ESS by nuts


def measured(name: str, inference: str, seed: int) -> dict[str, Any]:
    """What one fit by the defaults is like: agreement, verdict, and for a guide the errors of means and sds."""
    from posteriordb import POSTERIORS, reference, zscores

    import probgen as pg

    entry = POSTERIORS[name]
    record: dict[str, Any] = {"posterior": name, "inference": inference, "seed": seed, "machine": harness.machine()}
    begun = time.perf_counter()
    fit = pg.fit(entry.program, entry.data(), inference, seed=seed, progress=False)
    draws = fit.draws
    record["seconds"] = time.perf_counter() - begun
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdict, agreement = fit.diagnose(), zscores(draws, name)
    ours, theirs = entry.parameters(draws), reference(name)
    shifts = [abs(ours[k].mean() - x.mean()) / x.std() for k, x in theirs.items()]
    scales = [abs(ours[k].std() / x.std() - 1) for k, x in theirs.items()]
    return record | {
        "z": agreement.worst,
        "ess": float(agreement.ess.min()),
        "verdict": verdict.status,
        "findings": {f.check: f.message for f in verdict.findings if f.status != "pass"},
        "khat": next((f.value for f in verdict.findings if f.check == "k_hat"), None),
        "shift": float(np.max(shifts)),
        "scale": float(np.max(scales)),
    }


def right(record: Mapping[str, Any]) -> bool:
    """Whether a fit is within the bar of its inference."""
    if "error" in record:
        return False
    if record["khat"] is not None:
        return record["shift"] <= MAX_SHIFT and record["scale"] <= MAX_SCALE
    return record["z"] < MAX_Z and record["ess"] >= MIN_ESS


def row(record: Mapping[str, Any]) -> list[str]:
    start = [f"{record['posterior']}, {record['inference']}", "yes" if right(record) else "NO"]
    if "error" in record:
        return [*start, *["-"] * 6, record["error"][:60]]
    failing = ", ".join(record["findings"])
    numbers = [f"{record['z']:.2f}", f"{record['ess']:.0f}", f"{record['shift']:.3f}", f"{record['scale']:.3f}"]
    return [*start, *numbers, harness.number(record["khat"], 2), f"{record['seconds']:.1f}",
            record["verdict"] + (f" ({failing})" if failing else "")]  # fmt: skip


def summary(records: list[Mapping[str, Any]], inference: str) -> str:
    """How many posteriors are right, beside the bar."""
    count = sum(right(r) for r in records)
    line = f"- {inference}: {count} of {len(records)} right; the bar is {BARS.get(inference, '-')} of 12"
    if inference == "nuts":
        good = sum(right(r) and r["ess"] >= GOOD_ESS for r in records)
        line += f"; ESS of {GOOD_ESS} or more on {good}, the bar is {GOOD_BAR}"
    if inference == "flow":
        line += f"; k-hat reported on {sum(r.get('khat') is not None for r in records)}"
    return line


def report(results: harness.Results, posteriors: list[str], inferences: list[str], seed: int) -> str:
    """The answer, as Markdown."""
    head = [
        "posterior, inference",
        "right",
        "worst abs z",
        "least ESS",
        "mean error",
        "sd error",
        "k-hat",
        "s",
        "verdict",
    ]
    machines, sections, lines = set(), [], []
    for inference in inferences:
        found = [r for name in posteriors if (r := results.get(name, inference, seed))]
        machines |= {r["machine"] for r in found}
        if found:
            lines.append(summary(found, inference))
            sections.append(f"## {inference}\n\n{harness.table(head, map(row, found))}")
    note = (
        f"Right means |z| < {MAX_Z} and min bulk ESS >= {MIN_ESS} for a sampler; for a guide, means within "
        f"{MAX_SHIFT} sd and sds within {MAX_SCALE:.0%} of the reference. Errors are the largest over the parameters, "
        "of means in sds and of sds relative."
    )
    top = "\n".join([*lines, *(f"- {machine}" for machine in sorted(machines))])
    return "\n\n".join([f"# Twelve posteriors against their reference draws, seed {seed}", top, note, *sections]) + "\n"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, out = parser.add_argument, harness.HERE / "accuracy.jsonl"
    add("--posteriors", nargs="+", metavar="NAME", help="names or their beginnings (default: all twelve)")
    add("--inference", nargs="+", default=list(INFERENCES), help=f"any of `probgen list` (default {INFERENCES})")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=out, help="results, appended (default: accuracy.jsonl beside this file)")
    add("--fresh", action="store_true", help="forget the results in --out first")
    return parser.parse_args()


def main() -> None:
    asked = options()
    harness.require_data()
    posteriors = harness.chosen(asked.posteriors, harness.names(), "posterior")
    results = harness.Results(asked.out, ("posterior", "inference", "seed"), asked.fresh)
    pairs = [(name, inference) for inference in asked.inference for name in posteriors]
    for i, (name, inference) in enumerate(pairs):
        label = f"[{i + 1}/{len(pairs)}] {inference:<6} {name:<42}"
        if (name, inference, asked.seed) in results:
            say(f"{label} there already")
            continue
        try:
            record = measured(name, inference, asked.seed)
        except Exception as error:  # a fit that fails is a result
            record = {"posterior": name, "inference": inference, "seed": asked.seed, "machine": harness.machine()}
            record["error"] = f"{type(error).__name__}: {error}"
        results.add(record)
        say(f"{label} {'right' if right(record) else 'WRONG'}  {' '.join(row(record)[2:])}")
    text = report(results, posteriors, asked.inference, asked.seed)
    path = asked.out.with_suffix(".md")
    path.write_text(text)
    say(f"\n{text}\nWritten to {path}, from {asked.out}.")


if __name__ == "__main__":
    main()
