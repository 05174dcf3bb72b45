"""Learners pass once a longer run would gain next to nothing, and not before; likelihoods without a maximum do not pass."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pyro
import pyro.distributions as pdist
import pytest
import torch
from numpyro.distributions import constraints

import probgen as pg
from probgen.diagnostics import unbounded
from probgen.diagnostics.convergence import _by_nats, _by_share, between_looks, gained, level, seldom

# ---- the trend -----------------------------------------------------------------------------------------------------


def curve(steps, noise, seed=0, power=1.0, scale=300.0, shift=0.0):
    """A loss that falls like scale / t^power."""
    t = np.arange(1, steps + 1)
    return shift + scale / (t + 20.0) ** power + noise * np.random.default_rng(seed).normal(size=steps)


@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_what_is_left_is_what_a_longer_run_gains_whatever_the_units(shift):
    """A run of t steps has scale / t left; the estimate is within a factor of three over two decades."""
    for steps in (300, 3000, 30_000):
        found = gained(curve(steps, 0.01, shift=shift))
        assert 300 / steps / 3 < found.left < 3 * 300 / steps


def test_errors_of_levels_are_those_of_many_repetitions():
    means, errors = zip(*(level(np.random.default_rng(i).normal(size=1000), 1.0) for i in range(300)), strict=True)
    assert np.std(means) == pytest.approx(np.mean(errors), rel=0.15)


def test_slow_drift_in_one_direction_is_no_rest():
    """A learning rate that is too small: the second half gains as much as the first."""
    found = gained(np.linspace(5.0, 4.96, 5000))
    assert found.last > 0.35 * found.total


@pytest.mark.parametrize(("steps", "status"), [(300, "warn"), (1200, "warn"), (30_000, "pass")])
def test_a_likelihood_passes_where_at_most_a_tenth_of_a_nat_is_left(steps, status):
    """Of a loss 300 / t there are 1, .25 and .01 nats left."""
    finding = _by_nats(gained(curve(steps, 0.01)), "the loss", 0.1, "more steps", 0.5)
    assert finding.status == status
    assert "a longer run would gain" in finding.message
    assert (finding.value <= finding.bar) == (status == "pass")


@pytest.mark.parametrize(
    ("slow", "noise", "status"), [(1.0, 0.001, "warn"), (0.01, 0.001, "pass"), (0.01, 2.0, "warn")]
)
def test_a_loss_that_is_no_likelihood_is_held_to_a_share_of_what_was_gained(slow, noise, status):
    """Five units in its first hundred steps, then `slow` in each doubling: 20 % or .2 % of it all are left, or noise hides it."""
    t = np.arange(1, 4001)
    loss = 5 * np.exp(-t / 100) - slow * np.log2(t + 100) + noise * np.random.default_rng(0).normal(size=4000)
    assert _by_share(gained(loss), "the loss", "more steps").status == status


# ---- learners ------------------------------------------------------------------------------------------------------


def bars(count=400, seed=0):
    rng = np.random.default_rng(seed)
    pictures = np.array([[1, 1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1, 1], [1, 0, 0, 1, 0, 0, 1, 0, 0]])
    return (pictures[rng.integers(3, size=count)] ^ (rng.random((count, 9)) < 0.05)).astype(float)


@pytest.mark.parametrize("inference", ["pcd", "cd", "pseudo_likelihood"])
def test_an_energy_does_not_pass_after_a_few_steps(inference):
    data = {"v": bars(), "num_visible": 9, "num_hidden": 4}
    for steps in (50, 300):
        finding = pg.fit("rbm", data, inference, num_steps=steps, progress=False).diagnose()["convergence"]
        assert finding.status == "warn", finding


@pytest.mark.usefixtures("optimised")
def test_an_energy_passes_when_it_has_learned():
    data = {"v": bars(), "num_visible": 9, "num_hidden": 4}
    fit = pg.fit("rbm", data, "pcd", num_steps=6000, progress=False)
    twice = pg.fit("rbm", data, "pcd", num_steps=12_000, progress=False)
    assert fit.diagnose()["convergence"].status == "pass", fit.diagnose()
    assert not fit.diagnose().notes  # its log Z is enumerated, and a baseline is there
    assert twice.log_prob().value.mean() - fit.log_prob().value.mean() < 0.2


@pytest.mark.parametrize("name", ["fvsbn", "made"])
def test_a_density_passes_only_within_a_tenth_of_a_nat_of_a_longer_run(name):
    data = {"x": bars(), "dim": 9} | ({"width": 8} if name == "made" else {})
    fits = {n: pg.fit(name, data, "mle", num_steps=n, batch_size=100, progress=False) for n in (60, 300, 4000)}
    best = fits[4000].log_prob().value.mean()
    for fit in fits.values():
        behind = best - fit.log_prob().value.mean()
        assert behind < 0.2 or fit.diagnose()["convergence"].status != "pass", fit.diagnose()
    assert fits[60].diagnose().status != "pass"
    assert fits[4000].diagnose()["convergence"].status == "pass", fits[4000].diagnose()


def test_a_vae_stopped_early_does_not_pass():
    x = bars()
    for name, data in (
        ("vae", {"x": x, "dim": 9, "width": 8, "num_latents": 2}),
        ("vae_pyro", {"x": x, "width": 8, "num_latents": 2}),
    ):
        fit = pg.fit(name, data, "svi", num_steps=150, batch_size=50, progress=False)
        assert fit.diagnose()["convergence"].status == "warn"


def test_a_learning_rate_that_moves_nothing_does_not_pass():
    def program(x=None):
        numpyro.sample("x", dist.Normal(numpyro.param("loc", jnp.zeros(())), 1.0), obs=x)

    x = np.random.default_rng(0).normal(3, 1, size=300)
    fit = pg.fit(program, {"x": x}, "mle", num_steps=2000, batch_size=300, learning_rate=1e-6, progress=False)
    assert fit.diagnose()["convergence"].status == "warn", fit.diagnose()


def test_an_average_that_lags_behind_the_loss_is_told():
    def program(x=None):
        numpyro.sample("x", dist.Normal(numpyro.param("loc", jnp.zeros(())), 1.0), obs=x)

    x = np.random.default_rng(0).normal(1, 1, size=300)
    settings = {"num_steps": 600, "batch_size": 300, "learning_rate": 0.05, "progress": False}
    assert pg.fit(program, {"x": x}, "mle", ema=0.999, **settings).diagnose()["convergence"].status == "warn"
    assert pg.fit(program, {"x": x}, "mle", **settings).diagnose()["convergence"].status == "pass"


def test_a_held_out_loss_that_was_seldom_looked_at_is_no_rest():
    """Between two looks it does not move: 300 steps have two, and would gain nothing, with an error of 0."""
    x = np.random.default_rng(0).normal(1, 1, size=300)
    settings = {"validation": 0.2, "batch_size": 240, "learning_rate": 0.002, "progress": False}
    finding = pg.fit(held, {"x": x}, "mle", num_steps=300, **settings).diagnose()["convergence"]
    assert finding.status == "warn"
    assert "looked at every 100 steps, too seldom in 300" in finding.message
    looks = np.repeat([np.inf, 3.2, 3.1, 3.1, 3.1, 3.1], 100)
    assert between_looks(looks) == 100
    assert not seldom(looks)  # the same at three looks
    assert seldom(np.repeat([np.inf, 3.2, 3.1, 3.1, 3.1, 3.09], 100))
    assert not seldom(np.repeat(np.linspace(4, 3, 30), 100))
    assert seldom(np.repeat([np.inf, 3.0], 100))  # one look
    assert between_looks(curve(500, 0.1)) == 1


def test_a_pseudo_likelihood_is_looked_at_every_tenth_step():
    verdict = pg.fit("rbm", data="digits", inference="pcd", num_steps=250, progress=False).diagnose()
    assert "was looked at every 10 steps, too seldom in 250 to tell; at least 300" in verdict["convergence"].message
    assert verdict["two_sample"].status == "fail"  # what it draws, whatever its loss
    assert not verdict.notes


def held(x=None):
    numpyro.sample("x", dist.Normal(numpyro.param("loc", jnp.zeros(())), 1.0), obs=x)


def test_noise_above_the_bar_is_no_pass():
    def program(x=None):
        numpyro.sample("x", dist.Cauchy(numpyro.param("loc", jnp.zeros(())), 1e-3), obs=x)

    x = 1e3 * np.random.default_rng(0).standard_cauchy(300)
    finding = pg.fit(program, {"x": x}, "mle", num_steps=400, batch_size=2, progress=False).diagnose()["convergence"]
    assert finding.status == "warn"
    assert "noisy" in finding.message


# ---- likelihoods without a maximum ---------------------------------------------------------------------------------


def inputs(count=200, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 2))


def test_softmax_regression_of_separable_classes_fails():
    x = inputs()
    y = (x[:, 0] > 0).astype(int) + 2 * (x[:, 1] > 0)
    data = {"x": 3 * x, "y": y, "num_classes": 4}
    fit = pg.fit("softmax_regression", data, "mle", num_steps=3000, batch_size=200, learning_rate=0.05, progress=False)
    assert fit.diagnose()["separable"].status == "fail", fit.diagnose()
    mixed = {**data, "y": np.random.default_rng(1).integers(4, size=200)}
    fit = pg.fit("softmax_regression", mixed, "mle", num_steps=1000, batch_size=200, learning_rate=0.05, progress=False)
    assert fit.diagnose().status == "pass", fit.diagnose()


def logistic_pyro(x, y):
    w, b = pyro.param("w", torch.zeros(2)), pyro.param("b", torch.zeros(()))
    with pyro.plate("row", len(x)):
        pyro.sample("y", pdist.Bernoulli(logits=x @ w + b), obs=y)


def test_logistic_regression_in_pyro_is_told_too():
    x = inputs().astype(np.float32)
    y = (x[:, 0] > 0.2).astype(np.float32)
    settings = {"num_steps": 2000, "batch_size": 200, "learning_rate": 0.05, "progress": False}
    assert pg.fit(logistic_pyro, {"x": x, "y": y}, "mle", **settings).diagnose()["separable"].status == "fail"


def test_one_group_that_is_always_right_is_found():
    """Quasi-separation: all rows of one group are ones, the others are mixed; the group's coefficient has no maximum."""
    rng = np.random.default_rng(0)
    group = np.arange(300) % 3
    y = np.where(group == 1, 1, rng.integers(2, size=300))
    apart = unbounded.separated(unbounded.design([group, rng.normal(size=(300, 2))]), y)
    np.testing.assert_array_equal(apart, group == 1)
    assert not unbounded.separated(unbounded.design([rng.normal(size=(300, 2))]), rng.integers(2, size=300)).any()


def test_a_mode_of_a_flat_prior_that_is_none_fails():
    def program(x, y=None):
        w = numpyro.sample("w", dist.ImproperUniform(constraints.real_vector, (), (2,)))
        with numpyro.plate("row", len(x)):
            numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    def with_prior(x, y=None):
        w = numpyro.sample("w", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
        with numpyro.plate("row", len(x)):
            numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    x = inputs()
    y = (x[:, 0] > 0).astype(int)
    assert pg.fit(program, {"x": x, "y": y}, "map", progress=False).diagnose().status == "fail"
    assert pg.fit(with_prior, {"x": x, "y": y}, "map", progress=False).diagnose()["mode"].status == "pass"


def test_a_component_that_shrinks_onto_one_row_fails():
    def program(x=None):
        loc = numpyro.param("loc", jnp.array([0.0, 0.5]))
        scale = numpyro.param("scale", jnp.array([1.0, 1e-3]), constraint=constraints.positive)
        parts = dist.Normal(loc, scale)
        numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(probs=jnp.array([0.9, 0.1])), parts), obs=x)

    x = np.random.default_rng(0).normal(size=100)
    x[0] = 0.5
    settings = {"num_steps": 1500, "batch_size": 100, "start": "program", "learning_rate": 0.02, "progress": False}
    verdict = pg.fit(program, {"x": x}, "mle", **settings).diagnose()
    assert verdict["spikes"].status == "fail", verdict
