"""Rows in any units, around any point: densities, bounds, mixtures beside the same in units near 1, and closed forms."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pyro
import pyro.distributions as pdist
import pytest
import torch
from numpyro.distributions import constraints
from sklearn.mixture import GaussianMixture

import probgen as pg
from probgen.data import scales
from probgen.nets import flows

FLOW = {
    "planar": {"num_layers": 4}, "radial": {"num_layers": 4}, "realnvp": {"num_layers": 2, "width": 8},
    "maf": {"num_layers": 2, "width": 8}, "iaf": {"num_layers": 2, "width": 8},
    "neural_spline": {"num_layers": 2, "width": 8},
}  # fmt: skip


def moons(count=300, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 2)) @ np.array([[1.0, 0.6], [0.0, 0.5]])


def normal_bound(x):
    """Mean log p of rows under the normal of their mean and covariance."""
    log_det = np.linalg.slogdet(np.atleast_2d(np.cov((x - x[0]).T, bias=True)))[1]
    return -0.5 * (x.shape[1] * (1 + np.log(2 * np.pi)) + log_det)


# ---- flows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["planar", "maf", "neural_spline"])
def test_a_flow_of_shifted_and_stretched_rows_is_the_flow_shifted_and_stretched(name):
    """In double precision: the same numbers but for the Jacobian of the change of units, and draws that move with it."""
    x, centre, spread = moons(), np.array([5000.0, -2e6]), np.array([300.0, 1e-3])
    settings = {"num_steps": 20, "batch_size": 100, "precision": "float64", "progress": False}
    near = pg.fit(name, {"x": x, "dim": 2, **FLOW[name]}, "mle", **settings)
    far = pg.fit(name, {"x": centre + spread * x, "dim": 2, **FLOW[name]}, "mle", **settings)
    apart = near.log_prob().value - np.log(spread).sum() - far.log_prob().value
    np.testing.assert_allclose(apart, 0, atol=1e-5)
    np.testing.assert_allclose((far.sample(50)["x"] - centre) / spread, near.sample(50)["x"], atol=1e-4)
    line = far.interpolate(centre + spread * x[0], centre + spread * x[1], 3)["x"]
    np.testing.assert_allclose((line[[0, 2]] - centre) / spread, x[:2], atol=1e-4)


@pytest.mark.parametrize("name", ["realnvp", "iaf", "radial"])
def test_flows_of_unscaled_rows_reach_the_normal_that_the_rows_come_from(name):
    x = np.random.default_rng(0).normal(5000, 300, size=(400, 2))
    fit = pg.fit(name, {"x": x, "dim": 2, **FLOW[name]}, "mle", num_steps=300, learning_rate=0.01, progress=False)
    assert fit.log_prob().value.mean() == pytest.approx(normal_bound(x), abs=0.1)
    verdict = fit.diagnose()
    assert verdict["baseline"].status == verdict["new draws"].status == "pass"


def test_the_units_of_a_run_are_kept_with_it(tmp_path):
    x = 1e4 + moons()
    data = {"x": x, "dim": 2, **FLOW["maf"]}
    fit = pg.fit("maf", data, "mle", num_steps=10, progress=False, out=tmp_path / "run")
    loaded = pg.load(tmp_path / "run")
    np.testing.assert_array_equal(fit.log_prob(x=x[:5] + 3).value, loaded.log_prob(x=x[:5] + 3).value)
    np.testing.assert_allclose(loaded.target.data["centre"][0], x.mean(0), rtol=1e-6)
    own = pg.fit(
        "maf", {**data, "centre": np.zeros((1, 2)), "spread": np.ones((1, 2))}, "mle", num_steps=10, progress=False
    )
    assert own.log_prob().value.mean() < -1e5  # the user's units count


def test_inputs_of_a_conditional_flow_are_measured_too():
    x, given = moons(), np.linspace(9000, 9900, 300)
    x = x + 1e-2 * (given - 9450)[:, None]
    fit = pg.fit(
        "maf",
        {"x": x, "given": given, "dim": 2, **FLOW["maf"]},
        "mle",
        num_steps=400,
        learning_rate=0.01,
        progress=False,
    )
    assert fit.log_prob().value.mean() > normal_bound(x) + 0.3
    low, high = (fit.condition(given=g).sample(300)["x"].mean() for g in (9050.0, 9850.0))
    assert high - low == pytest.approx(8, abs=1.5)


def test_a_flow_of_pictures_starts_in_units_of_their_channels():
    x = 200 + 30 * np.random.default_rng(0).normal(size=(60, 4, 4, 1))
    data = {"x": x, "height": 4, "width": 4, "channels": 1, "num_steps": 1, "hidden": 4}
    fit = pg.fit("glow", data, "mle", num_steps=20, batch_size=30, progress=False)
    assert fit.log_prob().value.mean() == pytest.approx(-16 * (0.5 * np.log(2 * np.pi) + 0.5 + np.log(30)), abs=4)
    flow = flows.learned(fit)
    np.testing.assert_allclose(flow.decode(flow.encode(jnp.asarray(x[0], jnp.float32))), x[0], atol=0.05)


def test_a_constant_coordinate_is_refused_by_its_name():
    x = moons()
    with pytest.raises(ValueError, match=r"x\[:, 1\] is constant.*no maximum"):
        pg.fit("maf", {"x": np.c_[x[:, 0], np.full(300, 7.3)], "dim": 2}, "mle", progress=False)


def test_rows_that_single_precision_rounds_away_are_learned_in_double():
    x = moons()
    assert scales.need_double({"x": 1e7 + x})
    assert scales.need_double({"x": 1e-25 * x})
    assert not scales.need_double({"x": 5000 + 300 * x, "dim": 2, "y": np.arange(300)})
    fit = pg.fit("gaussian", {"x": 1e7 + x, "dim": 2}, "mle", num_steps=2, progress=False)
    assert fit.precision == "float64"
    np.testing.assert_array_equal(fit.target.all_rows()["x"], 1e7 + x)


# ---- bounds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vae", "vae_pyro"])
def test_a_vae_of_unscaled_reals_comes_near_the_normal_that_they_are(name):
    rng = np.random.default_rng(1)
    x = 5000 + 300 * (rng.normal(size=(400, 1)) @ np.ones((1, 3)) + 0.5 * rng.normal(size=(400, 3)))
    data = {"x": x, "likelihood": "normal", "num_latents": 1, "width": 16} | ({"dim": 3} if name == "vae" else {})
    fit = pg.fit(name, data, "svi", num_steps=600, batch_size=100, learning_rate=0.01, progress=False)
    assert fit.log_prob(num_particles=20).value.mean() == pytest.approx(normal_bound(x), abs=0.4)
    np.testing.assert_allclose(fit.sample(500)["x"].mean(0), 5000, atol=80)
    assert fit.diagnose()["baseline"].status == "pass"


# ---- mixtures and normals ----------------------------------------------------------------------------------------


def three(count=900):
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [3, 0], [0, 4]])
    return centres[rng.integers(3, size=count)] + 0.8 * rng.normal(size=(count, 2))


@pytest.mark.parametrize(("offset", "units"), [(0.0, [1.0, 1e4]), (1e8, [1.0, 1.0]), (-3e5, [1e-6, 1e6])])
def test_em_of_a_mixture_in_any_units_is_scikit_learns_in_units_near_one(offset, units):
    x, units = three(), np.array(units)
    best = GaussianMixture(3, n_init=3, random_state=0, tol=1e-9, max_iter=1000).fit(x).score(x)
    far = x * units + offset * units.max()
    data = {"x": far, "centre": far.mean(0), "spread": far.std(0), "num_components": 3}
    fit = pg.fit("gaussian_mixture", data, "em", progress=False)
    lost = (
        1e-2 if offset and units.max() > 1 else 1e-4
    )  # of 1e6 * 3e5 with sd 1e-6 the data themselves have no digit left
    if units.min() * 1e12 > units.max() * abs(offset):
        assert -fit.records["loss"][0, -1] + np.log(units).sum() == pytest.approx(best, abs=lost)
    assert np.isfinite(fit.records["loss"]).all()


def test_k_means_starts_do_not_depend_on_units():
    """Two thin parallel clusters: rows of unit variances hide what rows without correlations show."""
    rng = np.random.default_rng(3)
    x = np.c_[10 * rng.normal(size=600), 0.1 * rng.normal(size=600)]
    x[:, 1] += np.where(np.arange(600) < 300, -0.5, 0.5) + x[:, 0]
    best = (
        GaussianMixture(2, means_init=[x[:300].mean(0), x[300:].mean(0)], tol=1e-9, max_iter=2000, random_state=0)
        .fit(x)
        .score(x)
    )
    data = {"x": x, "centre": x.mean(0), "spread": x.std(0), "num_components": 2}
    fit = pg.fit("gaussian_mixture", data, "em", progress=False)
    assert -fit.records["loss"][0, -1] == pytest.approx(best, abs=1e-3)


def test_k_means_does_not_split_the_feature_with_the_largest_numbers():
    """A wide feature without clusters beside one with two, 6 sds apart: halves of the wide one are a local maximum."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 200)
    x = np.c_[1000 * rng.uniform(-1, 1, size=400), 6.0 * label + rng.normal(size=400)]
    centres = [x[label == k].mean(0) for k in (0, 1)]
    roots = [np.linalg.inv(np.cov(x[label == k].T)) for k in (0, 1)]
    best = (
        GaussianMixture(2, means_init=centres, precisions_init=roots, tol=1e-10, max_iter=1000, random_state=0)
        .fit(x)
        .score(x)
    )
    data = {"x": x, "centre": x.mean(0), "spread": x.std(0), "num_components": 2}
    fit = pg.fit("gaussian_mixture", data, "em", progress=False)
    assert -fit.records["loss"][0, -1] == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("offset", [0.0, 1e7, 1e8])
def test_normals_far_from_zero_have_their_variance(offset):
    x = offset + moons()
    exact = np.cov((x - x[0]).T, bias=True)
    fit = pg.fit("gaussian", {"x": x, "dim": 2}, "em", progress=False)
    L = fit.parameters["scale_tril"]
    np.testing.assert_allclose(L @ L.T, exact, rtol=1e-6)
    each = pg.fit("exponential_family", {"x": x, "dim": 2, "family": "normal"}, "em", progress=False)
    np.testing.assert_allclose(each.parameters["scale"] ** 2, np.diag(exact), rtol=1e-6)


@pytest.mark.parametrize("units", [1e-6, 1e3])
def test_linear_models_by_em_reach_the_closed_form_in_any_units(units):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 5)) + 0.3 * rng.normal(size=(400, 5))
    data = {"x": units * (x + 1e6), "dim": 5, "num_latents": 2}
    closed, em = (pg.fit("ppca", data, name, progress=False) for name in ("pca", "em"))
    assert em.records["loss"][0, -1] == pytest.approx(closed.records["loss"][0, -1], abs=1e-3)


# ---- users' own programs: the verdict says so ----------------------------------------------------------------------


def own(x=None):
    loc = numpyro.param("loc", jnp.zeros(2))
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
    numpyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)


def own_pyro(x):
    loc = pyro.param("loc", torch.zeros(2))
    scale = pyro.param("scale", torch.ones(2), constraint=pdist.constraints.positive)
    with pyro.plate("row", len(x)):
        pyro.sample("x", pdist.Normal(loc, scale).to_event(1), obs=x)


def own_flow(x=None):
    numpyro.sample("x", flows.stacked("flow", 2, flows.Planar, 4), obs=x)


@pytest.mark.parametrize(("program", "engine"), [(own, "numpyro"), (own_pyro, "pyro"), (own_flow, "numpyro")])
def test_a_density_that_is_worse_than_a_fitted_normal_fails(program, engine):
    x = np.random.default_rng(0).normal(5000, 300, size=(300, 2))
    verdict = pg.fit(program, {"x": x}, "mle", engine=engine, num_steps=300, batch_size=100, progress=False).diagnose()
    assert verdict["baseline"].status == "fail"
    assert "normal" in verdict["baseline"].message


@pytest.fixture(scope="module", params=["numpyro", "pyro"])
def scaled(request):
    program = {"numpyro": own, "pyro": own_pyro}[request.param]
    x = np.random.default_rng(0).normal(0.3, 1.2, size=(300, 2))
    settings = {"num_steps": 800, "batch_size": 300, "learning_rate": 0.02, "progress": False}
    return pg.fit(program, {"x": x}, "mle", engine=request.param, **settings)


def test_the_same_program_on_scaled_rows_passes(scaled):
    assert scaled.diagnose().status == "pass", scaled.diagnose()


@pytest.mark.parametrize(("shift", "status"), [(1.2, "warn"), (4.0, "fail")])
def test_draws_that_are_not_like_the_rows_do_not_pass_whatever_the_loss_was(scaled, shift, status):
    """One and three sds off, less the noise of both means."""
    moved = dataclasses.replace(scaled, answer={**scaled.answer, "loc": scaled.answer["loc"] + shift})
    finding = moved.diagnose()["new draws"]
    assert finding.status == status
    assert finding.value == pytest.approx(shift / 1.2 - 3 * (1 / 300 + 1 / 500) ** 0.5, abs=0.2)
    assert scaled.diagnose()["new draws"].status == "pass"


def test_bits_are_held_to_their_marginals():
    def bits(x=None):
        logits = numpyro.param("logits", jnp.full(6, 3.0))
        more = numpyro.param("more", jnp.zeros(6))
        numpyro.sample("x", dist.Bernoulli(logits=logits + more).to_event(1), obs=x)

    x = (np.random.default_rng(0).random((300, 6)) < 0.3).astype(float)
    short = pg.fit(bits, {"x": x}, "mle", num_steps=5, batch_size=100, start="program", progress=False).diagnose()
    assert short["baseline"].status == "fail"
    long = pg.fit(bits, {"x": x}, "mle", num_steps=1500, batch_size=300, learning_rate=0.02, progress=False).diagnose()
    assert long["baseline"].status == "pass", long


@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 1), (144,)], ids=["grey", "channels", "flat"])
def test_pixels_have_one_spread_however_little_ink_a_border_has(shape):
    rng = np.random.default_rng(0)
    x = rng.random((200, 12, 12))
    x[:, [0, -1]] /= 256  # the noise of a rounding alone
    x[0, 0, 0] = 1.0
    found = scales.one_scale("x")({"x": x.reshape(200, *shape)})
    sds = x.reshape(200, -1).std(0)
    np.testing.assert_allclose(found["spread"], np.full((1, *shape), np.sqrt(np.mean(sds**2))))


def test_columns_of_a_table_in_different_units_have_a_spread_each():
    x = np.random.default_rng(0).normal(size=(500, 20)) * np.geomspace(1, 1000, 20)
    np.testing.assert_allclose(scales.one_scale("x")({"x": x})["spread"][0], x.std(0))
