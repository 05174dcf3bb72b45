"""Diffusion programs that are written wrong, or otherwise than usual: right numbers, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probgen as pg
from probgen.model import Model
from probgen.nets.diffusion.chains import Backward, Noised, levels
from probgen.nets.diffusion.denoiser import Normal
from probgen.nets.diffusion.schedules import Linear, LinearLogSNR, linear_levels

OURS, THEIRS = linear_levels(6), linear_levels(6, 3e-4, 0.01)
TIMES = levels(OURS, 6)
X = jnp.array([0.7, -1.2])


def exact(schedule):
    return Normal(schedule, jnp.zeros(2), jnp.eye(2) * 0.5)


@pytest.mark.parametrize("theirs", [OURS, THEIRS])
def test_the_gap_of_a_guide_is_by_its_own_schedule(theirs):
    """By whole chains: E_q [log q(z | x) - log p(z)], 20,000 of them, within 5 standard errors of both."""
    q, p = Noised(X, theirs, TIMES), Backward(exact(OURS), (2,), TIMES)
    whole = jax.vmap(lambda z: q.log_prob(z) - p.log_prob(z))(q.sample(jax.random.key(0), (20_000,)))
    one = jax.jit(jax.vmap(lambda key: p.end_gap(q) + p.gap(q, q.lazily(key)[1])))
    parts = one(jax.random.split(jax.random.key(1), 20_000))
    error = np.hypot(*(np.std(x) / np.sqrt(len(x)) for x in (whole, parts)))
    assert abs(np.mean(whole) - np.mean(parts)) < 5 * error, (np.mean(whole), np.mean(parts), error)


def test_a_guide_of_another_length_is_refused():
    q, p = Noised(X, OURS, levels(OURS, 6)[:4]), Backward(exact(OURS), (2,), TIMES)
    with pytest.raises(ValueError, match="4 levels, the program's 6"):
        p.end_gap(q)


def test_infinitely_many_levels_of_another_schedule_are_infinitely_far():
    ours, times = LinearLogSNR(), jnp.array([0.0, 1.0])
    p = Backward(exact(ours), (2,), times, continuous=True)
    for theirs, finite in (
        (ours, True),
        (LinearLogSNR(13.3, -5.0), True),
        (LinearLogSNR(10.0, -5.0), False),
        (Linear(), False),
    ):
        q = Noised(X, theirs, times)
        assert bool(jnp.isfinite(p.gap(q, q.lazily(jax.random.key(0))[1]))) == finite, theirs
