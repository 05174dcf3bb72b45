"""Diffusion programs that are written wrong, or otherwise than usual: right numbers, or refused."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import probgen as pg
from probgen.algorithm import Incompatible
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


def looked_up(label, x=None):
    table = numpyro.param("table", jnp.zeros((3, 2)))
    chain = Backward(Normal(OURS, table[label], jnp.eye(2)), (2,), TIMES)
    z = numpyro.sample("z", chain)
    numpyro.sample("x", dist.Normal(*chain.last(z[0])).to_event(1), obs=x)


def noising(x):
    numpyro.sample("z", Noised(x, OURS, TIMES))


def plain(x=None):
    chain = Backward(Normal(OURS, numpyro.param("mean", jnp.zeros(2)), jnp.eye(2)), (2,), TIMES)
    z = numpyro.sample("z", chain)
    numpyro.sample("x", dist.Normal(*chain.last(z[0])).to_event(1), obs=x)


def cubing(x):
    numpyro.sample("z", Noised(x**3, OURS, TIMES))


LABELS = np.random.default_rng(0).integers(0, 3, 200)
ROWS = 4.0 * (LABELS - 1)[:, None] + np.random.default_rng(1).normal(size=(200, 2))
SHORT = {"num_steps": 200, "learning_rate": 0.05, "batch_size": 64, "ema": 0.9, "progress": False}


def test_a_hidden_label_that_a_table_takes_for_its_last_is_refused():
    """-1 is the last row of a table: a tenth of all rows would be learned as the last class."""
    model, data = Model(looked_up, guide=noising, by_row=True), {"x": ROWS, "label": LABELS}
    with pytest.raises(ValueError, match="takes -1 for 'label'"):
        pg.fit(model, data, inference="denoising", **SHORT)
    fit = pg.fit(model, data, inference="denoising", unlabelled=0.0, **SHORT | {"num_steps": 600})
    assert fit.parameters["table"][2] == pytest.approx(ROWS[LABELS == 2].mean(0), abs=0.5)
    for label, told in ((-1, "hid its labels"), (3, r"label\[0\] is 3; it is from 0 to 2"), (-2, r"label\[0\] is -2")):
        for ask in (
            lambda label: fit.sample(2, label=label),
            lambda label: fit.sample(2, label=label, sampler="ddim"),
            lambda label: fit.log_prob(ROWS[:2], label=[label, 0]),
            lambda label: fit.trajectory(2, label=label),
            lambda label: fit.interpolate(ROWS[0], ROWS[1], label=label),
        ):
            with pytest.raises(ValueError, match=told):
                ask(label)


def test_a_chain_of_another_function_of_the_data_has_its_own_draws_alone():
    fit = pg.fit(Model(plain, guide=cubing, by_row=True), {"x": ROWS / 8}, inference="denoising", **SHORT)
    assert np.isfinite(fit.log_prob(ROWS[:3] / 8).value).all()
    for ask in (
        lambda: fit.sample(2, sampler="ddim"),
        lambda: fit.log_prob(ROWS[:3], method="ode"),
        lambda: fit.trajectory(2),
        lambda: fit.interpolate(ROWS[0], ROWS[1]),
    ):
        with pytest.raises(Incompatible, match="another function of 'x'"):
            ask()


def unseen(x=None):
    with handlers.mask(mask=False):
        plain(x)


@pytest.mark.parametrize("inference", ["svi", "denoising"])
def test_a_chain_with_a_mask_is_refused(inference):
    with pytest.raises(Incompatible, match="The chain 'z' has a scale or a mask"):
        pg.fit(Model(unseen, guide=noising, by_row=True), {"x": ROWS}, inference=inference, **SHORT | {"num_steps": 2})


def test_a_fit_of_paired_noise_completes_nothing():

    x = np.random.default_rng(0).normal(size=(200, 2))
    fit = pg.fit(
        "velocity", x, "flow_matching", coupling="optimal_transport", num_steps=3, batch_size=32, progress=False
    )
    with pytest.raises(Incompatible, match="paired noise with points"):
        pg.fit(fit.condition(x=np.array([0.5, np.nan])), inference="twisted_smc", progress=False)


def test_noise_passes_by_a_network_that_is_narrower_than_a_point():
    """Of a point at the origin of 40 directions v is alpha / sigma z: a network of 4 units alone hands on 4 of the 40."""
    x = np.zeros((256, 40))
    data = {
        "x": x,
        "dim": 40,
        "width": 4,
        "depth": 1,
        "num_levels": 50,
        "kind": "v",
        "centre": np.zeros(40),
        "spread": 1.0,
    }
    fit = pg.fit("ddpm", data, "denoising", num_steps=600, batch_size=64, learning_rate=0.01, progress=False)
    assert np.std(fit.sample(200, seed=1)["x"]) < 0.1  # 0.36 without


def test_a_parameter_with_an_argument_s_name_is_refused():
    def program(x=None, loc=0.0):
        z = numpyro.sample("z", dist.Normal(numpyro.param("loc", jnp.zeros(())), 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x, loc=0.0):
        numpyro.sample("z", dist.Normal(0.5 * x, 1.0))

    with pytest.raises(ValueError, match=r"param\('loc'\) has the name of an argument"):
        pg.fit(program, {"x": np.arange(9.0), "loc": 1.0}, "svi", guide=guide, num_steps=2, progress=False)
