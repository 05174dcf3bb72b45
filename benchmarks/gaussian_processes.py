"""Gaussian processes and small matrices by NUTS: probgen beside NumPyro's chains one after the other, in one run.

    python benchmarks/gaussian_processes.py
    python benchmarks/gaussian_processes.py --quick
    python benchmarks/gaussian_processes.py --cases gp-30 gp-100 --warmup 300 --draws 300 --table

`gp-N`: regression, N points; `class-N`: classification, N points; `mvn-N`: 1,000 rows of an N-dimensional normal of one unknown
covariance; `own-N`: of 1,000 covariances, each with an unknown scale; `lkj-N`: 1,000 rows, LKJ's correlations and scales unknown.

ESS/s is the smallest bulk effective sample size per second of warm runs, warm-up of the sampler included: 4 chains, float64,
`--warmup` and `--draws` steps each; ESS/CPU s is that per second of the processor, to be read where other work runs. Both
compile in a first run; then they take turns, and the medians count. NumPyro runs with `chain_method="sequential"`: its parallel
chains can hang on LAPACK calls. A gradient is a step of a compiled loop over value and gradient of the potential, in the
processor's time: of probgen on a pool as its chains have, of NumPyro on the same pool in turns, then on JAX's and BLAS's own
threads, where its chains run; the least of `--turns` counts. `--gradients` leaves the chains out.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import probgen as pg
from probgen import runtime  # before anything starts JAX

CHAINS, ROWS = 4, 1000
CASES = ["gp-30", "gp-100", "gp-300", "class-30", "class-100", "mvn-5", "mvn-20", "mvn-50", "own-5", "own-20", "lkj-5"]
MARK = "## gaussian_processes.py"


def kernel(x: Any) -> Any:
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    scale: Any = numpyro.sample("scale", dist.HalfNormal(1.0))
    length: Any = numpyro.sample("length", dist.InverseGamma(5.0, 1.0))
    return scale**2 * jnp.exp(-0.5 * ((x[:, None] - x) / length) ** 2)


def regression(x: Any, y: Any = None) -> None:
    """A Gaussian process with a squared exponential kernel and noise."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    noise: Any = numpyro.sample("noise", dist.HalfNormal(0.5))
    K = kernel(x) + (noise**2 + 1e-6) * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), K), obs=y)


def classification(x: Any, y: Any = None) -> None:
    """Bits whose logits are a Gaussian process, as the correlation of normals of its own."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    K = kernel(x) + 1e-6 * jnp.eye(len(x))
    with numpyro.plate("point", len(x)):
        z = numpyro.sample("z", dist.Normal())
        numpyro.sample("y", dist.Bernoulli(logits=jnp.linalg.cholesky(K) @ z), obs=y)


def rows(base: Any, y: Any = None) -> None:
    """Rows of one covariance: that of the data, its coordinates stretched, and noise."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    size = base.shape[-1]
    stretch: Any = numpyro.sample("stretch", dist.LogNormal(0.0, 0.5).expand([size]).to_event(1))
    noise: Any = numpyro.sample("noise", dist.HalfNormal(1.0))
    loc = numpyro.sample("loc", dist.Normal().expand([size]).to_event(1))
    K = base * stretch[:, None] * stretch + (noise**2 + 1e-6) * jnp.eye(size)
    with numpyro.plate("row", ROWS):
        numpyro.sample("y", dist.MultivariateNormal(loc, K), obs=y)


def own(base: Any, y: Any = None) -> None:
    """Rows each with a covariance of its own."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    spread = numpyro.sample("spread", dist.HalfNormal(1.0))
    with numpyro.plate("row", ROWS):
        scale: Any = numpyro.sample("scale", dist.LogNormal(0.0, spread))
        K = base * scale[:, None, None] + jnp.eye(base.shape[-1])
        numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(base.shape[-1]), K), obs=y)


def correlated(size: int, y: Any = None) -> None:
    """Rows of unknown correlations and scales."""
    import numpyro
    import numpyro.distributions as dist

    root = numpyro.sample("root", dist.LKJCholesky(size, 2.0))
    scale: Any = numpyro.sample("scale", dist.LogNormal(0.0, 1.0).expand([size]).to_event(1))
    loc = numpyro.sample("loc", dist.Normal().expand([size]).to_event(1))
    with numpyro.plate("row", ROWS):
        numpyro.sample("y", dist.MultivariateNormal(loc, scale_tril=scale[:, None] * root), obs=y)


def case(word: str) -> tuple[Callable[..., None], dict[str, Any]]:
    """The program and its data."""
    kind, size = word.split("-")[0], int(word.split("-")[1])
    rng, x = np.random.default_rng(0), np.linspace(0, 1, size)
    if kind in ("gp", "class"):
        y = np.sin(6 * x) + 0.1 * rng.normal(size=size)
        return (regression, {"x": x, "y": y}) if kind == "gp" else (classification, {"x": x, "y": (y > 0).astype(int)})
    base = np.cov(rng.normal(size=(size, 3 * size))) + 0.1 * np.eye(size)
    scale = np.exp(0.5 * rng.normal(size=(ROWS, 1))) if kind == "own" else 1.0
    y = rng.normal(size=(ROWS, size)) @ np.linalg.cholesky(base).T * scale + (kind == "own") * rng.normal(
        size=(ROWS, size)
    )
    return (
        (correlated, {"size": size, "y": y})
        if kind == "lkj"
        else ({"mvn": rows, "own": own}[kind], {"base": base, "y": y})
    )


# ---- chains ----------------------------------------------------------------------------------------------------------------


def min_ess(draws: Mapping[str, np.ndarray]) -> float:
    from arviz_stats.base import array_stats

    units = [v.reshape(*v.shape[:2], -1) for v in map(np.asarray, draws.values())]
    moving = [v[..., i] for v in units for i in range(min(v.shape[-1], 30)) if np.ptp(v[..., i]) > 0]
    sizes: list[Any] = [array_stats.ess(v) for v in moving]
    return float(min(sizes))


def ours(word: str, warmup: int, draws: int) -> Callable[[int], Mapping[str, np.ndarray]]:
    program, given = case(word)
    settings = {"num_chains": CHAINS, "num_warmup": warmup, "num_samples": draws, "progress": False}
    return lambda seed: pg.fit(program, given, "nuts", seed=seed, **settings).draws


def theirs(word: str, warmup: int, draws: int) -> Callable[[int], Mapping[str, np.ndarray]]:
    import jax
    from numpyro.infer import MCMC, NUTS

    program, given = case(word)
    settings: dict[str, Any] = {"num_warmup": warmup, "num_samples": draws, "num_chains": CHAINS}
    with jax.enable_x64(True):
        mcmc = MCMC(NUTS(program), **settings, chain_method="sequential", progress_bar=False)

    def run(seed: int) -> Mapping[str, np.ndarray]:
        with jax.enable_x64(True):
            mcmc.run(jax.random.key(seed), **given)
            return {k: np.asarray(v) for k, v in mcmc.get_samples(group_by_chain=True).items()}

    return run


def timed(run: Callable[[int], Mapping[str, np.ndarray]], seed: int) -> tuple[float, float, float]:
    """Seconds of a run by the clock, those of the processor, and its smallest ESS."""
    tick, cpu = time.perf_counter(), time.process_time()
    draws = run(seed)
    return time.perf_counter() - tick, time.process_time() - cpu, min_ess(draws)


def chains(word: str, warmup: int, draws: int, repeats: int) -> list[str]:
    """ESS per second of the clock and of the processor of both, their ratios, and the seconds of a run."""
    runs = [make(word, warmup, draws) for make in (ours, theirs)]
    for run in runs:
        run(0)
    found = [[timed(run, 1 + i) for run in runs] for i in range(repeats)]
    of = lambda who, f: statistics.median(f(*pair[who]) for pair in found)  # noqa: E731
    clock = [of(who, lambda wall, cpu, ess: ess / wall) for who in (0, 1)]
    processor = [of(who, lambda wall, cpu, ess: ess / cpu) for who in (0, 1)]
    seconds = [of(who, lambda wall, cpu, ess: cpu) for who in (0, 1)]
    shown = [[f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.1f}"] for ours, theirs in (clock, processor)]
    return [*shown[0], *shown[1], f"{seconds[0]:.1f} / {seconds[1]:.1f}"]


# ---- gradients -------------------------------------------------------------------------------------------------------------


def gradients(word: str, turns: int) -> list[str]:
    """Microseconds of the processor's time a gradient: ours, NumPyro's on the same pool, on JAX's threads; the ratios to ours."""
    import jax
    from jax import lax
    from jax.flatten_util import ravel_pytree
    from numpyro.infer.util import initialize_model

    from probgen import engine, pools

    program, given = case(word)
    target: Any = engine.load("numpyro").prepare(program, given).for_run()
    with runtime.jax_scope("float64"):
        model = initialize_model(jax.random.key(0), program, model_kwargs=given)
        start, unravel = ravel_pytree(model.param_info.z)
        start = np.asarray(start) * 0.1
        own_density = lambda z, arrays: type(target)(target.structure, arrays).value_and_grad(z)[1]  # noqa: E731
        plain = lambda z, arrays: -jax.grad(lambda z: model.potential_fn(unravel(z)))(z)  # noqa: E731
        loop = lambda f: lambda z, arrays, n: lax.fori_loop(0, n, lambda _, z: z + 1e-9 * f(z, arrays), z)  # noqa: E731
        pool, calls = pools.Pool(1), []
        for f, device, scope in (
            (own_density, pool.device, pools.one_blas_thread),
            (plain, pool.device, pools.one_blas_thread),
            (plain, jax.devices()[0], contextlib.nullcontext()),
        ):
            placed = jax.device_put((start, target.arrays, np.int64(1)), device)
            code = jax.jit(loop(f)).lower(*placed).compile()
            with scope:
                tick = time.process_time()
                jax.block_until_ready([code(*placed), code(*placed)])
                steps = int(np.clip(0.01 / (time.process_time() - tick), 2, 500))
            calls.append((code, (*placed[:2], jax.device_put(np.int64(steps), device)), scope))
        times: list[list[float]] = [[], [], []]
        for which in [0, 1] * turns + [
            2
        ] * turns:  # the last by itself: BLAS's threads are busy for a while after a call
            code, placed, scope = calls[which]
            with scope:
                tick = time.process_time()
                jax.block_until_ready(code(*placed))
                times[which].append((time.process_time() - tick) / int(placed[2]) * 1e6)
    best = [min(into) for into in times]
    return [*(f"{t:,.1f}" for t in best), f"{best[1] / best[0]:.1f}", f"{best[2] / best[0]:.1f}"]


HEAD = ["case", "gradient, CPU us: probgen", "NumPyro, same threads", "NumPyro", "ratio, same threads", "ratio"]
HEAD_CHAINS = ["ESS/s: probgen", "NumPyro", "ratio", "ESS/CPU s: probgen", "NumPyro", "ratio", "CPU seconds"]
QUICK = {
    "cases": ["gp-30", "class-30", "mvn-5", "mvn-20", "lkj-5"],
    "repeats": 1,
    "warmup": 200,
    "draws": 200,
    "turns": 10,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES, help="as gp-60: a kind and a size")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--gradients", action="store_true", help="no chains")
    parser.add_argument("--table", action="store_true", help="write the table into README.md")
    parser.add_argument("--quick", action="store_true", help="four small cases and few steps, unless said otherwise")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(**QUICK)
    given = parser.parse_args()
    head = HEAD + ([] if given.gradients else HEAD_CHAINS)
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    print(
        f"{runtime.cores()} cores, {CHAINS} chains of {given.warmup} + {given.draws} steps",
        *lines,
        sep="\n",
        flush=True,
    )
    for word in given.cases:
        print(f"{word} ...", file=sys.stderr, flush=True)
        found = gradients(word, given.turns)
        found += [] if given.gradients else chains(word, given.warmup, given.draws, given.repeats)
        lines.append("| " + " | ".join([word, *found]) + " |")
        print(lines[-1], flush=True)
    if given.table:
        write(lines)


def write(lines: list[str]) -> None:
    """Puts the table into README.md, in place of the one under its heading."""
    path = Path(__file__).with_name("README.md")
    before, mark, rest = path.read_text().partition(MARK)
    if not mark:
        raise SystemExit(f"{path} has no heading {MARK!r}")
    old = rest.split("\n")
    first = next(i for i, line in enumerate(old) if line.startswith("|"))
    end = next((i for i in range(first, len(old)) if not old[i].startswith("|")), len(old))
    path.write_text(before + mark + "\n".join([*old[:first], *lines, *old[end:]]))


if __name__ == "__main__":
    main()
