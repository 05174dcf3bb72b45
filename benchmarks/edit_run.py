"""From the edit of a program to its verdict: a fresh process, caches empty, a constant that no cache knows.

    python benchmarks/edit_run.py [--repeats 3] [--programs eight_schools,logistic] [--kept] [--out results.jsonl]

seconds: wall time from the start of the interpreter to the printed verdict (probgen: `pg.fit` by `nuts`, `diagnose`) or to ArviZ's
printed summary (NumPyro: `MCMC(NUTS)`, four chains on as many host devices); 1,000 + 1,000 steps, four chains. The contestants take
turns, each time with a constant of their own. --kept: the caches (for NumPyro JAX's, of all code) are those that a run with another
constant left, as when a user edits a number and runs again. ratio: probgen over NumPyro, of medians; below 1 probgen is sooner.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

HEAD = """
import numpy as np
import {first}
import numpyro
import numpyro.distributions as dist
import jax.numpy as jnp
rng = np.random.default_rng(0)
"""
PROGRAMS = {
    "eight_schools": """
def program(sigma, y=None):
    mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5 + C))
    with numpyro.plate("school", 8):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu + tau * z, sigma), obs=y)
data = dict(sigma=np.array([15.0, 10, 16, 11, 9, 11, 10, 18]), y=np.array([28.0, 8, -3, 7, -1, 1, 18, 12]))
""",
    "linear": """
def program(x, y=None):
    b = numpyro.sample("b", dist.Normal(0, 1 + C).expand([x.shape[1]]).to_event(1))
    s = numpyro.sample("s", dist.HalfNormal(2))
    numpyro.sample("y", dist.Normal(x @ b, s), obs=y)
x = rng.normal(size=(200, 5))
data = dict(x=x, y=x[:, 0] + rng.normal(size=200))
""",
    "logistic": """
def program(x, y=None):
    b = numpyro.sample("b", dist.Normal(0, 1 + C).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ b), obs=y)
x = rng.normal(size=(1000, 10))
data = dict(x=x, y=(rng.random(1000) < 1 / (1 + np.exp(-x[:, 0]))).astype(int))
""",
    "poisson": """
def program(x, y=None):
    a, b = numpyro.sample("a", dist.Normal(0, 2)), numpyro.sample("b", dist.Normal(0, 1 + C))
    numpyro.sample("y", dist.Poisson(jnp.exp(a + b * x)), obs=y)
x = rng.normal(size=300)
data = dict(x=x, y=rng.poisson(np.exp(0.5 + 0.3 * x)))
""",
    "robust": """
def program(x, y=None):
    a, b = numpyro.sample("a", dist.Normal(0, 2)), numpyro.sample("b", dist.Normal(0, 1 + C))
    s, nu = numpyro.sample("s", dist.HalfNormal(2)), numpyro.sample("nu", dist.Gamma(2, 0.1))
    numpyro.sample("y", dist.StudentT(nu, a + b * x, s), obs=y)
x = rng.normal(size=300)
data = dict(x=x, y=1 + x + rng.standard_t(4, size=300))
""",
    "groups": """
def program(g, x, y=None):
    mu, tau = numpyro.sample("mu", dist.Normal(0, 2)), numpyro.sample("tau", dist.HalfNormal(1 + C))
    slope, s = numpyro.sample("slope", dist.Normal(0, 1)), numpyro.sample("s", dist.HalfNormal(1))
    with numpyro.plate("group", 20):
        a = numpyro.sample("a", dist.Normal(mu, tau))
    numpyro.sample("y", dist.Normal(a[g] + slope * x, s), obs=y)
g, x = np.repeat(np.arange(20), 10), rng.normal(size=200)
data = dict(g=g, x=x, y=rng.normal(size=20)[g] + 0.5 * x + 0.5 * rng.normal(size=200))
""",
    "gaussian_process": """
def program(x, y=None):
    length, scale = numpyro.sample("length", dist.LogNormal(-1, 0.5 + C)), numpyro.sample("scale", dist.HalfNormal(1))
    noise = numpyro.sample("noise", dist.HalfNormal(0.3))
    k = scale**2 * jnp.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + (noise**2 + 1e-6) * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), k), obs=y)
x = np.linspace(0, 1, 30)
data = dict(x=x, y=np.sin(6 * x) + 0.1 * rng.normal(size=30))
""",
}
TAILS = {
    "probgen": """
fit = probgen.fit(program, data, inference="nuts", num_chains=4, num_warmup=1000, num_samples=1000, progress=False)
print(fit.diagnose())
""",
    "numpyro": """
import jax, arviz_base, arviz_stats
from numpyro.infer import MCMC, NUTS
numpyro.set_host_device_count(4)
chains = MCMC(NUTS(program), num_warmup=1000, num_samples=1000, num_chains=4, progress_bar=False)
chains.run(jax.random.key(0), **data)
print(arviz_stats.summary(arviz_base.from_numpyro(chains)))
""",
}


def seconds(contestant: str, program: str, kept: bool) -> tuple[float, float]:
    """Of one fresh process, by the clock and of the processor; kept: after one with another constant."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PROBGEN_CACHE": os.path.join(folder, "cache")}
        env.pop("JAX_COMPILATION_CACHE_DIR", None)
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages are bytecode; a checkout is after its first run
        if kept and contestant == "numpyro":
            env |= {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        if kept:
            _run(contestant, program, folder, env)
        return _run(contestant, program, folder, env)


def _run(contestant: str, program: str, folder: str, env: dict[str, str]) -> tuple[float, float]:
    first = "probgen" if contestant == "probgen" else "numpyro"
    constant = f"C = {1e-6 * random.random():.12f}\n"
    file = os.path.join(folder, "program.py")
    with open(file, "w", encoding="utf-8") as text:
        text.write(HEAD.format(first=first) + constant + PROGRAMS[program] + TAILS[contestant])
    begun, spent = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, file], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{contestant} on {program}:\n{done.stderr[-2000:]}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - begun, now.ru_utime + now.ru_stime - spent.ru_utime - spent.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--kept", action="store_true")
    parser.add_argument("--out")
    asked = parser.parse_args()
    ratios, of_processor = [], []
    for program in asked.programs.split(","):
        spent = {name: [] for name in TAILS}
        for _ in range(asked.repeats):
            for name in TAILS:
                spent[name].append(seconds(name, program, asked.kept))
        medians = {name: np.median(each, axis=0) for name, each in spent.items()}
        ratio, processor = medians["probgen"] / medians["numpyro"]
        ratios.append(ratio)
        of_processor.append(processor)
        line = {"program": program, **{k: v.round(2).tolist() for k, v in medians.items()}}
        line |= {"ratio": round(float(ratio), 3), "of the processor": round(float(processor), 3)}
        print(json.dumps(line), flush=True)
        if asked.out:
            with open(asked.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    clock, processor = (np.exp(np.mean(np.log(each))) for each in (ratios, of_processor))
    print(f"geometric mean of {len(ratios)}: {clock:.3f}, of the processor's time {processor:.3f}")


if __name__ == "__main__":
    main()
