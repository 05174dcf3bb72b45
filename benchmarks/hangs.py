"""Does any run hang? Programs full of LAPACK, by several algorithms and numbers of chains, each with a time limit.

    python benchmarks/hangs.py                      # all, about an hour on two cores
    python benchmarks/hangs.py --programs gp qr --sizes 20 60 --rounds 2
    python benchmarks/hangs.py --late               # JAX has begun before probgen is imported

A process runs all algorithms of one program and size, and says a line after each; where no line comes for `--limit` seconds, and
next to no CPU is used, the run counts as hung, and the process is killed; so it does after ten times as long. Runs are short: it is
the waiting that is tested, not the draws.
"""

from __future__ import annotations

import argparse
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHAINS = (1, 2, 4)
WORKING = 0.01  # share of a core above which a process is at work
SIZES = (20, 60, 150, 400)
MARKOV = {"num_warmup": 60, "num_samples": 12}
# Code that LLVM leaves as it is compiles in a third of the time, and calls the same LAPACK.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def programs() -> dict[str, Callable[[int], tuple[Callable[..., Any], dict[str, Any]]]]:
    """By name: a function of a size that gives a program and its data."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    rng = np.random.default_rng(0)

    def gp(n: int) -> Any:
        x = np.linspace(0, 1, n)

        def program(x: Any, y: Any = None) -> None:
            scale, length, noise = (numpyro.sample(k, dist.LogNormal(0.0, 0.5)) for k in ("scale", "length", "noise"))
            K = scale**2 * jnp.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + (noise**2 + 1e-6) * jnp.eye(len(x))
            numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), K), obs=y)

        return program, {"x": x, "y": np.sin(6 * x) + 0.1 * rng.normal(size=n)}

    def plates(n: int) -> Any:
        """A plate of 100 groups, each with a covariance of its own, of side up to 20."""
        side = min(20, max(3, n // 20))

        def program(y: Any) -> None:
            with numpyro.plate("group", 100):
                scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
                cov = scale[:, None, None] ** 2 * jnp.eye(y.shape[-1]) + 0.1
                numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(y.shape[-1]), cov), obs=y)

        return program, {"y": rng.normal(size=(100, side))}

    def lkj(n: int) -> Any:
        def program(y: Any) -> None:
            root = numpyro.sample("root", dist.LKJCholesky(12, 2.0))
            scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5).expand([12]).to_event(1))
            mvn = dist.MultivariateNormal(jnp.zeros(12), scale_tril=scale[:, None] * root)
            with numpyro.plate("row", len(y)):
                numpyro.sample("y", mvn, obs=y)

        return program, {"y": rng.normal(size=(n, 12))}

    def of(function: Callable[[Any, Any], Any]) -> Callable[[int], Any]:
        """A program whose mean is a function of a symmetric matrix (side, side) and a vector; 8 of them at once."""

        def make(n: int) -> Any:
            side = min(n, 100)
            x = rng.normal(size=(8, side, side)) / np.sqrt(side)

            def program(x: Any, y: Any = None) -> None:
                a, noise = numpyro.sample("a", dist.Normal(1.0, 0.3)), numpyro.sample("noise", dist.LogNormal(0.0, 0.5))
                matrices = a**2 * (x + x.swapaxes(-1, -2)) + 8 * jnp.eye(side) + jnp.diag(jnp.arange(side) / side)
                mean = jax.vmap(function)(matrices, x[:, 0])
                numpyro.sample("y", dist.Normal(mean, noise).to_event(1), obs=y)

            return program, {"x": x, "y": rng.normal(size=8)}

        return make

    return {
        "gp": gp,
        "plates": plates,
        "lkj": lkj,
        "eigh": of(lambda A, b: jnp.linalg.eigh(A)[0][-1]),
        "solve": of(lambda A, b: jnp.linalg.solve(A, b)[0]),
        "slogdet": of(lambda A, b: jnp.linalg.slogdet(A)[1] / len(b)),
        "qr": of(lambda A, b: jnp.abs(jnp.linalg.qr(A)[1][0, 0])),
        "svd": of(lambda A, b: jnp.linalg.svd(A, full_matrices=False)[1][0]),
    }


def child(name: str, size: int, rounds: int, late: bool) -> None:
    """Everything of one program and size, with a line after each run."""
    if late:
        import jax.numpy

        jax.numpy.ones(1).block_until_ready()
    import probgen as pg

    program, data = programs()[name](size)
    for seed in range(rounds):
        for chains in CHAINS:
            for inference in ("nuts", "mala"):
                tick = time.perf_counter()
                pg.fit(program, data, inference, seed=seed, num_chains=chains, progress=False, **MARKOV)
                print(f"{inference} chains={chains}", f"{time.perf_counter() - tick:.1f}", flush=True)
        tick = time.perf_counter()
        pg.fit(program, data, "mean_field", seed=seed, num_steps=60, progress=False)
        print("mean_field", f"{time.perf_counter() - tick:.1f}", flush=True)
        tick = time.perf_counter()
        pg.sbc(program, "nuts", data=data, seed=seed, num_simulations=20, **MARKOV)
        print("sbc", f"{time.perf_counter() - tick:.1f}", flush=True)


RUNS = 2 * len(CHAINS) + 2  # of a program and a size in one round


def cpu(process: subprocess.Popen[str]) -> float:
    """Seconds of CPU that a process has had; infinity where the system does not say."""
    try:
        words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def lines(process: subprocess.Popen[str], limit: float) -> Iterator[str]:
    """The lines of a process until its end; TimeoutError where none comes, and next to nothing is computed, for `limit` seconds.

    On a busy machine a run that waits for its turn is no run that hangs: what hangs takes no CPU.
    """
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        waits = 0
        while True:
            before, waits = cpu(process), waits + 1
            if not selector.select(limit):
                if cpu(process) - before > WORKING * limit and waits < 10:
                    continue
                raise TimeoutError
            waits = 0
            line = process.stdout.readline()
            if not line:
                return
            yield line.strip()


def watched(name: str, size: int, given: argparse.Namespace) -> tuple[int, int, int]:
    """Runs that ended, hung, failed of one program and size."""
    words = [
        sys.executable,
        __file__,
        "--child",
        name,
        str(size),
        "--rounds",
        str(given.rounds),
        *["--late"] * given.late,
    ]
    env = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    ended = 0
    try:
        for line in lines(process, given.limit):
            ended += 1
            print(f"{name} {size}: {line} s", flush=True)
    except TimeoutError:
        process.kill()
        print(f"{name} {size}: HUNG after {ended} runs", flush=True)
        return ended, 1, 0
    _, told = process.communicate()
    if process.returncode:
        print(f"{name} {size}: FAILED after {ended} runs: {told.strip().splitlines()[-1:]}", flush=True)
    return ended, 0, int(process.returncode != 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["gp", "plates", "lkj", "eigh", "solve", "slogdet", "qr", "svd"]
    parser.add_argument("--programs", nargs="+", default=names, choices=names)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--limit", type=float, default=300.0, help="seconds without a line after which a run counts as hung"
    )
    parser.add_argument("--late", action="store_true", help="start JAX before probgen is imported")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], int(given.child[1]), given.rounds, given.late)
        return
    counts = [watched(name, size, given) for name in given.programs for size in given.sizes]
    ended, hung, failed = (sum(column) for column in zip(*counts, strict=True))
    print(f"{ended} runs ended, {hung} hung, {failed} failed; {len(counts) * RUNS * given.rounds} asked for")
    raise SystemExit(bool(hung or failed))


if __name__ == "__main__":
    main()
