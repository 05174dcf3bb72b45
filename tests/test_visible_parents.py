"""A visible site that another depends on, a picture's class: means are those of the rows' own classes, by both engines."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import needs_pyro

import probgen as pg

Y = np.arange(30) % 3
ROWS = {"x": 4.0 * Y[:, None] + np.random.default_rng(0).normal(size=(30, 2)), "y": Y}


def numpyro_pair():
    def program(x=None, y=None):
        shift, other = numpyro.param("shift", jnp.zeros((3, 2))), numpyro.param("other", jnp.zeros(2))
        y = numpyro.sample("y", dist.Categorical(jnp.ones(3) / 3), obs=y)
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(other * z + shift[y], 1.0).to_event(1), obs=x)

    def guide(x, y):
        numpyro.sample("z", dist.Normal(numpyro.param("w", jnp.zeros(2)) @ x, 1.0))

    return program, guide


def pyro_pair():
    import pyro
    import pyro.distributions as pd
    import torch

    def program(x=None, y=None):
        shift, other = pyro.param("shift", torch.zeros(3, 2)), pyro.param("other", torch.zeros(2))
        with pyro.plate("row", 30 if x is None else len(x)):
            y = pyro.sample("y", pd.Categorical(torch.ones(3) / 3), obs=y)
            z = pyro.sample("z", pd.Normal(0.0, 1.0))
            pyro.sample("x", pd.Normal(other * z[:, None] + shift[y], 1.0).to_event(1), obs=x)

    def guide(x, y):
        with pyro.plate("row", len(x)):
            pyro.sample("z", pd.Normal(x @ pyro.param("w", torch.zeros(2)), 1.0))

    return program, guide


@pytest.mark.parametrize("pair", [numpyro_pair, pytest.param(pyro_pair, marks=needs_pyro)])
def test_means_are_of_the_rows_own_class(pair):
    program, guide = pair()
    fit = pg.fit(
        program, ROWS, "svi", guide=guide, by_row=True, num_steps=300, learning_rate=0.1, batch_size=30, progress=False
    )
    p = {k: np.asarray(v) for k, v in fit.parameters.items()}
    assert p["shift"][2, 0] - p["shift"][0, 0] > 2, "classes are far apart"
    codes = fit.encode()["z"]
    expected = codes[:, None] * p["other"] + p["shift"][Y]
    np.testing.assert_allclose(fit.reconstruct()["x"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fit.reconstruct(x=ROWS["x"][3:6], y=Y[3:6])["x"], expected[3:6], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fit.decode(z=codes, y=Y)["x"], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(TypeError, match=r"depends on y: give it too, decode\(..., y=...\)"):
        fit.decode(z=codes)
    with pytest.raises(TypeError, match=r"Got y; decode takes z\."):
        fit.decode(y=Y)


def test_sites_that_depend_on_no_other_are_not_asked_for():
    def program(x=None, w=None):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(numpyro.param("a", 2.0) * z, 1.0), obs=x)
        numpyro.sample("w", dist.Normal(numpyro.param("b", -1.0) * z, 1.0), obs=w)

    def guide(x, w):
        numpyro.sample("z", dist.Normal(numpyro.param("c", 0.3) * x, 1.0))

    rows = {"x": ROWS["x"][:, 0], "w": ROWS["x"][:, 1]}
    fit = pg.fit(program, rows, "svi", guide=guide, by_row=True, num_steps=10, progress=False)
    found = fit.decode(z=np.array([1.0, 2.0]))
    np.testing.assert_allclose(found["x"], float(fit.parameters["a"]) * np.array([1.0, 2.0]), rtol=1e-5)
    np.testing.assert_allclose(found["w"], float(fit.parameters["b"]) * np.array([1.0, 2.0]), rtol=1e-5)
