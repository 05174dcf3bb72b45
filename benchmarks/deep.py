"""Deep Boltzmann machines and belief networks, 784-500-1000, learned on binarised MNIST: bounds on test log-likelihoods.

    python benchmarks/deep.py dbm        centred, by persistent contrastive divergence; a bound by mean field
    python benchmarks/deep.py dbn        greedy training; a bound by draws from mean field

The constant is between a forward and a reverse estimate by annealed importance sampling. MNIST as in `energies.py`. Results are
appended to a file.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import harness
from energies import TEST_SEED, mnist
from harness import say

SIZES = {"num_visible": 784, "num_hidden1": 500, "num_hidden2": 1000}
STEPS = {"dbm": 60_000, "dbn": 60_000}  # of 100 rows, within half an hour of two cores
BARS = {"dbm": -87.0, "dbn": None}
PUBLISHED = {"dbm": -84.62, "dbn": -86.22}


def learned(asked: argparse.Namespace, train: Any) -> tuple[Any, float]:
    """The fit, and its seconds."""
    import probgen as pg

    data, begun = {"v": train, **SIZES}, time.perf_counter()
    settings = {"num_steps": asked.steps or STEPS[asked.model], "learning_rate": asked.rate, "seed": asked.seed}
    if asked.model == "dbm":
        data |= {"centre": train.mean(0), "hidden_centre": 0.5}
        fit = pg.fit("dbm", data, "pcd", num_chains=asked.persistent, num_sweeps=asked.sweeps, **settings)
    else:
        fit = pg.fit("dbn", data, "greedy", num_sweeps=asked.sweeps, **settings)
    seconds = time.perf_counter() - begun
    say(f"learned in {seconds:.0f} s")
    if asked.keep:
        fit.save(asked.keep, overwrite=True)
    return fit, seconds


def bound(asked: argparse.Namespace) -> dict[str, Any]:
    """Learn, then the mean of a lower bound on the test rows' log-likelihood, in nats."""
    import numpy as np

    import probgen as pg
    from probgen.evaluate import ais, energy, partition

    train, test = mnist(asked.draws)
    if asked.fit:
        fit = pg.load(asked.fit)
        seconds = fit.seconds
    else:
        fit, seconds = learned(asked, train)
    begun = time.perf_counter()
    settings = {"num_chains": asked.chains, "num_temperatures": asked.temperatures,
                "num_pilot": asked.temperatures // 5, "num_burn": 5000}  # fmt: skip
    target, rows = partition.core(fit)
    found = ais.estimate(target, rows, seed=asked.seed, **settings)
    say(f"log Z: {found.message}, {time.perf_counter() - begun:.0f} s")
    up = -energy.free_energies(fit.target, fit.answer, {"v": test[: asked.rows]})
    record = {"benchmark": asked.model, "seed": asked.seed, "settings": fit.inference.settings(), "seconds": seconds,
              "rollbacks": int(fit.records["rollbacks"][0, -1]), "ais": found._asdict(), "rows": len(up),
              "from_reverse": float(up.mean() - found.reverse), "from_forward": float(up.mean() - found.forward),
              "nats": float(up.mean() - found.value), "stderr": float(up.std() / np.sqrt(len(up))),
              "binarisation": f"{asked.draws} draws of training rows, 1 of test rows (seed {TEST_SEED})",
              "machine": harness.machine()}  # fmt: skip
    bar = f"; bar {BARS[asked.model]}" if BARS[asked.model] else ""
    say(f"{asked.model} 784-500-1000, {seconds:.0f} s, seed {asked.seed}, {record['binarisation']}: bound on {len(up)} test "
        f"rows {record['nats']:.2f} +- {record['stderr']:.2f} nats, reverse to forward {record['from_reverse']:.2f} to "
        f"{record['from_forward']:.2f}{bar}; published {PUBLISHED[asked.model]}")  # fmt: skip
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=tuple(STEPS))
    parser.add_argument("--steps", type=int, help=f"of learning (default {STEPS})")
    parser.add_argument("--rate", type=float, default=0.05, help="learning rate (default 0.05)")
    parser.add_argument("--sweeps", type=int, default=1, help="of Gibbs sampling a step")
    parser.add_argument("--persistent", type=int, default=100, help="chains of persistent contrastive divergence")
    parser.add_argument("--draws", type=int, default=4, help="of every training row's pixels")
    parser.add_argument("--chains", type=int, default=2000, help="particles of AIS (default 2000)")
    parser.add_argument("--temperatures", type=int, default=2000, help="of AIS (default 2000)")
    parser.add_argument("--rows", type=int, default=10_000, help="test rows")
    parser.add_argument("--fit", type=Path, help="the directory of a fit to measure instead of learning one")
    parser.add_argument("--keep", type=Path, help="a directory for the fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=harness.HERE / "deep.jsonl", help="results, appended")
    parser.add_argument("--fresh", action="store_true", help="forget the results in --out first")
    asked = parser.parse_args()
    harness.Results(asked.out, ("benchmark", "seed"), asked.fresh).add(bound(asked))


if __name__ == "__main__":
    main()
