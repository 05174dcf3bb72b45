"""A thousand chains in one call on an accelerator, against four on the CPU, and whether the two agree.

    python benchmarks/gpu.py                              on a machine with a GPU and a JAX that sees it
    python benchmarks/gpu.py --num-chains 8 --vectorise   the same code path on a CPU, to see that it works

Eight schools and a logistic regression with 31 unknowns, by NUTS and by HMC. The chains on the accelerator run
vectorised, by default in float32; the CPU path, a thread per core in float64, runs in a process of its own.
Agreement: the difference of posterior means in standard errors, |z| < 4.5, and of sds, within 10 %.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import say

MODELS = ("eight_schools", "logistic_regression")
INFERENCES = ("nuts", "hmc")
MAX_Z, MAX_SCALE = 4.5, 0.1


def measured(model: str, inference: str, **settings: Any) -> dict[str, Any]:
    """Seconds of a first and of a second fit, ESS per second of the second, and moments of each scalar unknown."""
    from arviz_stats import ess, rhat

    import probgen as pg

    begun = time.perf_counter()
    pg.fit(model, inference=inference, seed=100, progress=False, **settings).draws  # noqa: B018
    first = time.perf_counter() - begun
    begun = time.perf_counter()
    fit = pg.fit(model, inference=inference, seed=1, progress=False, **settings)
    draws = fit.draws
    seconds = time.perf_counter() - begun
    scalars = {
        f"{k}[{i}]": column
        for k, v in draws.items()
        for i, column in enumerate(np.moveaxis(np.asarray(v, float).reshape(*v.shape[:2], -1), -1, 0))
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sizes = {k: float(ess(x, method="bulk")) for k, x in scalars.items()}
        worst = max(float(rhat(x)) for x in scalars.values())
    return {
        "first": first, "seconds": seconds, "ess": min(sizes.values()), "r_hat": worst, "precision": fit.precision,
        "mean": {k: x.mean() for k, x in scalars.items()}, "sd": {k: x.std() for k, x in scalars.items()},
        "sizes": sizes,
    }  # fmt: skip


def agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[float, float]:
    """The largest difference of means in standard errors, and of sds, relative."""
    z, scale = [], []
    for k, sd in theirs["sd"].items():
        error = np.hypot(ours["sd"][k] / ours["sizes"][k] ** 0.5, sd / theirs["sizes"][k] ** 0.5)
        z.append(abs(ours["mean"][k] - theirs["mean"][k]) / error)
        scale.append(abs(ours["sd"][k] / sd - 1))
    return float(max(z)), float(max(scale))


def device(vectorise: bool) -> str:
    """The device's name; ends the program where there is none and the vectorised path is not asked for."""
    import jax

    found = jax.devices()[0]
    if jax.default_backend() == "cpu":
        if not vectorise:
            sys.exit(
                "JAX sees no accelerator here. Install jax[cuda12], or pass --vectorise to take its path on the CPU."
            )
        from probgen import runtime

        runtime.accelerator = lambda: True
    return f"{found.device_kind} ({jax.default_backend()})"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--num-chains", type=int, default=1000, help="chains in the one call (default 1000)")
    add("--num-warmup", type=int, help="default: the inference's own")
    add("--num-samples", type=int, default=200, help="draws of each of these chains (default 200)")
    add("--models", nargs="+", choices=MODELS, default=list(MODELS))
    add("--inference", nargs="+", choices=INFERENCES, default=list(INFERENCES))
    add("--precision", choices=("float32", "float64"), help="default: float32, as on any accelerator")
    add("--vectorise", action="store_true", help="take the accelerator's path where there is none")
    add("--out", type=Path, default=harness.HERE / "gpu.md", help="the table (default: gpu.md beside this file)")
    return parser.parse_args()


def main() -> None:
    asked = options()
    name = device(asked.vectorise)
    say(f"Accelerator path on: {name}\nCPU: {harness.machine()}")
    given = {"num_chains": asked.num_chains, "num_samples": asked.num_samples, "num_warmup": asked.num_warmup}
    settings = {k: v for k, v in given.items() if v is not None}
    rows, bad = [], []
    for model in asked.models:
        for inference in asked.inference:
            say(f"{model}, {inference}: {asked.num_chains} chains ...")
            ours = measured(model, inference, precision=asked.precision, **settings)
            say(f"    {ours['seconds']:.2f} s after a first call of {ours['first']:.1f} s; now 4 chains on the CPU ...")
            cpu = dict(os.environ) | {"JAX_PLATFORMS": "cpu"}
            theirs = harness.child(Path(__file__), [model, inference], cpu, 3600)
            z, scale = agreement(ours, theirs)
            good = z < MAX_Z and scale < MAX_SCALE
            bad += [] if good else [f"{model}, {inference}"]
            speeds = [r["ess"] / r["seconds"] for r in (ours, theirs)]
            rows.append([
                f"{model}, {inference}", ours["precision"], *map(harness.number, (ours["first"], ours["seconds"])),
                *map(harness.number, (speeds[0], speeds[1], speeds[0] / speeds[1])), f"{ours['r_hat']:.3f}",
                f"{z:.1f}", f"{scale:.3f}", "yes" if good else "NO",
            ])  # fmt: skip
    head = ["", "precision", "first s", "s", "ESS/s", "CPU ESS/s", "ratio", "R-hat", "abs z", "sd error", "agrees"]
    lines = f"- {name}, {asked.num_chains} chains x {asked.num_samples} draws\n- CPU: 4 chains, {harness.machine()}"
    text = f"# {asked.num_chains} chains in one call\n\n{lines}\n\n{harness.table(head, rows)}\n"
    asked.out.write_text(text)
    say(f"\n{text}\nWritten to {asked.out}.")
    sys.exit(f"Does not agree with the CPU: {', '.join(bad)}." if bad else 0)


def worker(model: str, inference: str) -> None:
    """The CPU path: defaults, float64."""
    print(json.dumps(measured(model, inference, num_chains=4, precision="float64")), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
    else:
        main()
