"""NumPyro programs in forms that the library takes: point masses, labels as floats, shapes, minibatches' lengths, transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import halfnorm, norm

import probgen as pg
from probgen.run import conditioned

RNG = np.random.default_rng(0)
Y, LABELS = RNG.normal(size=6), np.array([0, 2, 1, 1, 0, 2])
SHORT = {"num_warmup": 50, "num_samples": 50, "num_chains": 2, "progress": False}


def density(program, data, z):
    target = conditioned(program, data)[1]
    with jax.enable_x64(True):
        return target, float(target.log_density(jnp.asarray(z, float)))


def point_mass(y=None):
    m = numpyro.sample("m", dist.Normal(0, 1))
    d = numpyro.sample("d", dist.Delta(2 * m))
    numpyro.sample("e", dist.Delta(2 * m, log_density=m))
    with numpyro.plate("rows", 6):
        w = numpyro.sample("w", dist.Delta(jnp.ones(6)))
        numpyro.sample("y", dist.Normal(d * w, 1), obs=y)


def test_a_point_mass_is_no_unknown():
    target, got = density(point_mass, {"y": Y}, [0.3])
    assert target.named("latent") == ("m",)
    assert got == pytest.approx(norm.logpdf(0.3) + 0.3 + norm.logpdf(Y, 0.6).sum(), abs=1e-9)
    fit = pg.fit(point_mass, {"y": Y}, "nuts", **SHORT)
    np.testing.assert_allclose(fit.draws["d"], 2 * fit.draws["m"])
    assert fit.predict()["y"].shape == (2, 50, 6)


def labelled(y=None):
    p = numpyro.sample("p", dist.Normal(0, 1).expand([3]))
    numpyro.sample("y", dist.Categorical(logits=p), obs=y)


def test_labels_may_be_floats_where_they_are_whole():
    z = [0.3, 0.1, 0.2]
    floats, whole = (density(labelled, {"y": y}, z)[1] for y in (LABELS.astype(float), LABELS))
    assert floats == whole
    with pytest.raises(ValueError, match=r"integers from 0 to 2; y\[0\] is 0.5"):
        conditioned(labelled, {"y": LABELS + 0.5})


def test_a_fit_of_labels_that_are_floats_has_its_terms():
    fit = pg.fit(labelled, {"y": LABELS.astype(float)}, "nuts", **SHORT)
    assert fit.log_likelihood()["y"].shape == (2, 50, 6)


def led_by_one(y=None):
    m = numpyro.sample("m", dist.Normal(0, 1).expand([1, 6]))
    numpyro.sample("y", dist.Normal(m, 1), obs=y)


def led_by_two(y=None):
    m = numpyro.sample("m", dist.Normal(0, 1).expand([2, 6]))
    numpyro.sample("y", dist.Normal(m, 1), obs=y)


def test_data_may_lack_axes_of_length_one():
    z = np.linspace(-1, 1, 6)
    _, got = density(led_by_one, {"y": Y}, z)
    assert got == pytest.approx(norm.logpdf(z).sum() + norm.logpdf(Y, z).sum(), abs=1e-9)
    with pytest.raises(ValueError, match="broadcast to something larger than the data"):
        conditioned(led_by_two, {"y": Y})


def in_minibatches(y=None, size=4):
    m, s = numpyro.sample("m", dist.Normal(0, 1)), numpyro.sample("s", dist.HalfNormal(1))
    numpyro.factor("tilt", -m)
    with numpyro.plate("rows", 6, subsample_size=size) as i:
        w = jnp.ones(size)
        numpyro.sample("y", dist.Normal(m * w, s), obs=y[i])


def unknowns_in_minibatches(y=None, size=4):
    with numpyro.plate("rows", 6, subsample_size=size) as i:
        z = numpyro.sample("z", dist.Normal(jnp.ones(size), 1))
        numpyro.sample("y", dist.Normal(z, 1), obs=y[i])


@pytest.mark.parametrize("size", [2, 4])
def test_a_program_of_a_minibatchs_length_runs_on_all_rows(size):
    _, got = density(in_minibatches, {"y": Y, "size": size}, [0.3, -0.2])
    s = np.exp(-0.2)
    exact = norm.logpdf(0.3) + halfnorm.logpdf(s) - 0.2 - 0.3 + norm.logpdf(Y, 0.3, s).sum()
    assert got == pytest.approx(exact, abs=1e-9)


def test_pointwise_terms_and_predictions_of_such_a_program_are_of_all_rows():
    fit = pg.fit(in_minibatches, {"y": Y}, "nuts", **SHORT)
    terms = fit.log_likelihood()["y"].values
    m, s = fit.draws["m"], fit.draws["s"]
    np.testing.assert_allclose(terms, norm.logpdf(Y, m[..., None], s[..., None]), rtol=1e-6)
    assert fit.predict()["y"].shape == (2, 50, 6)
    with pytest.raises(ValueError, match="does not run on this data"):
        conditioned(unknowns_in_minibatches, {"y": Y})


def spectrum(y=None):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([8]))
    numpyro.sample("y", dist.Normal(jnp.fft.rfft(x).real, 0.5), obs=y)


def test_a_transform_of_an_unknown_is_a_linear_model():
    """The posterior of a linear normal model in closed form."""
    y = np.linspace(-1, 1, 5)
    fit = pg.fit(spectrum, {"y": y}, "nuts", progress=False)
    a = np.fft.rfft(np.eye(8)).real.T
    precision = np.eye(8) + a.T @ a / 0.25
    mean, sd = np.linalg.solve(precision, a.T @ y / 0.25), np.sqrt(np.diag(np.linalg.inv(precision)))
    x = fit.draws["x"]
    np.testing.assert_allclose(x.mean((0, 1)), mean, atol=0.08)
    np.testing.assert_allclose(x.std((0, 1)), sd, rtol=0.1)
    assert fit.predict()["y"].shape == (4, 1000, 5)


def circulant(y):
    s = numpyro.sample("s", dist.LogNormal(0.0, 1.0))
    lag = jnp.minimum(jnp.arange(16), 16 - jnp.arange(16))
    row = s * jnp.exp(-(lag**2) / 4.0) + (lag == 0)
    spectrum = (
        jnp.cos(2 * jnp.pi * jnp.outer(jnp.arange(9), jnp.arange(16)) / 16) @ row
    )  # the transform is the density's alone
    numpyro.sample("y", dist.CirculantNormal(jnp.zeros(16), covariance_rfft=spectrum), obs=y)


def dense(y):
    s = numpyro.sample("s", dist.LogNormal(0.0, 1.0))
    lag = jnp.abs(jnp.arange(16)[:, None] - jnp.arange(16))
    cov = s * jnp.exp(-(jnp.minimum(lag, 16 - lag) ** 2) / 4.0) + jnp.eye(16)
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(16), cov), obs=y)


@pytest.mark.parametrize("inference", ["laplace", "map"])
def test_a_transform_within_a_distribution_runs(inference):
    y = np.random.default_rng(0).normal(size=16)
    assert conditioned(circulant, {"y": y})[1].structure.transforms
    one, other = (pg.fit(p, {"y": y}, inference, progress=False).draws["s"].mean() for p in (circulant, dense))
    np.testing.assert_allclose(one, other, rtol=1e-6)
