"""How time and memory grow: a gradient beside the bytes and the arithmetic that it needs, a run's peak beside its data and draws.

    python benchmarks/growth.py
    python benchmarks/growth.py --quick
    python benchmarks/growth.py --cases rows-10000 groups-1000 --turns 40
    python benchmarks/growth.py --disk 100000 1000000

`rows-N`: logistic regression of N rows of 30 columns; `groups-N`: Poisson, N groups of 40 rows, one effect each; `dims-N`: a random
walk of N steps, each observed. All in double precision.

A gradient is a step of a compiled loop over value and gradient on one thread, in the processor's time. Beside it, in turns of one
run: `product`, the two products with the matrix of data (or, without one, two passes over as many numbers) in NumPy on one thread,
and `copy`, the same bytes at the speed of a copy of 128 MB or more. The medians of `--turns` count, and their ratios say how far a
gradient is from its arithmetic and from the memory's bandwidth; exponentials and logarithms of every row are in neither.

Memory is the largest resident set of a fresh process, in MB: `imports`, after the packages are there; `compiling`, of a run of NUTS
whose code is in no cache; `fit`, of the same run again; `out=`, of the same on disk, none of its draws held. It has 4 chains of
`--draws` and half as many adapting steps. `needed` is what it must hold: the data once, and all steps. The ratio is
fit / (imports + needed).

`--disk N ...`: runs of N draws in all, with `out=`: a normal of 1,000 dimensions with scales from .1 to 10, 4 chains of MALA, a
step a draw. Its draws are never held, so that memory should not grow with N. One process fits, a second one reads: in MB, the
largest resident set so far after each thing that it does. Of disk 8 kB a draw for the run, as many for the scratch of `fit.draws`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import harness
import numpy as np

COLUMNS, CHAINS = 30, 4
CASES = [
    "rows-1000",
    "rows-10000",
    "rows-100000",
    "rows-1000000",
    "groups-1000",
    "dims-10",
    "dims-100",
    "dims-1000",
    "dims-10000",
]
QUICK = ["rows-1000", "rows-10000", "groups-100", "dims-10", "dims-1000"]
HEAD = ["case", "gradient, us", "product, us", "ratio", "copy, us", "ratio"]
HEAD_DISK = ["draws", "on disk, GB", "fit, MB", "load, MB", "verdict, MB", "tree, MB", "table, MB", "CPU, s"]
DIM = 1000
HEAD_MEMORY = ["imports, MB", "needed, MB", "compiling, MB", "fit, MB", "ratio", "out=, MB"]


def regression(x: Any, y: Any = None) -> None:
    """Logistic regression."""
    import numpyro
    import numpyro.distributions as dist

    w: Any = numpyro.sample("w", dist.Normal().expand([x.shape[1]]).to_event(1))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def groups(group: Any, x: Any, size: int, y: Any = None) -> None:
    """Counts in groups, each with an effect of its own."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    slope, middle = numpyro.sample("slope", dist.Normal()), numpyro.sample("middle", dist.Normal())
    spread = numpyro.sample("spread", dist.HalfNormal())
    with numpyro.plate("group", size):
        effect: Any = numpyro.sample("effect", dist.Normal(middle, spread))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Poisson(jnp.exp(effect[group] + slope * x)), obs=y)


def walk(y: Any) -> None:
    """A random walk, seen with noise."""
    import numpyro
    import numpyro.distributions as dist

    z = numpyro.sample("z", dist.GaussianRandomWalk(1.0, num_steps=len(y)))
    numpyro.sample("y", dist.Normal(z, 1.0).to_event(1), obs=y)


def case(word: str) -> tuple[Callable[..., None], dict[str, Any]]:
    """The program and its data."""
    kind, size, rng = word.split("-")[0], int(word.split("-")[1]), np.random.default_rng(0)
    if kind == "rows":
        x = rng.normal(size=(size, COLUMNS))
        return regression, {"x": x, "y": (rng.uniform(size=size) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)}
    if kind == "groups":
        group, x = np.repeat(np.arange(size), 40), rng.normal(size=40 * size)
        y = rng.poisson(np.exp(0.5 + 0.3 * rng.normal(size=size)[group] + 0.2 * x))
        return groups, {"group": group, "x": x, "size": size, "y": y}
    return walk, {"y": np.cumsum(rng.normal(size=size)) + rng.normal(size=size)}


# ---- time ------------------------------------------------------------------------------------------------------------------


def gradient(word: str, turns: int) -> list[float]:
    """Microseconds of the processor's time: a gradient, the plain products, a copy of the same bytes."""
    import jax
    from jax import lax

    from probgen import engine, pools, runtime

    program, given = case(word)
    target: Any = engine.load("numpyro").prepare(program, given)
    arrays = [v for v in given.values() if isinstance(v, np.ndarray)]
    matrix = next((v for v in arrays if v.ndim == 2), None)
    big, into = np.ones(2**24 * (2 if turns > 10 else 1)), np.empty(2**24 * (2 if turns > 10 else 1))
    w = np.zeros(matrix.shape[1] if matrix is not None else target.dim)
    with runtime.jax_scope("float64"), pools.one_blas_thread:
        density = lambda z, arrays: type(target)(target.structure, arrays).value_and_grad(z)[1]  # noqa: E731
        loop = lambda z, arrays, n: lax.fori_loop(0, n, lambda _, z: z + 1e-9 * density(z, arrays), z)  # noqa: E731
        device = pools.Pool(1).device
        placed = jax.device_put((np.zeros(target.dim), target.arrays, np.int64(2)), device)
        code = jax.jit(loop).lower(*placed).compile()

        def ours(n: int) -> None:
            jax.block_until_ready(code(*placed[:2], jax.device_put(np.int64(n), device)))

        def product(n: int) -> None:
            for _ in range(n):
                if matrix is not None:
                    np.matmul(matrix.T, matrix @ w)
                else:
                    for v in arrays:
                        np.sum(v) + np.sum(v)

        times: list[list[float]] = [[], [], []]
        counts = [_count(ours), _count(product), 1]
        for _ in range(turns):
            for f, n, found in zip((ours, product, lambda _: np.copyto(into, big)), counts, times, strict=True):
                tick = time.process_time()
                f(n)
                found.append((time.process_time() - tick) / n * 1e6)
    own, plain, copied = map(statistics.median, times)
    passes = 2 * sum(v.nbytes for v in arrays) + 4 * w.nbytes  # forwards and back, and the point with its gradient
    return [own, plain, copied * passes / (2 * big.nbytes)]


def _count(f: Callable[[int], None]) -> int:
    """How many times take about 20 ms."""
    f(2)
    tick = time.process_time()
    f(2)
    return int(np.clip(0.04 / max(time.process_time() - tick, 1e-6), 1, 5000))


# ---- memory ----------------------------------------------------------------------------------------------------------------


def peak() -> float:
    """The largest resident set of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def held(word: str, draws: int, out: str) -> None:
    """In a process of its own: what a run holds, as JSON."""
    import arviz_stats  # noqa: F401
    import jax
    import numpyro  # noqa: F401

    import probgen as pg
    from probgen.data.large import stored

    jax.devices()
    if out:
        stored.IN_MEMORY = 0
    program, given = case(word)
    floor = peak()
    steps: Any = {"num_chains": CHAINS, "num_warmup": draws // 2, "num_samples": draws, "max_tree_depth": 6}
    fit = pg.fit(program, given, "nuts", out=out or None, progress=False, **steps)
    data = sum(v.nbytes for v in given.values() if isinstance(v, np.ndarray))
    print(
        json.dumps(
            {"imports": floor, "fit": peak(), "needed": (data + sum(v.nbytes for v in fit.records.values())) / 2**20}
        )
    )


def memory(word: str, draws: int) -> list[str]:
    """Of a run that compiles, of one in memory and of one on disk, each in a fresh process, with a cache of their own."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for out in ("", "", f"{folder}/run"):
            command = [sys.executable, __file__, "--held", word, str(draws), out]
            environment = {**os.environ, "PROBGEN_CACHE": f"{folder}/cache"}
            said = subprocess.run(command, capture_output=True, text=True, env=environment)
            if said.returncode:
                raise SystemExit(said.stderr)
            found.append(json.loads(said.stdout.strip().splitlines()[-1]))
    first, one, other = found
    ratio = one["fit"] / (one["imports"] + one["needed"])
    sizes = [f"{v:,.0f}" for v in (one["imports"], one["needed"], first["fit"], one["fit"])]
    return [*sizes, f"{ratio:.2f}", f"{other['fit']:,.0f}"]


# ---- draws on disk ---------------------------------------------------------------------------------------------------------


def scales(sd: Any) -> None:
    """A normal of independent coordinates."""
    import numpyro
    import numpyro.distributions as dist

    numpyro.sample("x", dist.Normal(0.0, sd).to_event(1))


def fitted(draws: int, out: str) -> None:
    """In a process of its own: the run, and its largest resident set, as JSON."""
    import probgen as pg

    sd = np.geomspace(0.1, 10.0, DIM)
    steps: Any = {"num_chains": CHAINS, "num_warmup": 1000, "num_samples": draws // CHAINS, "thin": 1}
    pg.fit(scales, {"sd": sd}, "mala", out=out, progress=False, **steps)
    print(json.dumps({"fit": peak(), "seconds": time.process_time()}))


def looked_at(out: str) -> None:
    """In a second one: what reading it takes, as JSON."""
    import probgen as pg

    found, fit = {}, pg.load(out, scales)
    found["load"] = peak()
    fit.diagnose()
    found["verdict"] = peak()
    found["sd"] = float(fit.tree.posterior["x"][0, :, DIM - 1].std())
    found["tree"] = peak()
    fit.summary()
    print(json.dumps({**found, "table": peak(), "seconds": time.process_time()}))


def disk(draws: int, folder: str) -> list[str]:
    """A row of the table of `--disk`."""
    with tempfile.TemporaryDirectory(dir=folder) as base:
        out, found = f"{base}/run", {}
        for word in (["--fitted", str(draws), out], ["--looked-at", out]):
            said = subprocess.run([sys.executable, __file__, *word], capture_output=True, text=True)
            if said.returncode:
                raise SystemExit(said.stderr)
            told = json.loads(said.stdout.strip().splitlines()[-1])
            found |= {**told, "seconds": found.get("seconds", 0.0) + told["seconds"]}
        size = sum(entry.stat().st_size for entry in os.scandir(f"{out}/draws")) / 2**30
    sizes = [f"{found[k]:,.0f}" for k in ("fit", "load", "verdict", "tree", "table", "seconds")]
    return [f"{draws:,}", f"{size:.1f}", *sizes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", help="as rows-5000: a kind and a size")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="small sizes, few turns and few draws")
    parser.add_argument("--no-memory", action="store_true", help="gradients alone")
    parser.add_argument("--disk", nargs="+", type=int, metavar="DRAWS", help="runs of so many draws on disk, alone")
    parser.add_argument("--folder", help="of --disk, by default the system's for temporary files")
    parser.add_argument("--fitted", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--looked-at", help=argparse.SUPPRESS)
    parser.add_argument("--held", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.held:
        return held(given.held[0], int(given.held[1]), given.held[2])
    if given.fitted:
        return fitted(int(given.fitted[0]), given.fitted[1])
    if given.looked_at:
        return looked_at(given.looked_at)
    if given.disk:
        table = []
        for draws in given.disk:
            table.append(disk(draws, given.folder))
            harness.say("  ".join(table[-1]))
        return harness.say("\n" + harness.table(HEAD_DISK, table))
    turns, draws = (5, 50) if given.quick else (given.turns, given.draws)
    words, rows = given.cases or (QUICK if given.quick else CASES), []
    harness.say(harness.machine())
    for word in words:
        own, plain, copied = gradient(word, turns)
        row = [word, f"{own:,.1f}", f"{plain:,.1f}", f"{own / plain:.1f}", f"{copied:,.1f}", f"{own / copied:.1f}"]
        row += [] if given.no_memory else memory(word, draws)
        rows.append(row)
        harness.say("  ".join(row))
    harness.say("\n" + harness.table(HEAD + ([] if given.no_memory else HEAD_MEMORY), rows))
    return None


if __name__ == "__main__":
    main()
