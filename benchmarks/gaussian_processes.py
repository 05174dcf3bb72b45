"""Gaussian processes of some sizes by NUTS: probgen beside NumPyro's chains one after the other, in one run.

    python benchmarks/gaussian_processes.py --points 60 200

The figure is the smallest bulk effective sample size per second of warm runs, warm-up of the sampler included: 4 chains,
float64, `--warmup` and `--draws` steps each. Both compile in a first run; then they take turns, and the medians count.
NumPyro runs with `chain_method="sequential"`: its parallel chains can hang on LAPACK calls.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import probgen as pg
from probgen import runtime  # before anything starts JAX

CHAINS = 4


def program(x: Any, y: Any = None) -> None:
    """A Gaussian process with a squared exponential kernel and noise."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    length = numpyro.sample("length", dist.InverseGamma(5.0, 1.0))
    noise = numpyro.sample("noise", dist.HalfNormal(0.5))
    K = scale**2 * jnp.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + (noise**2 + 1e-6) * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), K), obs=y)


def data(points: int) -> dict[str, np.ndarray]:
    x = np.linspace(0, 1, points)
    return {"x": x, "y": np.sin(6 * x) + 0.1 * np.random.default_rng(0).normal(size=points)}


def min_ess(draws: Mapping[str, np.ndarray]) -> float:
    from arviz_stats.base import array_stats

    return float(min(array_stats.ess(np.asarray(v)) for v in draws.values()))


def ours(given: dict[str, np.ndarray], warmup: int, draws: int) -> Callable[[int], Mapping[str, np.ndarray]]:
    settings = {"num_chains": CHAINS, "num_warmup": warmup, "num_samples": draws, "progress": False}
    return lambda seed: pg.fit(program, given, "nuts", seed=seed, **settings).draws


def theirs(given: dict[str, np.ndarray], warmup: int, draws: int) -> Callable[[int], Mapping[str, np.ndarray]]:
    import jax
    from numpyro.infer import MCMC, NUTS

    settings = {"num_warmup": warmup, "num_samples": draws, "num_chains": CHAINS}
    with jax.enable_x64(True):
        mcmc = MCMC(NUTS(program), **settings, chain_method="sequential", progress_bar=False)

    def run(seed: int) -> Mapping[str, np.ndarray]:
        with jax.enable_x64(True):
            mcmc.run(jax.random.key(seed), **given)
            return {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}

    return run


def timed(run: Callable[[int], Mapping[str, np.ndarray]], seed: int) -> tuple[float, float]:
    """Seconds of a run, and its smallest ESS per second."""
    tick = time.perf_counter()
    draws = run(seed)
    seconds = time.perf_counter() - tick
    return seconds, min_ess(draws) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", nargs="+", type=int, default=[60, 200])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--draws", type=int, default=300)
    given = parser.parse_args()
    print(f"{runtime.cores()} cores, {CHAINS} chains of {given.warmup} + {given.draws} steps")
    print("points | probgen ESS/s | NumPyro ESS/s | ratio | seconds of a run")
    for points in given.points:
        runs = [make(data(points), given.warmup, given.draws) for make in (ours, theirs)]
        firsts = [timed(run, 0)[0] for run in runs]
        found = [[timed(run, 1 + i) for run in runs] for i in range(given.repeats)]
        seconds, rates = ([statistics.median(pair[who][at] for pair in found) for who in (0, 1)] for at in (0, 1))
        print(
            f"{points:6d} | {rates[0]:13.1f} | {rates[1]:13.1f} | {rates[0] / rates[1]:5.2f} | "
            f"{seconds[0]:.1f} and {seconds[1]:.1f}, the first {firsts[0]:.1f} and {firsts[1]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
