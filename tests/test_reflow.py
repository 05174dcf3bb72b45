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
    assert checks["density"] == checks["mass"] == "pass"
    assert not {"laws", "levels"} & set(checks)


def test_reflow_says_what_it_needs(first):
    with pytest.raises(ValueError, match="init=fit"):
        pg.fit(MODEL, {"x": ROWS}, inference="reflow", **QUIET)
    start = pg.fit(Model(preserving, by_row=True), {"x": ROWS}, inference="flow_matching", num_steps=2, **QUIET)
    with pytest.raises(Incompatible, match="straight"):
        pg.fit(Model(preserving, by_row=True), {"x": ROWS}, inference="reflow", init=start, **QUIET)


# ---- both in one run -----------------------------------------------------------------------------------------------


def ring(count, seed):
    """Six narrow modes on a circle: straight paths from noise to them cross."""
    rng = np.random.default_rng(seed)
    angle = rng.integers(6, size=count) * np.pi / 3
    return 2 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.15 * rng.normal(size=(count, 2))


def sliced(x, y):
    """The Wasserstein-2 distance of as many points, over directions."""
    angle = np.arange(16) * np.pi / 16
    lines = np.stack([np.cos(angle), np.sin(angle)])
    return np.sqrt(np.mean((np.sort(x @ lines, 0) - np.sort(y @ lines, 0)) ** 2))


SMALL = {"x": ring(4000, 0), "width": 48, "depth": 2}


@pytest.fixture(scope="module")
def curved():
    return pg.fit("rectified_flow", SMALL, "flow_matching", num_steps=1200, learning_rate=3e-3, **QUIET)


@pytest.fixture(scope="module")
def straight_at_once():
    return pg.fit("rectified_flow", SMALL, num_steps=2000, learning_rate=3e-3, ode_steps=8, **QUIET)


def test_a_rectified_flow_is_learned_in_one_run(straight_at_once):
    loss = straight_at_once.records["loss"][0]
    begins = straight_at_once.inference.settles
    assert straight_at_once.inference.name == "reflow"
    assert begins == 1200
    assert loss[-200:].mean() < 0.3 * loss[begins - 200 : begins].mean()
    rate = straight_at_once.records["learning_rate"][0]
    assert rate[begins - 1] < 0.01 * rate.max() < rate[begins + 50]


def test_few_steps_draw_from_a_rectified_flow(curved, straight_at_once):
    rows = ring(3000, 1)
    apart = {
        name: [sliced(fit.sample(3000, sampler="euler", num_steps=n)["x"], rows) for n in (2, 50)]
        for name, fit in (("before", curved), ("after", straight_at_once))
    }
    assert apart["before"][1] < 0.15
    assert apart["after"][1] < 0.2
    assert apart["after"][0] < 0.5 * apart["before"][0]


def test_both_parts_of_a_run_go_on_bit_for_bit(tmp_path, killed):
    data, settings = (
        {"x": SMALL["x"][:60], "width": 8, "depth": 1},
        {"num_steps": 200, "batch_size": 16, "ode_steps": 2},
    )
    whole = pg.fit("rectified_flow", data, progress=False, **settings)
    killed(pg.fit, "rectified_flow", data, out=tmp_path / "run", progress=False, **settings)
    resumed = pg.resume(tmp_path / "run", progress=False)
    assert all(np.array_equal(v, resumed.state[k]) for k, v in whole.state.items())
