"""Points of diffusion models that are known in part, completed: against the exact conditional of normal data."""

import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.model import Model
from probgen.nets.diffusion.chains import Backward, Noised, levels
from probgen.nets.diffusion.denoiser import Normal
from probgen.nets.diffusion.observed import measured, observed
from probgen.nets.diffusion.schedules import Cosine, linear_levels
from probgen.nets.diffusion.site import diffused
from probgen.target import Continuous

COVARIANCE = np.array([[1.0, 0.8], [0.8, 1.0]])
KNOWN = np.array([np.nan, 1.5])
MEAN, VARIANCE, LOG_EVIDENCE = 1.2, 0.36, -0.5 * 1.5**2 - 0.5 * np.log(2 * np.pi)


class Exact(Normal):
    """The exact denoiser of normal data, as one that a learner can ask what it says."""

    def said(self, z, t):
        return self(z, t).mean

    def wanted(self, x, noise, t):
        return x


def flow(x=None):
    mean = numpyro.param("mean", jnp.zeros(2))
    numpyro.sample("x", diffused(Exact(Cosine(), mean, jnp.array(COVARIANCE)), (2,)), obs=x)


def chain(x=None, whole=0):
    schedule = linear_levels(100)
    denoiser = Exact(schedule, numpyro.param("mean", jnp.zeros(2)), 0.2 * jnp.array(COVARIANCE))
    steps = Backward(denoiser, (2,), levels(schedule, 100), "bridge")
    z = numpyro.sample("z", steps)
    numpyro.sample("x", observed(*steps.last(z[0]), whole=whole), obs=x)


def guide(x, whole=0):
    schedule = linear_levels(100)
    numpyro.sample("z", Noised(measured(x, whole), schedule, levels(schedule, 100)))


ROWS = np.random.default_rng(0).multivariate_normal([0, 0], COVARIANCE, 400)


@pytest.fixture(scope="module")
def learned():
    """The flow of normal data with its exact denoiser, of which nothing is left to learn."""
    return pg.fit(flow, {"x": ROWS}, inference="denoising", num_steps=1, learning_rate=1e-9, ema=0.0, progress=False)


@pytest.fixture(scope="module")
def completed(learned):
    return pg.fit(learned.condition(x=KNOWN), inference="twisted_smc", num_particles=1000, progress=False)


def test_particles_have_the_exact_conditional_and_evidence(completed):
    x = completed.draws["x"]
    assert x.shape == (4, 1000, 2)
    assert (x[..., 1] == 1.5).all(), "what is known exactly is what it was"
    assert x[..., 0].mean() == pytest.approx(MEAN, abs=0.08)
    assert x[..., 0].var() == pytest.approx(VARIANCE, abs=0.06)
    found = completed.log_evidence
    assert abs(found.value - LOG_EVIDENCE) < 5 * found.stderr + 0.05 < 0.1, (
        "50 levels are .045 off; see test_linear for the chain's own law"
    )
    assert "chain of 50 levels" in found.kind


def test_the_verdict_tells_of_particles_and_runs(completed, learned):
    verdict = completed.diagnose()
    assert verdict.status == "pass", str(verdict)
    assert {"particles", "evidence", "runs"} <= {f.check for f in verdict.findings}
    assert completed.tree["sample_stats"]["log_evidence"].shape == (4, 1000)
    assert completed.tree["optimisation"]["ess"].shape == (1, 50)
    few = pg.fit(learned.condition(x=np.array([9.0, np.nan])), inference="twisted_smc", num_particles=6, progress=False)
    assert few.diagnose()["particles"].status != "pass", "a point far from all data leaves few particles"


def test_a_completion_is_saved_and_goes_on_bit_for_bit(completed, learned, tmp_path):
    completed.save(tmp_path / "run")
    again = pg.load(tmp_path / "run")
    assert np.array_equal(again.draws["x"], completed.draws["x"])
    assert again.log_evidence == completed.log_evidence
    twin = pg.fit(learned.condition(x=KNOWN), inference="twisted_smc", num_particles=1000, progress=False)
    assert np.array_equal(twin.draws["x"], completed.draws["x"])


def test_guided_draws_are_exact_for_normal_data_and_say_that_no_weight_mends_them(learned):
    fit = pg.fit(learned.condition(x=KNOWN), inference="guided", num_particles=500, progress=False)
    x = fit.draws["x"]
    assert x[..., 0].mean() == pytest.approx(MEAN, abs=0.1)
    assert x[..., 0].var() == pytest.approx(VARIANCE, abs=0.08)
    verdict = fit.diagnose()
    assert verdict["bias"].status == "warn"
    assert verdict["known"].status == "pass"
    with pytest.raises(Incompatible, match="twisted_smc"):
        _ = fit.log_evidence


def test_what_is_known_with_noise_is_drawn_too(learned):
    fit = pg.fit(learned.condition(x=KNOWN), inference="guided", num_particles=500, noise=1.0, progress=False)
    x = fit.draws["x"]
    assert x[..., 1].mean() == pytest.approx(0.75, abs=0.1)
    assert x[..., 1].var() == pytest.approx(0.5, abs=0.1)
    assert x[..., 0].mean() == pytest.approx(0.6, abs=0.1)


def test_a_chain_of_whole_numbers_is_completed_in_whole_numbers():
    rows = np.clip(np.round(4 + 4 * 0.2**0.5 * ROWS), 0, 8)
    model = Model(program=chain, guide=guide)
    fit = pg.fit(model, {"x": rows, "whole": 9}, inference="denoising", num_steps=1, learning_rate=1e-9, progress=False)
    target = fit.condition(x=np.array([7.0, np.nan]))
    found = pg.fit(target, inference="twisted_smc", num_particles=500, progress=False)
    x = found.draws["x"]
    assert (x[..., 0] == 7).all()
    assert (x == np.round(x)).all()
    assert x.min() >= 0
    assert x.max() <= 8
    assert x[..., 1].mean() == pytest.approx(4 + 0.8 * 3, abs=0.25)
    spread = 4 * 0.2**0.5
    mass = -0.5 * (3 / spread) ** 2 - 0.5 * np.log(2 * np.pi * spread**2)
    assert found.log_evidence.value == pytest.approx(mass, abs=0.25)


def test_the_same_target_still_has_a_density(learned):
    target = learned.condition(x=KNOWN)
    assert isinstance(target, Continuous)
    near, far = target.densities(np.array([[1.2, 0.0], [4.0, 0.0]]))
    assert near - far == pytest.approx(0.5 * (4.0 - 1.2) ** 2 / VARIANCE, rel=0.02)


def test_a_completion_without_a_word_is_by_the_denoiser_and_takes_no_data(learned):
    found = pg.fit(learned.condition(x=KNOWN), num_particles=50, num_steps=10, progress=False)
    assert found.inference.name == "twisted_smc"
    assert any("No inference was named: twisted_smc" in note for note in found.target.notes)
    with pytest.raises(TypeError, match=r"say them in fit\.condition"):
        pg.fit(learned.condition(x=KNOWN), {"x": np.zeros(2)})
    with pytest.raises(TypeError, match="the name of an algorithm: write inference='guided'"):
        pg.fit(learned.condition(x=KNOWN), "guided")


def test_an_evidence_by_a_derivative_of_many_numbers_is_refused(learned, monkeypatch):
    monkeypatch.setattr("probgen.inference.denoising.twisted_smc.DENSE", 0)
    with pytest.raises(ValueError, match=r"at most 0 numbers that are known; got 1\."):
        pg.fit(learned.condition(x=KNOWN), inference="twisted_smc", covariance="jacobian")
    with pytest.raises(ValueError, match="got 2"):
        pg.fit(learned.condition(x=pg.Linear.noisy([0.0, 0.0], 1.0)), inference="twisted_smc", covariance="jacobian")


def test_what_is_refused(learned):
    with pytest.raises(Incompatible, match="Completable"):
        pg.fit("eight_schools", inference="twisted_smc")
    target = learned.condition(x=KNOWN)
    for settings, told in [
        ({"noise": 0.0}, "above 0"),
        ({"covariance": "dps"}, "known: auto, jacobian, variance, rows"),
        ({"variance": "learned"}, "known: bridge, beta, posterior"),
        ({"num_steps": 1}, "at least 2"),
    ]:
        with pytest.raises(ValueError, match=told):
            pg.fit(target, inference="twisted_smc", **settings)
    with pytest.raises(ValueError, match="Known: ancestral"):
        pg.fit(target, inference="guided", sampler="plms")
