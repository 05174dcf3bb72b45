"""Linear inverse problems by denoisers, against posteriors in closed form.

Statistical tests compare at five standard errors: a false alarm in two million.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from probgen.nets.diffusion import schedules
from probgen.nets.diffusion.denoiser import Mixture, Network, Normal
from probgen.nets.diffusion.grids import grid
from probgen.nets.diffusion.inverse import Combinations, Coordinates, Informed, conjugate_gradients, inpainted, solve
from probgen.nets.diffusion.samplers import Ancestral
from probgen.nets.diffusion.sampling import end, sample
from probgen.nets.diffusion.twisted import effective, systematic, twisted_smc

ONE = np.ones(1, np.float32)
LOG_EVIDENCE = -1.430510  # of y = 1 under N(0, 1 + .25)


def seen(y=1.0, noise=0.5):
    return Combinations(y * ONE, noise, ONE[None])


def unit(schedule):
    return Normal(schedule, jnp.zeros(1), jnp.eye(1))


def guided_draws(informed, dim, spread=1.0, num_steps=150, count=6000):
    def one(key):
        first, rest = jax.random.split(key)
        return sample(informed, rest, end(informed.schedule, first, (dim,), spread), num_steps, "sde")

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), count)), float)


@pytest.mark.parametrize(
    "schedule", [schedules.Cosine(), schedules.Straight(), schedules.Elucidated()], ids=["vp", "straight", "ve"]
)
@pytest.mark.parametrize("covariance", ["jacobian", "variance"])
def test_a_guided_draw_has_the_posterior_s_law(schedule, covariance):
    x = guided_draws(Informed(unit(schedule), seen(), covariance), 1)
    assert abs(x.mean() - 0.8) < 5 * (0.2 / len(x)) ** 0.5
    assert abs(x.var() / 0.2 - 1) < 5 * (2 / len(x)) ** 0.5 + 0.02


def correlated(dim=3):
    root = np.tril(np.random.default_rng(0).normal(size=(dim, dim)))
    return np.arange(dim) - 1.0, root @ root.T + 0.3 * np.eye(dim)


def test_a_guided_draw_of_correlated_coordinates():
    mean, covariance = correlated()
    matrix, y, noise = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, -2.0]]), np.array([1.0, 0.5]), 0.4
    gain = covariance @ matrix.T @ np.linalg.inv(matrix @ covariance @ matrix.T + noise**2 * np.eye(2))
    wanted, left = mean + gain @ (y - matrix @ mean), covariance - gain @ matrix @ covariance
    prior = Normal(schedules.Elucidated(), jnp.array(mean), jnp.array(covariance))
    x = guided_draws(Informed(prior, Combinations(jnp.array(y), noise, jnp.array(matrix))), 3)
    assert (np.abs(x.mean(0) - wanted) < 5 * (np.diag(left) / len(x)) ** 0.5 + 0.01).all()
    assert np.abs(np.cov(x.T) - left).max() < 0.06 * np.diag(left).max()


def test_few_rounds_of_conjugate_gradients_are_the_dense_answer_and_stop_where_it_curves_down():
    mean, covariance = correlated(6)
    spread = covariance @ covariance
    away = np.arange(6.0)
    got = conjugate_gradients(lambda v: spread @ v + v, away, 12)
    assert np.allclose(got, np.linalg.solve(spread + np.eye(6), away), rtol=1e-3, atol=1e-3)
    assert np.isfinite(conjugate_gradients(lambda v: -v, away, 12)).all()
    prior, z = Normal(schedules.Cosine(), jnp.array(mean), jnp.array(covariance)), jnp.ones(6)
    informed = Informed(prior, inpainted(np.array([1.0, np.nan, 0.3, np.nan, np.nan, -1.0]), 0.3))
    dense = informed(z, 0.4).mean
    by_rounds = pytest.MonkeyPatch()
    by_rounds.setattr("probgen.nets.diffusion.inverse.DENSE", 1)
    try:
        assert np.allclose(informed(z, 0.4).mean, dense, atol=1e-4)
    finally:
        by_rounds.undo()


def test_what_is_negative_in_a_spread_is_zero():
    for spread in (np.array([-2.0, 1.0]), np.diag([-2.0, 1.0])):
        got, log_det = solve(jnp.array(spread), 0.5, jnp.ones(2))
        assert np.allclose(got, [4.0, 0.8])
        assert float(log_det) == pytest.approx(np.log(0.25) + np.log(1.25), rel=1e-5)
    spread, noise, away = correlated()[1], np.array([0.1, 0.5, 2.0]), np.array([1.0, -1.0, 0.5])
    got, log_det = solve(jnp.array(spread), jnp.array(noise), jnp.array(away))
    total = spread + np.diag(noise**2)
    assert np.allclose(got, np.linalg.solve(total, away), rtol=1e-3)
    assert float(log_det) == pytest.approx(np.linalg.slogdet(total)[1], abs=1e-3)


def test_what_is_not_symmetric_bounds_what_a_network_s_error_does():
    """A network whose derivative is mostly error in the noise: what it makes of the known part stays within the data's range."""
    wild = Network(schedules.Cosine(), lambda z, at: z + 0.3 * jnp.sin(7 * z[::-1]), "noise")
    problem = inpainted(np.array([1.0, np.nan]), 0.01)
    far = [
        max(float(jnp.abs(informed(z, t).mean - wild(z, t).mean)[1]) for t in (0.3, 0.6, 0.9, 0.999))
        for informed in (Informed(wild, problem), Informed(wild, problem, wary=True))
        for z in (jnp.array([0.4, -0.2]),)
    ]
    assert far[1] < 5 < far[0]


def runs(denoiser, problem, spread, *, num, particles, num_times, chain="posterior", dim=1, covariance="jacobian"):
    """Many runs of the particles."""
    informed = Informed(denoiser, problem, covariance)
    times = grid(denoiser.schedule, num_times, kind="log_snr")

    def one(key):
        first, rest = jax.random.split(key)
        z = end(denoiser.schedule, first, (particles, dim), spread)
        return twisted_smc(informed, rest, z, times, Ancestral(chain))

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), num))


def is_unbiased(log_evidence, wanted):
    """Whether exp of an estimate has the mean that it should, at five standard errors of at most a twentieth each."""
    ratio = np.exp(np.asarray(log_evidence, float) - wanted)
    error = ratio.std() / len(ratio) ** 0.5
    return error < 0.05 and abs(ratio.mean() - 1) < 5 * error


@pytest.mark.parametrize(("chain", "num_times", "covariance"), [("posterior", 6, "jacobian"), ("beta", 6, "variance")])
def test_the_evidence_is_unbiased_and_the_particles_are_the_posterior_s(chain, num_times, covariance):
    # Few times and few particles: an approximation that were relied on would show.
    found = runs(
        unit(schedules.Cosine(low=-8.0, high=10.0)), seen(), 1.0, num=4000, particles=6, num_times=num_times, chain=chain,
        covariance=covariance,
    )  # fmt: skip
    assert is_unbiased(found.log_evidence, LOG_EVIDENCE)
    assert np.asarray(found.log_evidence).std() > 0.01, "otherwise this test would show nothing"
    # A run's particles weigh as its evidence does.
    w = np.exp(np.asarray(found.log_evidence, float))
    means = np.asarray(found.x, float)[..., 0].mean(1)
    error = (w * (means - 0.8)).std() / len(w) ** 0.5 / w.mean()
    assert abs((w * (means - 0.8)).mean() / w.mean()) < 5 * error < 0.1


def test_one_long_run_gives_the_posterior_and_its_evidence():
    found = runs(unit(schedules.Straight()), seen(), 1.0, num=1, particles=4000, num_times=60)
    x = np.asarray(found.x, float).ravel()
    assert float(found.log_evidence[0]) == pytest.approx(LOG_EVIDENCE, abs=0.02)
    assert abs(x.mean() - 0.8) < 0.05
    assert abs(x.var() - 0.2) < 0.03
    assert found.ess.shape == found.times.shape == (1, 60)
    assert (np.asarray(found.ess) > 1000).all()


def test_a_mixture_s_sides_weigh_as_they_should():
    data = Mixture(
        schedules.Cosine(), jnp.array([0.3, 0.7]), jnp.array([[-2.0, -1.0], [2.0, 1.0]]), jnp.full((2, 2), 0.5)
    )
    problem = Coordinates(jnp.array([0.3]), 1.0, jnp.array([1]))
    each = np.array([0.3, 0.7]) * stats.norm.pdf(0.3, [-1, 1], (0.25 + 1.0) ** 0.5)
    found = runs(data, problem, 2.0, num=40, particles=500, num_times=60, dim=2, chain="bridge")
    right = (np.asarray(found.x)[..., 0] > 0).mean(1)
    assert abs(right.mean() - each[1] / each.sum()) < 5 * right.std() / 40**0.5 + 0.01
    assert np.log(np.exp(np.asarray(found.log_evidence, float)).mean()) == pytest.approx(np.log(each.sum()), abs=0.05)


def test_inpainting_is_the_limit_of_a_small_noise():
    mean, covariance = np.zeros(2), np.array([[1.0, 0.8], [0.8, 1.0]])
    prior = Normal(schedules.Cosine(high=16.0), jnp.array(mean), jnp.array(covariance))
    problem = inpainted(np.array([np.nan, 1.0]), 0.01)
    x = guided_draws(Informed(prior, problem), 2, num_steps=200)
    assert np.abs(x[:, 1] - 1).max() < 0.1
    assert abs(x[:, 0].mean() - 0.8) < 5 * (0.36 / len(x)) ** 0.5 + 0.005
    assert abs(x[:, 0].var() / 0.36 - 1) < 5 * (2 / len(x)) ** 0.5 + 0.02
    with pytest.raises(ValueError, match="every coordinate is NaN"):
        inpainted(np.full(3, np.nan))
    with pytest.raises(ValueError, match="Known: jacobian, variance"):
        Informed(prior, problem, "dps")


def test_a_wrong_network_costs_particles_and_not_the_evidence():
    """The chain of a network that is no posterior's mean has its own evidence: its plain draws' mean likelihood."""
    schedule = schedules.Cosine(low=-6.0, high=8.0)
    odd = Network(schedule, lambda z, at: 0.8 * jnp.tanh(2 * z) - 0.05 * at, "point")
    times = grid(schedule, 5, kind="log_snr")

    def likelihood(key):
        first, rest = jax.random.split(key)
        x = sample(odd, rest, end(schedule, first, (1,)), sampler=Ancestral("bridge"), times=np.asarray(times))
        return jnp.exp(-2 * (x[0] - 1) ** 2) / (0.5 * (2 * jnp.pi) ** 0.5)

    plain = np.asarray(jax.jit(jax.vmap(likelihood))(jax.random.split(jax.random.key(5), 40_000)), float)
    found = runs(odd, seen(), 1.0, num=4000, particles=8, num_times=5, chain="bridge")
    assert plain.std() / len(plain) ** 0.5 < 0.02 * plain.mean()
    assert is_unbiased(found.log_evidence, np.log(plain.mean()))


def test_resampling_keeps_shares():
    log_w = jnp.log(jnp.array([0.5, 0.25, 0.25, 1e-30]))
    counts = np.mean(
        [np.bincount(systematic(key, log_w), minlength=4) for key in jax.random.split(jax.random.key(0), 50)], 0
    )
    assert np.allclose(counts, [2, 1, 1, 0], atol=1e-6)
    assert float(effective(jnp.log(jnp.full(8, 1 / 8)))) == pytest.approx(8, rel=1e-5)
