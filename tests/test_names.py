"""Names, dims and labels: of plates, of xarray and pandas data, with slashes; in every group, table, prediction and file."""

from __future__ import annotations

import importlib.util

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
import pandas as pd
import pytest
import xarray as xr
from numpyro import handlers
from scipy.stats import norm

import probgen as pg
from probgen.data import dims
from probgen.run import conditioned

pyro = pytest.importorskip("pyro", reason="Pyro's side of names")
import pyro.distributions as dist  # noqa: E402
import torch  # noqa: E402
from pyro import poutine  # noqa: E402
from pyro.contrib.autoname import scope as within  # noqa: E402

RNG = np.random.default_rng(3)
X, NOISE = RNG.normal(size=(9, 2)), RNG.normal(size=9)
Y = X @ [1.0, -0.5] + NOISE
GROUP = np.arange(9) % 3
SHORT = {"num_warmup": 60, "num_samples": 40, "num_chains": 2, "progress": False}
LONG = SHORT | {"num_samples": 1000, "seed": 1}
H5 = pytest.mark.skipif(importlib.util.find_spec("h5py") is None, reason="h5py: netCDF files")


def numpyro_rows(group, y):
    with numpyro.plate("school", 3):
        a = numpyro.sample("a", nd.Normal(0, 1))
    with numpyro.plate("obs", len(y)) as i:
        mu = numpyro.deterministic("mu", a[group[i]])
        numpyro.sample("y", nd.Normal(mu, 1), obs=jnp.log(y)[i])


def pyro_rows(group, y):
    with pyro.plate("school", 3):
        a = pyro.sample("a", dist.Normal(0, 1))
    with pyro.plate("obs", len(y)) as i:
        mu = pyro.deterministic("mu", a[group[i]])
        pyro.sample("y", dist.Normal(mu, 1), obs=torch.log(y)[i])


@pytest.mark.parametrize("program", [numpyro_rows, pyro_rows])
def test_words_label_a_plate_of_their_plural_and_no_other(program):
    words = np.array(["b", "a", "c"])[GROUP]
    assert "obs" not in conditioned(program, {"group": words, "y": np.exp(Y)})[0].coords
    levels = {"school": ["a", "b", "c"], "ob": [str(i) for i in range(9)], "pupil": ["x"]}
    found = dims.of_words(conditioned(program, {"group": words, "y": np.exp(Y)})[1], levels)
    assert found["obs"] == levels["ob"]
    assert set(found) == {"school", "ob", "obs", "pupil"}


@pytest.fixture(scope="module", params=[numpyro_rows, pyro_rows], ids=["numpyro", "pyro"])
def rows(request):
    return pg.fit(request.param, {"group": GROUP, "y": np.exp(Y)}, **SHORT)


def test_plates_name_the_axes_of_every_group(rows):
    assert rows.posterior["a"].dims == ("chain", "draw", "school")
    assert rows.posterior["mu"].dims == ("chain", "draw", "obs")
    assert list(rows.posterior["school"].values) == [0, 1, 2]
    assert rows.predict()["y"].dims == ("chain", "draw", "obs")
    assert rows.tree["posterior_predictive"]["y"].dims == ("chain", "draw", "obs")
    assert rows.log_likelihood()["y"].dims == ("chain", "draw", "obs")
    assert rows.tree["observed_data"]["y"].dims == ("obs",)
    assert "mu[3]" in rows.summary().index


def test_observed_data_are_what_the_program_observes(rows):
    assert np.allclose(rows.tree["observed_data"]["y"], Y)
    assert np.allclose(rows.tree["constant_data"]["y"], np.exp(Y))
    assert np.allclose(rows.log_likelihood()["y"], norm.logpdf(Y, rows.draws["mu"]), atol=1e-12)


def test_predictions_of_other_sizes_have_the_plates_too(rows):
    new = rows.predict(group=np.array([0, 2]), y=np.ones(2))["y"]
    assert new.dims == ("chain", "draw", "obs")
    assert new.shape == (2, 40, 2)


def test_names_come_back_from_a_directory(rows, tmp_path):
    rows.save(tmp_path / "run")
    again = pg.load(tmp_path / "run", rows.model.program)
    assert again.posterior["mu"].dims == ("chain", "draw", "obs")
    assert np.array_equal(again.posterior["mu"], rows.posterior["mu"])


def numpyro_regression(x, y):
    b = numpyro.sample("b", nd.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("obs", len(y)):
        numpyro.sample("y", nd.Normal(jnp.asarray(x) @ b, 1), obs=y)


def pyro_regression(x, y):
    b = pyro.sample("b", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    with pyro.plate("obs", len(y)):
        pyro.sample("y", dist.Normal(x @ b, 1), obs=y)


REGRESSIONS = pytest.mark.parametrize("program", [numpyro_regression, pyro_regression])


@REGRESSIONS
def test_labels_of_xarray_and_pandas(program, tmp_path):
    days = pd.date_range("2024-05-01", periods=9)
    table = pd.DataFrame(X, columns=pd.Index(["age", "sex"], name="x_column"))
    x = table if program is numpyro_regression else xr.DataArray(table, dims=["row", "x_column"])
    data = {"x": x, "y": xr.DataArray(Y, {"day": days}, ["day"])}
    fit = pg.fit(program, data, out=tmp_path / "run", **SHORT)
    for found in (fit, pg.load(tmp_path / "run", program)):
        assert list(found.posterior["b"].sel(x_column=["sex"]).dims) == ["chain", "draw", "x_column"]
        assert list(found.posterior["x_column"].values) == ["age", "sex"]
        assert found.predict()["y"].dims == ("chain", "draw", "day")
        assert found.log_likelihood()["y"]["day"].values[2] == days[2]
        assert found.tree["observed_data"]["y"].dims == ("day",)
    named = pg.Model(program, dims={"b": ["term"]}, coords={"term": ["first", "second"]})
    mine = pg.fit(named, data, inference="laplace")  # the author's own names count first
    assert list(mine.posterior["b"]["term"].values) == ["first", "second"]


def test_rows_of_xarray_name_axes_outside_of_plates():
    def schools(y, sigma):
        mu, tau = numpyro.sample("mu", nd.Normal(0, 5)), numpyro.sample("tau", nd.HalfNormal(5))
        theta = numpyro.sample("theta", nd.Normal(mu, tau).expand([9]))
        weights = numpyro.sample("weights", nd.Dirichlet(np.ones(2)))
        numpyro.sample("y", nd.Normal(theta * weights[0], sigma), obs=y)

    y = xr.DataArray(Y, {"school": list("abcdefghi")}, ["school"])
    model, _ = _conditioned(schools, {"y": y, "sigma": np.ones(9)})
    assert model.dims == {"y": ["school"], "theta": ["school"]}
    both = {"y": y, "sigma": xr.DataArray(np.ones(9), {"lab": list("rstuvwxyz")}, ["lab"])}
    assert "theta" not in _conditioned(schools, both)[0].dims  # of two that are as long, neither


def test_labels_where_sizes_leave_doubt_are_left_out():
    square = {"x": pd.DataFrame(np.eye(9), columns=list("abcdefghi")), "y": pd.Series(Y, index=list("rstuvwxyz"))}
    model, _ = _conditioned(numpyro_regression, square)
    assert "b" not in model.dims
    assert list(model.coords["obs"]) == list("rstuvwxyz")
    repeated = {"x": X, "y": pd.Series(Y, index=[0] * 9)}
    assert "obs" not in _conditioned(numpyro_regression, repeated)[0].coords


def _conditioned(program, data):
    from probgen.run import conditioned

    return conditioned(program, data)


def test_an_axis_that_two_plates_may_be_is_not_named():
    assert dims.aligned((3, 3), [("rows", -1, 3)], None) == (None, None)
    assert dims.aligned((3, 4), [("rows", -1, 3)], None) == ("rows", None)
    assert dims.aligned((3, 3), [("rows", -1, 3)], 1) == ("rows", None)
    assert dims.aligned((2, 5), [("a", -1, 5), ("b", -2, 2)], 0) == ("b", "a")


def test_dims_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 labels of 'term'; 'b' has 2"):
        pg.fit(pg.Model(numpyro_regression, dims={"b": ["term"]}, coords={"term": [1, 2, 3]}), {"x": X, "y": Y})


def numpyro_scoped(y):
    def part(y):
        m = numpyro.sample("m", nd.Normal(0, 1))
        with numpyro.plate("obs", len(y)):
            numpyro.sample("y", nd.Normal(m, 1), obs=y)

    handlers.scope(part, prefix="left")(y)


def pyro_scoped(y):
    def part(y):
        m = pyro.sample("m", dist.Normal(0, 1))
        with pyro.plate("obs", len(y)):
            pyro.sample("y", dist.Normal(m, 1), obs=y)

    within(part, prefix="left")(y)


@H5
@pytest.mark.parametrize("program", [numpyro_scoped, pyro_scoped])
def test_slashes_in_names(program, tmp_path):
    fit = pg.fit(program, {"y": Y}, **LONG)
    assert fit.draws["left/m"].shape == fit.posterior["left/m"].shape == (2, 1000)
    assert list(fit.summary().index) == list(fit.summary(var_names=["left/m"]).index) == ["left/m"]
    assert fit.predict()["left/y"].shape == (2, 1000, 9)
    assert fit.log_likelihood()["left/y"].shape == (2, 1000, 9)
    assert fit.loo().n_data_points == fit.loo(var_name="left/y").n_data_points == 9
    assert fit.diagnose() is not None
    fit.tree.to_netcdf(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc") as read:
        assert np.array_equal(read["posterior"]["left.m"], fit.draws["left/m"])
        assert read["posterior"]["left.m"].attrs["name_in_program"] == "left/m"


def numpyro_masked(y, seen):
    m = numpyro.sample("m", nd.Normal(0, 1))
    with numpyro.plate("obs", len(y)), handlers.mask(mask=seen):
        numpyro.sample("y", nd.Normal(m, 1), obs=y)


def pyro_masked(y, seen):
    m = pyro.sample("m", dist.Normal(0, 1))
    with pyro.plate("obs", len(y)), poutine.mask(mask=seen):
        pyro.sample("y", dist.Normal(m, 1), obs=y)


def numpyro_factored(y, seen):
    m = numpyro.sample("m", nd.Normal(0, 1))
    with numpyro.plate("obs", len(y)):
        numpyro.factor("lik", jnp.where(seen, nd.Normal(m, 1).log_prob(y), 0.0))


def pyro_factored(y, seen):
    m = pyro.sample("m", dist.Normal(0, 1))
    with pyro.plate("obs", len(y)):
        pyro.factor("lik", torch.where(seen, dist.Normal(m, 1).log_prob(y), 0.0))


@pytest.mark.filterwarnings("ignore:loo is unreliable")
@pytest.mark.parametrize(("masked", "factored"), [(numpyro_masked, numpyro_factored), (pyro_masked, pyro_factored)])
def test_rows_that_a_mask_leaves_out_are_no_points(masked, factored):
    seen = np.arange(9) < 6
    fit = pg.fit(masked, {"y": Y, "seen": seen}, **LONG)
    found = fit.loo()
    assert found.n_data_points == 6
    assert found.elpd == pytest.approx(_elpd(Y[seen]), abs=0.3)
    value = fit.log_prob().value
    terms = norm.logpdf(Y[seen], fit.draws["m"][..., None]).reshape(-1, 6)
    assert np.allclose(value, np.log(np.exp(terms).mean(0)))
    same = pg.fit(factored, {"y": Y, "seen": seen}, **LONG)
    with pytest.raises(ValueError, match="observes nothing"):
        same.predict()
    for word in (same.loo, same.log_prob, same.log_likelihood):
        with pytest.raises(ValueError, match=r"fit.loo\(var_name='lik'\)"):
            word()
    assert same.loo(var_name="lik").elpd == pytest.approx(found.elpd, abs=0.3)


def _elpd(y):
    """The sum of log p(y_i | y without it), y ~ N(m, 1) and m ~ N(0, 1)."""
    n = len(y)
    means, variance = [(y.sum() - v) / n for v in y], 1 + 1 / n
    return norm.logpdf(y, means, np.sqrt(variance)).sum()


def test_loo_of_several_sites_asks_which():
    def two(y):
        m = numpyro.sample("m", nd.Normal(0, 1))
        numpyro.sample("a", nd.Normal(m, 1), obs=y)
        numpyro.sample("b", nd.Normal(m, 2), obs=y)

    fit = pg.fit(two, {"y": Y}, **LONG)
    with pytest.raises(ValueError, match="2 sites are observed"):
        fit.loo()
    with pytest.raises(ValueError, match="No observed site is called 'c'"):
        fit.loo("c")
    assert fit.loo("a").elpd != fit.loo("b").elpd


def test_series_indexed_in_a_scan_are_predicted():
    from numpyro.contrib.control_flow import scan

    def walk(y):
        s = numpyro.sample("s", nd.HalfNormal(1))

        def step(x, t):
            x = numpyro.sample("x", nd.Normal(x, s))
            numpyro.sample("y", nd.Normal(x, 0.5), obs=y[t])
            return x, None

        scan(step, jnp.zeros(()), jnp.arange(len(y)))

    fit = pg.fit(walk, {"y": Y}, **SHORT)
    assert fit.predict()["y"].shape == (2, 40, 9)
    assert np.allclose(fit.log_likelihood()["y"], norm.logpdf(Y, fit.draws["x"], 0.5), atol=1e-10)
