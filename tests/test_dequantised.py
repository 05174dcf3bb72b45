"""Levels as boxes of a density of reals: against quadrature, closed forms, and exact log probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import norm

import probgen as pg
from probgen import runtime
from probgen.distributions.quantised import Dequantised, Quantised
from probgen.nets.flows import BoundedAffine, coupling

QUIET = {"progress": False}


def test_a_level_is_the_box_of_its_number():
    y = jnp.array([-0.3, 0.0, 0.24, 0.26, 0.5, 0.99, 1.7])
    fn = Quantised(y, levels=4)
    np.testing.assert_array_equal(fn.sample(jax.random.key(0)), [0, 0, 0, 1, 2, 3, 3])
    assert np.exp(fn.log_prob(fn.mean)).tolist() == [1.0] * 7
    for k in range(4):
        inside = np.exp(fn.log_prob(jnp.full(7, k)))
        assert set(inside.tolist()) <= {0.0, 1.0}
    total = sum(np.exp(fn.log_prob(jnp.full(7, k))) for k in range(4))
    np.testing.assert_array_equal(total, [1, 1, 1, 1, 2, 1, 1])  # on the border of two boxes both have it
    with pytest.raises(ValueError, match="levels is 1"):
        Quantised(y, 1)


@pytest.mark.parametrize("noise", ["uniform", "normal", "flow"])
def test_the_guide_is_a_density_on_the_box(noise):
    """It integrates to one over the box; uniform noise has density levels^D; a draw's density is that of its value."""
    x, levels = jnp.array([2.0, 0.0]), 5
    with runtime.jax_scope("float64"):
        flow = lambda: coupling("noise", 2, BoundedAffine(2.0), 3, 8, 1, x)  # noqa: E731
        made = {
            "uniform": lambda: dist.Logistic(jnp.zeros(2), 1.0).to_event(1),
            "normal": lambda: dist.Normal(jnp.array([0.3, -1.0]), 1.4).to_event(1),
            "flow": lambda: numpyro.handlers.seed(flow, jax.random.key(1))(),
        }
        fn = Dequantised(x, made[noise](), levels)
        n = 400
        u = (np.arange(n) + 0.5) / n
        grid = np.stack(np.meshgrid(u, u, indexing="ij"), -1).reshape(-1, 2)
        y = (np.asarray(x) + grid) / levels
        log_q = np.asarray(jax.vmap(fn.log_prob)(jnp.asarray(y)))
        assert np.exp(log_q).mean() / levels**2 == pytest.approx(1, abs=2e-3)
        if noise == "uniform":
            np.testing.assert_allclose(log_q, 2 * np.log(levels), atol=1e-9)
        drawn, inner = fn.sample_with_intermediates(jax.random.key(2), (50,))
        one = lambda y, v, q: (fn.log_prob(y), fn.log_prob(y, [v, q]))  # noqa: E731
        from_value, from_noise = jax.vmap(one)(drawn, *inner)
        np.testing.assert_allclose(from_value, from_noise, atol=1e-6)
    assert (np.floor(levels * np.asarray(drawn)) == np.asarray(x)).all()


def cut(x=None, levels=4):
    """A normal density of one number, cut into levels."""
    loc, log_scale = numpyro.param("loc", jnp.array(0.4)), numpyro.param("log_scale", jnp.array(-1.0))
    y = numpyro.sample("y", dist.Normal(loc, jnp.exp(log_scale)).expand([1]).to_event(1))
    numpyro.sample("x", Quantised(y, levels).to_event(1), obs=x)


def uniform(x, levels=4):
    numpyro.sample("y", Dequantised(x, dist.Logistic(jnp.zeros(1), 1.0).to_event(1), levels))


def learned_noise(x, levels=4):
    loc, log_scale = numpyro.param("m", jnp.zeros(levels)), numpyro.param("log_s", jnp.zeros(levels))
    at = x.astype(int)
    numpyro.sample("y", Dequantised(x, dist.Normal(loc[at], 1.7 * jnp.exp(log_scale[at])).to_event(1), levels))


def test_bounds_on_levels_meet_the_mass_of_the_boxes():
    """log P(x) is a difference of normal cdfs: the inner levels; uniform noise bounds it, learned noise more closely."""
    rng = np.random.default_rng(0)
    x = rng.choice(4, (400, 1), p=[0.1, 0.5, 0.3, 0.1])
    fits, inner = {}, np.array([[1], [2]])
    for guide in (uniform, learned_noise):
        model = pg.Model(cut, guide=guide, by_row=True)
        fits[guide] = pg.fit(
            model, {"x": x}, "svi", num_steps=3000, batch_size=200, learning_rate=0.01, seed=0, **QUIET
        )
    for guide, fit in fits.items():
        loc, scale = fit.parameters["loc"], np.exp(fit.parameters["log_scale"])
        edges = norm.cdf((np.arange(5) / 4 - loc) / scale)
        exact = np.log(np.diff(edges))[inner[:, 0]]
        many = fit.log_prob(x=inner, num_particles=20_000)
        np.testing.assert_allclose(many.value, exact, atol=0.02)
        bound = fit.log_prob(x=inner, method="elbo", num_particles=20_000)
        assert (bound.value <= exact + 0.01).all(), guide
    gaps = [
        (f.log_prob(method="iwae", num_particles=500).value - f.log_prob(method="elbo", num_particles=500).value).mean()
        for f in fits.values()
    ]
    assert gaps[1] < 0.5 * gaps[0]


@pytest.mark.usefixtures("optimised")
def test_the_model_learns_and_draws_levels():
    """Two-coordinate levels in a checkerboard: log 8 nats if known exactly, log 16 if not at all."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (3000, 2))
    x = x[x.sum(1) % 2 == 0]
    data = {"x": x, "dim": 2, "levels": 4, "width": 32}
    fit = pg.fit("dequantised_spline", data, "svi", num_steps=2500, learning_rate=0.003, seed=0, **QUIET)
    bound = fit.log_prob(x=x[:300], num_particles=50)
    assert -np.log(16) < bound.value.mean() - 0.25
    assert "lower bound" in bound.kind
    drawn = fit.sample(400)["x"]
    assert set(np.unique(drawn)) <= {0, 1, 2, 3}
    assert (drawn.sum(1) % 2 == 0).mean() > 0.8


def test_bad_levels_are_told():
    with pytest.raises(ValueError, match="x"):
        pg.fit("dequantised_spline", {"x": np.array([[0, 9], [1, 2]]), "dim": 2, "levels": 4}, "svi")
    with pytest.raises(ValueError, match="known: flow, uniform"):
        pg.fit("dequantised_spline", {"x": np.array([[0, 3], [1, 2]]), "dim": 2, "levels": 4, "noise": "none"}, "svi")
