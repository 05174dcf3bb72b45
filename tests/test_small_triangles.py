"""Cholesky factors and triangular solves of a few rows, written out, beside LAPACK's."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.extend.core import jaxpr_as_fun

from probgen import engine, runtime
from probgen.engine.numpyro.running import small

SIZES = (1, 5, small.ROWS)


def matrix(size):
    root = np.random.default_rng(size).normal(size=(size, size))
    return root @ root.T + 0.1 * np.eye(size)


def both(fn, *given):
    """What LAPACK gives, and what is written out, which calls none."""
    with runtime.jax_scope("float64"):
        given = tuple(map(jnp.asarray, given))
        traced = small.written_out(jax.make_jaxpr(fn)(*given))
        text = jax.jit(jaxpr_as_fun(traced)).lower(*given).as_text()
        assert "lapack" not in text
        assert not small.loops(text)
        return np.asarray(fn(*given)), np.asarray(jaxpr_as_fun(traced)(*given)[0])


@pytest.mark.parametrize("size", SIZES)
def test_factors_and_their_derivatives_are_lapacks(size):
    k = matrix(size)
    np.testing.assert_allclose(*both(jnp.linalg.cholesky, k), rtol=1e-11, atol=1e-12)
    weights = np.random.default_rng(0).normal(size=(size, size))
    np.testing.assert_allclose(
        *both(jax.grad(lambda k: (jnp.linalg.cholesky(k) * weights).sum()), k), rtol=1e-9, atol=1e-9
    )
    least = np.linalg.eigvalsh(k)[0]
    lapack, ours = both(jnp.linalg.cholesky, k - 2 * least * np.eye(size))
    np.testing.assert_array_equal(np.isnan(lapack), np.isnan(ours))
    assert np.isnan(ours).any()


@pytest.mark.parametrize(("size", "columns"), list(itertools.product(SIZES, (1, 3))))
def test_solves_are_lapacks_whatever_the_other_triangle_holds(size, columns):
    b = np.random.default_rng(1).normal(size=(size, columns))
    words = ("left_side", "lower", "transpose_a", "unit_diagonal")
    for values in itertools.product((True, False), repeat=4):
        said = dict(zip(words, values, strict=True))
        solve = functools.partial(jax.lax.linalg.triangular_solve, **said)
        a = matrix(size)
        a[np.triu_indices(size, 1) if said["lower"] else np.tril_indices(size, -1)] = np.nan
        lapack, ours = both(solve, a, b if said["left_side"] else b.T)
        assert np.isfinite(lapack).all()
        np.testing.assert_allclose(ours, lapack, rtol=1e-9, atol=1e-9)


def test_a_density_has_none_of_lapack_and_larger_ones_keep_it():
    def process(x, y):
        length = numpyro.sample("length", dist.LogNormal(0.0, 1.0))
        k = jnp.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + 0.1 * jnp.eye(len(x))
        numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), scale_tril=jnp.linalg.cholesky(k)), obs=y)

    for size, calls in ((small.ROWS, False), (small.ROWS + 1, True)):
        x = np.linspace(0.0, 3.0, size)
        target = engine.load("numpyro").prepare(process, {"x": x, "y": np.sin(x)})
        opened = target.for_run(True)
        assert ("lapack" in opened.lowered()) == calls
        with runtime.jax_scope("float64"):
            for one, other in zip(target.value_and_grad(jnp.ones(1)), opened.value_and_grad(jnp.ones(1)), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-10)
