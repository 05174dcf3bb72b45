"""Guides that draw noise of their own, as dropout does: a draw's density is that under the noise that it was drawn with."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import ENGINES

import probgen as pg

X = np.random.default_rng(0).normal(size=2000)
SHIFT = 2.0  # of the guide's mean, to either side


def numpyro_pair():
    def program(x=None):
        z = numpyro.sample("z", dist.Normal(numpyro.param("b", 0.0), 1.0))
        noise = 3.0 * jax.random.rademacher(numpyro.prng_key(), ())
        numpyro.sample("x", dist.Normal(z + noise, 1.0), obs=x)

    def guide(x):
        side = jax.random.rademacher(numpyro.prng_key(), ()).astype(float)
        numpyro.sample("z", dist.Normal(numpyro.param("a", jnp.zeros(())) + SHIFT * side, 1.0))

    return program, guide


def pyro_pair():
    import pyro
    import pyro.distributions as pd
    import torch
    from torch import nn

    with torch.random.fork_rng():
        net = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5))  # 0 or 2
    torch.nn.init.zeros_(net[0].weight)
    torch.nn.init.ones_(net[0].bias)
    dropped = nn.functional.dropout

    def program(x=None):
        with pyro.plate("row", 3 if x is None else len(x)):
            z = pyro.sample("z", pd.Normal(pyro.param("b", torch.tensor(0.0)), 1.0))
            noise = 3.0 * (dropped(torch.ones_like(z), 0.5) - 1)
            pyro.sample("x", pd.Normal(z + noise, 1.0), obs=x)

    def guide(x):
        side = pyro.module("net", net)(x[:, None])[:, 0] - 1
        with pyro.plate("row", len(x)):
            pyro.sample("z", pd.Normal(pyro.param("a", torch.tensor(0.0)) + SHIFT * side, 1.0))

    return program, guide


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bound_is_of_the_noise_that_a_draw_was_made_with(engine):
    """E_q log p(x, z) - log q(z | x) in closed form: both means are off by noise of variance 2^2 and 3^2."""
    program, guide = numpyro_pair() if engine == "numpyro" else pyro_pair()
    settings = {"num_particles": 1, "num_steps": 4, "batch_size": len(X), "learning_rate": 1e-6, "progress": False}
    fit = pg.fit(program, {"x": X}, "iwae", guide=guide, by_row=True, **settings)
    assert fit.inference.estimator == "path"
    expected = -0.5 * (np.log(2 * np.pi) + 1 + SHIFT**2 + np.mean(X**2) + SHIFT**2 + 9)
    assert -fit.records["loss"].mean() == pytest.approx(expected, abs=6 * 10 / (4 * len(X)) ** 0.5)
