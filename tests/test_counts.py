"""Counts and categories of probabilities 0 and 1, or nearly so: log densities and slopes against closed forms, on both engines."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy import special, stats

import probgen as pg
from probgen.engine.numpyro.programs.edges import Edges

INF = np.inf
TINY = 1e-30
CUTS = (-1.0, 1.0, 50.0)


def between(low, high):
    """log P(low < logistic <= high), of ends above 0."""
    return stats.logistic.logsf(low) + np.log1p(-np.exp(stats.logistic.logsf(high) - stats.logistic.logsf(low)))


def ordered(d, x):
    return d.OrderedLogistic(x, 0 * x + np.array(CUTS)) if d is dist else d.OrderedLogistic(x, x.new_tensor(CUTS))


def by(name):
    """A family by its arguments, of NumPyro or Pyro: (module of distributions, number) -> law."""
    families = {
        "bernoulli": lambda d, p: d.Bernoulli(probs=p),
        "bernoulli_logits": lambda d, x: d.Bernoulli(logits=x),
        "binomial": lambda d, p: d.Binomial(10, probs=p),
        "binomial_logits": lambda d, x: d.Binomial(10, logits=x),
        "geometric": lambda d, p: d.Geometric(probs=p),
        "inflated": lambda d, g: d.ZeroInflatedDistribution(d.Poisson(1e4 + 0 * g), gate=g),
        "masked": lambda d, p: d.Bernoulli(probs=p).expand((1,)).to_event(1).mask(True),
        "ordered": ordered,
    }
    return families[name]


@pytest.fixture(params=["numpyro", "pyro"])
def density(request):
    """(family, number, value) -> log density and its slope, as algorithms see them."""

    def of_numpyro(family, at, value):
        def f(at):
            run = lambda: numpyro.sample("y", family(dist, at), obs=jnp.asarray(value, float))  # noqa: E731
            return log_density(Edges(run), (), {}, {})[0]

        with jax.enable_x64(True):
            return tuple(map(float, jax.value_and_grad(f)(at)))

    def of_pyro(family, at, value):
        import pyro
        import pyro.distributions as pd
        import torch

        from probgen.engine.pyro.programs import edges

        at = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        run = lambda: pyro.sample("y", family(pd, at), obs=at.new_tensor(value))  # noqa: E731
        with edges.Edges():
            found: Any = pyro.poutine.trace(run).get_trace().log_prob_sum()
        return float(found.detach()), float(torch.autograd.grad(found, at)[0]) if found.requires_grad else 0.0

    if request.param == "pyro":
        pytest.importorskip("pyro")
    return {"numpyro": of_numpyro, "pyro": of_pyro}[request.param]


@pytest.mark.parametrize(
    ("name", "at", "value", "expected", "slope"),
    [
        ("bernoulli", 0.0, 1.0, -INF, None),
        ("bernoulli", 1.0, 0.0, -INF, None),
        ("bernoulli", 0.0, 0.0, 0.0, -1.0),
        ("bernoulli", 1.0, 1.0, 0.0, 1.0),
        ("bernoulli", TINY, 1.0, np.log(TINY), 1 / TINY),
        ("bernoulli", 0.3, 1.0, np.log(0.3), 1 / 0.3),
        ("bernoulli_logits", 0.0, 0.0, -np.log(2), -0.5),
        ("bernoulli_logits", -200.0, 1.0, -200.0, 1.0),
        ("binomial", 0.0, 1.0, -INF, None),
        ("binomial", 1.0, 9.0, -INF, None),
        ("binomial", TINY, 2.0, np.log(45) + 2 * np.log(TINY), 2 / TINY),
        ("binomial", 0.3, 4.0, stats.binom.logpmf(4, 10, 0.3), 4 / 0.3 - 6 / 0.7),
        ("binomial_logits", 0.0, 5.0, stats.binom.logpmf(5, 10, 0.5), 0.0),
        ("geometric", 1.0, 0.0, 0.0, 1.0),
        ("geometric", 1.0, 2.0, -INF, None),
        ("geometric", TINY, 2.0, np.log(TINY), 1 / TINY),
        ("inflated", 0.0, 0.0, -1e4, None),
        ("inflated", 0.0, 5.0, stats.poisson.logpmf(5, 1e4), -1.0),
        ("inflated", 1.0, 0.0, 0.0, 1.0),
        ("inflated", 1.0, 5.0, -INF, None),
        ("masked", 0.0, [1.0], -INF, None),
        ("ordered", -100.0, 3.0, -150.0, 1.0),
        ("ordered", -100.0, 2.0, between(101.0, 150.0), 1.0),
        ("ordered", 0.3, 1.0, np.log(special.expit(0.7) - special.expit(-1.3)), None),
        ("ordered", 90.0, 0.0, -91.0, -1.0),
    ],
)
def test_log_densities_at_the_edges(density, name, at, value, expected, slope):
    found, found_slope = density(by(name), at, value)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert not np.isnan(found_slope)
    if slope is not None:
        assert found_slope == pytest.approx(slope, rel=1e-9, abs=1e-9)


def test_families_that_numpyro_alone_has():
    def of(law, value):
        return log_density(Edges(lambda: numpyro.sample("y", law, obs=jnp.array(value))), (), {}, {})[0]

    with jax.enable_x64(True):
        hurdle = lambda g: of(dist.HurdlePoisson(g, 3.0), 2)  # noqa: E731
        assert jax.grad(hurdle)(0.0) == pytest.approx(-1)  # was NaN
        pair = dist.MixtureSameFamily(dist.Categorical(jnp.array([0.5, 0.5])), dist.Bernoulli(jnp.array([1.0, 0.25])))
        assert of(pair, 0) == pytest.approx(np.log(0.375), rel=1e-12)
        general = dist.MixtureGeneral(
            dist.Categorical(jnp.array([0.5, 0.5])), [dist.Bernoulli(1.0), dist.Bernoulli(0.25)]
        )
        assert of(general, 0) == pytest.approx(np.log(0.375), rel=1e-12)
    near = dist.NegativeBinomial2(
        jnp.float32(3.0), jnp.float32(1e8)
    )  # a Poisson law, which single precision lost by 3 nats
    assert of(near, 3) == pytest.approx(stats.poisson.logpmf(3, 3.0), abs=1e-3)


def test_families_that_pyro_clips_by_itself():
    pytest.importorskip("pyro")
    import pyro
    import pyro.distributions as pd
    import torch

    from probgen.engine.pyro.programs import edges

    def of(law, value):
        with edges.Edges():
            run = lambda: pyro.sample("y", law, obs=torch.as_tensor(value, dtype=torch.float64))  # noqa: E731
            return float(pyro.poutine.trace(run).get_trace().log_prob_sum())

    never = torch.tensor([0.0, 1e-30, 1.0], dtype=torch.float64)
    assert of(pd.Categorical(never), 0) == -INF
    assert of(pd.Categorical(never), 1) == pytest.approx(np.log(1e-30), rel=1e-12)
    assert of(pd.OneHotCategorical(never), [1, 0, 0]) == -INF
    assert of(pd.Multinomial(2, never), [0, 1, 1]) == pytest.approx(np.log(2e-30), rel=1e-12)
    assert of(pd.Multinomial(2, never), [1, 0, 1]) == -INF
    assert of(pd.NegativeBinomial(2.0, probs=never[0]), 1) == -INF
    far = torch.tensor([-800.0, 0.0, 0.0], dtype=torch.float64)
    law = pd.Multinomial(2, logits=far)  # whose probabilities, 0 by rounding, torch has cached
    assert of(law, [1, 1, 0]) == pytest.approx(-800 - np.log(2), rel=1e-12)
    either = torch.tensor([0.5, 0.5], dtype=torch.float64)
    pair = pd.MixtureSameFamily(pd.Categorical(either), pd.Bernoulli(torch.tensor([1.0, 0.25], dtype=torch.float64)))
    assert of(pair, 0) == pytest.approx(np.log(0.375), rel=1e-12)


# ---- what follows for a posterior --------------------------------------------------------------------------------


def machine_numpyro(y):
    w = numpyro.sample("w", dist.Beta(1.0, 1.0))
    sure = numpyro.sample("sure", dist.Bernoulli(w))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Bernoulli(jnp.where(sure == 1, 1.0, 0.5)), obs=y)


def machine_pyro(y):
    import pyro
    import pyro.distributions as pd
    import torch

    w = pyro.sample("w", pd.Beta(1.0, 1.0))
    sure = pyro.sample("sure", pd.Bernoulli(w))
    with pyro.plate("row", len(y)):
        pyro.sample("y", pd.Bernoulli(torch.where(sure == 1, 1.0, 0.5)), obs=y)


@pytest.mark.parametrize("program", [machine_numpyro, machine_pyro], ids=["numpyro", "pyro"])
def test_one_failure_in_sixty_rules_out_what_never_fails(program):
    """w | sure = 0 is Beta(1, 2). A probability of 1 that is clipped costs 36 nats, sixty fair coins 41.6: mean 2/3 with "pass"."""
    if program is machine_pyro:
        pytest.importorskip("pyro")
    y = np.ones(60)
    y[17] = 0
    fit = pg.fit(program, {"y": y}, num_samples=200, num_chains=2, progress=False)
    w = fit.draws["w"]
    assert not np.any(fit.draws["sure"])
    assert abs(w.mean() - 1 / 3) < 5 * np.sqrt(1 / 18 / fit.summary().loc["w", "ess_bulk"])


# ---- what is no count --------------------------------------------------------------------------------------------


def masked(y, seen):
    rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
    numpyro.sample("y", dist.Poisson(rate * jnp.ones(3)).mask(seen), obs=y)


def masked_vector(y, seen):
    rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
    numpyro.sample("y", dist.Poisson(rate * jnp.ones(3)).mask(seen).to_event(1), obs=y)


@pytest.mark.parametrize("program", [masked, masked_vector])
@pytest.mark.parametrize("value", [-1.0, 1.5])
def test_a_mask_lets_through_only_what_it_leaves_out(program, value):
    """The rate was fitted to one and a half events, and to minus one."""
    y = np.array([1.0, value, 2.0])
    with pytest.raises(ValueError, match=r"observed at site 'y' lies outside the support"):
        pg.fit(program, {"y": y, "seen": np.array([True, True, False])}, "map", num_steps=2)
    fit = pg.fit(program, {"y": y, "seen": np.array([True, False, True])}, "laplace", progress=False)
    assert fit.draws["rate"].mean() == pytest.approx(4 / 3, rel=0.2)  # Gamma(4, 3)


@pytest.mark.parametrize("value", [8.0, 2.5, -1.0])
@pytest.mark.parametrize("family", ["Binomial", "BetaBinomial"])
def test_pyro_counts_beyond_their_totals_are_named(family, value):
    pytest.importorskip("pyro")
    import pyro
    import pyro.distributions as pd
    import torch

    def program(y, n):
        a = pyro.sample("a", pd.Gamma(1.0, 1.0))
        with pyro.plate("row", len(y)):
            law = pd.Binomial(n, logits=a) if family == "Binomial" else pd.BetaBinomial(a, torch.ones_like(a), n)
            pyro.sample("y", law, obs=y)

    with pytest.raises(ValueError, match=r"observed at site 'y' lies outside .* first at index \[1\]"):
        pg.fit(program, {"y": np.array([1.0, value, 2.0]), "n": np.array([10.0, 7.0, 5.0])}, "map", num_steps=2)


# ---- draws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [3e6, 1e8, 1e10])
def test_draws_of_large_rates_are_poisson(rate):
    """Chi-square on forty parts of equal probability: passed by chance but in 1e-6; JAX's own draws have p < 1e-15 at all three."""
    from probgen.engine.numpyro.events.poisson import draws

    with jax.enable_x64(True):
        found = np.asarray(draws(jax.random.key(0), rate, (20_000,)), float)
        few = np.asarray(draws(jax.random.key(1), np.array([0.0, 3.0, rate]), (3,)))
        assert (
            few[:2].tolist()
            == np.asarray(jax.random.poisson(jax.random.key(1), np.array([0.0, 3.0, 5.0]), (3,)))[:2].tolist()
        )
    law = stats.poisson(rate)
    ends = law.ppf(np.linspace(0, 1, 41)[1:-1])
    expected = 20_000 * np.diff([0, *law.cdf(ends), 1])
    seen = np.histogram(found, [-INF, *(ends + 0.5), INF])[0]
    assert stats.chi2.sf(np.sum((seen - expected) ** 2 / expected), len(seen) - 1) > 1e-6


def test_predictions_have_the_variance_of_a_large_rate():
    def program(y=None):
        numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Poisson(1e8), obs=y)

    fit = pg.fit(program, {"y": 1e8}, "laplace", progress=False)
    y = fit.predict()["y"]
    assert np.var(y) / 1e8 == pytest.approx(1, abs=6 * np.sqrt(2 / y.size))  # was 1.44


@pytest.mark.parametrize("inference", ["gibbs", "metropolis"])
def test_hidden_bits_of_large_counts(inference):
    """Log probabilities around 1e9 nats, whose difference is below .1: in single precision all bits were 0, with "pass"."""

    def program(y):
        with numpyro.plate("row", len(y)):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample("y", dist.Poisson(jnp.where(z == 1, 1.0001e8, 1e8)), obs=y)

    y = np.array([100_004_000.0, 100_005_000.0, 100_006_000.0, 100_004_800.0])
    expected = special.expit(stats.poisson.logpmf(y, 1.0001e8) - stats.poisson.logpmf(y, 1e8))
    fit = pg.fit(program, {"y": y}, inference, num_samples=500, num_chains=4, progress=False)
    ess = fit.summary()["ess_bulk"].to_numpy()
    assert np.all(np.abs(fit.draws["z"].mean((0, 1)) - expected) < 5 * np.sqrt(0.25 / ess))
