"""Simulation-based calibration: passes an algorithm that is right, flags one that is wrong, compiles once."""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probgen as pg
from probgen.algorithm import Sampler
from probgen.calibration import SBC, ranking
from probgen.calibration.result import _shape, uniformity
from probgen.engine.numpyro.running import compiling
from probgen.target import Continuous

DATA = {"x": np.linspace(-1, 1, 6), "y": np.zeros(6)}


def line(x, y=None):
    """slope ~ N(0, 1), y_i ~ N(slope x_i, 1): the posterior is normal, in closed form."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


class State(NamedTuple):
    z: Any
    log_density: Any


class Info(NamedTuple):
    z: Any
    lp: Any


@dataclass(frozen=True, kw_only=True)
class Exact(Sampler[Continuous]):
    """Independent draws of the exact posterior of `line`, its sd scaled and its mean shifted; or of the prior."""

    scale: float = 1.0
    shift: float = 0.0
    prior: bool = False

    def init(self, key, target):
        return self._at(target, jnp.zeros(1))

    def step(self, key, state, target):
        x, y = target.arrays["x"], target.arrays["y"]
        precision = 1.0 if self.prior else 1 + x @ x
        mean = 0.0 if self.prior else x @ y / precision
        z = mean + (self.shift + self.scale * target.ops.normal(key, (1,))) / precision**0.5
        state = self._at(target, z)
        return state, Info(*state)

    def _at(self, target, z):
        return State(z, target.log_density(z))


@cache
def study(num_simulations=200, seed=0, **wrong):
    algorithm = Exact(num_warmup=0, num_samples=100, num_chains=1, **wrong)
    return pg.sbc(line, algorithm, data=DATA, num_simulations=num_simulations, seed=seed)


@pytest.mark.parametrize("seed", range(2))
def test_the_right_algorithm_passes(seed):
    """False-alarm rate of "not pass": at most 1 % by construction; measured on 60 seeds: none."""
    result = study(seed=seed)
    assert result.verdict.status == "pass", result
    assert result.names == ("slope", "log density")
    assert result.ranks.shape == (200, 2)
    assert result.num_ranked == 100


WRONG = {
    "too narrow": ({"scale": 0.7}, "too narrow"),
    "too wide": ({"scale": 1.5}, "too wide"),
    "too high": ({"shift": 0.5}, "too high"),
    "too low": ({"shift": -0.5}, "too low"),
}


@pytest.mark.parametrize("word", WRONG)
def test_the_wrong_algorithm_fails_and_the_verdict_says_how(word):
    """Measured on 20 seeds: found every time with 200 simulations."""
    settings, told = WRONG[word]
    result = study(**settings)
    finding = result.verdict["uniform"]
    assert finding.status == "fail"
    slope = _shape(result._uniforms()[:, 0])
    assert told in slope
    assert not result


def test_an_algorithm_that_ignores_the_data_fails_by_the_log_density_alone():
    result = study(prior=True)
    assert result.p_values[0] > 0.01
    assert result.p_values[1] < 1e-6
    assert result.verdict.status == "fail"


def test_nuts_passes_and_compiles_once():
    before = compiling._begun.cache_info().misses
    result = pg.sbc(line, data=DATA, num_simulations=40, num_warmup=150, num_samples=400, start="uniform")
    assert result.verdict["uniform"].status == "pass", result
    assert compiling._begun.cache_info().misses - before == 2  # a start, a chunk


def test_the_study_is_a_function_of_its_seed():
    again = pg.sbc(line, Exact(num_warmup=0, num_samples=100, num_chains=1), data=DATA, num_simulations=200, seed=0)
    np.testing.assert_array_equal(again.ranks, study(seed=0).ranks)
    assert (study(seed=1).ranks != study(seed=0).ranks).any()


def test_uniformity_has_the_right_size_and_power():
    rng = np.random.default_rng(0)
    p = uniformity(rng.uniform(size=(100, 4000)))
    for level in (0.1, 0.05, 0.01):
        assert (p <= level).mean() == pytest.approx(level, abs=4 * (level / 4000) ** 0.5)
    assert (uniformity(rng.beta(0.6, 0.6, size=(100, 200))) < 0.01).mean() > 0.5


def test_the_plot_leaves_matplotlib_alone():
    before = dict(mpl.rcParams)
    picture = study(scale=0.7).plot()
    assert len(picture.axes) == 2
    assert dict(mpl.rcParams) == before


# ---- what it refuses ---------------------------------------------------------------------------------------------


def lagged(y):
    phi = numpyro.sample("phi", dist.Normal(0.0, 0.5))
    numpyro.sample("y", dist.Normal(phi * jnp.concatenate([jnp.zeros(1), y[:-1]]), 1.0), obs=y)


def logged(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.sample("log_y", dist.Normal(mu, 1.0), obs=jnp.log(y))


def weighted(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    numpyro.factor("more", -(mu**2))


def renamed(outcome):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mu, 1.0).expand([3]), obs=outcome)


REFUSED = {lagged: "is also an input", logged: "No argument of the program holds", weighted: "has the factor 'more'"}


@pytest.mark.parametrize("program", REFUSED)
def test_a_program_that_cannot_simulate_its_data_is_refused(program):
    with pytest.raises(ValueError, match=REFUSED[program]):
        pg.sbc(program, data={"y": np.array([1.0, 2.0, 3.0])})


def test_an_argument_of_another_name_is_found():
    from probgen.run import conditioned

    _, target = conditioned(renamed, {"outcome": np.array([1.0, 2.0, 3.0])})
    assert ranking._observed_keywords(target) == {"y": "outcome"}


def test_numbers_of_simulations_that_are_none_are_refused():
    for count in (5, 10**12):
        with pytest.raises(ValueError, match="20 or more"):
            pg.sbc(line, data=DATA, num_simulations=count)
    for count in ("20", None, np.nan, 20.5):
        with pytest.raises((TypeError, ValueError), match="expected a whole number"):
            pg.sbc(line, data=DATA, num_simulations=count)


def test_a_seed_below_zero_is_a_seed():
    assert not np.array_equal(study(20, seed=-1).ranks, study(20, seed=1).ranks)


def test_simulations_that_cannot_be_fitted_are_told():
    fine = study()
    failed = SBC(fine.names, fine.ranks, 100, fine.p_values, fine.ess, ("the simulated 'y' is not finite",) * 20)
    assert failed.verdict["failed"].status == "fail"
    assert "not finite" in failed.verdict["failed"].message
