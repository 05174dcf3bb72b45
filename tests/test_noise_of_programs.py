"""Programs as functions of standard normal noise: the law of every family is its own, tails included, plates and scans as well."""

import flowjax.distributions as flowjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flowjax.bijections import Affine
from numpyro.contrib.control_flow import scan
from scipy import stats

from probgen import runtime
from probgen.engine.numpyro.events import normals, quantiles
from probgen.engine.numpyro.events.spaces import counted
from probgen.engine.numpyro.events.tape import ran
from probgen.nets.flows import Flow

ONE = {
    "normal": (dist.Normal(1.0, 2.0), stats.norm(1, 2)),
    "half_normal": (dist.HalfNormal(2.0), stats.halfnorm(scale=2)),
    "log_normal": (dist.LogNormal(0.5, 0.5), stats.lognorm(0.5, scale=np.exp(0.5))),
    "uniform": (dist.Uniform(-1.0, 3.0), stats.uniform(-1, 4)),
    "exponential": (dist.Exponential(0.5), stats.expon(scale=2)),
    "weibull": (dist.Weibull(2.0, 1.5), stats.weibull_min(1.5, scale=2)),
    "gumbel": (dist.Gumbel(1.0, 2.0), stats.gumbel_r(1, 2)),
    "logistic": (dist.Logistic(1.0, 0.5), stats.logistic(1, 0.5)),
    "laplace": (dist.Laplace(1.0, 2.0), stats.laplace(1, 2)),
    "cauchy": (dist.Cauchy(1.0, 2.0), stats.cauchy(1, 2)),
    "half_cauchy": (dist.HalfCauchy(2.0), stats.halfcauchy(scale=2)),
    "student_t": (dist.StudentT(3.0, 1.0, 2.0), stats.t(3, 1, 2)),
    "gamma": (dist.Gamma(2.5, 2.0), stats.gamma(2.5, scale=0.5)),
    "beta": (dist.Beta(2.0, 3.0), stats.beta(2, 3)),
    "inverse_gamma": (dist.InverseGamma(3.0, 2.0), stats.invgamma(3, scale=2)),
    "truncated": (dist.TruncatedNormal(0.0, 1.0, low=-0.5, high=2.0), stats.truncnorm(-0.5, 2)),
    "kumaraswamy": (dist.Kumaraswamy(2.0, 3.0), None),
    "von_mises": (dist.VonMises(0.0, 2.0), stats.vonmises(2)),
}
WHOLE = {
    "bernoulli": (dist.Bernoulli(0.3), stats.bernoulli(0.3)),
    "logits": (dist.Bernoulli(logits=-1.0), stats.bernoulli(1 / (1 + np.e))),
    "poisson": (dist.Poisson(3.0), stats.poisson(3)),
    "binomial": (dist.Binomial(10, 0.3), stats.binom(10, 0.3)),
    "uniform_whole": (dist.DiscreteUniform(2, 5), stats.randint(2, 6)),
    "negative_binomial": (dist.NegativeBinomial2(3.0, 2.0), stats.nbinom(2, 2 / 5)),
}
SHARES = jnp.array([0.2, 0.5, 0.3])
COVARIANCE = np.array([[1.0, 0.6], [0.6, 2.0]])


def many():
    for name, (fn, _) in {**ONE, **WHOLE}.items():
        numpyro.sample(name, fn)
    numpyro.sample("class", dist.Categorical(SHARES))
    numpyro.sample("class_logits", dist.Categorical(logits=jnp.log(SHARES)))
    numpyro.sample("pair", dist.MultivariateNormal(jnp.array([1.0, 2.0]), jnp.asarray(COVARIANCE)))
    low = dist.LowRankMultivariateNormal(jnp.zeros(2), jnp.array([[1.0], [0.5]]), jnp.array([0.5, 1.0]))
    numpyro.sample("low_rank", low)
    numpyro.sample("walk", dist.GaussianRandomWalk(0.5, num_steps=4))
    numpyro.sample("shares", dist.Dirichlet(jnp.array([2.0, 1.0, 3.0])))
    parts = dist.Normal(jnp.array([-2.0, 0.0, 3.0]), jnp.array([0.5, 1.0, 0.3]))
    numpyro.sample("mixture", dist.MixtureSameFamily(dist.Categorical(SHARES), parts))
    numpyro.sample("points", dist.MixtureSameFamily(
        dist.Categorical(SHARES), dist.Normal(jnp.arange(6.0).reshape(3, 2), 0.1).to_event(1)))  # fmt: skip
    with numpyro.plate("row", 3):
        scale = numpyro.sample("scale", dist.Gamma(jnp.array([1.0, 2.0, 9.0]), 1.0))
        numpyro.sample("in_plate", dist.Normal(jnp.zeros(2), scale[:, None]).to_event(1))
    numpyro.sample("by_key", dist.Poisson(jnp.array([1.0, 20.0])))
    flow = flowjax.Transformed(flowjax.StandardNormal((2,)), Affine(jnp.array([1.0, -1.0]), jnp.array([2.0, 0.5])))
    numpyro.sample("flow", Flow(flow))

    def step(x, _):
        x = numpyro.sample("x", dist.Normal(0.5 * x, 1.0))
        return x, x

    scan(step, 0.0, None, length=3)
    key = numpyro.prng_key()
    numpyro.deterministic("drawn_by_key", jax.random.normal(key))


@pytest.fixture(scope="module")
def drawn():
    return run(many, lambda dim: np.random.default_rng(0).standard_normal((2000, dim)))


def run(program, noise):
    """The program on noise, (draw, dim): values by name, (draw, *event)."""
    with runtime.jax_scope("float64"):
        u = jnp.asarray(noise(counted(lambda: program, "float64").used))
        found = jax.jit(jax.vmap(lambda e: ran(program, e, "float64")[0]))(u)
        return {k: np.asarray(v) for k, v in found.items()}


@pytest.mark.parametrize("name", ONE)
def test_numbers_have_their_law(drawn, name):
    fn, known = ONE[name]
    other = np.asarray(fn.sample(jax.random.key(0), (20_000,))) if known is None else None
    found = stats.kstest(drawn[name], known.cdf) if known else stats.ks_2samp(drawn[name], other)
    assert found.pvalue > 1e-4


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_have_their_law(drawn, name):
    known, values = WHOLE[name][1], drawn[name]
    assert values.dtype.kind == "i"
    kinds = np.arange(values.max() + 1)
    z = np.array([(values == k).mean() - known.pmf(k) for k in kinds]) / np.sqrt(known.pmf(kinds) / 2000 + 1e-7)
    assert np.abs(z).max() < 4.5


def test_classes_vectors_and_mixtures(drawn):
    for name in ("class", "class_logits"):
        np.testing.assert_allclose(np.bincount(drawn[name]) / 2000, SHARES, atol=0.03)
    np.testing.assert_allclose(np.cov(drawn["pair"].T), COVARIANCE, atol=0.2)
    np.testing.assert_allclose(drawn["pair"].mean(0), [1, 2], atol=0.1)
    np.testing.assert_allclose(np.cov(drawn["low_rank"].T), [[1.5, 0.5], [0.5, 1.25]], atol=0.2)
    np.testing.assert_allclose(drawn["walk"].var(0), 0.25 * np.arange(1, 5), rtol=0.15)
    np.testing.assert_allclose(drawn["shares"].mean(0), np.array([2, 1, 3]) / 6, atol=0.02)
    parts = [stats.norm(-2, 0.5), stats.norm(0, 1), stats.norm(3, 0.3)]
    cdf = lambda x: sum(float(w) * p.cdf(x) for w, p in zip(SHARES, parts, strict=True))  # noqa: E731
    assert stats.kstest(drawn["mixture"], cdf).pvalue > 1e-4
    which = np.rint(drawn["points"][:, 0]) // 2
    np.testing.assert_allclose(np.bincount(which.astype(int)) / 2000, SHARES, atol=0.03)
    np.testing.assert_allclose(drawn["points"][:, 1] - drawn["points"][:, 0], 1, atol=0.8)


def test_plates_scans_keys_and_flows(drawn):
    np.testing.assert_allclose(drawn["scale"].mean(0), [1, 2, 9], rtol=0.08)
    assert stats.kstest((drawn["in_plate"] / drawn["scale"][..., None]).ravel(), stats.norm.cdf).pvalue > 1e-4
    assert abs(np.corrcoef(drawn["scale"].T) - np.eye(3)).max() < 0.08
    np.testing.assert_allclose(drawn["by_key"].mean(0), [1, 20], rtol=0.08)
    assert abs(np.corrcoef(drawn["by_key"].T)[0, 1]) < 0.08
    x = drawn["x"]
    np.testing.assert_allclose(x.var(0), [1, 1.25, 1.3125], rtol=0.12)
    assert abs(np.corrcoef(x[:, 1] - 0.5 * x[:, 0], x[:, 0])[0, 1]) < 0.08
    assert stats.kstest(drawn["drawn_by_key"], stats.norm.cdf).pvalue > 1e-4
    np.testing.assert_allclose(drawn["flow"].mean(0), [1, -1], atol=0.15)
    np.testing.assert_allclose(drawn["flow"].std(0), [2, 0.5], rtol=0.08)


FAR = ("half_normal", "exponential", "weibull", "gumbel", "logistic", "laplace", "cauchy", "half_cauchy")


@pytest.mark.parametrize("name", FAR)
def test_far_tails_have_all_digits(name):
    """At noise of 10 the upper tail is 8e-24, far below what rounding leaves of 1 - p."""
    fn, known = ONE[name]
    values = run(lambda: numpyro.sample("x", fn), lambda dim: np.array([[10.0], [-10.0], [0.5]]))
    np.testing.assert_allclose(known.logsf(values["x"][0]), stats.norm.logsf(10), rtol=1e-6)
    np.testing.assert_allclose(known.logcdf(values["x"][1]), stats.norm.logcdf(-10), rtol=1e-6)
    np.testing.assert_allclose(known.cdf(values["x"][2]), stats.norm.cdf(0.5), rtol=1e-9)


def test_quantiles_of_gamma_in_both_tails():
    e, a = np.linspace(-8, 10, 37), np.array([0.05, 0.5, 1.0, 2.5, 30.0, 1000.0])[:, None]
    with runtime.jax_scope("float64"):
        x = np.asarray(quantiles.gamma(a, jnp.asarray(e)))
    seen = x > 1e-290
    assert seen[1:].all()
    assert seen[:, e > -4].all()
    z = np.where(e < 0, stats.norm.ppf(stats.gamma.cdf(x, a)), stats.norm.isf(stats.gamma.sf(x, a)))
    np.testing.assert_allclose(z[seen], np.broadcast_to(e, x.shape)[seen], atol=1e-7)


def test_quantiles_of_whole_numbers_in_both_tails():
    e = np.linspace(-6, 8, 29)
    with runtime.jax_scope("float64"):
        for rate in (0.01, 3.0, 400.0):
            found = np.asarray(quantiles.poisson(rate, jnp.asarray(e)))
            np.testing.assert_array_equal(found, stats.poisson.isf(stats.norm.sf(e), rate))
        for n, p in ((1, 0.3), (10, 0.3), (500, 0.01)):
            found = np.asarray(quantiles.binomial(n, p, jnp.asarray(e)))
            np.testing.assert_array_equal(found, stats.binom.isf(stats.norm.sf(e), n, p))


def least(below, beyond, far, e):
    """The least k with below(k) >= Phi(e), by SciPy's tails."""
    low, high = np.full(len(e), -1.0), np.full(len(e), float(far))
    for _ in range(40):
        k = np.floor((low + high) / 2)
        good = np.where(e < 0, below(k.clip(0)) >= stats.norm.cdf(e), beyond(k.clip(0)) <= stats.norm.sf(e)) & (k >= 0)
        low, high = np.where(good | (high - low <= 1), low, k), np.where(good & (high - low > 1), k, high)
    return high


def test_counts_in_single_precision():
    """The lower tail, where 1 - Phi(e) rounds to 1, and counts so large that special functions have no digits left."""
    e = np.array([-8.0, -6.5, -3.0, -0.5, 0.5, 2.0, 6.5, 8.0]) + 0.01
    laws = [(stats.poisson(r), r, quantiles.poisson, (r,)) for r in (30.0, 499.0, 501.0, 1e5, 1e6)]
    for n, p in ((100, 0.5), (1000, 0.9), (10**6, 1e-5), (10**6, 0.3), (20_000, 0.99)):
        laws.append((stats.binom(n, p), n * p * (1 - p), quantiles.binomial, (float(n), p)))
    with runtime.jax_scope("float32"):
        for law, variance, quantile, given in laws:
            found = np.asarray(quantile(*given, jnp.asarray(e, "float32")), float)
            known = least(law.cdf, law.sf, law.mean() + 20 * variance**0.5 + 50 if len(given) == 1 else given[0], e)
            np.testing.assert_allclose(found, known, atol=1.5 if variance > 1e5 else 0)
        found = normals._category(jnp.array([1 - 1e-9, 9e-10, 1e-10]), jnp.array([5.0, 6.1, 6.5], "float32"))
        np.testing.assert_array_equal(found, [0, 1, 2])
