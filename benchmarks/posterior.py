"""Effective draws per second, side by side: probgen, NumPyro, BlackJAX and PyMC through nutpie on twelve posteriors.

    python benchmarks/posterior.py                                        everything (about two hours on two cores)
    python benchmarks/posterior.py --posteriors arK sblrc --contestants probgen numpyro

Every pair of a posterior and a contestant gets processes of its own, with empty compile caches: one that compiles and
is then timed warm, then others with the caches warm, timed from the start of the interpreter. Results are appended to
a file as they come; pairs that are there already are skipped. benchmarks/README.md has the protocol.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import contestants
import harness
from harness import say

MARK = "†"
PEERS = ("numpyro", "blackjax", "nutpie_jax", "pymc_nutpie")
KINDS = {"warm": "warm", "second": "in a second process"}
MAX_Z, MIN_ESS = 4.5, 100


# ---- in the worker -----------------------------------------------------------------------------------------------


def warm(name: str, contestant: str, repeats: int, budget: float) -> dict[str, Any]:
    """Compile by a first run, then time runs with other seeds, until there are enough or the budget is spent."""
    begun = time.perf_counter()
    run = contestants.CONTESTANTS[contestant](name)
    run(100)
    first = time.perf_counter() - begun - sum(contestants.UNTIMED)
    runs = []
    while len(runs) < repeats and (not runs or sum(r["seconds"] for r in runs) + runs[-1]["seconds"] < budget):
        seed = len(runs) + 1
        begun = time.perf_counter()
        draws = run(seed)
        seconds = time.perf_counter() - begun
        runs.append({"seed": seed, "seconds": seconds} | judged(draws, name))
    return {"first": first, "runs": runs}


def once(name: str, contestant: str, seed: int) -> dict[str, Any]:
    """One run; tells the parent when the draws are there."""
    draws = contestants.CONTESTANTS[contestant](name)(seed)
    print("draws", sum(contestants.UNTIMED), flush=True)
    return {"seed": seed} | judged(draws, name)


def judged(draws: Mapping[str, Any], name: str) -> dict[str, float]:
    """The least bulk ESS over the reference parameters, the largest |z| and R-hat."""
    from arviz_stats import rhat
    from posteriordb import POSTERIORS, zscores

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agreement = zscores(draws, name)
        largest = max(float(rhat(x)) for x in POSTERIORS[name].parameters(draws).values())
    return {"ess": float(agreement.ess.min()), "z": agreement.worst, "r_hat": largest}


# ---- in the parent -----------------------------------------------------------------------------------------------


def environment(cache: Path, contestant: str) -> dict[str, str]:
    """Compile caches in a folder of the pair's own: JAX's for the peers, probgen's, PyTensor's and Numba's."""
    found = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    flags = [flag for flag in found.get("PYTENSOR_FLAGS", "").split(",") if flag and "compiledir" not in flag]
    jax = {
        "JAX_COMPILATION_CACHE_DIR": str(cache / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return (
        found
        | ({} if contestant == "probgen" else jax)
        | {
            "PROBGEN_CACHE": str(cache / "probgen"),
            "PYTENSOR_FLAGS": ",".join([*flags, f"base_compiledir={cache / 'pytensor'}"]),
            "NUMBA_CACHE_DIR": str(cache / "numba"),
        }
    )


def measure(name: str, contestant: str, options: argparse.Namespace) -> dict[str, Any]:
    """The record of one pair."""
    record: dict[str, Any] = {"posterior": name, "contestant": contestant, "machine": harness.machine()}
    with tempfile.TemporaryDirectory(prefix="probgen-benchmark-", ignore_cleanup_errors=True) as folder:
        settings = environment(Path(folder), contestant)
        try:
            words = ["warm", name, contestant, str(options.repeats), str(options.budget)]
            record |= harness.child(Path(__file__), words, settings, options.timeout)
            record["second"] = []
            while len(record["second"]) < options.repeats:
                words = ["second", name, contestant, str(len(record["second"]) + 101)]
                record["second"].append(harness.child(Path(__file__), words, settings, options.timeout))
                if sum(r["seconds"] for r in record["second"]) + record["second"][-1]["seconds"] > options.budget:
                    break
        except RuntimeError as error:
            record["error"] = str(error)[:300]
    return record


# ---- the table ---------------------------------------------------------------------------------------------------


def speed(record: Mapping[str, Any] | None, kind: str) -> float:
    """The median over runs of the min bulk ESS per second; NaN for a pair that did not run."""
    runs = (record or {}).get("runs" if kind == "warm" else "second") or []
    return harness.median([run["ess"] / run["seconds"] for run in runs])


def wrong(record: Mapping[str, Any] | None) -> bool:
    """Whether any run of a pair was far from the reference draws, or had next to no effective draws."""
    runs = [*((record or {}).get("runs") or []), *((record or {}).get("second") or [])]
    return any(not (run["z"] <= MAX_Z and run["ess"] >= MIN_ESS) for run in runs)


def cell(record: Mapping[str, Any] | None, kind: str) -> str:
    if record is None:
        return ""
    value = speed(record, kind)
    return "fails" if math.isnan(value) else harness.number(value) + MARK * wrong(record)


def best(records: Mapping[str, Any], kind: str, peers: Iterable[str]) -> str:
    """The fastest of some peers; one that is wrong counts only where all are, and "" stands for none."""
    speeds = {peer: speed(records.get(peer), kind) for peer in peers}
    ran = {peer: value for peer, value in speeds.items() if not math.isnan(value)}
    right = {peer: value for peer, value in ran.items() if not wrong(records.get(peer))} or ran
    return max(right, key=right.__getitem__, default="")


def speeds(results: harness.Results, posteriors: list[str], chosen: list[str], kind: str) -> str:
    """One table: ESS per second of each contestant, and how many times faster probgen is."""
    others = [c for c in chosen if c != "probgen"]
    rivals = {"numpyro": ["numpyro"], "best peer": PEERS, "best of all": others}
    rows: list[list[str]] = []
    measured, clean = {head: [] for head in rivals}, {head: [] for head in rivals}
    for name in posteriors:
        records = {c: results.get(name, c) for c in chosen}
        ours, ratios = records.get("probgen"), []
        for head, group in rivals.items():
            rival = best(records, kind, group)
            ratio = speed(ours, kind) / speed(records.get(rival), kind)
            bad = wrong(ours) or wrong(records.get(rival))
            if not math.isnan(ratio):
                measured[head].append(ratio)
                clean[head].extend([] if bad else [ratio])
            ratios.append(harness.number(ratio) + MARK * bad)
        rows.append([name, *(cell(records[c], kind) for c in chosen), *ratios, best(records, kind, PEERS)])
    blank = [""] * len(chosen)
    for what, lists in (("geometric mean of ratios", measured), (f"the same without {MARK}", clean)):
        rows.append([what, *blank, *map(_mean, lists.values()), ""])
    return harness.table(["min bulk ESS/s", *chosen, *(f"/ {head}" for head in rivals), "best peer"], rows)


def _mean(ratios: list[float]) -> str:
    return f"{harness.number(harness.geometric_mean(ratios))} ({len(ratios)})"


def accuracy(results: harness.Results, posteriors: list[str], chosen: list[str]) -> str:
    """One table: the largest |z| and the least ESS over the runs of each pair."""

    def shown(record: Mapping[str, Any] | None) -> str:
        runs = [*((record or {}).get("runs") or []), *((record or {}).get("second") or [])]
        if not runs:
            return ""
        return f"{max(r['z'] for r in runs):.1f} / {min(r['ess'] for r in runs):.0f}{MARK * wrong(record)}"

    rows = [[name, *(shown(results.get(name, c)) for c in chosen)] for name in posteriors]
    return harness.table(["worst abs z / least ESS", *chosen], rows)


def costs(results: harness.Results, posteriors: list[str], chosen: list[str]) -> str:
    """One table: seconds of a first process, of a warm run and of a second process."""

    def shown(record: Mapping[str, Any] | None) -> str:
        if not record or "first" not in record:
            return ""
        parts = [harness.median([r["seconds"] for r in record.get(k) or []]) for k in ("runs", "second")]
        return " / ".join(harness.number(v) for v in (record["first"], *parts))

    rows = [[name, *(shown(results.get(name, c)) for c in chosen)] for name in posteriors]
    return harness.table(["seconds: first / warm / second process", *chosen], rows)


def report(results: harness.Results, posteriors: list[str], chosen: list[str]) -> str:
    """The whole answer, as Markdown."""
    machines = sorted({r["machine"] for r in results.records.values()})
    failed = [f"- {r['posterior']}, {r['contestant']}: {r['error']}" for r in results.records.values() if "error" in r]
    parts = [
        "# Posterior sampling, side by side",
        "Min bulk ESS per second over the reference parameters: 4 chains, float64, the median over seeds. "
        "A column is a library as its users run it; see README.md here for the protocol.",
        "\n".join(f"- {line}" for line in machines),
        *(f"## {title.capitalize()}\n\n{speeds(results, posteriors, chosen, kind)}" for kind, title in KINDS.items()),
        f"{MARK}: some run had |z| > {MAX_Z} or fewer than {MIN_ESS} effective draws, so its speed means nothing. Such "
        "a pair stays in the first geometric mean as measured and is left out of the second; numbers of ratios in "
        f"brackets. A best peer is one without the mark, where there is any. Best peer: of {', '.join(PEERS)}; best of "
        "all: of every column but probgen's.",
        f"## Right or wrong\n\n{accuracy(results, posteriors, chosen)}",
        f"## Seconds\n\n{costs(results, posteriors, chosen)}",
        *(["## Did not run\n\n" + "\n".join(failed)] if failed else []),
    ]
    return "\n\n".join(parts) + "\n"


# ---- the command -------------------------------------------------------------------------------------------------


def options() -> argparse.Namespace:
    known = list(contestants.CONTESTANTS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, out = parser.add_argument, harness.HERE / "posterior.jsonl"
    add("--posteriors", nargs="+", metavar="NAME", help="names or their beginnings (default: all twelve)")
    add("--contestants", nargs="+", choices=known, default=list(contestants.DEFAULT), metavar="NAME",
        help=f"of {', '.join(known)} (default: {' '.join(contestants.DEFAULT)})")  # fmt: skip
    add("--repeats", type=int, default=3, help="warm runs and second processes of a pair (default 3)")
    add("--budget", type=float, default=240, help="seconds after which a pair is not repeated (default 240)")
    add("--timeout", type=float, default=1800, help="seconds after which a process has failed (default 1800)")
    add("--out", type=Path, default=out, help="results, appended (default: posterior.jsonl beside this file)")
    add("--report", type=Path, help="the table (default: --out with the ending .md)")
    add("--fresh", action="store_true", help="forget the results in --out first")
    add("--table", action="store_true", help="only write the table of the results that are there")
    return parser.parse_args()


def main() -> None:
    asked = options()
    harness.require_data()
    posteriors = harness.chosen(asked.posteriors, harness.names(), "posterior")
    results = harness.Results(asked.out, ("posterior", "contestant"), asked.fresh)
    pairs = [(name, contestant) for name in posteriors for contestant in asked.contestants]
    for i, (name, contestant) in enumerate(pairs if not asked.table else []):
        label = f"[{i + 1}/{len(pairs)}] {name:<42} {contestant:<20}"
        if (name, contestant) in results:
            say(f"{label} there already")
            continue
        begun = time.perf_counter()
        record = measure(name, contestant, asked)
        results.add(record)
        spent = time.perf_counter() - begun
        speeds_of = f"{cell(record, 'warm'):>8} ESS/s warm, {cell(record, 'second'):>6} in a second process"
        say(f"{label} {speeds_of} ({spent:.0f} s)")
        if "error" in record:
            say(f"    {record['error']}")
    text = report(results, posteriors, [c for c in contestants.CONTESTANTS if c in asked.contestants])
    path = asked.report or asked.out.with_suffix(".md")
    path.write_text(text)
    say(f"\n{text}\nWritten to {path}, from {asked.out}.")


def worker(kind: str, name: str, contestant: str, *rest: str) -> None:
    if kind == "warm":
        record = warm(name, contestant, int(rest[0]), float(rest[1]))
    else:
        record = once(name, contestant, int(rest[0]))
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
    else:
        main()
