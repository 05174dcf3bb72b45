"""The verdict held against the truth: of fits whose answer is known, is "pass" ever wrong, is "fail"?

    python benchmarks/verdicts.py                    all cases, then the table verdicts.md
    python benchmarks/verdicts.py --cases humps      those whose names have this word
    python benchmarks/verdicts.py --seed 1           each fit with another seed

Half of the cases are traps. A refusal (an error in the user's words instead of a fit) counts as no pass. Results are appended to
a file as they come, and cases that are there already are skipped; the exit status is 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
from harness import say

WRONG_PASSES, WRONG_FAILS = 0, 1  # the bars


def measured(case: Any, seed: int) -> dict[str, Any]:
    """The verdict of one case, its error, and what did not pass."""
    record: dict[str, Any] = {
        "case": case.name,
        "seed": seed,
        "engine": case.engine,
        "trap": case.trap,
        "bar": case.bar,
    }
    record |= {"machine": harness.machine(), "error": None, "findings": [], "refused": ""}
    begun = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fit, error = case.make()
            verdict = fit.diagnose()
        except (TypeError, ValueError, RuntimeError) as refusal:
            word = f"{type(refusal).__name__}: {str(refusal).splitlines()[0]}"
            return record | {"verdict": "refused", "refused": word, "seconds": time.perf_counter() - begun}
    findings = [f.check for f in verdict.findings if f.status == verdict.status != "pass"]
    seconds = time.perf_counter() - begun
    return record | {"verdict": verdict.status, "error": float(error), "findings": findings, "seconds": seconds}


def judged(record: Mapping[str, Any]) -> str:
    """What the verdict is worth: "right", "wrong pass" or "wrong fail"; a warning, and a refusal of a trap, are right."""
    if record["verdict"] == "refused":
        return "right" if record["trap"] else "wrong fail"
    wrong = not record["error"] <= record["bar"]
    if record["verdict"] == "pass":
        return "wrong pass" if wrong else "right"
    return "wrong fail" if record["verdict"] == "fail" and not wrong else "right"


def row(record: Mapping[str, Any]) -> list[str]:
    error = "-" if record["error"] is None else harness.number(record["error"], 3)
    why = ", ".join(record["findings"]) or record["refused"][:60] or "-"
    kind = "trap" if record["trap"] else "sound"
    return [record["case"], kind, error, f"{record['bar']:g}", record["verdict"], judged(record), why]


def report(records: list[Mapping[str, Any]]) -> str:
    """The answer, as Markdown."""
    count = {word: sum(judged(r) == word for r in records) for word in ("wrong pass", "wrong fail")}
    traps = sum(r["trap"] for r in records)
    warned = sum(r["verdict"] == "warn" and r["error"] is not None and r["error"] <= r["bar"] for r in records)
    lines = [
        f"- {len(records)} cases, {traps} of them traps",
        f"- pass is wrong in {count['wrong pass']}; at most {WRONG_PASSES}",
        f"- fail is wrong in {count['wrong fail']}; at most {WRONG_FAILS}",
        f"- a right answer is warned of in {warned}",
        *(f"- {machine}" for machine in sorted({r["machine"] for r in records})),
    ]
    note = (
        "The error is that of the worst mean, in true sds, or of the log of an sd; of a learned density, nats a row below what "
        "can be reached. Beyond the bar an answer is wrong. The truth is a closed form, quadrature or enumeration."
    )
    head = ["case", "kind", "error", "bar", "verdict", "is", "what did not pass"]
    title = "# Verdicts against the truth\n\nWritten by `python benchmarks/verdicts.py`."
    return "\n\n".join([title, "\n".join(lines), note, harness.table(head, map(row, records))]) + "\n"


def known_cases() -> list[Any]:
    import verdict_cases

    try:
        import verdict_cases_pyro  # noqa: F401
    except ModuleNotFoundError as error:
        say(f"Without the Pyro cases: {error}")
    return verdict_cases.CASES


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, out = parser.add_argument, harness.HERE / "verdicts.jsonl"
    add("--cases", nargs="+", metavar="WORD", help="cases with any of these words in their names (default: all)")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=out, help="results, appended (default: verdicts.jsonl beside this file)")
    add("--fresh", action="store_true", help="forget the results in --out first")
    return parser.parse_args()


def main() -> None:
    asked = options()
    import verdict_cases

    verdict_cases.SEED = asked.seed
    cases = [c for c in known_cases() if not asked.cases or any(word in c.name for word in asked.cases)]
    if not cases:
        sys.exit(f"No case has {' or '.join(asked.cases)} in its name.")
    results = harness.Results(asked.out, ("case", "seed"), asked.fresh)
    for i, case in enumerate(cases):
        label = f"[{i + 1}/{len(cases)}] {case.name:<46}"
        if (case.name, asked.seed) in results:
            say(f"{label} there already")
            continue
        record = measured(case, asked.seed)
        results.add(record)
        say(f"{label} {' '.join(row(record)[2:])}  {record['seconds']:.1f} s")
    records = [r for case in cases if (r := results.get(case.name, asked.seed))]
    text = report(records)
    path = asked.out.with_suffix(".md")
    path.write_text(text)
    say(f"\n{text}\nWritten to {path}, from {asked.out}.")
    words = [judged(r) for r in records]
    sys.exit(int(words.count("wrong pass") > WRONG_PASSES or words.count("wrong fail") > WRONG_FAILS))


if __name__ == "__main__":
    main()
