"""Principal components in closed form: scikit-learn's answer, whatever the parameters are called; other programs are refused."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from sklearn import decomposition

import probgen as pg
from probgen.algorithm import Incompatible


def rows(count=200, dim=6, num_latents=2, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(count, num_latents)) @ rng.normal(size=(num_latents, dim))
        + 0.3 * rng.normal(size=(count, dim))
        + 2
    )


def written_otherwise(y=None):
    loadings = numpyro.param("loadings", jnp.ones((3, 6)))
    precision = numpyro.param("log precision", jnp.zeros(()))
    z = numpyro.sample("z", dist.Normal(jnp.zeros(3), 1).to_event(1))
    numpyro.sample("y", dist.Normal(z @ loadings, jnp.exp(-0.5 * precision)).to_event(1), obs=y)


def diagonal(x=None):
    W, psi = (
        numpyro.param("W", jnp.ones((6, 2))),
        numpyro.param("psi", jnp.ones(6), constraint=dist.constraints.positive),
    )
    z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1).to_event(1))
    numpyro.sample("x", dist.Normal(W @ z, psi).to_event(1), obs=x)


def bent(x=None):
    W, sigma = numpyro.param("W", jnp.ones((6, 2))), numpyro.param("sigma", jnp.ones(()))
    z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1).to_event(1))
    numpyro.sample("x", dist.Normal(jnp.tanh(W @ z), sigma).to_event(1), obs=x)


@pytest.mark.parametrize("num_latents", [1, 3])
def test_it_is_scikit_learns(num_latents):
    x = rows()
    fit = pg.fit("ppca", {"x": x, "dim": 6, "num_latents": num_latents}, "pca")
    other = decomposition.PCA(num_latents).fit(x)
    biased = x.var(0).sum() / x.var(0, ddof=1).sum()
    p = fit.parameters
    np.testing.assert_allclose(p["mu"], x.mean(0), rtol=1e-9)
    np.testing.assert_allclose(p["sigma"] ** 2, other.noise_variance_ * biased, rtol=1e-6)
    np.testing.assert_allclose(
        p["W"] @ p["W"].T + p["sigma"] ** 2 * np.eye(6), other.get_covariance() * biased, rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(fit.records["explained"][0, 0] + 6 * p["sigma"] ** 2 / x.var(0).sum(), 1, rtol=1e-9)
    np.testing.assert_allclose(fit.log_prob().value.mean(), -fit.records["loss"][0, 0], rtol=1e-6)
    assert fit.diagnose().status == "pass"
    assert fit.sample(3)["x"].shape == (3, 6)


def test_parameters_are_found_by_what_they_do():
    x = rows() - 2
    fit = pg.fit(written_otherwise, {"y": x}, "pca")
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    noise = values[:3].mean()
    p = fit.parameters
    np.testing.assert_allclose(np.exp(-p["log precision"]), noise, rtol=1e-6)
    expected = (vectors[:, 3:] * (values[3:] - noise)) @ vectors[:, 3:].T
    np.testing.assert_allclose(p["loadings"].T @ p["loadings"], expected, rtol=1e-5, atol=1e-8)


def noisy(x=None, least=0.0):
    W, sigma = numpyro.param("W", jnp.ones((6, 2))), numpyro.param("sigma", jnp.ones(()))
    z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1).to_event(1))
    numpyro.sample("x", dist.Normal(W @ z, least + jnp.abs(sigma)).to_event(1), obs=x)


def test_noise_that_the_program_cannot_have_is_told():
    assert pg.fit(noisy, {"x": rows()}, "pca").parameters["sigma"] > 0
    with pytest.raises(Incompatible, match="gives the variance"):
        pg.fit(noisy, {"x": rows(), "least": jnp.array(10.0)}, "pca")


@pytest.mark.parametrize("program", [diagonal, bent])
def test_other_programs_are_refused(program):
    with pytest.raises(Incompatible, match="closed form is of programs"):
        pg.fit(program, {"x": rows()}, "pca")


def test_rows_without_noise_are_told():
    x = np.random.default_rng(0).normal(size=(50, 2)) @ np.random.default_rng(1).normal(size=(2, 6))
    with pytest.raises(ValueError, match="leave no noise"):
        pg.fit("ppca", {"x": x, "dim": 6, "num_latents": 3}, "pca")
