"""Probabilities of events, rare ones too, and expectations: against closed forms and enumeration; what cannot be had is told."""

import re
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import needs_pyro
from scipy import stats

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.evaluate.rare import asking, counting

QUICK = {"progress": False, "num_samples": 20, "num_warmup": 20, "num_chains": 1}
SMALL = {"num_runs": 12, "num_particles": 200, "num_pilot": 600}


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


@pytest.fixture(scope="module")
def fit():
    return pg.fit(normals, {"size": 30}, **QUICK)


@pytest.fixture(scope="module")
def posterior():
    return pg.fit(level, {"y": np.array([1.0, 2.0, 0.0, 1.0])}, progress=False, num_chains=2)


MEAN, SD = 0.8, 5**-0.5  # of mu given those


def within(found, truth, times=4.0):
    """The truth within so many standard errors; false alarms 1 in 10,000."""
    assert found.stderr > 0
    assert abs(float(found) - truth) < times * found.stderr, (str(found), truth)


# ---- counting


def test_frequent_events_are_counted(fit):
    found = fit.probability(lambda d: d["x"][:3].sum() > 1.0)
    within(found, stats.norm.sf(1 / 3**0.5))
    assert found.method == "monte_carlo"
    assert found.kind == "unbiased estimate"
    assert found.cost == 4000
    low, high = found.interval
    assert low < found.value < high
    assert found.stderr == pytest.approx((found.value * (1 - found.value) / 4000) ** 0.5)
    below = fit.probability(lambda d: d["x"][:3].sum(), below=1.0)
    assert below.value == pytest.approx(1 - found.value)


def test_no_hit_is_a_bound_and_not_zero_with_no_error(fit):
    found = fit.probability(lambda d: d["x"].max() > 9)
    assert found.value == 0
    assert found.hits == 0
    assert found.interval == (0.0, pytest.approx(1 - 0.05 ** (1 / 4000)))
    assert found.stderr > 0
    assert found.is_bound
    assert "below 0.000749" in str(found)
    assert "+- 0" not in str(found)
    assert any("return a score" in note for note in found.notes)
    sure = fit.probability(lambda d: d["x"].max() < 9)
    assert sure.value == 1
    assert sure.interval[0] == pytest.approx(0.05 ** (1 / 4000))
    assert sure.interval[1] == 1


def test_the_interval_of_a_share_is_exact_and_scales_with_what_draws_are_worth():
    assert counting.clopper_pearson(3, 20, 0.95) == pytest.approx(
        (stats.binomtest(3, 20).proportion_ci().low, stats.binomtest(3, 20).proportion_ci().high)
    )
    narrow, wide = counting.clopper_pearson(50, 500, 0.95), counting.clopper_pearson(5, 50, 0.95)
    assert wide[0] < narrow[0]
    assert wide[1] > narrow[1]


def test_draws_of_chains_are_counted_by_what_they_are_worth(posterior):
    found = posterior.probability("mu", above=1.0)
    within(found, stats.norm.sf(1, MEAN, SD))
    assert found.effective < 2000
    assert found.kind == "estimate by autocorrelated draws"
    fresh = posterior.probability(lambda d: d["y"].sum(), above=4.0)
    within(fresh, stats.norm.sf(4, 4 * MEAN, (16 * SD**2 + 4) ** 0.5))


def test_sticky_chains_have_wide_errors():
    rng, x = np.random.default_rng(0), np.zeros((2, 4000))
    for i in range(1, 4000):
        x[:, i] = 0.98 * x[:, i - 1] + 0.2 * rng.normal(size=2)
    drawn = counting.Drawn({"x": x}, False, "a chain")
    found = counting.proportion(x > 0.5, x, drawn, 0.95)
    assert 30 < found.effective < 300  # 8000 / 99 at this autocorrelation


def test_expectations(fit, posterior):
    square = fit.expectation(lambda d: d["x"] ** 2)
    assert square.value.shape == square.stderr.shape == (30,)
    assert (np.abs(square.value - 1) < 4 * square.stderr).all()
    np.testing.assert_allclose(square.stderr, (2 / 4000) ** 0.5, rtol=0.15)
    within(posterior.expectation("mu"), MEAN)
    heavy = fit.expectation(lambda d: np.exp(4 * d["x"][0]))
    assert any("k-hat" in note for note in heavy.notes)
    assert not fit.expectation("x").notes


def test_the_page_runs(capsys):
    text = (Path(__file__).parent.parent / "docs" / "rare_events.md").read_text()
    names = {}
    for block in re.findall("```python\n(.*?)```", text, re.S):
        exec(compile(block, "docs/rare_events.md", "exec"), names)
    said = re.findall("probability|expectation", capsys.readouterr().out)
    assert said == ["probability", "probability", "expectation", "probability"]


# ---- climbing


def test_a_normal_tail_to_one_in_a_thousand_million(fit):
    found = fit.probability(lambda d: d["x"][:3].sum() / 3**0.5, above=6.0, **SMALL)
    within(found, stats.norm.sf(6))
    assert found.method == "splitting"
    assert found.kind == "unbiased estimate"
    assert found.stderr < 0.3 * found.value
    assert found.interval[0] > 0
    assert list(found.levels) == sorted(found.levels)
    assert found.cost < 1_000_000
    again = fit.probability(lambda d: d["x"][:3].sum() / 3**0.5, above=6.0, **SMALL)
    assert again.value == found.value


def test_both_tails_of_one_coordinate_and_below(fit):
    within(fit.probability(lambda d: -abs(d["x"][0]), below=-4.5, **SMALL), 2 * stats.norm.sf(4.5))


def test_a_tilted_guide_finds_both_sides(fit):
    found = fit.probability(lambda d: abs(d["x"][0]), above=5.0, method="importance", **SMALL)
    within(found, 2 * stats.norm.sf(5))
    assert found.stderr < 0.1 * found.value
    assert found.method == "importance"


def test_an_ellipsoid_in_thirty_dimensions_and_first_passage(fit):
    within(fit.probability(lambda d: (d["x"] ** 2).sum(), above=100.0, **SMALL), stats.chi2.sf(100, 30))
    found = fit.probability(lambda d: d["path"].max(), above=25.0, **SMALL)
    within(found, passage(30, 25.0))


def passage(steps, above):
    """P(a walk of normal steps goes above a line), by its density on a grid."""
    grid = np.arange(-80, above, 0.02)
    kernel = stats.norm.pdf(np.arange(-8, 8.01, 0.02)) * 0.02
    density = np.where(np.arange(len(grid)) == np.argmin(np.abs(grid)), 1.0, 0.0)
    for _ in range(steps):
        density = np.convolve(density, kernel, "same")
    return 1 - density.sum()


def test_a_walk_of_coins_has_scores_with_ties():
    fit = pg.fit(coins, {"size": 24}, inference="gibbs", **QUICK)
    found = fit.probability(lambda d: d["path"].max(), above=17.5, **SMALL)
    truth = stats.binom.sf(20, 24, 0.5) + stats.binom.sf(21, 24, 0.5)  # reflection: P(S >= 18) + P(S > 18)
    within(found, truth)
    assert set(found.levels[:-1]) <= set(range(25))


def test_posteriors_and_what_they_predict(posterior):
    within(posterior.probability("mu", above=MEAN + 5 * SD, **SMALL), stats.norm.sf(5))
    sd = (16 * SD**2 + 4) ** 0.5
    found = posterior.probability(lambda d: d["y"].sum(), above=4 * MEAN + 5 * sd, **SMALL)
    within(found, stats.norm.sf(5))
    assert found.kind == "estimate from the posterior's draws"
    assert found.law == "the posterior"


def counts(y=None):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.deterministic("log_rate", jnp.log(rate))
    with numpyro.plate("n", 5):
        numpyro.sample("y", dist.Poisson(rate), obs=y)


def test_a_positive_unknown_and_counts_to_come():
    fit = pg.fit(counts, {"y": np.array([2, 3, 1, 4, 2])}, progress=False)
    known = stats.gamma(14, scale=1 / 6)
    within(fit.probability(lambda d: d["log_rate"], above=np.log(known.isf(1e-6)), **SMALL), 1e-6)
    few = {"num_runs": 8, "num_particles": 100, "num_pilot": 300, "num_moves": 5}
    found = fit.probability(lambda d: d["y"][0], above=13, **few)
    within(found, stats.nbinom(14, 6 / 7).sf(13))
    assert found.method == "splitting"


def test_the_cost_grows_like_the_log(fit):
    costs = [fit.probability(lambda d: d["x"][0], above=a, method="splitting", **SMALL).cost for a in (4.0, 8.0)]
    ratio = stats.norm.logsf(8) / stats.norm.logsf(4)
    assert 0.7 * ratio < costs[1] / costs[0] < 1.3 * ratio


# ---- what cannot be had


def test_what_no_point_reaches_has_a_bound(fit):
    found = fit.probability(lambda d: jnp.tanh(d["x"][0]), above=1.5, **SMALL)
    assert found.value == 0
    assert found.is_bound
    assert 0 < found.interval[1] < 1e-3
    assert any("cannot happen" in note for note in found.notes)


def test_auto_keeps_what_says_more_and_tells_where_the_two_contradict():
    bound = counting.Estimate(name="probability", value=0.0, stderr=0.01, interval=(0.0, 0.02), confidence=0.95,
        method="splitting", kind="upper bound: no point came into the event", effective=50, cost=10, notes=("slow",))  # fmt: skip
    some = replace(
        bound, value=0.001, interval=(0.0005, 0.002), method="monte_carlo", kind="unbiased estimate", notes=()
    )
    kept = asking._beside(bound, some)
    assert (kept.value, kept.method, kept.cost, kept.notes) == (0.001, "monte_carlo", 20, ("slow",))
    less = replace(some, value=1e-6, interval=(5e-7, 2e-6), method="splitting")
    told = asking._beside(less, some)
    assert told.value == 1e-6
    assert any("contradicts" in note for note in told.notes)
    assert not asking._beside(replace(some, method="splitting"), some).notes


def test_a_constant_score_is_counted_and_cannot_be_climbed(fit):
    found = fit.probability(lambda d: 0.0 * d["x"][0] + 2.0, above=3.0)
    assert found.method == "monte_carlo"
    assert found.is_bound
    assert any("no direction to climb" in note for note in found.notes)
    with pytest.raises(Incompatible, match="no direction to climb"):
        fit.probability(lambda d: 0.0 * d["x"][0] + 2.0, above=3.0, method="splitting")


@pytest.mark.parametrize(
    ("event", "settings", "error", "told"),
    [
        (lambda d: d["x"] > 1, {}, TypeError, "one draw at a time"),
        (lambda d: d["x"][0], {}, TypeError, "above=4.0"),
        (lambda d: d["x"][0] > 1, {"above": 1.0}, TypeError, "has no threshold"),
        (lambda d: d["x"][0] > 1, {"method": "splitting"}, TypeError, "return a score"),
        (lambda d: d["xx"][0] > 1, {}, KeyError, "Did you mean 'x'"),
        (lambda d: d["x"][50] > 1, {}, IndexError, "out of bounds"),
        (lambda d: None, {}, TypeError, "NoneType"),
        (lambda d: "yes", {}, TypeError, "str"),
        (lambda d: d["x"][0] * np.nan, {"above": 1.0}, ValueError, "NaN"),
        (lambda d: jnp.where(d["x"][0] > 3, jnp.nan, d["x"][0]), {"above": 4.0}, ValueError, "NaN at draw"),
        (lambda d: d["x"][0], {"above": np.nan}, ValueError, "finite number"),
        (lambda d: d["x"][0], {"above": 1.0, "below": 2.0}, ValueError, "say one"),
        (lambda d: d["x"][0], {"above": 1.0, "method": "mc"}, ValueError, "known: auto"),
        (lambda d: d["x"][0], {"above": 1.0, "confidence": 95}, ValueError, "between 0 and 1"),
        (lambda d: d["x"][0], {"above": 1.0, "num_samples": 1}, ValueError, "at least 10"),
        (lambda d: d["x"][0], {"above": 1.0, "label": 1}, TypeError, "label"),
        (3, {"above": 1.0}, TypeError, "function of one draw"),
    ],
)
def test_what_is_no_event_is_refused(fit, event, settings, error, told):
    with pytest.raises(error, match=told):
        fit.probability(event, **settings)


def test_functions_that_jax_does_not_trace(fit):
    def score(draw):
        x = np.array(draw["x"])
        x[0] = x[0] if x[0] > 0 else -x[0]
        return float(x[0])

    within(fit.probability(score, above=4.0, num_runs=8, num_particles=50, num_pilot=200), 2 * stats.norm.sf(4))


def test_a_point_has_no_draws(posterior):
    fit = pg.fit(level, {"y": np.array([1.0, 2.0, 0.0, 1.0])}, inference="map", progress=False)
    with pytest.raises(Incompatible, match="use a sampler"):
        fit.probability("mu", above=1.0)


@needs_pyro
def test_pyro_programs_are_counted():
    import pyro
    import pyro.distributions as dist

    def program(y=None):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("n", 4):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    fit = pg.fit(
        program, {"y": np.array([1.0, 2.0, 0.0, 1.0])}, progress=False, num_chains=1, num_samples=200, num_warmup=100
    )
    within(fit.probability("mu", above=1.0), stats.norm.sf(1, MEAN, SD))
    within(fit.probability(lambda d: d["y"].max() > 2.0), fit.expectation(lambda d: d["y"].max() > 2.0).value)
    far = fit.probability("mu", above=20.0)
    assert far.is_bound
    assert any("numpyro" in note for note in far.notes)


def test_draws_of_a_guide_are_counted_and_told():
    fit = pg.fit(level, {"y": np.array([1.0, 2.0, 0.0, 1.0])}, inference="laplace", progress=False)
    found = fit.probability("mu", above=1.0)
    within(found, stats.norm.sf(1, MEAN, SD))
    assert found.law == "what laplace draws"
    assert found.kind == "estimate under a guide's law"
    assert any("k-hat" in note for note in found.notes)
    with pytest.raises(Incompatible, match="'nuts'"):
        fit.probability("mu", above=9.0, method="splitting")
