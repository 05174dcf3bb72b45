"""Pyro programs: probgen's NUTS against pyro.infer.NUTS, effective draws per second, compilation apart.

    python benchmarks/pyro_posterior.py
    python benchmarks/pyro_posterior.py --posteriors eight --contestants probgen pyro

Three small posteriors with reference draws, 4 chains, float64. Pyro's own MCMC runs its chains one after the other on
two cores, so it is given more than that: its chains are spread over a process per core, started and warmed up
beforehand. Its warm-up is 500 steps, probgen's the default; both then draw 1000.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import say

CHAINS, WARMUP, SAMPLES = 4, 500, 1000
PROGRAMS = {
    "eight_schools-eight_schools_noncentered": ("eight_schools_pyro", ("theta",)),
    "sblrc-blr": ("linear_regression_pyro", ()),
    "low_dim_gauss_mix-low_dim_gauss_mix": ("two_normals_pyro", ("mu",)),
}  # the name of the file and function, and the deterministic sites that the reference has
BAR = 10.0
Draws = dict[str, np.ndarray]


def program(name: str) -> Callable[..., Any]:
    """The Pyro program of a posterior."""
    word = PROGRAMS[name][0]
    return getattr(importlib.import_module(f"probgen.models.bayes.{word}"), word)


def data(name: str) -> dict[str, Any]:
    """Its data, under the names of its parameters."""
    from posteriordb import POSTERIORS

    return POSTERIORS[name].data()


# ---- contestants: a function from a seed to (seconds, draws) -------------------------------------------------------


def probgen(name: str) -> Callable[[int], tuple[float, Draws]]:
    import probgen as pg

    function, given = program(name), data(name)

    def run(seed: int) -> tuple[float, Draws]:
        begun = time.perf_counter()
        draws = pg.fit(function, given, "nuts", seed=seed, num_chains=CHAINS, progress=False).draws
        return time.perf_counter() - begun, draws

    return run


def pyro(name: str, jit: bool = False) -> Callable[[int], tuple[float, Draws]]:
    workers = min(CHAINS, harness.cores())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(name, data(name)))
    list(pool.map(_chain, [(0, jit, 20, 20)] * workers))  # the processes are up, the program has run

    def run(seed: int) -> tuple[float, Draws]:
        begun = time.perf_counter()
        chains = list(pool.map(_chain, [(CHAINS * seed + i, jit, WARMUP, SAMPLES) for i in range(CHAINS)]))
        seconds = time.perf_counter() - begun - sum(c[0] for c in chains) / workers
        draws = {k: np.stack([c[1][k] for c in chains]) for k in chains[0][1]}
        return seconds, draws | _deterministic(name, draws)

    return run


_given: dict[str, Any] = {}


def _start(name: str, given: Mapping[str, Any]) -> None:
    import torch

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    _given["program"] = program(name)
    _given["data"] = {k: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}


def _chain(task: tuple[int, bool, int, int]) -> tuple[float, Draws]:
    """One chain of pyro.infer.MCMC: seconds spent on compilation, and its draws, (draw, *event) a site."""
    import pyro
    from pyro.infer import MCMC, NUTS

    seed, jit, warmup, samples = task
    pyro.set_rng_seed(seed)
    settings = {"jit_compile": True, "ignore_jit_warnings": True} if jit else {}
    begun = time.perf_counter()
    if jit:  # what `run` does first, once more
        NUTS(_given["program"], **settings).setup(warmup, **_given["data"])
    compiling = time.perf_counter() - begun
    mcmc = MCMC(NUTS(_given["program"], **settings), samples, warmup, disable_progbar=True)
    mcmc.run(**_given["data"])
    return 2 * compiling, {k: v.detach().numpy() for k, v in mcmc.get_samples().items()}


def _deterministic(name: str, draws: Draws) -> Draws:
    """Deterministic sites of all draws, which Pyro's MCMC does not keep."""
    sites = PROGRAMS[name][1]
    if not sites:
        return {}
    import torch
    from pyro.infer import Predictive

    flat = {k: torch.as_tensor(v.reshape(-1, *v.shape[2:])) for k, v in draws.items()}
    _start(name, data(name))
    with torch.no_grad():
        found = Predictive(_given["program"], flat, return_sites=sites)(**_given["data"])
    chains, samples = next(iter(draws.values())).shape[:2]
    return {k: v.numpy().reshape(chains, samples, *v.shape[1:]) for k, v in found.items()}


def pyro_jit(name: str) -> Callable[[int], tuple[float, Draws]]:
    return pyro(name, jit=True)


CONTESTANTS = {"probgen": probgen, "pyro": pyro, "pyro_jit": pyro_jit}


# ---- the command -------------------------------------------------------------------------------------------------


def worker(name: str, contestant: str, repeats: str) -> None:
    """Prints the record of a pair: seconds of the first run, and runs with other seeds."""
    from posteriordb import zscores

    begun = time.perf_counter()
    run = CONTESTANTS[contestant](name)
    run(100) if contestant == "probgen" else None  # compiles
    first, runs = time.perf_counter() - begun, []
    for seed in range(1, int(repeats) + 1):
        seconds, draws = run(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            agreement = zscores(draws, name)
        runs.append({"seed": seed, "seconds": seconds, "ess": float(agreement.ess.min()), "z": agreement.worst})
    print(json.dumps({"first": first, "runs": runs}), flush=True)


def speed(record: Mapping[str, Any] | None) -> float:
    """The median of min bulk ESS per second; NaN for a pair that did not run."""
    return harness.median([r["ess"] / r["seconds"] for r in (record or {}).get("runs", [])])


def report(results: harness.Results, posteriors: list[str], chosen: list[str]) -> str:
    """The answer, as Markdown."""
    rows, ratios = [], {rival: [] for rival in ("pyro", "pyro_jit")}
    for name in posteriors:
        records = {c: results.get(name, c) for c in CONTESTANTS}
        shown = [harness.number(speed(records[c])) for c in chosen]
        for rival, values in ratios.items():
            values.append(speed(records["probgen"]) / speed(records[rival]))
        worst = [max((r["z"] for r in (records[c] or {}).get("runs", [])), default=float("nan")) for c in chosen]
        first = (records["probgen"] or {}).get("first")
        own = [harness.number(values[-1]) for values in ratios.values()]
        rows.append([name, *shown, *own, " / ".join(f"{z:.1f}" for z in worst), harness.number(first)])
    means = [harness.number(harness.geometric_mean(v for v in values if v == v)) for values in ratios.values()]
    rows.append(["geometric mean", *[""] * len(chosen), *means, "", ""])
    head = ["min bulk ESS/s", *chosen, "/ pyro", "/ pyro_jit", "worst abs z", "probgen's first fit, s"]
    failed = [f"- {r['posterior']}, {r['contestant']}: {r['error']}" for r in results.records.values() if "error" in r]
    lines = "\n".join(f"- {line}" for line in sorted({r["machine"] for r in results.records.values()}))
    text = f"# Pyro programs\n\n{lines}\n\n{harness.table(head, rows)}\n\nBar: {BAR:.0f} times pyro.infer.NUTS.\n"
    return text + ("\n## Did not run\n\n" + "\n".join(failed) + "\n" if failed else "")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, out = parser.add_argument, harness.HERE / "pyro_posterior.jsonl"
    add("--posteriors", nargs="+", metavar="NAME", help="names or their beginnings (default: all three)")
    add("--contestants", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    add("--repeats", type=int, default=3, help="runs of a pair, each with a seed (default 3)")
    add("--timeout", type=float, default=1800, help="seconds after which a process has failed (default 1800)")
    add("--out", type=Path, default=out, help="results, appended (default: pyro_posterior.jsonl beside this file)")
    add("--fresh", action="store_true", help="forget the results in --out first")
    return parser.parse_args()


def main() -> None:
    asked = options()
    harness.require_data()
    posteriors = harness.chosen(asked.posteriors, list(PROGRAMS), "posterior")
    results = harness.Results(asked.out, ("posterior", "contestant"), asked.fresh)
    pairs = [(name, contestant) for name in posteriors for contestant in asked.contestants]
    for i, (name, contestant) in enumerate(pairs):
        label = f"[{i + 1}/{len(pairs)}] {name:<42} {contestant:<10}"
        if (name, contestant) in results:
            say(f"{label} there already")
            continue
        begun = time.perf_counter()
        record: dict[str, Any] = {"posterior": name, "contestant": contestant, "machine": harness.machine()}
        with tempfile.TemporaryDirectory(prefix="probgen-benchmark-", ignore_cleanup_errors=True) as cache:
            settings = dict(os.environ) | {"PROBGEN_CACHE": cache}
            try:
                words = [name, contestant, str(asked.repeats)]
                record |= harness.child(Path(__file__), words, settings, asked.timeout)
            except RuntimeError as error:
                record["error"] = str(error)[:300]
        results.add(record)
        said = record.get("error") or f"{harness.number(speed(record))} ESS/s"
        say(f"{label} {said} ({time.perf_counter() - begun:.0f} s)")
    text = report(results, posteriors, [c for c in CONTESTANTS if c in asked.contestants])
    path = asked.out.with_suffix(".md")
    path.write_text(text)
    say(f"\n{text}\nWritten to {path}, from {asked.out}.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
    else:
        main()
