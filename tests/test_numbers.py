"""Numbers of a program are arguments of its compiled code: an edit of one compiles nothing, and the new number counts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probgen as pg
from probgen import runtime, watch
from probgen.run import conditioned

Y, X = np.array([0.3, 1.1, 2.0, 0.4]), np.linspace(0, 1, 4)
SMALL: dict[str, Any] = {"num_chains": 2, "num_warmup": 200, "num_samples": 2000, "progress": False}


def normal(scale, noise, held=None):
    def program(y=None):
        mu = numpyro.sample("mu", dist.Normal(0.0, scale))
        with numpyro.plate("row", 4):
            numpyro.sample("y", dist.Normal(mu if held is None else mu + held, noise), obs=y)

    return program


def moments(scale, noise, y):
    """Of mu given y, in closed form."""
    precision = 1 / scale**2 + len(y) / noise**2
    return y.sum() / noise**2 / precision, precision**-0.5


@pytest.fixture
def compilations(monkeypatch):
    """The names of the functions that are compiled."""
    found, own = [], watch.Beside

    def seen(job):
        found.append(job)
        return own(job)

    monkeypatch.setenv("PROBGEN_CACHE", "")
    monkeypatch.setattr(watch, "Beside", seen)
    return found


@pytest.mark.parametrize("inference", ["nuts", "full_rank"])
def test_an_edited_number_compiles_nothing_and_counts(inference, compilations):
    settings: dict[str, Any] = SMALL if inference == "nuts" else {"progress": False}
    for step, (scale, noise) in enumerate([(1.7, 0.7), (0.3, 1.3), (7.0, 0.6)]):
        fit = pg.fit(normal(scale, noise), {"y": Y}, inference, **settings)
        mean, sd = moments(scale, noise, Y)
        assert fit.draws["mu"].mean() == pytest.approx(mean, abs=0.15 * sd)
        assert fit.draws["mu"].std() == pytest.approx(sd, rel=0.08)
        assert bool(compilations) == (step == 0)
        compilations.clear()


def test_an_edited_array_that_is_closed_over_compiles_nothing_and_counts(compilations):
    for step, held in enumerate([X, 3 * X]):
        fit = pg.fit(normal(1.7, 0.7, held), {"y": Y}, "nuts", **SMALL)
        mean, sd = moments(1.7, 0.7, Y - held)
        assert fit.draws["mu"].mean() == pytest.approx(mean, abs=0.15 * sd)
        assert bool(compilations) == (step == 0)
        compilations.clear()


def test_another_density_of_the_same_numbers_is_compiled(compilations):
    """Without this test, code that is never compiled would pass the others."""

    def program(y=None):
        mu = numpyro.sample("mu", dist.Laplace(0.0, 1.7))
        with numpyro.plate("row", 4):
            numpyro.sample("y", dist.Normal(mu, 0.7), obs=y)

    pg.fit(normal(1.7, 0.7), {"y": Y}, "nuts", **SMALL)
    compilations.clear()
    pg.fit(program, {"y": Y}, "nuts", **SMALL)
    assert compilations


def powers(c):
    def program(y=None):
        a = numpyro.sample("a", dist.HalfNormal(c))
        numpyro.factor("f", -(jnp.abs(a) ** c) - jnp.where(a > c, 3.3 * a, 0.7 * a))

    return program


def loops(c):
    def program(y=None):
        a = numpyro.sample("a", dist.Normal(c, 1.3).expand([3]).to_event(1))
        total, _ = jax.lax.scan(lambda t, x: (t * c + x, None), c, a)
        numpyro.factor("f", -0.5 * total**2 + jax.lax.cond(total > c, lambda: c * total, lambda: 1.5 * total))

    return program


def sums(c):
    def program(y=None):
        w = numpyro.sample("w", dist.Dirichlet(jnp.full(3, c)))
        with numpyro.plate("row", 4):
            z = numpyro.sample("z", dist.Categorical(w), infer={"enumerate": "parallel"})
            numpyro.sample("y", dist.StudentT(c, jnp.array([-1.0, c, 2.0])[z], 0.9), obs=y)

    return program


def matrices(c):
    def program(y=None):
        length = numpyro.sample("length", dist.LogNormal(-1.0, c))
        k = jnp.exp(-0.5 * ((X[:, None] - X) / length) ** 2) + (c**2 + 1e-6) * jnp.eye(4)
        law: Any = dist.MultivariateNormal(jnp.zeros(4), k)
        numpyro.sample("y", law, obs=y)

    return program


def counts(c):
    def program(y=None):
        rate = numpyro.sample("rate", dist.Gamma(c, 1 / c))
        with numpyro.plate("row", 4):
            numpyro.sample("y", dist.NegativeBinomial2(rate, c), obs=None if y is None else jnp.round(jnp.abs(y)))

    return program


@pytest.mark.parametrize("make", [powers, loops, sums, matrices, counts], ids=lambda make: make.__name__)
def test_density_and_gradient_are_those_of_the_program(make):
    for c in (0.7, 1.0, 2.0, 3.1):
        target: Any = conditioned(make(c), {"y": Y})[1]
        target = target.marginalise() if make is sums else target
        with runtime.tracing("float64"):
            run = target.for_run(density_alone=True)
            assert type(run) is not type(target)
            again = type(run)(run.structure, run.arrays).ready()
            exact, *others = (jax.jit(one.value_and_grad) for one in (target, run, again))
            for z in np.random.default_rng(0).normal(size=(5, target.dim)):
                value, gradient = exact(z)
                for other in others:
                    found, slope = other(z)
                    assert float(found) == pytest.approx(float(value), rel=1e-12)
                    np.testing.assert_allclose(slope, gradient, rtol=1e-10, atol=1e-12)
