"""Where libraries differ in what a word means: the rows of docs/libraries.md, each run.

    python benchmarks/conventions.py [elbo] [r_hat] [ess] [failed] [flows]      some, or all; a minute, `flows` ten
    pip install arviz-stats blackjax pymc zuko sbi                              those that are not there are left out

Prints the tables. `tests/test_docs_libraries.py` runs the rows of the libraries that it has, and holds the page to them.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Row = tuple[str, ...]
LOG_EVIDENCE = -(1 / 4 + np.log(4 * np.pi) / 2)  # of y = 1, N(y | t, 1), N(t | 0, 1)
EXACT = (0.5, 0.5**0.5)  # mean and sd of t given y: an ELBO of it is the log evidence, whatever is drawn


# ---- signs of the ELBO --------------------------------------------------------------------------------------------------


def numpyro_pair() -> tuple[Callable[[], None], Callable[[], None]]:
    """The program, and its exact posterior as a guide."""
    import numpyro
    import numpyro.distributions as dist

    def program():
        t = numpyro.sample("t", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(t, 1.0), obs=1.0)

    return program, lambda: numpyro.sample("t", dist.Normal(*EXACT))


def _numpyro() -> Iterator[tuple[str, float]]:
    from numpyro.infer import RenyiELBO, Trace_ELBO

    program, guide = numpyro_pair()
    for bound in (Trace_ELBO(), RenyiELBO(alpha=0, num_particles=5)):
        yield f"NumPyro, `{type(bound).__name__}().loss`", float(bound.loss(jax.random.key(0), {}, program, guide))


def _pyro() -> Iterator[tuple[str, float]]:
    import pyro.distributions as dist
    import torch
    from pyro import sample
    from pyro.infer import SVI, Trace_ELBO
    from pyro.optim import Adam

    def program():
        sample("y", dist.Normal(sample("t", dist.Normal(0.0, 1.0)), 1.0), obs=torch.tensor(1.0))

    def guide():
        sample("t", dist.Normal(*EXACT))

    with torch.random.fork_rng():
        loss, told = Trace_ELBO().loss(program, guide), SVI(program, guide, Adam({}), Trace_ELBO()).evaluate_loss()
    yield "Pyro, `Trace_ELBO().loss`", loss
    yield "Pyro, `SVI.evaluate_loss`", told


def _blackjax() -> Iterator[tuple[str, float]]:
    import blackjax
    import optax
    from jax.scipy.stats import norm

    found = blackjax.meanfield_vi(lambda t: norm.logpdf(t) + norm.logpdf(1.0, t), optax.sgd(0.0))
    state = found.init(jnp.array(0.0))._replace(mu=jnp.array(EXACT[0]), rho=jnp.log(EXACT[1]))
    yield "BlackJAX, `meanfield_vi`, `info.elbo`", float(found.step(jax.random.key(0), state)[1].elbo)
    path, _ = blackjax.vi.pathfinder.approximate(jax.random.key(0), lambda t: norm.logpdf(t) + norm.logpdf(1.0, t), 3.0)
    yield "BlackJAX, `pathfinder`, `state.elbo`", float(path.elbo)


def _pymc() -> Iterator[tuple[str, float]]:
    import pymc as pm

    with pm.Model():
        pm.Normal("y", pm.Normal("t", 0.0, 1.0), 1.0, observed=1.0)
        found = pm.ADVI(start={"t": EXACT[0]}, start_sigma={"t": EXACT[1]}, random_seed=0)
        yield "PyMC, `approx.hist`", float(found.fit(1, progressbar=False).hist[0])


def _probgen() -> Iterator[tuple[str, float]]:
    import probgen as pg

    fit = pg.fit(numpyro_pair()[0], inference="mean_field", num_steps=2000, progress=False)
    yield '**probgen**, `fit.records["loss"]`', float(fit.records["loss"][0, -50:].mean())
    fit = pg.fit(numpyro_pair()[0], num_samples=10, num_warmup=10, progress=False)
    yield '**probgen**, `fit.starts["elbos"]`', float(fit.starts["elbos"].max())


def elbo() -> Iterator[Row]:
    """What the exact posterior is said to have, where log p(y) = -1.516."""
    makers = {"numpyro": _numpyro, "pyro": _pyro, "blackjax": _blackjax, "pymc": _pymc, "probgen": _probgen}
    for library, make in makers.items():
        if find_spec(library):
            for name, value in make():
                yield name, f"{value:.3f}", "a loss: minus the bound" if value > 0 else "the bound"


# ---- R-hat and effective sample size ----------------------------------------------------------------------------------------


def chains() -> dict[str, np.ndarray]:
    """Four chains of 1000 draws, (chain, draw), in five states of health."""
    draws = np.random.default_rng(0).normal(size=(4, 1000))
    one_stuck = draws.copy()
    one_stuck[3] = 2.0
    return {
        "independent": draws,
        "one trend in all": draws + np.linspace(0, 3, 1000),
        "one of four stuck": one_stuck,
        "each stuck elsewhere": np.repeat(np.arange(4.0)[:, None], 1000, axis=1),
        "all stuck at one point": np.ones((4, 1000)),
        "one spread tenfold": draws * np.array([1.0, 1.0, 1.0, 10.0])[:, None],
    }


def _torch(function: Callable[[Any], Any]) -> Callable[[np.ndarray], float]:
    import torch

    return lambda x: function(torch.tensor(x)).item()


def _diagnostics(
    library: str, module: str, names: dict[str, Callable[[Any], Callable]]
) -> Iterator[tuple[str, Callable]]:
    if find_spec(library):
        found = importlib.import_module(module)
        yield from ((name, of(found)) for name, of in names.items())


def _probgen_r_hat() -> Iterator[tuple[str, Callable]]:
    from probgen.diagnostics.chains import r_hat

    yield "**probgen**", lambda x: r_hat(x[None])[0]


def r_hat() -> Iterator[Row]:
    """The same chains, by library."""
    functions = [
        *_diagnostics("arviz_stats", "arviz_stats.base", {
            "ArviZ, `rhat`: split, ranks": lambda m: m.array_stats.rhat,
            'ArviZ, `method="split"`': lambda m: lambda x: m.array_stats.rhat(x, method="split"),
        }),
        *_diagnostics("numpyro", "numpyro.diagnostics", {
            "NumPyro, `gelman_rubin`": lambda m: m.gelman_rubin,
            "NumPyro, `split_gelman_rubin`": lambda m: m.split_gelman_rubin,
        }),
        *_diagnostics("pyro", "pyro.ops.stats", {
            "Pyro, `gelman_rubin`": lambda m: _torch(m.gelman_rubin),
            "Pyro, `split_gelman_rubin`": lambda m: _torch(m.split_gelman_rubin),
        }),
        *_diagnostics("blackjax", "blackjax.diagnostics", {
            "BlackJAX, `potential_scale_reduction`": lambda m: m.potential_scale_reduction,
        }),
        *_probgen_r_hat(),
    ]  # fmt: skip
    yield from _of_chains(functions, ".3f")


def ess() -> Iterator[Row]:
    """How many independent draws the 4000 are worth."""
    functions = [
        *_diagnostics("arviz_stats", "arviz_stats.base", {
            "ArviZ, `ess`, and **probgen**: split, ranks": lambda m: m.array_stats.ess,
            'ArviZ, `method="mean"`: split': lambda m: lambda x: m.array_stats.ess(x, method="mean"),
        }),
        *_diagnostics("numpyro", "numpyro.diagnostics", {
            "NumPyro, `effective_sample_size`": lambda m: m.effective_sample_size,
        }),
        *_diagnostics("pyro", "pyro.ops.stats", {
            "Pyro, `effective_sample_size`": lambda m: _torch(m.effective_sample_size),
        }),
        *_diagnostics("blackjax", "blackjax.diagnostics", {
            "BlackJAX, `effective_sample_size`": lambda m: m.effective_sample_size,
        }),
    ]  # fmt: skip
    yield from _of_chains(functions, ".0f")


def _of_chains(functions: list[tuple[str, Callable]], form: str) -> Iterator[Row]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for name, function in functions:
            yield name, *(f"{float(np.asarray(function(x))):{form}}" for x in chains().values())


# ---- a simulation that fails --------------------------------------------------------------------------------------------------

SUCCEEDS = np.array([1.0, 0.5, 0.25])  # a simulation at t = 0, 1, 2
ONE = np.array([0.2, 0.5, 0.8])  # x = 1, where it has succeeded


def failed(num: int = 1_000_000) -> Iterator[Row]:
    """p(t | x = 1) of three equally likely t by method, each by counts of the same simulations."""
    rng = np.random.default_rng(0)
    t = rng.integers(3, size=num)
    good, x = rng.random(num) < SUCCEEDS[t], rng.random(num) < ONE[t]

    def posterior(weight: np.ndarray) -> str:
        return ", ".join(f"{w:.2f}" for w in weight / weight.sum())

    def counts(which: np.ndarray) -> np.ndarray:
        return np.bincount(t[which], minlength=3)

    likelihood, chance = counts(good & x) / counts(good), counts(good) / counts(t >= 0)
    ratio = likelihood / (good & x).sum() * good.sum()
    yield "the truth, by hand", posterior(SUCCEEDS * ONE)
    yield "ABC by rejection: a failure is no match", posterior(counts(good & x))
    yield "posterior learned (NPE), failures left out", posterior(counts(good & x))
    yield "likelihood learned (NLE), failures left out", posterior(likelihood)
    yield "the same, times the chance to succeed, learned too", posterior(likelihood * chance)
    yield "ratio learned (NRE), failures left out, times the prior", posterior(ratio)
    yield "the same, times the prior of what succeeded", posterior(ratio * counts(good))
    yield "any, simulated again at the same t until it succeeds", posterior(counts(x))


def simulators() -> Iterator[Row]:
    """What sbi does with rows of NaN."""
    if not find_spec("sbi"):
        return
    import torch
    from sbi.inference import NLE, NPE, NRE

    prior = torch.distributions.MultivariateNormal(torch.zeros(1), torch.eye(1))
    t = torch.linspace(-2, 2, 100)[:, None]
    logging.disable()
    for kind in (NPE, NLE, NRE):
        try:
            method = kind(prior).append_simulations(t, torch.where(t > 1, torch.nan, t))
            said = f"leaves them out, and says so: {len(method._theta_roundwise[0])} of 100 kept"
        except ValueError as error:
            said = f"error: {str(error).split('. ')[1]}"
        yield f"sbi, `{kind.__name__}.append_simulations`", said
    logging.disable(logging.NOTSET)


# ---- rows that a flow wants ----------------------------------------------------------------------------------------------------


def flows() -> Iterator[Row]:
    """Held-out nats a row of two moons in units of 100 around 1000, as they are and standardised, 800 steps of Adam."""
    import probgen as pg

    rows = 1000 + 100 * np.asarray(pg.data.load("two_moons"))
    rows = np.random.default_rng(0).permutation(rows)
    train, test = rows[:1600], rows[1600:]
    mean, sd = train.mean(0), train.std(0)
    for name, fitted in _flows():
        raw, standard = fitted(train, test), fitted((train - mean) / sd, (test - mean) / sd) - np.log(sd).sum()
        yield name, f"{raw:.2f}", f"{standard:.2f}"


def _flows() -> Iterator[tuple[str, Callable[[np.ndarray, np.ndarray], float]]]:
    import probgen as pg

    if find_spec("zuko"):
        import zuko

        yield "zuko, `NSF` (splines on -5 to 5)", lambda x, y: _zuko(zuko.flows.NSF, x, y)
        yield "zuko, `MAF`", lambda x, y: _zuko(zuko.flows.MAF, x, y)
    yield "FlowJAX, masked autoregressive, splines on -5 to 5", lambda x, y: _flowjax(True, x, y)
    yield "FlowJAX, masked autoregressive, affine", lambda x, y: _flowjax(False, x, y)
    for model in ("neural_spline", "maf"):
        yield (
            f"**probgen**, `{model}`",
            lambda x, y, model=model: float(np.mean(pg.fit(model, x, num_steps=800, progress=False).log_prob(y).value)),
        )


def _zuko(kind: Any, train: np.ndarray, test: np.ndarray) -> float:
    import torch

    torch.manual_seed(0)
    flow = kind(2, transforms=3, hidden_features=(32, 32))
    steps = torch.optim.Adam(flow.parameters(), 5e-3)
    x, y = (torch.tensor(rows, dtype=torch.float32) for rows in (train, test))
    for _ in range(800):
        loss = -flow().log_prob(x[torch.randint(len(x), (200,))]).mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
    with torch.no_grad():
        return float(flow().log_prob(y).mean())


def _flowjax(spline: bool, train: np.ndarray, test: np.ndarray) -> float:
    from flowjax.bijections import Affine, RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow
    from flowjax.train import fit_to_data

    transformer = RationalQuadraticSpline(knots=8, interval=5) if spline else Affine()
    shape = {"flow_layers": 3, "nn_width": 32, "transformer": transformer, "base_dist": Normal(jnp.zeros(2))}
    how = {"max_epochs": 110, "max_patience": 110, "batch_size": 200, "learning_rate": 5e-3, "show_progress": False}
    key = jax.random.key(0)
    flow, _ = fit_to_data(key, masked_autoregressive_flow(key, **shape), jnp.asarray(train, jnp.float32), **how)
    return float(flow.log_prob(jnp.asarray(test, jnp.float32)).mean())


TABLES = {
    "elbo": ((elbo,), ("where", "says", "so that it is")),
    "r_hat": ((r_hat,), ("R-hat", *chains())),
    "ess": ((ess,), ("ESS", *chains())),
    "failed": ((failed, simulators), ("method", "p(t = 0, 1, 2 given x = 1)")),
    "flows": ((flows,), ("flow", "rows as they are", "rows standardised")),
}


def line(row: Row) -> str:
    """Of a table in Markdown."""
    return f"| {' | '.join(row)} |"


def main(names: list[str]) -> None:
    """Print the tables."""
    jax.config.update("jax_enable_x64", True)
    for name in names or TABLES:
        makers, head = TABLES[name]
        print(f"\n{line(head)}\n|{'---|' * len(head)}")
        for row in (row for make in makers for row in make()):
            print(line(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
