"""What an estimate must not claim: certainty from one value, a narrow interval from few draws or lost runs, a part as the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.evaluate.rare import asking, splitting
from probgen.evaluate.rare.indexing import by_a_draw

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
    far = pg.fit(far_part, **QUICK)
    for seed in (0, 1, 2):  # runs lost; one that carries the mean; no point that came into the event
        found = far.probability("x", above=40.0, seed=seed, **SMALL)
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


def picked():
    numpyro.sample("k", dist.Binomial(20, 0.3))
    numpyro.sample("v", dist.Normal(0, 1).expand([10]).to_event(1))


def test_an_index_out_of_range_raises_as_in_plain_python():
    fit = pg.fit(picked, **QUICK)
    with pytest.raises(IndexError, match="out of bounds"):
        fit.probability(lambda d: d["v"][d["k"]] > 0)
    inside = fit.probability(lambda d: d["v"][min(d["k"], 9)] > 0)
    assert covers(inside, 0.5)


@pytest.mark.parametrize(
    ("function", "drawn"),
    [
        (lambda d: d["v"][d["k"]], True),
        (lambda d: d["v"][jnp.array([0, 1]) + d["k"]].sum(), True),
        (lambda d: jax.jit(lambda d: d["v"][d["k"]])(d), True),
        (lambda d: d["v"][3] + d["v"][-1] + d["v"][1:4].sum(), False),
        (lambda d: jnp.median(d["v"]) + jnp.interp(d["v"][0], jnp.arange(4.0), jnp.arange(4.0)), False),
    ],
)
def test_which_functions_index_by_a_draw(function, drawn):
    assert by_a_draw(function, {"v": jnp.zeros(10), "k": jnp.int32(3)}) is drawn


def test_settings_with_a_slip_are_told(fit):
    with pytest.raises(TypeError, match="Did you mean 'num_particles'"):
        fit.probability("x", above=5.0, num_particle=100)


def test_what_cannot_be_placed_is_counted(fit, monkeypatch):
    def cannot(*_):
        raise Incompatible("no way here")

    monkeypatch.setattr(asking.places, "place", cannot)
    found = fit.probability("x", above=5.0)
    assert found.method == "monte_carlo"
    assert any("no way here" in note for note in found.notes)
    with pytest.raises(Incompatible, match="no way here"):
        fit.probability("x", above=5.0, method="splitting")
