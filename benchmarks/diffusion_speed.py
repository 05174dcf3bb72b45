"""Steps of flow matching by the same perceptron, side by side in one run: probgen, torchcfm's matcher in eager and compiled torch.

    python benchmarks/diffusion_speed.py [--steps 400]

torchcfm is asked for where it is installed (pip install torchcfm); else its independent matcher is three lines of torch here, which
is said. The perceptron: 256 units, 3 hidden layers, of the point and the time; batch 256; Adam. Ratios of seconds a step, the
medians of five stretches in turn: a measured figure, of this machine.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

BATCH, WIDTH = 256, 256


def ours(rows, steps):
    """Seconds a step of a fit, compilation apart."""
    import probgen as pg

    def run(count):
        begun = time.perf_counter()
        pg.fit(
            "velocity",
            rows,
            inference="flow_matching",
            num_steps=count,
            ema=0.0,
            average=0.0,
            held_out=0.0,
            progress=False,
        )
        return time.perf_counter() - begun

    run(2 * steps)
    run(steps)
    return (run(2 * steps) - run(steps)) / steps


def torch_steps(rows, compiled):
    """A function that runs so many steps, and whether torchcfm itself is there."""
    import torch

    try:
        from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

        matcher, name = ConditionalFlowMatcher(sigma=0.0).sample_location_and_conditional_flow, "torchcfm"
    except ModuleNotFoundError:
        name = "torch (torchcfm is not installed)"

        def matcher(noise, x):
            t = torch.rand(len(x))
            return t, noise + t[:, None] * (x - noise), x - noise

    layers, size = [], 3
    for _ in range(3):
        layers += [torch.nn.Linear(size, WIDTH), torch.nn.SiLU()]
        size = WIDTH
    net = torch.nn.Sequential(*layers, torch.nn.Linear(size, 2))
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    call = torch.compile(net) if compiled else net
    x = torch.as_tensor(rows, dtype=torch.float32)

    def run(count):
        for _ in range(count):
            points = x[torch.randint(len(x), (BATCH,))]
            t, z, u = matcher(torch.randn_like(points), points)
            optimiser.zero_grad()
            loss = ((call(torch.cat([z, t[:, None]], 1)) - u) ** 2).mean()
            loss.backward()
            optimiser.step()

    return run, name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps
    rows = np.random.default_rng(0).normal(size=(10_000, 2))
    peers = {}
    for compiled in (False, True):
        run, name = torch_steps(rows, compiled)
        run(20)
        peers[f"{name}, {'compiled' if compiled else 'eager'}"] = run
    times = {name: [] for name in ("probgen", *peers)}
    for turn in range(5):
        times["probgen"].append(ours(rows, steps))
        for name, run in peers.items():
            begun = time.perf_counter()
            run(steps)
            times[name].append((time.perf_counter() - begun) / steps)
        print(turn, {k: f"{1e3 * v[-1]:.2f} ms" for k, v in times.items()}, flush=True)
    own = statistics.median(times["probgen"])
    for name, values in times.items():
        print(f"{name}: {1e3 * statistics.median(values):.2f} ms a step, {statistics.median(values) / own:.2f} x")


if __name__ == "__main__":
    main()
