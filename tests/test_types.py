"""NumPyro programs that fix types of 32 bits, in a run of double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import lax
from numpyro.contrib.control_flow import scan

import probgen as pg
from probgen.run import conditioned

Y = np.random.default_rng(0).normal(size=6)
X32 = jnp.ones((6, 2), jnp.float32)
SHORT = {"num_warmup": 50, "num_samples": 50, "num_chains": 2, "progress": False}


def bits_in_the_carry(y=None):
    p = numpyro.sample("p", dist.Beta(1, 1))

    def step(carry, y):
        z = numpyro.sample("z", dist.Bernoulli(jnp.where(carry == 1, p, 0.3)))
        numpyro.sample("y", dist.Normal(1.0 * z, 1), obs=y)
        return z, None

    scan(step, jnp.ones(2, jnp.int32), y)


def one_state(y=None):
    p = numpyro.sample("p", dist.Beta(1, 1))

    def step(carry, y):
        z = numpyro.sample("z", dist.Bernoulli(jnp.where(carry["z"] == 1, p, 0.3)))
        numpyro.sample("y", dist.Normal(1.0 * z, 1), obs=y)
        return {"z": z, "n": carry["n"] + 1}, z

    scan(step, {"z": jnp.int32(1), "n": jnp.zeros((), jnp.int32)}, y)


def reals_in_the_carry(y=None):
    a = numpyro.sample("a", dist.Normal(0, 1))

    def step(carry, y):
        count, x = carry
        x = numpyro.sample("x", dist.Normal(a * x + 0.1 * count, 1))
        numpyro.sample("y", dist.Normal(x, 1), obs=y)
        return (count + 1, x), x

    scan(step, (jnp.zeros((), jnp.int32), jnp.float32(0)), y)


def closed_over(y=None):
    a = numpyro.sample("a", dist.Normal(0, 1).expand([2]))
    numpyro.sample("y", dist.Normal(X32 @ a, 1), obs=y)


def loop(y=None):
    a = numpyro.sample("a", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(lax.fori_loop(0, 3, lambda i, c: 0.5 * c + a, jnp.float32(0)), 1), obs=y)


def branch(y=None):
    a = numpyro.sample("a", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(lax.cond(a > 0, lambda: a, lambda: jnp.float32(0)), 1), obs=y)


def of_no_type(y=None):
    a = numpyro.sample("a", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(lax.fori_loop(0, 3, lambda i, c: 0.5 * c + a, jnp.int32(0)), 1), obs=y)


def by_numpyro(program, target, z):
    """NumPyro's own log density in its own precision, at the constrained values of z."""
    from numpyro.infer.util import potential_energy

    return -float(
        potential_energy(program, (), {"y": jnp.asarray(Y, jnp.float32)}, target.structure.unravel(jnp.asarray(z)))
    )


@pytest.mark.parametrize("program", [reals_in_the_carry, closed_over, loop, branch])
def test_the_density_is_numpyros(program):
    target = conditioned(program, {"y": Y})[1]
    lifted = program in (reals_in_the_carry, closed_over)
    assert target.precision == ("float64" if lifted else "float32")
    assert lifted or "float32" in target.notes[0]
    assert not (lifted and target.notes)
    z = np.linspace(-0.4, 0.7, target.dim)
    with jax.enable_x64(lifted):
        ours = float(target.log_density(jnp.asarray(z)))
    assert ours == pytest.approx(by_numpyro(program, target, z), rel=1e-5)


@pytest.mark.parametrize(
    ("program", "series"), [(one_state, Y[:, None]), (bits_in_the_carry, np.stack([Y, Y[::-1]], 1))]
)
def test_a_state_in_the_carry_is_summed_out(program, series):
    """Against the forward recursion of a chain of two states; of two such chains, whose rows no plate holds."""
    target = conditioned(program, {"y": series if series.shape[1] > 1 else Y})[1].marginalise()
    assert target.precision == "float64"
    assert not target.structure.by_state
    with jax.enable_x64(True):
        ours = float(target.log_density(jnp.zeros(1)))  # p = 1/2
    total = np.log(0.25)  # the uniform prior's log-Jacobian at 1/2
    for row in series.T:
        alpha = np.array([0.0, 1.0])
        for y in row:
            alpha = alpha @ np.array([[0.7, 0.3], [0.5, 0.5]])
            alpha = alpha * np.exp(-0.5 * (y - np.arange(2)) ** 2) / np.sqrt(2 * np.pi)
        total += np.log(alpha.sum())
    assert ours == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("inference", ["nuts", "gibbs"])
def test_fits_predict_and_judge_what_was_lifted(inference):
    fit = pg.fit(one_state, {"y": Y}, inference, **SHORT)
    assert fit.draws["z"].shape == (2, 50, 6)
    assert fit.predict()["y"].shape == (2, 50, 6)
    assert fit.log_likelihood()["y"].shape == (2, 50, 6)


def test_a_run_in_single_precision_says_so_and_is_found_again(tmp_path):
    fit = pg.fit(loop, {"y": Y}, "nuts", out=tmp_path / "run", **SHORT)
    assert fit.precision == fit.z.dtype == "float32"
    assert any("runs in float32" in note for note in fit.diagnose().notes)
    again = pg.load(tmp_path / "run", loop)
    np.testing.assert_array_equal(again.z, fit.z)
    with pytest.raises(ValueError, match="does not run in float64"):
        pg.fit(loop, {"y": Y}, "nuts", precision="float64")


def test_what_runs_in_no_precision_keeps_its_own_error():
    with pytest.raises(ValueError, match=r"type int32\[\] but"):
        pg.fit(of_no_type, {"y": Y}, "nuts")
