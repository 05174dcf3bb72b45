"""Far tails of NumPyro's distributions: censored rows and truncated densities, where the library's own are flat or infinite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy import special, stats

import probgen as pg
from probgen.engine.numpyro.events import tails
from probgen.engine.numpyro.programs.edges import Edges

NORMALS = dist.MixtureSameFamily(dist.Categorical(jnp.array([0.3, 0.7])), dist.Normal(jnp.array([-1.0, 2.0]), 1.0))


def of_normals(sign):
    """log P(X <= x), or of X > x, of the mixture."""
    return lambda x: special.logsumexp(stats.norm.logcdf(sign * (x[:, None] - [-1, 2])) + np.log([0.3, 0.7]), axis=1)


def scipys(law):
    return law.logcdf, law.logsf


LAWS = {
    "exponential": (dist.Exponential(2.0), scipys(stats.expon(scale=0.5)), (1e-3, 1.0, 400.0)),
    "weibull": (dist.Weibull(2.0, 1.5), scipys(stats.weibull_min(1.5, scale=2)), (1e-3, 1.0, 100.0)),
    "gompertz": (dist.Gompertz(0.5, 0.3), scipys(stats.gompertz(0.5, scale=1 / 0.3)), (1e-3, 1.0, 20.0)),
    "normal": (dist.Normal(1.0, 2.0), scipys(stats.norm(1, 2)), (-60.0, 0.0, 60.0)),
    "half_normal": (dist.HalfNormal(2.0), scipys(stats.halfnorm(scale=2)), (0.01, 1.0, 60.0)),
    "logistic": (dist.Logistic(1.0, 2.0), scipys(stats.logistic(1, 2)), (-300.0, 0.0, 300.0)),
    "laplace": (dist.Laplace(1.0, 2.0), scipys(stats.laplace(1, 2)), (-300.0, 0.0, 300.0)),
    "soft_laplace": (dist.SoftLaplace(1.0, 2.0), scipys(stats.hypsecant(1, 2)), (-30.0, 0.0, 30.0)),
    "gumbel": (dist.Gumbel(1.0, 2.0), scipys(stats.gumbel_r(1, 2)), (-8.0, 0.0, 300.0)),
    "cauchy": (dist.Cauchy(1.0, 2.0), scipys(stats.cauchy(1, 2)), (-1e6, 0.0, 1e6)),
    "half_cauchy": (dist.HalfCauchy(2.0), scipys(stats.halfcauchy(scale=2)), (0.01, 1.0, 1e6)),
    "student": (dist.StudentT(4.0, 1.0, 2.0), scipys(stats.t(4, 1, 2)), (-1e3, 0.0, 1e3)),
    "log_normal": (dist.LogNormal(0.3, 0.5), scipys(stats.lognorm(0.5, scale=np.exp(0.3))), (1e-3, 1.0, 1e3)),
    "pareto": (dist.Pareto(2.0, 3.0), scipys(stats.pareto(3, scale=2)), (2.1, 10.0, 1e6)),
    "poisson": (dist.Poisson(4.0), scipys(stats.poisson(4)), (0.0, 3.0, 12.0)),
    "mixture": (NORMALS, (of_normals(1), of_normals(-1)), (-20.0, 0.0, 20.0)),
    "beta": (dist.Beta(2.0, 3.0), scipys(stats.beta(2, 3)), (0.01, 0.5, 0.9)),  # by its cdf
    "shaped": (dist.Normal(1.0, 2.0).expand((3,)).to_event(1), scipys(stats.norm(1, 2)), (-60.0, 0.0, 60.0)),
}


@pytest.mark.parametrize("name", LAWS)
def test_both_tails_have_all_digits_far_out(name):
    law, exact, at = LAWS[name]
    x = np.array(at)
    for found, expected in zip(tails.log_tails(law, jnp.asarray(x, jnp.float32)), exact, strict=True):
        np.testing.assert_allclose(found, expected(x.astype(np.float32).astype(float)), rtol=2e-5, atol=2e-5 * 0.01)


@pytest.mark.parametrize("a", [0.5, 3.5, 50.0])
def test_far_tails_of_a_gamma_law(a):
    """mpmath's incomplete gamma functions, at probabilities down to exp(-900)."""
    import mpmath

    below = [a * 1e-6, a * 0.02, a, a + 9 * a**0.5, a + 900.0]
    found = tails.log_tails(dist.Gamma(a, 2.0), jnp.array(below) / 2)
    at = [float(np.float32(x)) for x in below]
    with mpmath.workdps(40):
        lower = [float(mpmath.log(mpmath.gammainc(a, 0, x, regularized=True))) for x in at]
        upper = [float(mpmath.log(mpmath.gammainc(a, x, mpmath.inf, regularized=True))) for x in at]
    np.testing.assert_allclose(found[0], lower, rtol=3e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], upper, rtol=3e-5, atol=1e-6)


def density(fn, value):
    """The log density of a program of one observed site, as algorithms see it."""

    def program():
        numpyro.sample("y", fn, obs=value)

    return log_density(Edges(program), (), {}, {})[0]


def test_censored_rows_weigh_what_they_are():
    yes, far = jnp.array(True), 40.0

    def right(rate):
        return density(dist.RightCensoredDistribution(dist.Exponential(rate), yes), far)

    def left(loc):
        return density(dist.LeftCensoredDistribution(dist.Normal(loc, 1.0), yes), -far)

    for f, at, value, slope in [(right, 1.0, -40.0, -40.0), (left, 0.0, stats.norm.logcdf(-40), -40.025)]:
        found, found_slope = jax.value_and_grad(f)(at)
        assert found == pytest.approx(value, rel=1e-5)
        assert found_slope == pytest.approx(slope, rel=1e-4)
    seen = density(dist.RightCensoredDistribution(dist.Exponential(2.0), jnp.array(False)), 3.0)
    assert seen == pytest.approx(np.log(2) - 6, abs=1e-5)


@pytest.mark.parametrize(
    ("left", "right", "ends", "expected"),
    [
        (0, 0, (10.0, 11.0), stats.norm.logsf(10) + np.log1p(-np.exp(stats.norm.logsf(11) - stats.norm.logsf(10)))),
        (0, 0, (-11.0, -10.0), stats.norm.logsf(10) + np.log1p(-np.exp(stats.norm.logsf(11) - stats.norm.logsf(10)))),
        (0, 0, (-1.0, 2.0), np.log(stats.norm.cdf(2) - stats.norm.cdf(-1))),
        (0, 0, (10.0, 10.0), stats.norm.logpdf(10)),
        (1, 0, (-np.inf, -20.0), stats.norm.logcdf(-20)),
        (0, 1, (20.0, np.inf), stats.norm.logsf(20)),
        (1, 1, (-12.0, 10.0), stats.norm.logsf(10)),
    ],
)
def test_intervals_in_either_tail(left, right, ends, expected):
    def at(loc):
        law = dist.IntervalCensoredDistribution(dist.Normal(loc, 1.0), jnp.array([left]), jnp.array([right]))
        return density(law, jnp.array([ends]))

    found, slope = jax.value_and_grad(at)(0.0)
    assert found == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(slope)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("ends", ["one", "two"])
def test_a_truncated_normal_is_its_mirror_image(sign, ends):
    """The mean 10 or 30 standard deviations beyond an end."""
    far = {"two": 50.0}.get(ends, np.inf)

    def at(loc):
        low, high = (0.0, far) if sign > 0 else (-far, 0.0)
        kept: dict[str, Any] = {k: v for k, v in {"low": low, "high": high}.items() if np.isfinite(v)}
        return density(dist.TruncatedNormal(sign * loc, 1.0, **kept), sign * 0.1)

    for loc in (-10.0, -30.0):
        found, slope = jax.value_and_grad(at)(loc)
        hazard = np.exp(stats.norm.logpdf(loc) - stats.norm.logsf(-loc))
        assert found == pytest.approx(stats.norm.logpdf(0.1 - loc) - stats.norm.logsf(-loc), abs=1e-3)
        assert slope == pytest.approx(0.1 - loc - hazard, abs=1e-3)


def test_who_outlives_all_others_counts_in_the_posterior():
    """20 events within weeks, one who lives on after 2000 days: the rate is a gamma law, in closed form."""
    days = np.append(np.random.default_rng(0).exponential(5.0, 20), 2000.0)

    def program(days):
        rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
        with numpyro.plate("row", len(days)):
            alive = jnp.arange(len(days)) == 20
            numpyro.sample("y", dist.RightCensoredDistribution(dist.Exponential(rate), alive), obs=days)

    fit = pg.fit(program, {"days": days}, num_chains=2, num_samples=500, progress=False)
    exact = stats.gamma(21, scale=1 / (1 + days.sum()))
    assert fit.draws["rate"].mean() == pytest.approx(exact.mean(), abs=0.2 * exact.std())
