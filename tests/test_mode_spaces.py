"""The mode of the unknowns themselves, which AutoDelta finds, and that of their images in R^n: closed forms on both engines."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
import pytest
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoDelta

import probgen as pg

pyro = pytest.importorskip("pyro", reason="Pyro's side of modes")
import pyro.distributions as dist  # noqa: E402
import torch  # noqa: E402
from torch.distributions import constraints  # noqa: E402

FLIPS = np.array([1.0] * 6 + [0.0] * 4)
COUNTS = np.array([3, 5, 2])


def numpyro_coin(y):
    theta = numpyro.sample("theta", nd.Beta(10, 10))
    numpyro.sample("y", nd.Bernoulli(theta), obs=y)


def pyro_coin(y):
    theta = pyro.sample("theta", dist.Beta(10, 10))
    with pyro.plate("flips", len(y)):
        pyro.sample("y", dist.Bernoulli(theta), obs=y)


def numpyro_die(n):
    p = numpyro.sample("p", nd.Dirichlet(2 * jnp.ones(3)))
    numpyro.sample("n", nd.Multinomial(int(COUNTS.sum()), p), obs=n)


def pyro_die(n):
    p = pyro.sample("p", dist.Dirichlet(2 * torch.ones(3)))
    pyro.sample("n", dist.Multinomial(int(COUNTS.sum()), p), obs=n)


COINS = pytest.mark.parametrize("program", [numpyro_coin, pyro_coin])


@COINS
def test_a_coin(program):
    own = pg.fit(program, {"y": FLIPS}, "map", progress=False)
    image = pg.fit(program, {"y": FLIPS}, "map", space="unconstrained", progress=False)
    assert own.draws["theta"].item() == pytest.approx(15 / 28, abs=1e-6)
    assert image.draws["theta"].item() == pytest.approx(16 / 30, abs=1e-6)
    for fit, space in ((own, "constrained"), (image, "unconstrained")):
        verdict = fit.diagnose()
        assert f"the mode in {space} space" in verdict["point"].message
        assert verdict["modes"].status == verdict["mode"].status == "pass"
    laplace = pg.fit(program, {"y": FLIPS}, "laplace", progress=False).draws["theta"]
    assert np.median(laplace) == pytest.approx(16 / 30, abs=0.01)


@pytest.mark.parametrize("program", [numpyro_die, pyro_die])
def test_a_die(program):
    found = pg.fit(program, {"n": COUNTS}, "map", progress=False).draws["p"][0, 0]
    assert found == pytest.approx((COUNTS + 1) / (COUNTS + 1).sum(), abs=1e-6)


def test_autodelta_agrees():
    def program(y):
        s = numpyro.sample("s", nd.Gamma(2.0, 1.0))
        b = numpyro.sample("b", nd.TruncatedNormal(0.0, s, low=-1.0))
        numpyro.sample("y", nd.Normal(b, s), obs=y)

    y = np.array([0.3, 1.2, 0.7, 2.0])
    found = pg.fit(program, {"y": y}, "map", progress=False)
    with jax.enable_x64(True):
        guide = AutoDelta(program)
        svi = SVI(program, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
        theirs = guide.median(svi.run(jax.random.key(0), 5000, jnp.asarray(y), progress_bar=False).params)
    for name in ("s", "b"):
        assert found.draws[name].item() == pytest.approx(float(theirs[name]), abs=1e-3)


def numpyro_learned(y):
    s = numpyro.param("s", 1.0, constraint=nd.constraints.positive)
    theta = numpyro.sample("theta", nd.Gamma(2.0, 1.0))
    numpyro.sample("y", nd.Normal(theta, s), obs=y)


def pyro_learned(y):
    s = pyro.param("s", torch.tensor(1.0), constraint=constraints.positive)
    theta = pyro.sample("theta", dist.Gamma(2.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(theta, s), obs=y)


@pytest.mark.parametrize("program", [numpyro_learned, pyro_learned])
def test_parameters_have_no_coordinates_that_count(program):
    y = np.array([1.0, 2.0, 4.0, 3.0])
    found = pg.fit(program, {"y": y}, "map", by_row=False, progress=False).draws
    theta, s = found["theta"].item(), found["s"].item()
    assert s == pytest.approx(np.sqrt(((y - theta) ** 2).mean()), rel=1e-5)
    assert 1 / theta - 1 + (y - theta).sum() / s**2 == pytest.approx(0, abs=1e-5)


def test_an_unknown_space_is_told():
    with pytest.raises(ValueError, match="space is 'real'; known: constrained, unconstrained"):
        pg.fit(numpyro_coin, {"y": FLIPS}, "map", space="real")
