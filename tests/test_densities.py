"""Programs that are probabilities, learned by maximum likelihood: against closed forms and sums."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import probgen as pg
from probgen import runtime
from probgen.run import conditioned


def correlated(count=2000):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 3)) @ np.array([[1.0, 0.5, 0], [0, 0.6, -0.4], [0, 0, 1.5]]) + [1, 2, 3]


def test_the_gaussian_finds_its_closed_form():
    """The mean, and the covariance with divisor n."""
    x = correlated()
    fit = pg.fit("gaussian", {"x": x, "dim": 3}, "mle", batch_size=2000, num_steps=3000, learning_rate=0.02)
    scale_tril = fit.parameters["scale_tril"]
    np.testing.assert_allclose(fit.parameters["loc"], x.mean(0), atol=1e-3)
    np.testing.assert_allclose(scale_tril @ scale_tril.T, np.cov(x.T, bias=True), atol=5e-3)
    exact = dist.MultivariateNormal(jnp.asarray(x.mean(0)), jnp.asarray(np.cov(x.T, bias=True))).log_prob(x).mean()
    found = fit.log_prob()
    assert found.value.mean() == pytest.approx(float(exact), abs=1e-4)
    assert (found.stderr, fit.log_z().value) == (0.0, 0.0)
    assert fit.diagnose().status == "pass"
    drawn = fit.sample(20_000, seed=3)["x"]
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.06)


@pytest.mark.usefixtures("optimised")
def test_learning_stops_where_held_out_rows_get_no_better():
    """Thirty rows of ten dimensions: a full covariance fits them ever better, and others ever worse."""
    x, fresh = np.random.default_rng(0).normal(size=(30, 10)), np.random.default_rng(1).normal(size=(2000, 10))
    over = pg.fit("gaussian", {"x": x, "dim": 10}, "mle", num_steps=5000, learning_rate=0.02)
    settings = {"num_steps": 20_000, "learning_rate": 0.002, "patience": 5}
    fit = pg.fit("gaussian", {"x": x, "dim": 10}, "mle", validation=0.3, **settings)
    assert fit.num_steps < 20_000
    assert fit.complete
    assert fit.records["validation"][0, -1] > fit.records["validation"][0, 100:].min()
    assert fit.log_prob(x=fresh).value.mean() > over.log_prob(x=fresh).value.mean() + 1


def test_rows_held_out_are_not_learned_from():
    inference = pg.inference.MLE(validation=0.25)
    with runtime.jax_scope("float32"):
        target = conditioned("gaussian", {"x": correlated(100), "dim": 3}, None, "float32")[1]
        state = inference.init(jax.random.key(0), target)
        held, rest = np.asarray(state.chains.rows), np.asarray(state.order)
        assert len(held) == 25
        assert sorted([*held, *rest]) == list(range(100))


def test_a_mixture_of_bits_sums_to_one_and_finds_two_pictures():
    pictures = np.array([[1, 1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1, 1]])
    rng = np.random.default_rng(0)
    rows = (pictures[rng.integers(2, size=1000)] ^ (rng.random((1000, 9)) < 0.05)).astype(float)
    data = {"x": rows, "num_visible": 9, "num_components": 2}
    fit = pg.fit("bernoulli_mixture", data, "mle", num_steps=2000, learning_rate=0.03)
    every = np.array(list(itertools.product([0.0, 1.0], repeat=9)))
    assert np.exp(fit.log_prob(x=every).value).sum() == pytest.approx(1, abs=1e-5)
    means = 1 / (1 + np.exp(-fit.parameters["logits"]))
    assert min(abs(means - pictures).max(), abs(means[::-1] - pictures).max()) < 0.12
    assert fit.parameters["weights"].sum() == pytest.approx(1, abs=1e-6)


def test_what_is_no_probability_is_refused_or_counted():
    def energy(x=None):
        a = numpyro.param("a", jnp.ones(()), constraint=constraints.positive)
        x = numpyro.sample("x", dist.Normal(0, 1), obs=x)
        numpyro.factor("energy", -a * x**4)

    with pytest.raises(ValueError, match=r"cannot be enumerated: .* not quadratic in x"):
        pg.fit(energy, {"x": np.zeros(20)}, "mle")

    def improper(x=None):
        numpyro.param("a", jnp.ones(()))
        numpyro.sample("x", dist.ImproperUniform(constraints.real, (), ()), obs=x)

    with pytest.raises(ValueError, match="cannot be enumerated"):
        pg.fit(improper, {"x": np.zeros(20)}, "mle")
    with pytest.raises(ValueError, match="2 coordinates or more"):
        pg.fit("realnvp", {"x": np.arange(20.0)[:, None], "dim": 1}, "mle")
    with pytest.raises(ValueError, match="support"):
        pg.fit("bernoulli_mixture", {"x": np.full((20, 4), 1.5), "num_visible": 4}, "mle")
    with pytest.raises(ValueError, match="below 1"):
        pg.fit("gaussian", inference="mle", validation=1.5)


# ---- averages and schedules --------------------------------------------------------------------------------------


def one_mean(x=None):
    mean = numpyro.param("mean", jnp.zeros(2))
    numpyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


def test_the_exponential_average_is_that_of_the_path_by_hand():
    """Gradient descent on one batch of all rows has a path in closed form: mean_t = m (1 - (1 - rate)^t)."""
    x = np.random.default_rng(0).normal(size=(50, 2)) + 3
    settings = {"batch_size": 50, "optimizer": "sgd", "learning_rate": 0.1, "decay": "constant", "start": "program"}
    steps, decay = 40, 0.9
    fit = pg.fit(one_mean, {"x": x}, "mle", num_steps=steps, ema=decay, progress=False, **settings)
    rates = 0.1 * np.minimum(1.0, (np.arange(steps) + 1) / max(1.0, steps / 100))
    at, average = np.zeros(2), np.zeros(2)
    for step in range(steps):
        at = at + rates[step] * (x.mean(0) - at)
        average = average + max(1 - decay, 1 / (step + 1)) * (at - average)
    np.testing.assert_allclose(fit.parameters["mean"], average, rtol=1e-5)


def test_the_cosine_schedule_is_half_a_wave():
    fit = pg.fit(one_mean, {"x": np.ones((20, 2))}, "mle", num_steps=200, decay="cosine", batch_size=20, progress=False)
    rate, t = fit.records["learning_rate"][0], np.arange(200)
    np.testing.assert_allclose(rate[2:], 0.0015 * (1 + np.cos(np.pi * t / 200))[2:], atol=1e-8)


def test_the_exponential_average_is_what_validation_looks_at():
    x = np.random.default_rng(0).normal(size=(300, 2)) + 3
    settings = {"num_steps": 1000, "batch_size": 20, "validation": 0.3, "ema": 0.99, "seed": 1}
    settings |= {"learning_rate": 0.5, "decay": "constant", "patience": 100}
    fit = pg.fit(one_mean, {"x": x}, "mle", progress=False, **settings)
    rough = pg.fit(one_mean, {"x": x}, "mle", progress=False, **(settings | {"ema": 0.0}))
    own, single = (f.records["validation"][0, 100::100] for f in (fit, rough))  # single steps are noisy at this rate
    assert own.mean() < single.mean()
    with pytest.raises(ValueError, match="ema is 1"):
        pg.fit(one_mean, {"x": x}, "mle", ema=1.0)
    with pytest.raises(ValueError, match=r"ema is 0.5; codes and networks"):
        pg.fit("vq_vae", data="digits", inference="vq", ema=0.5)
