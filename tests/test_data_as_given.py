"""Data of any library mean to a program what they meant to its author: the log density is the library's own."""

from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.sparse
import xarray as xr
from conftest import needs_pyro
from numpyro.infer.util import potential_energy

from probgen.data.looking import is_look
from probgen.run.conditioning import apart, conditioned

X = np.linspace(-1, 1, 6)
Y = np.array([0.3, -0.2, 1.1, 0.4, 2.0, 1.2])
HOLES = np.where(np.arange(6) == 2, np.nan, Y)
RECORDS = np.array(list(zip(X, Y, strict=True)), dtype=[("x", float), ("y", float)])
DAYS = pd.date_range("2020-01-01", periods=6)


def target_of(program, args) -> Any:
    return conditioned(*apart(program, None, args))[1]


def line(x, y, scale=1.0):
    b = numpyro.sample("b", dist.Normal(0.0, scale))
    numpyro.sample("y", dist.Normal(b * x, 1.0), obs=y)


def spread(y):
    line(1.0, np.asarray(y), scale=y.std())  # of n - 1 in pandas, of n in NumPy


def mean_of_what_is_there(y):
    line(y.mean(), np.asarray(y)[~np.isnan(np.asarray(y))])


def label(p, y):
    line(p[0], y)


def by_dims(p, q, y):
    line((p * q).values, y)


def values(x, y):
    line(x.values, y.values)


def in_place(x, y):
    x[x > 0.5] = 0.5
    line(x, y)


def records(d):
    line(d["x"], d["y"])


def days(t, y):
    line((t - t[0]) / np.timedelta64(1, "D"), y)


def sparse(x, y):
    line(x.toarray()[:, 0], y)


def mask(y):
    line(np.arange(6.0)[~y.mask], y.compressed())


CASES = {
    "the spread of a series": (spread, pd.Series(Y)),
    "a series with holes": (mean_of_what_is_there, pd.Series(HOLES)),
    "labels in another order": (label, pd.Series([1.0, 2.0, 3.0], index=[2, 1, 0]), Y),
    "axes by name": (by_dims, xr.DataArray([1.0, 2.0], dims="a"), xr.DataArray([1.0, 3.0], dims="b"), np.ones((2, 2))),
    "the array of a series": (values, pd.Series(X), pd.Series(Y)),
    "a change in place": (in_place, X.copy(), Y),
    "records": (records, RECORDS),
    "days": (days, DAYS.values, Y),
    "a sparse matrix": (sparse, scipy.sparse.csr_matrix(X[:, None]), Y),
    "a masked array": (mask, np.ma.masked_invalid(HOLES)),
}


@pytest.mark.parametrize("case", CASES)
def test_numpyro_means_what_it_meant(case):
    program, *args = CASES[case]
    target = target_of(program, args)
    assert target.dim == 1
    import jax

    with jax.enable_x64(True):
        own = -potential_energy(program, [np.copy(a) if program is in_place else a for a in args], {}, {"b": 0.7})
    np.testing.assert_allclose(target.densities(np.array([[0.7]])), float(own), rtol=1e-12)


def torch_program(word):
    import pyro
    import pyro.distributions as pdist
    import torch

    def spread(x, y):
        return float(y.std()), torch.as_tensor(x)  # of n in NumPy, of n - 1 in torch

    def tiled(x, y):
        return 1.0, torch.as_tensor(x[:3].repeat(2))  # each entry twice in NumPy, all entries twice in torch

    def size(x, y):
        return float(y.size // 2), torch.as_tensor(x)

    said = {"spread": spread, "tiled": tiled, "size": size}[word]

    def program(x, y):
        scale, x = said(x, y)
        b = pyro.sample("b", pdist.Normal(torch.zeros((), dtype=x.dtype), scale))
        with pyro.plate("row", len(y)):
            pyro.sample("y", pdist.Normal(b * x, 1.0), obs=torch.as_tensor(y))

    return program


@needs_pyro
@pytest.mark.parametrize("word", ["spread", "tiled", "size"])
def test_pyro_means_what_it_meant(word):
    import torch
    from pyro import poutine

    program = torch_program(word)
    target = target_of(program, (X, Y))
    assert "looks at the values" in " ".join(target.notes)
    given = poutine.condition(program, {"b": torch.tensor(0.7, dtype=torch.float64)})
    own = poutine.trace(given).get_trace(X, Y).log_prob_sum()
    np.testing.assert_allclose(target.densities(np.array([[0.7]])), float(own), rtol=1e-12)


def test_arrays_that_mean_the_same_stay_arguments():
    target = target_of(line, (pd.Series(X), pd.Series(Y)))
    assert {*target.arrays} == {"x", "y"}
    assert not target.notes


def test_an_iterator_is_refused():
    with pytest.raises(ValueError, match=r"'y' is an iterator \(zip\).*\nPass list\(y\)"):
        conditioned(*apart(line, None, (X, zip(X, Y, strict=True))))


def test_what_jax_cannot_look_at_is_said_with_its_line():
    import jax.numpy as jnp

    def program(y):
        seen = jnp.nonzero(~jnp.isnan(y))[0]
        line(1.0, y[seen])

    with pytest.raises(ValueError, match=r"at line \d+ of test_data_as_given.py: seen = jnp.nonzero.*\n.*np.nonzero"):
        conditioned(*apart(program, None, (HOLES,)))


def test_a_ring_of_errors_ends():
    one, other = ValueError("a"), ValueError("b")
    one.__context__, other.__context__ = other, one
    assert not is_look(one)


def weights_with_priors(learned):
    """As `random_eqx_module` and its like do: a network's parameter is registered, and its arrays give way to draws."""

    def program(x, y):
        begin: Any = {"bias": np.zeros(()), "slope": np.ones(())}
        net: Any = numpyro.param("net", begin)
        net = {**net}
        net["slope"] = numpyro.sample("b", dist.Normal(0.0, 1.0))
        bias = net["bias"] if learned else 0.0
        numpyro.sample("y", dist.Normal(bias + net["slope"] * x, 1.0), obs=y)

    return program


def test_parameters_that_reach_nothing_are_none():
    target = target_of(weights_with_priors(False), (X, Y))
    assert (target.points, target.dim) == ((), 1)
    density = target_of(line, (X, Y)).densities(np.array([[0.7]]))
    np.testing.assert_allclose(target.densities(np.array([[0.7]])), density, rtol=1e-12)
    assert target_of(weights_with_priors(True), (X, Y)).points == ("net[0]",)


def learned_on_numpyro():
    import jax.numpy as jnp

    def program(x, y):
        b = numpyro.param("b", 0.5)
        numpyro.sample("y", dist.Normal(b * jnp.asarray(x.std(-1)), 1.0), obs=jnp.asarray(y))

    return program


def learned_on_pyro():
    import pyro
    import pyro.distributions as pdist
    import torch

    def program(x, y):
        b, spread = pyro.param("b", torch.tensor(0.5)), torch.as_tensor(x.std(-1))
        with pyro.plate("row", len(y)):
            pyro.sample("y", pdist.Normal(b * spread, torch.ones_like(spread)), obs=torch.as_tensor(y))

    return program


@needs_pyro
@pytest.mark.parametrize(("made", "library"), [(learned_on_numpyro, "torch"), (learned_on_pyro, "numpy")])
def test_what_is_learned_of_rows_means_what_it_meant(made, library):
    """The spread of a row is of n - 1 in torch and of n in NumPy and JAX: b is that of least squares on the library's own."""
    import torch

    import probgen as pg

    rows = np.random.default_rng(0).normal(size=(6, 3))
    other, own = (rows.std(-1, ddof=d) for d in ((0, 1) if library == "torch" else (1, 0)))
    as_given = torch.as_tensor if library == "torch" else np.asarray
    fit = pg.fit(made(), {"x": as_given(rows), "y": as_given(Y)}, "mle", num_steps=300, progress=False)
    assert fit.draws["b"].ravel()[-1] == pytest.approx(own @ Y / (own @ own), rel=1e-6)
    assert abs(own @ Y / (own @ own) - other @ Y / (other @ other)) > 0.05
    assert "looks at the values" in " ".join(fit.notes)


@needs_pyro
def test_batch_norm_is_read_on_the_whole_data():
    import pyro
    import pyro.distributions as pdist
    import torch

    from probgen.run.fitting import asked

    with torch.random.fork_rng():
        net = torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Linear(1, 1))

    def program(x, y):
        pyro.module("net", net)
        with pyro.plate("row", len(x)):
            pyro.sample("y", pdist.Normal(net(x[:, None])[:, 0], torch.ones(len(x), dtype=x.dtype)), obs=y)

    algorithm, _, _, _, target = asked(program, None, "mle", args=(X, Y))
    assert algorithm.name == "maximum_likelihood"
    assert {*target.points} >= {"net$$$1.weight", "net$$$1.bias"}
