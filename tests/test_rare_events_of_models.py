"""Rare events of every kind of learned model, whose parameters stay where they begin, so that the law is known."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.nets.diffusion.denoiser import Normal
from probgen.nets.diffusion.schedules import Straight
from probgen.nets.diffusion.site import diffused

ROWS = np.random.default_rng(0).normal(size=(50, 2))
STILL = {"num_steps": 1, "learning_rate": 1e-9, "progress": False}
SMALL = {"num_runs": 12, "num_particles": 150, "num_pilot": 500, "method": "splitting"}
W = np.array([[1.0, 0.3], [0.0, 2.0]])


def within(found, truth, times=4.0):
    assert abs(float(found) - truth) < times * found.stderr, (str(found), truth)


def total(draw):
    return draw["x"].sum()


def normal(x=None):
    numpyro.sample("x", dist.Normal(numpyro.param("loc", jnp.zeros(2)), 1.0).to_event(1), obs=x)


def plane(x=None):
    z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("x", dist.Delta(z @ numpyro.param("W", jnp.asarray(W)), event_dim=1), obs=x)


def critic(x):
    return -numpyro.param("w", jnp.array(0.1)) * jnp.sum(x**2)


def decoder(x=None):
    z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("x", dist.Normal(z @ numpyro.param("W", jnp.asarray(W)), 0.5).to_event(1), obs=x)


def encoder(x):
    numpyro.sample("z", dist.Normal(numpyro.param("b", jnp.zeros(2)), 1.0).to_event(1))


def moved(shift, x=None):
    numpyro.sample("x", dist.Normal(numpyro.param("loc", jnp.zeros(2)) + shift, 1.0).to_event(1), obs=x)


def denoised(x=None):
    mean = numpyro.param("mean", jnp.array([0.5, -1.0]))
    variance = numpyro.param("variance", jnp.array([0.36, 0.09]), constraint=dist.constraints.positive)
    numpyro.sample("x", diffused(Normal(Straight(), mean, jnp.diag(variance)), (2,)), obs=x)


def energy(x=None):
    x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real_vector, (), (2,)), obs=x)
    numpyro.factor("f", -jnp.sum((x - numpyro.param("m", jnp.zeros(2))) ** 2))


def test_a_density_and_the_inputs_of_a_conditional_one():
    fit = pg.fit(pg.Model(normal, by_row=True), {"x": ROWS}, inference="mle", **STILL)
    within(fit.probability(total, above=7.0, **SMALL), stats.norm.sf(7 / 2**0.5))
    given = pg.fit(pg.Model(moved, by_row=True), {"shift": np.zeros(50), "x": ROWS}, inference="mle", **STILL)
    within(given.probability(total, above=11.0, shift=2.0, **SMALL), stats.norm.sf(7 / 2**0.5))
    within(given.probability(total, above=4.0, shift=2.0, method="monte_carlo"), 0.5)
    with pytest.raises(TypeError, match="given shift"):
        given.probability(total, above=3.0)


def test_a_generator_without_a_density():
    fit = pg.fit(pg.Model(plane, critic=critic), {"x": ROWS}, inference="gan", **STILL)
    sd = np.linalg.norm(W.sum(1))
    within(fit.probability(total, above=5 * sd, **SMALL), stats.norm.sf(5))
    within(fit.probability(lambda d: d["z"][0], above=4.0, **SMALL), stats.norm.sf(4))


def test_a_latent_model_draws_its_code_and_its_point():
    fit = pg.fit(pg.Model(decoder, guide=encoder, by_row=True), {"x": ROWS}, inference="svi", **STILL)
    sd = (np.linalg.norm(W.sum(1)) ** 2 + 2 * 0.25) ** 0.5
    within(fit.probability(total, above=5 * sd, **SMALL), stats.norm.sf(5))
    within(fit.probability(lambda d: d["z"].sum(), above=1.0), stats.norm.sf(1 / 2**0.5))


def test_a_flow_by_an_equation():
    fit = pg.fit(pg.Model(denoised, by_row=True), {"x": ROWS}, inference="flow_matching", **STILL)
    sd = (0.36 + 0.09) ** 0.5
    within(
        fit.probability(
            total,
            above=-0.5 + 3.5 * sd,
            **{**SMALL, "num_runs": 6, "num_particles": 60, "num_pilot": 200, "num_moves": 4},
        ),
        stats.norm.sf(3.5),
    )


def test_an_energy_is_counted_by_chains_and_not_climbed():
    fit = pg.fit(pg.Model(energy, by_row=True), {"x": ROWS}, inference="pcd", **STILL)
    found = fit.probability(total, above=1.0, num_samples=60, num_warmup=200)
    within(found, stats.norm.sf(1))
    assert any("Markov chain" in note for note in found.notes)
    assert found.kind == "estimate by ends of Markov chains"
    with pytest.raises(Incompatible, match="energy"):
        fit.probability(total, above=9.0, method="splitting")


def test_jumps_are_counted_and_move_nothing():
    fit = pg.fit(pg.Model(denoised, by_row=True), {"x": ROWS}, inference="consistency", batch_size=10, **STILL)
    found = fit.probability(total, above=1e3)
    assert found.method == "monte_carlo"
    assert any("jumps" in note for note in found.notes)
    with pytest.raises(Incompatible, match="jumps"):
        fit.attribute(lambda x: x[0], num_draws=50)
