"""How long a verdict and a report take in a warm process: `fit.diagnose()` and `fit.report(path)` of fits of every kind.

    python benchmarks/judging.py [eight_schools made vae ...] [--turns 2]

Each fit is short, of the data that its model has, and is judged `--turns` times anew after a first verdict and report that compile
and import; told are the least seconds of the processor's and of wall time. The bar: two seconds of the processor each, whatever the
fit; the exit status says whether it holds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness

BAR = 2.0
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "eight_schools": ("nuts", {}),
    "logistic_regression": ("nuts", {}),
    "gp_regression": ("nuts", {}),
    "hmm": ("nuts", {"num_warmup": 200, "num_samples": 300}),
    "linear_regression": ("mean_field", {"num_steps": 500}),
    "eight_schools_pyro": ("svi", {"num_steps": 200}),
    "gaussian_mixture": ("em", {}),
    "made": ("mle", {"num_steps": 300}),
    "realnvp": ("mle", {"num_steps": 200}),
    "pixelcnn": ("mle", {"num_steps": 4, "batch_size": 64}),
    "pixelcnn_pyro": ("mle", {"num_steps": 20}),
    "vae": ("svi", {"num_steps": 300}),
    "vae_pyro": ("svi", {"num_steps": 100}),
    "rbm": ("pcd", {"num_steps": 500}),
    "neural_ebm": ("score_matching", {"num_steps": 300}),
    "gan": ("gan", {"num_steps": 200}),
    "velocity": ("flow_matching", {"num_steps": 300}),
    "ddpm": ("denoising", {"num_steps": 300}),
}


def clocked(job: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the processor's and of wall time."""
    own, wall = time.process_time(), time.perf_counter()
    job()
    return time.process_time() - own, time.perf_counter() - wall


def judged(name: str, turns: int) -> tuple[list[str], float]:
    """A row of the table, and the longest of both on the processor."""
    import probgen as pg

    algorithm, settings = FITS[name]
    fit = pg.fit(name, inference=algorithm, progress=False, **settings)
    found: dict[str, list[tuple[float, float]]] = {"diagnose": [], "report": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(turns + 1):
            page = Path(folder) / f"{turn}.html"
            for word, job in (("diagnose", fit.diagnose), ("report", lambda page=page: fit.report(page))):
                found[word].append(clocked(job))
    cells, worst = [], 0.0
    for times in found.values():
        own, wall = (min(column) for column in zip(*times[1:], strict=True))
        worst = max(worst, own)
        cells += [f"{times[0][0]:.2f}", f"{own:.2f}", f"{wall:.2f}"]
    return [name, algorithm, *cells], worst


HEAD = ["model", "algorithm", "diagnose: first, CPU s", "CPU s", "wall s", "report: first, CPU s", "CPU s", "wall s"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help=", ".join(FITS))
    parser.add_argument("--turns", type=int, default=2)
    asked = parser.parse_args()
    harness.say(harness.machine())
    rows, longest = [], {}
    for name in harness.chosen(asked.models, [*FITS], "model"):
        row, longest[name] = judged(name, asked.turns)
        rows.append(row)
        harness.say("  ".join(row))
    harness.say("\n" + harness.table(HEAD, rows))
    late = {k: v for k, v in longest.items() if v > BAR}
    harness.say(f"beyond {BAR} s of the processor: {', '.join(late) or 'none'}")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
