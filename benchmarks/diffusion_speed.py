"""Steps of flow matching by the same perceptron, side by side in one run: probgen, torchcfm's matcher in eager and compiled torch.

    python benchmarks/diffusion_speed.py [--steps 400]

torchcfm is asked for where it is installed (pip install torchcfm); else its independent matcher is three lines of torch here, which
is said. The perceptron: that of `velocity`, 224,002 numbers, written in torch too; batch 256; Adam. Ratios of seconds a step, the
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


def perceptron(torch):
    """The network of `velocity` in torch: 256 units, 3 residual layers, each of which sees 32 waves of log sigma / alpha."""

    class Perceptron(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.begin, self.end = torch.nn.Linear(2, WIDTH), torch.nn.Linear(WIDTH, 2)
            self.levels = torch.nn.ModuleList(torch.nn.Linear(32, WIDTH) for _ in range(3))
            self.weights = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(3))
            self.register_buffer("waves", torch.logspace(np.log10(0.25), np.log10(8.0), 16))

        def forward(self, z, t):
            level = (torch.log1p(-t) - t.log()).clamp(-6, 6)  # of noise, at t = 0
            angles = level[:, None] * self.waves
            e = torch.cat([angles.sin(), angles.cos()], 1)
            h = self.begin(z / (t**2 + (1 - t) ** 2).sqrt()[:, None])
            for seen, weight in zip(self.levels, self.weights, strict=True):
                h = h + weight(torch.nn.functional.silu(h + seen(e)))
            return self.end(torch.nn.functional.silu(h))

    return Perceptron()


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

    net = perceptron(torch)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    call = torch.compile(net) if compiled else net
    x = torch.as_tensor(rows, dtype=torch.float32)

    def run(count):
        for _ in range(count):
            points = x[torch.randint(len(x), (BATCH,))]
            t, z, u = matcher(torch.randn_like(points), points)
            optimiser.zero_grad()
            loss = ((call(z, t) - u) ** 2).mean()
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
