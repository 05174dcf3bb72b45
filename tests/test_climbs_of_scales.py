"""The mode of many unknowns in large units, whose scales differ by powers of ten, on both engines: the closed form."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen.inference.variational import _curvature, _mode


def scattered_numpyro(mean, sd):
    numpyro.sample("x", nd.Normal(mean, sd).to_event(1))


def scattered_pyro(mean, sd):
    import pyro
    import pyro.distributions as pd

    pyro.sample("x", pd.Normal(mean, sd).to_event(1))


@pytest.mark.parametrize("program", [scattered_numpyro, pytest.param(scattered_pyro, marks=needs_pyro)])
@pytest.mark.parametrize(("size", "scales"), [(400, (1e5, 1e8)), (1001, (1e-3, 1e3))])
def test_the_climb_ends_at_the_mode_whatever_the_units(program, size, scales):
    """An estimate of the curvature that has not seen a direction says that the mode is near; the climb looks before it ends."""
    rng: Any = np.random.default_rng(0)
    sd = rng.choice(scales, size)
    mean = 3 * sd * rng.normal(size=size)
    fit = pg.fit(program, {"mean": mean, "sd": sd}, inference="map", num_steps=200, progress=False)
    np.testing.assert_allclose((fit.draws["x"].ravel() - mean) / sd, 0, atol=1e-4)
    assert fit.records["loss"].size < 200, "it ends where it has arrived"


@pytest.mark.parametrize("whole", [True, False])
def test_a_look_along_the_gradient_tells_the_distance(whole):
    """An estimate that never saw a direction says a millionth of an sd where the mode is three sds away; then it says three."""
    sd, z = 1e6, jnp.asarray([0.0, 3e6])
    value_and_grad = lambda z: (-0.5 * (z[0] ** 2 + (z[1] / sd) ** 2), -z * jnp.asarray([1.0, sd**-2]))  # noqa: E731
    ops: Any = SimpleNamespace(xp=jnp, where=jnp.where)
    target: Any = SimpleNamespace(ops=ops, value_and_grad=value_and_grad)
    with jax.enable_x64(True):
        z = z.astype(float)
        value, gradient = value_and_grad(z)
        inverse = jnp.eye(2) if whole else jnp.zeros((2, _curvature.MEMORY, 2))
        state = _mode.State(z, value, gradient, inverse, jnp.int32(0), jnp.bool_(False))
        assert _mode._decrement(target, state) < 1e-10
        np.testing.assert_allclose(_mode._decrement(target, _mode._looked(target, state)), 9.0, rtol=1e-6)


def test_scales_of_all_sizes_between():
    rng: Any = np.random.default_rng(1)
    sd = 10 ** rng.uniform(5, 8, 250)
    mean = 3 * sd * rng.normal(size=250)
    fit = pg.fit(scattered_numpyro, {"mean": mean, "sd": sd}, inference="map", num_steps=4000, progress=False)
    np.testing.assert_allclose((fit.draws["x"].ravel() - mean) / sd, 0, atol=1e-3)
    assert fit.diagnose()["convergence"].status == "pass"
    assert fit.diagnose()["modes"].status == "pass"
