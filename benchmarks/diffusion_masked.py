"""Masked diffusion on binarised MNIST: the bound on test rows after some minutes of learning on two cores; the bar is 95 nats.

    PROBGEN_DATA=folder python benchmarks/diffusion_masked.py [--minutes 20] [--set piece=4 num_features=96] [--batch 64]
        [--rate 0.003] [--rows 10000] [--draws 20] [--out results.jsonl]

Each training pixel is a draw with its grey level as probability, anew at each step; of the test rows once (seed 1). In continuous
time the bound is of all orders of the 784 pixels, each row at --draws levels, spread out evenly. Minutes are those of steps,
compilation apart: two short fits give the time of a step; on a machine that others use, give --steps. The loss of learning, in
nats a row, is printed every minute; `processor` is seconds of it, compilation within. The test rows are spread over all. --verdict
asks for that as well: minutes more, since each of its draws asks the network 784 times.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import harness
import numpy as np

import probgen as pg
from probgen import catalog, datasets

BAR = 95.0


def told(**said: Any) -> None:
    print(time.strftime("%H:%M:%S"), json.dumps(said, default=float), flush=True)


def given(x: np.ndarray, sets: list[str]) -> dict[str, Any]:
    """Grey levels (row, 28, 28) as the probabilities of bits, and settings of the model."""
    pairs = dict(each.split("=") for each in sets)
    return {"x": x, "num_values": 2, **{k: int(v) if v.isdigit() else v for k, v in pairs.items()}}


def milliseconds(ask: argparse.Namespace, data: dict[str, Any], settings: dict[str, Any]) -> float:
    """Of a step, by the difference of two short fits."""
    spent = []
    for n in (20, 120):
        start = time.perf_counter()
        pg.fit(ask.model, data, "svi", num_steps=n, progress=False, **settings)
        spent.append(time.perf_counter() - start)
    return 10 * max(spent[1] - spent[0], 1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--model", default="masked_diffusion")
    parser.add_argument("--set", nargs="*", default=[], help="settings of the model, name=value")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.003)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--steps", type=int, default=0, help="instead of minutes")
    parser.add_argument("--verdict", action="store_true")
    parser.add_argument("--out", default="diffusion_masked.jsonl")
    ask = parser.parse_args()
    catalog.model(ask.model)  # raises for an unknown name
    data = given(datasets.mnist("train").astype(np.float32) / 255, ask.set)
    settings = {"batch_size": ask.batch, "learning_rate": ask.rate, "decay": "cosine"}
    steps = ask.steps
    if not steps:
        each = milliseconds(ask, data, settings)
        steps = max(100, int(60_000 * ask.minutes / each))
        told(model=ask.model, milliseconds_a_step=each, steps=steps)
    ema = 1 - 10 / steps if steps < 10_000 else 0.999
    start, begun = time.perf_counter(), time.process_time()
    with harness.following() as folder:
        fit = pg.fit(ask.model, data, "svi", out=folder, num_steps=steps, ema=ema, progress=False, **settings)
    seconds, processor = time.perf_counter() - start, time.process_time() - begun
    test = datasets.binarised(datasets.mnist("test"), seed=1)
    test = test[:: max(1, len(test) // ask.rows)]
    found = fit.log_prob(test, num_draws=ask.draws)
    nats = -float(found.value.mean())
    error = float(np.hypot(found.value.std() / len(test) ** 0.5, np.sqrt((found.stderr**2).mean() / len(test))))
    record = dict(
        benchmark="masked diffusion, MNIST", model=ask.model, sets=ask.set, settings=settings, steps=steps, seconds=seconds,
        processor=processor, parameters=int(sum(v.size for v in fit.answer.values())), rows=len(test), nelbo=nats,
        stderr=error, bar=BAR, kind=found.kind, passed=nats <= BAR,
    )  # fmt: skip
    told(**record)
    with open(ask.out, "a") as file:
        file.write(json.dumps(record, default=str) + "\n")
    if ask.verdict:
        told(verdict=fit.diagnose().headline)


if __name__ == "__main__":
    main()
