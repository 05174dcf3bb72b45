"""Reflow, and what a fit may say whose noise was paired with points: of normal data, by closed forms."""

import numpy as np
import numpyro
import pytest

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.model import Model
from probgen.nets.diffusion.denoiser import Network
from probgen.nets.diffusion.networks import perceptron
from probgen.nets.diffusion.schedules import Linear, Straight
from probgen.nets.diffusion.site import diffused

MEAN, ROOT = np.array([0.5, -1.0]), np.array([[1.2, 0.4], [0.4, 0.5]])
ROWS = MEAN + np.random.default_rng(0).normal(size=(4000, 2)) @ ROOT
QUIET = {"progress": False, "batch_size": 128, "ema": 0.99}


def straight(x=None):
    numpyro.sample("x", diffused(Network(Straight(), perceptron("net", 2, 32, 2), "velocity"), (2,)), obs=x)


def preserving(x=None):
    numpyro.sample("x", diffused(Network(Linear(), perceptron("net", 2, 32, 2), "velocity"), (2,)), obs=x)


MODEL = Model(straight, by_row=True)


@pytest.fixture(scope="module")
def first():
    return pg.fit(MODEL, {"x": ROWS}, inference="flow_matching", num_steps=1500, learning_rate=3e-3, **QUIET)


@pytest.fixture(scope="module")
def again(first):
    settings = {"num_steps": 600, "learning_rate": 1e-3, "ode_steps": 10}
    return pg.fit(MODEL, {"x": ROWS}, inference="reflow", init=first, **settings, **QUIET)


def test_after_reflow_one_step_is_enough(first, again):
    """Of one Euler step of flow matching the draws are one point: the velocity of noise is E[x] - e, whatever e."""
    one, few = (fit.sample(2000, sampler="euler", num_steps=1)["x"] for fit in (first, again))
    covariance = ROOT @ ROOT
    assert np.linalg.det(np.cov(one.T)) < 0.05 * np.linalg.det(covariance)
    assert few.mean(0) == pytest.approx(MEAN, abs=0.15)
    assert np.cov(few.T) == pytest.approx(covariance, abs=0.2)


def test_the_loss_falls_below_what_independent_pairs_leave(first, again):
    floor = np.pi / 2 * np.linalg.eigvalsh(ROOT).sum() / 2  # a coordinate
    losses = [fit.records["loss"][0, -200:].mean() for fit in (first, again)]
    assert losses[0] == pytest.approx(floor, rel=0.1)
    assert losses[1] < 0.1 * floor


def test_its_density_is_still_that_of_the_data(again):
    inverse = np.linalg.inv(ROOT)
    exact = (-0.5 * ((ROWS[:200] - MEAN) @ inverse) ** 2 - 0.5 * np.log(2 * np.pi)).sum(1) + np.log(
        np.linalg.det(inverse)
    )
    found = again.log_prob(ROWS[:200])
    assert found.value.mean() == pytest.approx(exact.mean(), abs=0.1)


@pytest.mark.parametrize("ask", ["sde", "ancestral", "bound", "losses", "start"])
def test_a_fit_of_pairs_has_no_score(again, ask):
    asked = {
        "bound": lambda: again.log_prob(ROWS[:5], method="bound"), "losses": again.losses,
        "start": lambda: again.sample(2, start=ROWS[0]),
    }.get(ask, lambda: again.sample(2, sampler=ask))  # fmt: skip
    with pytest.raises(Incompatible, match="needs a score"):
        asked()


def test_the_verdict_of_a_fit_of_pairs_looks_at_its_density_alone(again):
    checks = {f.check: f.status for f in again.diagnose().findings}
    assert checks["density"] == "pass"
    assert not {"laws", "levels"} & set(checks)


def test_reflow_says_what_it_needs(first):
    with pytest.raises(ValueError, match="init=fit"):
        pg.fit(MODEL, {"x": ROWS}, inference="reflow", **QUIET)
    start = pg.fit(Model(preserving, by_row=True), {"x": ROWS}, inference="flow_matching", num_steps=2, **QUIET)
    with pytest.raises(Incompatible, match="straight"):
        pg.fit(Model(preserving, by_row=True), {"x": ROWS}, inference="reflow", init=start, **QUIET)
