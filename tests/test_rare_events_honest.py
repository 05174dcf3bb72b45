"""What an estimate must not claim: certainty from one value, a narrow interval from few draws or lost runs, a part for the whole."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import probgen as pg
from probgen.evaluate.rare import asking, splitting

QUICK = {"progress": False, "num_samples": 20, "num_warmup": 20, "num_chains": 1}
SMALL = {"num_runs": 10, "num_particles": 100, "num_pilot": 300}


def one():
    numpyro.sample("x", dist.Normal(0, 1))


def far_part():
    weights = dist.Categorical(jnp.array([1 - 1e-5, 1e-5]))
    numpyro.sample("x", dist.MixtureSameFamily(weights, dist.Normal(jnp.array([0.0, 50.0]), 1.0)))


@pytest.fixture(scope="module")
def fit():
    return pg.fit(one, **QUICK)


def covers(found, truth):
    return found.interval[0] <= truth <= found.interval[1]


def test_the_same_number_at_all_draws_has_no_error(fit):
    found = fit.expectation(lambda d: 1e6 * (d["x"] > 6))
    assert found.value == 0
    assert found.stderr == np.inf
    assert found.interval == (-np.inf, np.inf)
    assert "no error can be told" in str(found)
    two = fit.expectation(lambda d: np.array([0.1 + 0 * d["x"], d["x"]]))
    assert np.isinf(two.stderr[0])
    assert two.stderr[1] < 0.1
    assert any("1 of 2" in note for note in two.notes)
    assert fit.expectation(lambda d: 1.5).stderr == 0  # it reads nothing of a draw


def test_few_draws_that_carry_a_mean_are_told(fit):
    for heavy in (lambda d: max(d["x"] - 2.8, 0), lambda d: np.exp(2.5 * d["x"])):
        found = fit.expectation(heavy)
        assert "by few draws" in found.kind
        assert any("carry the mean" in note for note in found.notes)
    assert not fit.expectation(lambda d: np.exp(d["x"])).notes
    assert not fit.expectation(lambda d: d["x"] > 1).notes


def test_a_climb_that_loses_most_runs_claims_little():
    found = pg.fit(far_part, **QUICK).probability("x", above=40.0, **SMALL)
    assert found.kind != "unbiased estimate"
    assert covers(found, 1e-5)
    lost = np.ones((10, 1)) * 1e-6 * (np.arange(10) > 5)[:, None]
    world = type("World", (), {"space": type("Space", (), {"begin": None, "anew": ()}), "cost": 1,
        "event": type("Event", (), {"sign": 1, "above": 1.0})})  # fmt: skip
    ladder = splitting.Ladder([], [], True, None)
    rough = splitting._told(world, ladder, lost, np.full(10, 50), 0.95, "")
    assert rough.kind == splitting.ROUGH
    assert rough.interval[0] == 0


@pytest.mark.parametrize("seed", [0, 3])
def test_a_part_that_a_score_jumps_into_is_found(fit, seed):
    found = fit.probability(lambda d: jnp.where(d["x"] < -4, 100.0, d["x"]), above=5.0, seed=seed, **SMALL)
    truth = stats.norm.sf(5) + stats.norm.sf(4)
    assert covers(found, truth)
    assert found.kind in (asking.SEVERAL, splitting.ROUGH)
    assert found.notes
    smooth = fit.probability("x", above=5.0, seed=seed, **SMALL)
    assert smooth.kind == "unbiased estimate"
