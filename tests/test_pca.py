"""Principal components in closed form, and linear programs by expectation maximisation: scikit-learn's answers, whatever the
parameters are called; other programs are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from sklearn import decomposition

import probgen as pg
from probgen import runtime
from probgen.algorithm import Incompatible
from probgen.inference.likelihood import _linear


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
    assert [f.check for f in fit.diagnose().findings if f.status != "pass"] == (
        [] if num_latents == 3 else ["two_sample"]
    )
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


# ---- expectation maximisation


def test_em_of_principal_components_reaches_the_closed_form():
    data = {"x": rows(), "dim": 6, "num_latents": 2}
    exact, fit = pg.fit("ppca", data, "pca"), pg.fit("ppca", data, "em", tolerance=1e-12)
    loss = fit.records["loss"][0]
    assert (np.diff(loss) <= 1e-9).all()
    assert loss[-1] == pytest.approx(exact.records["loss"][0, 0], abs=1e-8)
    np.testing.assert_allclose(fit.parameters["sigma"], exact.parameters["sigma"], rtol=1e-5)
    np.testing.assert_allclose(fit.log_prob().value.mean(), -loss[-1], rtol=1e-6)
    assert fit.diagnose().status == "pass"


@pytest.mark.parametrize("num_latents", [1, 3])
def test_em_of_factors_is_scikit_learns(num_latents):
    x = rows(dim=8) * np.linspace(0.5, 2, 8) + np.random.default_rng(3).normal(size=(200, 8)) * np.linspace(1, 0.2, 8)
    fit = pg.fit(
        "factor_analysis", {"x": x, "dim": 8, "num_latents": num_latents}, "em", tolerance=1e-10, num_steps=5000
    )
    other = decomposition.FactorAnalysis(num_latents, tol=1e-6, max_iter=50_000, svd_method="lapack").fit(x)
    assert fit.log_prob().value.mean() == pytest.approx(other.score(x), abs=1e-3)
    assert (np.diff(fit.records["loss"][0]) <= 1e-9).all()
    np.testing.assert_allclose(fit.parameters["mu"], x.mean(0), rtol=1e-9)


def test_a_step_of_em_is_that_by_hand():
    """Rubin and Thayer's sums over rows, written out."""
    rng = np.random.default_rng(0)
    x, W, v = rng.normal(size=(30, 4)), rng.normal(size=(4, 2)), rng.uniform(0.5, 2, 4)
    covariance = W @ W.T + np.diag(v)
    mean = x @ np.linalg.solve(covariance, W)  # of z given each row
    spread = np.eye(2) - W.T @ np.linalg.solve(covariance, W)
    new = x.T @ mean @ np.linalg.inv(mean.T @ mean + 30 * spread)
    noise = (x**2).mean(0) - np.einsum("ik,nk,ni->i", new, mean, x) / 30
    loss = (
        0.5 * np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x).mean()
        + 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    )
    with runtime.jax_scope("float64"):
        found = _linear.improved(jnp.asarray(W), jnp.asarray(v), jnp.asarray(x.T @ x / 30))
    for a, b in zip(found, (new, noise, loss), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_em_finds_which_vector_is_the_noise():
    """A program whose noise comes first by name, its logarithm the parameter, and no other hint."""

    def renamed(y=None):
        a, b = numpyro.param("a", jnp.zeros(6)), numpyro.param("b", jnp.zeros(6))
        W = numpyro.param("V", lambda key: 0.1 * jax.random.normal(key, (2, 6)))
        z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1).to_event(1))
        numpyro.sample("y", dist.Normal(b + z @ W, jnp.exp(a)).to_event(1), obs=y)

    x = rows()
    fit = pg.fit(renamed, {"y": x}, "em", num_steps=300, by_row=True)
    np.testing.assert_allclose(fit.parameters["b"], x.mean(0), rtol=1e-6)
    exact = pg.fit("factor_analysis", {"x": x, "dim": 6, "num_latents": 2}, "em", num_steps=300)
    np.testing.assert_allclose(fit.records["loss"][0, -1], exact.records["loss"][0, -1], atol=1e-4)


def test_em_goes_on_from_its_state_bit_for_bit(tmp_path, killed):
    data = {"x": rows(), "dim": 6, "num_latents": 2}
    whole = pg.fit("factor_analysis", data, "em", num_steps=300, tolerance=1e-30)
    killed(pg.fit, "factor_analysis", data, "em", num_steps=300, tolerance=1e-30, out=tmp_path / "part")
    part = pg.resume(tmp_path / "part")
    for name in whole.answer:
        np.testing.assert_array_equal(part.answer[name], whole.answer[name])


def test_what_em_cannot_learn_is_told():
    with pytest.raises(Incompatible, match=r"N\(mu \+ W z, diag\(v\)\)"):
        pg.fit(bent, {"x": rows()}, "em", by_row=True)
    x = rows()
    x[:, 3] = 1.0
    with pytest.raises(ValueError, match="Coordinate 3 of 'x' is constant"):
        pg.fit("factor_analysis", {"x": x, "dim": 6, "num_latents": 2}, "em")
