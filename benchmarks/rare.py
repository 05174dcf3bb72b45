"""Rare events beside exact probabilities: what intervals cover over many seeds, the errors that were said and made, the cost.

python benchmarks/rare.py [--seeds 200] [--only NAME] [--method NAME]
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

import probgen as pg
from probgen.evaluate.rare import draws, places
from probgen.evaluate.rare.event import asked
from probgen.evaluate.rare.splitting import Settings, climbed
from probgen.evaluate.rare.tilting import tilted
from probgen.evaluate.rare.walking import World

QUICK = {"progress": False, "num_warmup": 100, "num_samples": 100}
METHODS = {"splitting": climbed, "importance": tilted}


def normals(size):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([size]).to_event(1))
    numpyro.deterministic("path", jnp.cumsum(x))


def coins(size):
    bits = numpyro.sample("bits", dist.Bernoulli(0.5).expand([size]).to_event(1))
    numpyro.deterministic("path", jnp.cumsum(2 * bits - 1))


def level(y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("n", 4):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)


def passage(steps: int, above: float) -> float:
    """P(a walk of normal steps goes above a line), by its density on a grid."""
    width = 0.01
    grid = np.arange(-90, above, width)
    kernel = stats.norm.pdf(np.arange(-8, 8 + width / 2, width)) * width
    density = np.where(np.arange(len(grid)) == np.argmin(np.abs(grid)), 1.0, 0.0)
    for _ in range(steps - 1):
        density = np.convolve(density, kernel, "same")
    return float(1 - density.sum() + density @ stats.norm.sf(above - grid)) if steps else 0.0


Case = tuple[str, Any, Callable[[Any], Any], float, float]


def cases() -> list[Case]:
    """Name, fit, score, threshold, exact probability."""
    fit = functools.lru_cache(lambda size: pg.fit(normals, {"size": size}, **QUICK))
    posterior = pg.fit(level, {"y": np.array([1.0, 2.0, 0.0, 1.0])}, progress=False)
    mean, sd, tail = 0.8, 5**-0.5, float(stats.norm.sf(5))
    walk = pg.fit(coins, {"size": 24}, inference="gibbs", **QUICK)
    ties = float(stats.binom.sf(20, 24, 0.5) + stats.binom.sf(21, 24, 0.5))
    return [
        ("normal tail", fit(3), lambda d: d["x"].sum() / 3**0.5, 6.0, float(stats.norm.sf(6))),
        ("both tails", fit(3), lambda d: abs(d["x"][0]), 5.0, 2 * tail),
        ("ellipsoid, 10", fit(10), lambda d: (d["x"] ** 2).sum(), 60.0, float(stats.chi2.sf(60, 10))),
        ("ellipsoid, 50", fit(50), lambda d: (d["x"] ** 2).sum(), 130.0, float(stats.chi2.sf(130, 50))),
        ("first passage, 30", fit(30), lambda d: d["path"].max(), 25.0, passage(30, 25.0)),
        ("walk of coins, ties", walk, lambda d: d["path"].max(), 17.5, ties),
        ("posterior", posterior, lambda d: d["mu"], mean + 5 * sd, tail),
        ("predicted", posterior, lambda d: d["y"].sum(), 4 * mean + 5 * (16 * sd**2 + 4) ** 0.5, tail),
    ]


def study(case: Case, method: str, seeds: int) -> str:
    """One line: the mean of all seeds, the spread and the error that was said (both relative), the cover, the cost."""
    name, fit, score, above, truth = case
    event, drawn = asked(score, above, None), draws.drawn(fit, None, 0, {})
    event.try_on(drawn.row())
    event.scores(drawn.columns(event.read), drawn.scope)
    space, begin = places.place(fit, event, {}, lambda new: dict(fit.target.data)), time.perf_counter()
    found = [METHODS[method](World(space, event), seed, 0.95, Settings(), "") for seed in range(seeds)]
    values = np.array([each.value for each in found])
    said = np.mean([each.stderr / max(each.value, 1e-300) for each in found])
    cover = sum(each.interval[0] <= truth <= each.interval[1] for each in found)
    cost, seconds = np.mean([each.cost for each in found]), (time.perf_counter() - begin) / seeds
    ratio, spread = values.mean() / truth, values.std() / truth
    return (
        f"| {name} | {method} | {truth:.3g} | {ratio:.3f} | {spread:.3f} | {said:.3f} | {cover} of {seeds} "
        f"| {cost:,.0f} | {cost / -np.log(truth):,.0f} | {seconds:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", default="", help="of events whose name has this")
    parser.add_argument("--method", default="", help="splitting or importance; by default both")
    given = parser.parse_args()
    print(
        "| event | method | exact p | mean / p | sd / p | error said / p | covered | evaluations | ... / log(1/p) | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for case in cases():
        for method in [given.method] if given.method else METHODS:
            exact = method == "splitting" or not case[1].target.named("observed")
            if exact and given.only in case[0]:
                print(study(case, method, given.seeds), flush=True)


if __name__ == "__main__":
    main()
