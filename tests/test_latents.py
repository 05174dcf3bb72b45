"""Latent-variable programs whose hidden sites have a closed integral, against closed forms and scikit-learn."""

import inspect

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy import stats
from sklearn.decomposition import PCA, FactorAnalysis

import probgen as pg
from probgen import catalog
from probgen.data.toys import eight_gaussians


def correlated(noise):
    rng = np.random.default_rng(0)
    return rng.normal(size=(800, 2)) @ rng.normal(size=(2, 5)) + noise * rng.normal(size=(800, 5)) + np.arange(5)


SETTINGS = {"num_steps": 3000, "learning_rate": 0.02, "batch_size": 800}
CASES = {
    "ppca": (np.full(5, 0.5), PCA(2), lambda p: p["sigma"] ** 2 * np.eye(5)),
    "factor_analysis": (
        np.array([0.3, 0.5, 0.7, 0.9, 1.1]), FactorAnalysis(2, tol=1e-8, max_iter=10_000),
        lambda p: np.diag(p["sigma"] ** 2),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=CASES)
def learned(request):
    noise, peer, covariance = CASES[request.param]
    x = correlated(noise)
    return x, pg.fit(request.param, {"x": x, "dim": 5, "num_latents": 2}, "mle", **SETTINGS), peer.fit(x), covariance


def test_linear_models_meet_scikit_learn(learned):
    x, fit, peer, _ = learned
    assert fit.log_prob().value.mean() == pytest.approx(peer.score(x), abs=1e-3)
    assert fit.diagnose().status == "pass"


def test_their_density_is_the_marginal_one(learned):
    x, fit, _, covariance = learned
    p = fit.parameters
    marginal = stats.multivariate_normal(p["mu"], p["W"] @ p["W"].T + covariance(p))
    found = fit.log_prob(x=x[:50])
    assert "exact" in found.kind
    np.testing.assert_allclose(found.value, marginal.logpdf(x[:50]), atol=2e-3)
    drawn = fit.sample(40_000)
    assert drawn["z"].shape == (40_000, 2)
    np.testing.assert_allclose(np.cov(drawn["x"].T), marginal.cov, atol=0.15)


def test_the_true_posterior_of_a_latent_is_sampled(learned):
    x, fit, _, covariance = learned
    p = fit.parameters
    inverse = np.linalg.inv(covariance(p))
    posterior = np.linalg.inv(np.eye(2) + p["W"].T @ inverse @ p["W"])
    mean = posterior @ p["W"].T @ inverse @ (x[0] - p["mu"])
    chains = pg.fit(fit.condition(x=x[0]), inference="nuts", num_samples=2000)
    z = chains.draws["z"].reshape(-1, 2)
    np.testing.assert_allclose(z.mean(0), mean, atol=0.05 * np.sqrt(posterior.max()) * 2)
    np.testing.assert_allclose(np.cov(z.T), posterior, atol=0.1 * posterior.max())
    with pytest.raises(TypeError, match="'x' is known and comes after 'z'"):
        fit.condition(x=x[0]).sample(3)


def test_a_hidden_assignment_is_summed_out():
    """The same mixture with its assignment written as a site."""

    def program(x=None):
        loc = numpyro.param("loc", lambda key: 2.0 * dist.Normal(0, 1).expand([4, 2]).sample(key))
        scale = numpyro.param("scale", jnp.ones(4), constraint=dist.constraints.positive)
        logits = numpyro.param("logits", jnp.zeros(4))
        k = numpyro.sample("k", dist.Categorical(logits=logits))
        numpyro.sample("x", dist.Normal(loc[k], scale[k]).expand([2]).to_event(1), obs=x)

    x = eight_gaussians(600, seed=1)
    fit = pg.fit(program, {"x": x}, "mle", num_steps=300, by_row=True)
    p = fit.parameters
    each = [stats.norm(m, s).logpdf(x).sum(1) for m, s in zip(p["loc"], p["scale"], strict=True)]
    weights = np.exp(p["logits"]) / np.exp(p["logits"]).sum()
    exact = np.logaddexp.reduce(np.log(weights)[:, None] + np.array(each))
    np.testing.assert_allclose(fit.log_prob().value, exact, atol=1e-3)
    drawn = fit.sample(20_000)
    np.testing.assert_allclose(np.bincount(drawn["k"].astype(int), minlength=4) / 20_000, weights, atol=0.02)


def test_reals_that_are_not_jointly_normal_are_refused():
    """Quadratic in each of two reals, quartic in both: no closed integral; and a decoder that bends."""

    def crossed(x=None):
        a = numpyro.param("a", jnp.ones(()))
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("x", dist.Normal(a * z[0] * z[1], 1), obs=x)

    def bent(x=None):
        a = numpyro.param("a", jnp.ones(()))
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(jnp.sin(a * z), 1), obs=x)

    for program in (crossed, bent):
        with pytest.raises((TypeError, ValueError), match=r"closed|quadratic|cannot be"):
            pg.fit(program, {"x": np.random.default_rng(0).normal(size=50)}, "mle", num_steps=5, by_row=True)


@pytest.mark.parametrize(
    "name",
    ["vae", "beta_vae", "conditional_vae", "flow_prior_vae", "hierarchical_vae", "iaf_vae", "semi_supervised_vae", "vamp_vae",
     "vq_vae", "vq_vae_2"],
)  # fmt: skip
def test_guides_see_levels_from_minus_one_to_one(name):
    """What a guide draws of levels is what it draws of them scaled by hand."""
    model = catalog.model(name)
    x = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(float)
    x = x if name.startswith("vq") else x.ravel()
    rest = {"y": 3} if "y" in inspect.signature(model.guide).parameters else {}

    def drawn(x, likelihood):
        with handlers.seed(rng_seed=0), handlers.trace() as trace:
            model.guide(jnp.asarray(x), **rest, likelihood=likelihood)
        return {k: site["value"] for k, site in trace.items() if site["type"] == "sample"}

    of_levels, by_hand = drawn(x, "levels"), drawn(x / 127.5 - 1, "normal")
    for k, value in by_hand.items():
        np.testing.assert_allclose(of_levels[k], value, rtol=1e-5)
