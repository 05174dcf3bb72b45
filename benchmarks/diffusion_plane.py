"""Diffusion models on the plane, half a minute each: the flow's log density on held-out points beside the entropy, and samples.

    python benchmarks/diffusion_plane.py [--seconds 30] [--models velocity,edm] [--data two_moons] [--out FILE]

gap: the mean of log p over 2,000 held-out points plus the entropy of the law, in nats, with its standard error: an estimate of
minus KL(law || flow). Below 0 it is what the net lost; above, a density too good to be true, which `mass` tells: what the density
sums to about held-out rows, at most 1 but for its error, by the verdict. told: the share that the verdict's classifier tells right
of 10,000 new rows and draws (50 % is chance), and its p-value. seconds: of learning, compilation apart. Bars: a gap within .05 of
zero for flow matching and .10 for scores.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

import probgen as pg
from probgen.diagnostics.samples.told_apart import told_apart

LEARNERS = {
    "velocity": [("flow_matching", {}), ("flow_matching", {"coupling": "optimal_transport"})],
    "edm": [("denoising", {"times": "normal"})],
    "score_vp": [("denoising", {"weighting": "likelihood", "times": "normal"})],
    "score_ve": [("denoising", {"times": "normal"})],
    "score_sub_vp": [("denoising", {"times": "normal"})],
    "ddpm": [("denoising", {})],
}
ENTROPIES = {"two_moons": 1.00757, "eight_gaussians": 2.61473, "checkerboard": 3.46574}
ROWS = 50_000


def two_moons(n, rng):
    angle, upper = np.pi * rng.random(n), rng.random(n) < 0.5
    x = np.stack([np.cos(angle), np.sin(angle)], 1)
    x = np.where(upper[:, None], x, np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1))
    return x + 0.1 * rng.normal(size=(n, 2))


def eight_gaussians(n, rng):
    angle = 2 * np.pi * rng.integers(8, size=n) / 8
    return 5 * np.stack([np.cos(angle), np.sin(angle)], 1) + np.sqrt(0.1) * rng.normal(size=(n, 2))


def checkerboard(n, rng):
    cells = np.array([(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0])
    return 2.0 * (cells[rng.integers(8, size=n)] + rng.random((n, 2))) - 4.0


DATA = {"two_moons": two_moons, "eight_gaussians": eight_gaussians, "checkerboard": checkerboard}


def measured(model, inference, settings, data, seconds):
    """A line of figures."""
    rng = np.random.default_rng(0)
    rows, held = DATA[data](ROWS, rng), DATA[data](12_000, rng)
    steps = []
    for count in (300, None):  # the first compiles, and says how long a step takes
        count = count or max(1000, int(seconds / steps[0]))
        begun = time.perf_counter()
        ema = max(0.9, 1 - 20 / count)
        fit = pg.fit(model, rows, inference=inference, num_steps=count, ema=ema, progress=False, **settings)
        steps.append((time.perf_counter() - begun) / count)
        if len(steps) == 1:  # again, warm
            begun = time.perf_counter()
            pg.fit(model, rows, inference=inference, num_steps=count, ema=ema, progress=False, **settings)
            steps[0] = (time.perf_counter() - begun) / count
    log_p = np.asarray(fit.log_prob(held[:2000], method="ode").value, float)
    drawn = fit.sample(10_000, sampler="own" if model != "ddpm" else "dpm++")["x"]
    mass = fit.diagnose()["mass"].value
    scale = held.std()
    told = told_apart(held[2000:] / scale, np.asarray(drawn, float) / scale, seed=0)
    return {
        "model": model, "inference": inference, **settings, "data": data, "steps": count, "seconds": steps[1] * count,
        "gap": float(log_p.mean() + ENTROPIES[data]), "stderr": float(log_p.std() / np.sqrt(len(log_p))),
        "mass": mass, "told": told.share, "p": told.p_value,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--models", default=",".join(LEARNERS))
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--out")
    asked = parser.parse_args()
    for model in asked.models.split(","):
        for inference, settings in LEARNERS[model]:
            for data in asked.data.split(","):
                line = measured(model, inference, settings, data, asked.seconds)
                print(json.dumps(line), flush=True)
                if asked.out:
                    with open(asked.out, "a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
