"""A point of which combinations were seen, y = A x + noise: against the closed-form posterior and evidence of normal data."""

import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import sparse, stats

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.nets.diffusion.denoiser import Normal
from probgen.nets.diffusion.schedules import Cosine
from probgen.nets.diffusion.site import diffused

MEAN = np.array([0.5, -1.0, 0.0, 1.0])
ROOT = np.tril(np.random.default_rng(3).normal(size=(4, 4))) * 0.6 + 0.5 * np.eye(4)
COVARIANCE = ROOT @ ROOT.T
ROWS = np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, 300)


class Exact(Normal):
    """The exact denoiser of normal data, as one that a learner can ask what it says."""

    def said(self, z, t):
        return self(z, t).mean

    def wanted(self, x, noise, t):
        return x


def flow(x=None):
    mean = numpyro.param("mean", jnp.zeros(4))  # in the denoiser's units, as the covariance
    denoiser = Exact(Cosine(), mean, jnp.array(COVARIANCE / 4))
    numpyro.sample("x", diffused(denoiser, (4,), centre=jnp.array(MEAN), spread=2.0), obs=x)


@pytest.fixture(scope="module")
def learned():
    return pg.fit(flow, {"x": ROWS}, inference="denoising", num_steps=1, learning_rate=1e-9, ema=0.0, progress=False)


def posterior(matrix, y, noise):
    """Mean, covariance, log evidence of x ~ N(MEAN, COVARIANCE) given y = matrix x + N(0, noise^2)."""
    total = matrix @ COVARIANCE @ matrix.T + np.diag(np.broadcast_to(noise, len(y)) ** 2)
    gain = COVARIANCE @ matrix.T @ np.linalg.inv(total)
    evidence = stats.multivariate_normal.logpdf(y, matrix @ MEAN, total)
    return MEAN + gain @ (y - matrix @ MEAN), COVARIANCE - gain @ matrix @ COVARIANCE, evidence


CROSSED = np.array([[1.0, 0.5, 0.0, 0.0], [0.0, 1.0, -2.0, 0.5]])  # rows that share a number
PROBLEMS = {
    "crossed": (CROSSED, np.array([1.0, 0.3]), 0.4, lambda y, r: pg.Linear(CROSSED, y, r)),
    "one": (CROSSED[1:], np.array([2.0]), 0.2, lambda y, r: pg.Linear(sparse.csr_array(CROSSED[1:]), y, r)),
    "averages": (
        np.full((1, 4), 0.25), np.array([0.6]), 0.1, lambda y, r: pg.Linear.averages(y.reshape(1, 1), 2, r),
    ),
    "noisy": (np.eye(4), np.array([1.0, 0.0, 0.5, 1.5]), 0.7, lambda y, r: pg.Linear.noisy(y, r)),
    "grey": (
        np.kron(np.eye(2), [[0.3, 0.7]]), np.array([0.2, -0.1]), 0.3, lambda y, r: pg.Linear.grey(y, [0.3, 0.7], r),
    ),
    "blurred": (
        np.array([[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5]]), np.array([0.1, -0.5, 0.9]),
        np.array([0.2, 0.3, 0.4]), lambda y, r: pg.Linear(lambda x: 0.5 * (x[1:] + x[:-1]), y, r),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_particles_and_guided_draws_have_the_closed_form(learned, name):
    matrix, y, noise, linear = PROBLEMS[name]
    mean, left, evidence = posterior(matrix, y, noise)
    target = learned.condition(x=linear(y, noise))
    found = pg.fit(target, inference="twisted_smc", num_particles=500, num_runs=4, seed=1, progress=False)
    x = found.draws["x"].reshape(-1, 4)
    assert np.abs(x.mean(0) - mean).max() < 0.15 * np.diag(COVARIANCE).max() ** 0.5
    assert np.abs(np.cov(x.T) - left).max() < 0.15 * np.diag(COVARIANCE).max()
    assert abs(found.log_evidence.value - evidence) < 5 * found.log_evidence.stderr + 0.05 < 0.5  # 50 levels
    guided = pg.fit(target, inference="guided", num_particles=500, num_steps=100, progress=False)
    x = guided.draws["x"].reshape(-1, 4)
    error = (np.diag(left) / len(x)) ** 0.5
    assert (np.abs(x.mean(0) - mean) < 5 * error + 0.02).all()
    assert np.abs(np.cov(x.T) - left).max() < 0.1 * np.diag(left).max() + 0.01
    print(name, found.diagnose()["particles"].value, found.log_evidence, evidence, x.mean(0) - mean, np.abs(np.cov(x.T) - left).max())
