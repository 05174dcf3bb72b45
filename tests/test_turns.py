"""Finite unknowns beside bounded reals: drawn in turn by `gibbs`, summed out by `nuts`, against sums and integrals."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.special import gammaln, logsumexp
from scipy.stats import multivariate_normal

import probgen as pg
from probgen.run import conditioned

QUIET = {"progress": False}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = X @ np.array([1.0, 0.0, -0.2]) + 0.5 * RNG.normal(size=40)
COUNTS = RNG.poisson(np.where(np.arange(30) < 14, 2.0, 4.0))
ROWS = np.concatenate([RNG.normal(size=12), 4 + RNG.normal(size=12)])


def spike(x, y=None):
    b = numpyro.sample("b", dist.Normal(0, 2).expand([3]))
    d = numpyro.sample("d", dist.Bernoulli(0.5).expand([3]))
    s = numpyro.sample("s", dist.HalfNormal(1))
    numpyro.deterministic("effect", d * b)
    numpyro.sample("y", dist.Normal(x @ (b * d), s), obs=y)


def exact_spike():
    """P(d_i = 1 | y) and E[s | y]: b is integrated out in closed form, s by quadrature."""
    grid = np.linspace(0.2, 1.2, 400)
    states = np.array([[i >> k & 1 for k in range(3)] for i in range(8)])
    log_p = np.array([
        [multivariate_normal.logpdf(Y, cov=4 * (X * d) @ X.T + s**2 * np.eye(40)) - s**2 / 2 for s in grid]
        for d in states
    ])  # fmt: skip
    p = np.exp(log_p - logsumexp(log_p))
    return states.T @ p.sum(1), p.sum(0) @ grid


def change(y=None):
    t = numpyro.sample("t", dist.DiscreteUniform(3, 25))
    a, b = numpyro.sample("a", dist.Exponential(1.0)), numpyro.sample("b", dist.Exponential(1.0))
    numpyro.sample("y", dist.Poisson(jnp.where(jnp.arange(30) < t, a, b)), obs=y)


def exact_change():
    """P(t | y), the rates integrated out in closed form."""

    def log_marginal(y):
        return gammaln(1 + y.sum()) - (1 + y.sum()) * np.log(1 + len(y))

    times = np.arange(3, 26)
    log_p = np.array([log_marginal(COUNTS[:t]) + log_marginal(COUNTS[t:]) for t in times])
    return times, np.exp(log_p - logsumexp(log_p))


def errors(draws):
    """Monte Carlo standard errors of the mean of draws (chain, draw, ...)."""
    from arviz_stats.base import array_stats

    flat = draws.reshape(*draws.shape[:2], -1).astype(float)
    ess = np.array([array_stats.ess(flat[..., i], chain_axis=0, draw_axis=1) for i in range(flat.shape[-1])])
    return (flat.std((0, 1)) / np.sqrt(ess)).reshape(draws.shape[2:])


@pytest.mark.parametrize("inference", ["gibbs", "nuts"])
def test_bits_inside_of_a_matrix_product_beside_a_bounded_real(inference):
    fit = pg.fit(spike, {"x": X, "y": Y}, inference, seed=1, **QUIET)
    included, scale = exact_spike()
    d, s = fit.draws["d"], fit.draws["s"]
    assert d.dtype.kind == "i"
    assert (abs(d.mean((0, 1)) - included) < 4.5 * errors(d) + 1e-3).all()
    assert abs(s.mean() - scale) < 4.5 * errors(s)
    np.testing.assert_allclose(fit.draws["effect"], d * fit.draws["b"])
    assert fit.precision == "float64"
    told = {f.check: f.status for f in fit.diagnose().findings}
    assert told["divergences"] == "pass"
    assert inference == "gibbs" or set(told.values()) == {"pass"}  # an effect that leaves the model comes back slowly


@pytest.mark.parametrize("inference", ["gibbs", "nuts"])
def test_a_change_point_of_a_series_without_a_plate(inference):
    fit = pg.fit(change, {"y": COUNTS}, inference, seed=2, **QUIET)
    times, p = exact_change()
    t = fit.draws["t"]
    assert t.min() >= 3
    assert t.max() <= 25
    assert abs(t.mean() - times @ p) < 4.5 * errors(t)
    likely = times[p.argmax()]
    assert abs((t == likely).mean() - p.max()) < 4.5 * errors(t == likely)
    assert fit.predict()["y"].shape == (4, 1000, 30)
    assert fit.log_likelihood()["y"].shape == (4, 1000, 30)


def mixture(plated):
    def program(y=None):
        m = numpyro.sample("m", dist.Normal(0, 5).expand([2]))
        s = numpyro.sample("s", dist.HalfNormal(1))
        if plated:
            with numpyro.plate("rows", 24):
                z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
                numpyro.sample("y", dist.Normal(m[z], s), obs=y)
        else:
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])).expand([24]))
            numpyro.sample("y", dist.Normal(m[z], s), obs=y)

    return program


@pytest.mark.parametrize("plated", [True, False])
def test_dimensions_without_a_plate_are_independent_rows_where_they_are(plated):
    import jax
    from scipy.stats import norm

    target = conditioned(mixture(plated), {"y": ROWS})[1]
    summed, turns = target.marginalise(), target.in_turns()
    m, s = np.array([0.3, 3.0]), 0.8
    with jax.enable_x64(True):
        z = np.array([*m, np.log(s)])
        got = float(summed.log_density(jnp.asarray(z)))
    parts = norm.logpdf(ROWS[:, None], m, s) + np.log([0.4, 0.6])
    prior = norm.logpdf(m, 0, 5).sum() + np.log(2) + norm.logpdf(s) + np.log(s)
    assert got == pytest.approx(logsumexp(parts, axis=1).sum() + prior, abs=1e-9)
    (block,) = turns.structure.blocks
    assert block.colours is None  # all rows at once


def sprinkler(wet=None):
    rain = numpyro.sample("rain", dist.Bernoulli(0.2))
    on = numpyro.sample("on", dist.Categorical(jnp.array([[0.6, 0.4], [0.99, 0.01]])[rain]))
    numpyro.deterministic("both", rain * on)
    numpyro.sample("wet", dist.Bernoulli(jnp.array([[0.01, 0.8], [0.9, 0.99]])[rain, on]), obs=wet)


def test_a_network_of_finite_unknowns_alone():
    fit = pg.fit(sprinkler, {"wet": np.array(1)}, "gibbs", seed=3, **QUIET)
    rain, on, wet = np.array([0.8, 0.2]), np.array([[0.6, 0.4], [0.99, 0.01]]), np.array([[0.01, 0.8], [0.9, 0.99]])
    p = rain[:, None] * on * wet
    p /= p.sum()
    for name, exact in (("rain", p[1].sum()), ("on", p[:, 1].sum()), ("both", p[1, 1])):
        draws = fit.draws[name]
        assert abs(draws.mean() - exact) < 4.5 * errors(draws) + 1e-4
    assert fit.diagnose().status == "pass"


def test_pointwise_terms_of_rows_with_their_own_finite_unknowns_are_those_of_the_sum():
    """The terms of draws in turn are log sum_k p(y_i, k | rest), as those of the summed-out program are."""
    from scipy.stats import norm

    fit = pg.fit(mixture(True), {"y": ROWS}, "gibbs", num_warmup=50, num_samples=20, num_chains=2, **QUIET)
    m, s = fit.draws["m"], fit.draws["s"]
    parts = norm.logpdf(ROWS[:, None], m[..., None, :], s[..., None, None]) + np.log([0.4, 0.6])
    np.testing.assert_allclose(fit.log_likelihood()["y"], logsumexp(parts, axis=-1), rtol=1e-6)


def included(size):
    def program(x, y=None):
        with numpyro.plate("effects", size):
            b, d = numpyro.sample("b", dist.Normal(0, 2)), numpyro.sample("d", dist.Bernoulli(0.5))
        s = numpyro.sample("s", dist.HalfNormal(1))
        with numpyro.plate("rows", 20):
            numpyro.sample("y", dist.Normal(x @ (b * d), s), obs=y)

    return program


def test_more_states_than_can_be_summed_over_are_drawn():
    x = RNG.normal(size=(20, 12))
    data = {"x": x, "y": x[:, 0]}
    with pytest.raises(ValueError, match=r"(?s)cannot be summed out.*inference='gibbs'"):
        pg.fit(included(12), data, "nuts", **QUIET)
    (block,) = conditioned(included(12), data)[1].in_turns().structure.blocks
    assert block.evaluated
    assert len(block.colours) == 12
    assert conditioned(included(3), {"x": x[:, :3], "y": x[:, 0]})[1].marginalise().structure.by_state
