"""Samplers of diffusion models against what they must give for normal data and mixtures: in one dimension, by exact denoisers.

Statistical tests compare with 10,000 draws at five standard errors: a false alarm in two million.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probgen.nets.diffusion import grids, schedules
from probgen.nets.diffusion.denoiser import Denoiser, Mixture, Network, Normal, Posterior
from probgen.nets.diffusion.guidance import Clipped, Guided
from probgen.nets.diffusion.samplers import CLEAN, SAMPLERS, Ancestral, bridge, level
from probgen.nets.diffusion.sampling import edited, end, sample, time_of_share

COUNT = 10_000
KEYS = jax.random.split(jax.random.key(0), COUNT)
SCHEDULES = [
    schedules.linear_levels(1000),
    schedules.Linear(),
    schedules.SubPreserving(),
    schedules.Cosine(),
    schedules.LinearLogSNR(),
    schedules.Exploding(),
    schedules.Elucidated(),
    schedules.Straight(),
]


def normal(schedule, mean=0.0, variance=1.0):
    return Normal(schedule, jnp.array([mean]), jnp.array([[variance]]))


def draws(denoiser, num_steps, sampler, mean=0.0, spread=1.0, **options):
    """Many points from the exact end of data N(mean, spread^2): (COUNT,)."""

    def one(key):
        first, rest = jax.random.split(key)
        z = end(denoiser.schedule, first, (1,), spread, mean)
        return sample(denoiser, rest, z, num_steps, sampler, **options)[0]

    return np.asarray(jax.jit(jax.vmap(one))(KEYS), float)


def agrees(x, mean, variance):
    """Whether draws of a normal have a mean and a variance, to five standard errors."""
    off = (x.mean() - mean) / (variance / len(x)) ** 0.5, (x.var() / variance - 1) / (2 / len(x)) ** 0.5
    return max(map(abs, off)) < 5


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpm++", 2)])
def test_the_flow_s_map_is_met_at_the_order_that_a_sampler_has(name, order):
    schedule, mean, variance = schedules.LinearLogSNR(high=8.0, low=-6.0), 1.5, 0.25
    denoiser = normal(schedule, mean, variance)

    def where(t):
        alpha, sigma = schedule.scales(t)
        return alpha * mean + 1.3 * jnp.sqrt(alpha**2 * variance + sigma**2)

    def off(steps):
        num = 1 + steps * SAMPLERS[name].evaluations
        run = jax.jit(lambda z: sample(denoiser, KEYS[0], z, num, name, trajectory=True)[1])
        path = run(where(1.0)[None])
        assert len(path.times) == steps + 1
        return abs(float(path.z[-1, 0] - where(path.times[-1])))

    assert abs(math.log2(off(20) / off(40)) - order) < 0.15


@pytest.mark.parametrize("variance", ["bridge", "beta", "posterior"])
def test_the_ancestral_chain_has_the_variance_that_its_steps_add_up_to(variance):
    schedule, spread = schedules.linear_levels(8), 0.5
    denoiser, sampler = normal(schedule, 2.0, spread**2), Ancestral(variance)
    left = float(schedule.scales(1.0)[0]) ** 2 * spread**2 + float(schedule.scales(1.0)[1]) ** 2
    times = [*np.arange(8, 0, -1) / 8, None]
    for t, s in itertools.pairwise(times):
        at, to = level(schedule, t), CLEAN if s is None else level(schedule, s)
        far, near = (bridge(denoiser(z, t).mean, z, at, to)[0] for z in (jnp.ones(1), jnp.zeros(1)))
        added = 0.0 if s is None else sampler.kernel(denoiser(near, t), near, at, to)[1]
        left = float(jnp.squeeze((far - near) ** 2 * left + added))
    x = draws(denoiser, 8, sampler, 2.0, spread)
    assert agrees(x, 2.0, left)
    assert (abs(left / spread**2 - 1) < 0.06) == (variance == "posterior"), (
        "no other is right at eight levels of such data"
    )


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_draws_of_a_normal_by_every_schedule(schedule):
    variance = 0.25
    x = draws(normal(schedule, 2.0, variance), 100, "sde", 2.0, 0.5)
    assert agrees(x, 2.0, variance)


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_of_a_mixture_by_every_sampler(name):
    schedule = schedules.Cosine()
    data = Mixture(schedule, jnp.array([0.3, 0.7]), jnp.array([[-2.0], [2.0]]), jnp.full((2, 1), 0.5))
    x = draws(data, 101 if name == "heun" else 200, name, times="log_snr")
    assert abs((x > 0).mean() - 0.7) < 5 * (0.21 / COUNT) ** 0.5
    apart = x - np.where(x > 0, 2.0, -2.0)  # beyond zero, four spreads away, are 6e-5 of either
    assert abs(apart.mean()) < 5 * 0.5 / COUNT**0.5 + 0.005
    assert abs(apart.std() / 0.5 - 1) < 5 / (2 * COUNT) ** 0.5 + 0.01


@pytest.mark.parametrize("name", SAMPLERS)
def test_straight_paths_begin_where_nothing_is_left(name):
    denoiser = normal(schedules.Straight(), 1.0, 0.25)
    assert np.isfinite(draws(denoiser, 9, name)).all()
    assert np.isfinite(draws(denoiser, 1, name, times=[1.0, 0.5, 0.0])).all(), "and end where there is no noise"
    x = draws(denoiser, 2, "euler")
    assert agrees(x, 1.0, float(np.var(draws(denoiser, 2, "ddim"))))


def test_an_edit_forgets_what_noise_hid():
    run = lambda sampler: np.asarray(  # noqa: E731
        jax.jit(jax.vmap(lambda key: edited(normal(schedules.Cosine()), key, jnp.full(1, 2.0), 0.64, 100, sampler)[0]))(
            KEYS
        ),
        float,
    )
    for sampler in ("sde", Ancestral("posterior")):
        assert agrees(run(sampler), 0.72, 0.8704)
    assert agrees(run("heun"), 1.2, 0.64), "a flow keeps the noise that it began with"


def test_a_level_is_a_share_of_variance_in_any_schedule():
    for schedule in SCHEDULES:
        alpha, sigma = schedule.scales(time_of_share(schedule, 0.64))
        assert float(sigma**2 / (alpha**2 + sigma**2)) == pytest.approx(0.64, abs=1e-4)
    assert float(time_of_share(schedules.Cosine(), 1.0)) == pytest.approx(1.0, abs=1e-6)


def test_guidance_of_two_normals():
    schedule = schedules.Cosine(low=-14.0, high=14.0)
    guided = Guided(normal(schedule, 0.0, 0.2), normal(schedule), 2.0)
    flow, stochastic = draws(guided, 101, "heun"), draws(guided, 400, "sde")
    assert flow.var() == pytest.approx(0.2**2, rel=0.06)
    assert stochastic.var() == pytest.approx(0.0827, rel=0.06)
    tilted = 1 / ((1 - 2.0) / 1 + 2.0 / 0.2)  # precisions are weighed
    assert tilted == pytest.approx(0.1111, abs=1e-4)
    assert not any(x.var() == pytest.approx(tilted, rel=0.2) for x in (flow, stochastic)), "neither draws from it"


@pytest.mark.parametrize("name", SAMPLERS)
def test_guidance_one_is_the_conditional_model(name):
    schedule = schedules.Linear()
    given, free = (Network(schedule, lambda z, at, k=k: jnp.tanh(k * z + 0.1 * at), "noise") for k in (0.5, -1.5))
    run = lambda d: sample(d, KEYS[1], jnp.ones(3), 12, name)  # noqa: E731
    alone, other = run(given), run(free)
    assert np.allclose(run(Guided(given, free, 1.0)), alone, rtol=1e-6, atol=1e-6)
    assert np.allclose(run(Guided(given, free, 0.0)), other, rtol=1e-6, atol=1e-6)
    assert not np.allclose(alone, other, atol=0.01)


class Counted(Denoiser):
    """A denoiser that notes the times at which it is asked."""

    schedule: schedules.Schedule
    asked: list

    def __call__(self, z, t):
        self.asked.append(float(t))
        return Posterior(0.5 * z, 0.1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_network_is_asked_at_every_time_and_twice_by_heun(name):
    counted = Counted(schedules.linear_levels(100), [])
    times = np.array([1.0, 0.6, 0.2, 0.01])
    with jax.disable_jit():
        sample(counted, KEYS[0], jnp.ones(1), sampler=name, times=times)
    # The base class asks twice for a velocity: once for x and once for the noise, at one time.
    asked = counted.asked[:6:2] + counted.asked[-1:] if name == "euler" else counted.asked
    assert np.allclose(asked, times[[0, 1, 1, 2, 2, 3, 3]] if name == "heun" else times)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("num", [1, 2, 7])
def test_no_more_evaluations_than_told(name, num):
    run = lambda z: sample(normal(schedules.Straight()), KEYS[0], z, num, name, trajectory=True)[1]  # noqa: E731
    times = jax.eval_shape(run, jnp.ones(1)).times
    assert num - 1 <= 1 + (len(times) - 1) * SAMPLERS[name].evaluations <= num


@pytest.mark.parametrize("kind", grids.GRIDS)
def test_grids_begin_at_the_end_and_end_at_the_first_level(kind):
    for schedule in SCHEDULES:
        times = np.asarray(grids.grid(schedule, 9, kind=kind))
        assert (np.diff(times) < 0).all()
        assert times[0] == 1.0
        farthest = min(float(schedule.log_snr(schedule.first)), np.inf if kind == "even" else 14.0)
        if np.isfinite(farthest):
            assert float(schedule.log_snr(times[-1])) == pytest.approx(farthest, abs=0.05)
        else:
            assert times[-1] == pytest.approx(1 / 9), "where there is no noise the network is not asked"
    assert grids.grid(schedules.Linear(), 5, 0.5, kind)[0] == 0.5


def test_grids_are_even_in_what_they_say():
    assert np.allclose(grids.grid(schedules.linear_levels(10), 10), np.arange(10, 0, -1) / 10), "every level is visited"
    schedule = schedules.Exploding(low=0.002, high=80.0)
    sigma = jax.vmap(schedule.scales)(grids.grid(schedule, 9, kind="rho"))[1]
    assert np.allclose(np.diff(sigma ** (1 / 7)), (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 8, rtol=1e-3)
    told = jax.vmap(schedules.Linear().log_snr)(grids.grid(schedules.Linear(), 9, kind="log_snr"))
    assert np.allclose(np.diff(told), np.diff(told).mean(), rtol=0.01)


def test_a_network_of_any_kind_draws_the_same():
    schedule = schedules.Cosine()
    exact = normal(schedule, 1.0, 0.25)
    found = []
    for kind in ("noise", "point", "v", "velocity", "edm"):

        def net(scaled, at, kind=kind):
            t = grids.time_of(schedule, -2 * at)
            alpha, sigma = schedule.scales(t)
            z = scaled * jnp.sqrt(alpha**2 + sigma**2)
            x = exact(z, t).mean
            return Network(schedule, net, kind).wanted(x, (z - alpha * x) / sigma, t)

        found.append(float(sample(Network(schedule, net, kind), KEYS[0], jnp.full(1, 0.7), 30, "dpm++")[0]))
    assert np.allclose(found, found[1], atol=2e-3)
    assert found[1] == pytest.approx(1.35, abs=0.02)


def test_clipping_is_a_denoiser_of_its_own():
    x = draws(Clipped(normal(schedules.Cosine(), 0.0, 1.0), -0.5, 0.5), 50, "ddim")
    assert np.abs(x).max() <= 0.5


def test_what_is_refused():
    denoiser, z = normal(schedules.Levels(jnp.full(4, 0.1))), jnp.zeros(1)
    for options, told in [
        ({"sampler": "plms"}, "Known: ancestral, ddim, euler, heun, dpm"),
        ({"times": "karras"}, "Known: even, log_snr, rho"),
        ({"num_steps": 0}, "one evaluation"),
        ({"times": [0.5, 0.9]}, "falls"),
        ({"times": [1.0, 0.1]}, "no noise before 0.25"),
    ]:
        with pytest.raises(ValueError, match=told):
            sample(denoiser, KEYS[0], z, **{"num_steps": 5, **options})
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        edited(denoiser, KEYS[0], z, 1.5)
    with pytest.raises(ValueError, match="bridge, beta, posterior"):
        Ancestral("learned")
