"""Samplers and searches derived from an energy: against enumeration, closed forms and the exact minimum cut."""

import itertools
import math
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from arviz_stats.base import array_stats
from conftest import needs_pyro, python

import probgen as pg
from probgen.engine.numpyro.sums.energy import NotConditional
from probgen.inference.modes._cut import NotSubmodular, solve
from probgen.measures import bits, levels, reals
from probgen.run import conditioned

RNG = np.random.default_rng(5)


def ising(coupling, side=4):
    s = 2 * numpyro.sample("s", bits(side, side)) - 1
    numpyro.factor("energy", coupling * sum(jnp.sum(s * jnp.roll(s, 1, axis)) for axis in (0, 1)))


def visible(W, b):
    v = numpyro.sample("v", bits(len(b)))
    numpyro.factor("energy", v @ jnp.triu(W, 1) @ v + v @ b)


def rbm(W, b, c):
    v, h = numpyro.sample("v", bits(W.shape[0])), numpyro.sample("h", bits(W.shape[1]))
    numpyro.factor("energy", v @ W @ h + v @ b + h @ c)


def deep(W1, W2, W3):
    v, h1, h2, h3 = (numpyro.sample(k, bits(n)) for k, n in (("v", 3), ("h1", 3), ("h2", 3), ("h3", 3)))
    numpyro.factor("energy", v @ W1 @ h1 + h1 @ W2 @ h2 + h2 @ W3 @ h3)


def higher_order():
    a, x = numpyro.sample("a", bits(9)), numpyro.sample("x", bits())
    numpyro.factor("energy", 2 * a[0] * a[1] * a[2] - 2 * a[3] * a[4] * x + a[5] * a[6] * a[7] * a[8] + a.sum() / 2 - x)


def normal(*shape):
    return RNG.normal(size=shape)


PROGRAMS = {
    "visible": (visible, {"W": normal(10, 10), "b": normal(10)}),
    "rbm": (rbm, {"W": normal(6, 5), "b": normal(6), "c": normal(5)}),
    "deep": (deep, {"W1": normal(3, 3), "W2": normal(3, 3), "W3": normal(3, 3)}),
    "higher_order": (higher_order, {}),
    "ising": (ising, {"coupling": 0.4406868, "side": 4}),
}


def enumerated(target):
    """The probability of every state, in the order of binary numbers: (state,)."""
    every = ((np.arange(2**target.dim)[:, None] >> np.arange(target.dim)[::-1]) & 1).astype(float)
    with jax.enable_x64(True):
        values = {k: jnp.asarray(v[0]) for k, v in target.constrain(every[None]).items()}
        log_p = np.asarray(jax.vmap(target.joint)(values))
    return np.exp(log_p - np.logaddexp.reduce(log_p))


def side_by_side(**data):
    """All programs as one, which share nothing: one compilation, and one run, tests each."""
    for name, (program, keywords) in PROGRAMS.items():
        with numpyro.handlers.scope(prefix=name):
            program(**{k: data[f"{name}_{k}"] for k in keywords})


@pytest.mark.parametrize(
    ("inference", "settings"),
    [("tempering", {"num_temperatures": 3, "hottest": 0.5}), ("metropolis", {"thin": 2})],
    ids=["tempering", "metropolis"],
)
@pytest.mark.usefixtures("optimised")
def test_draws_have_the_enumerated_distribution(inference, settings):
    """Total variation below 0.02 beyond the draws' noise, which half the distance of two halves of the chains estimates.

    Where counts are small this falls short of the noise: on the 65,536 states of the lattice by 0.01 (seen over seeds).
    Gibbs sampling itself is in test_energy.
    """
    data = {f"{name}_{k}": v for name, (_, keywords) in PROGRAMS.items() for k, v in keywords.items()}
    fit = pg.fit(side_by_side, data, inference, num_chains=400, num_samples=500, num_warmup=100, seed=1, **settings)
    for name, (program, keywords) in PROGRAMS.items():
        target = conditioned(program, keywords)[1]
        p, drawn = enumerated(target), [fit.draws[f"{name}/{v.name}"] for v in target.variables]
        flat = np.concatenate([d.reshape(400, 500, -1) for d in drawn], axis=2)
        index = flat.astype(int) @ (2 ** np.arange(target.dim)[::-1])
        one, two = (np.bincount(half.ravel(), minlength=len(p)) / half.size for half in (index[:200], index[200:]))
        noise, distance = 0.25 * abs(one - two).sum(), 0.5 * abs((one + two) / 2 - p).sum()
        assert noise < 0.06, name
        assert distance < 0.02 + noise, name


@pytest.mark.parametrize("inference", ["gibbs", "tempering", "metropolis"])
@pytest.mark.parametrize(("coupling", "exact"), [(0.2, 0.34277), (0.4406868, 0.84386), (0.6, 0.97287)])
@pytest.mark.usefixtures("optimised")
def test_magnetisation_of_the_periodic_ising_model(inference, coupling, exact):
    """Within four standard errors, from independent chains: a false alarm in 16,000 runs of each."""
    fit = pg.fit(ising, {"coupling": coupling}, inference, num_chains=100, num_samples=300, num_warmup=200, seed=2)
    found = abs(2 * fit.z.mean(axis=2) - 1).mean(axis=1)
    error = found.std(ddof=1) / np.sqrt(len(found))
    assert error < 0.01
    assert abs(found.mean() - exact) < 4 * error + 5e-6


@pytest.mark.usefixtures("optimised")
def test_chains_in_two_modes_are_flagged_and_tempering_visits_both():
    """An ordered 8x8 lattice: Gibbs chains keep the sign that they began with."""
    settings = {"num_chains": 4, "num_samples": 1000, "seed": 3}
    verdict = pg.fit(ising, {"coupling": 0.6, "side": 8}, "gibbs", **settings).diagnose()
    assert verdict["r_hat"].status == "fail"
    fit = pg.fit(ising, {"coupling": 0.6, "side": 8}, "tempering", thin=8, num_warmup=100, **settings)
    assert fit.diagnose()["r_hat"].value < 1.02
    sign = np.sign(2 * fit.z.mean(axis=2) - 1)
    assert (abs(sign.mean(axis=1)) < 0.5).all()
    rates = fit.records["swap_rate"][:, 100:].mean(axis=(0, 1))
    assert rates.min() > 0.8 * rates.max() > 0.3
    assert (np.diff(fit.records["replica"]) != 0).mean() > 0.1


def two_modes():
    x = numpyro.sample("x", reals(2))
    numpyro.factor(
        "energy", jnp.logaddexp(jnp.log(0.3) - 0.5 * jnp.sum((x + 5) ** 2), jnp.log(0.7) - 0.5 * jnp.sum((x - 5) ** 2))
    )


@pytest.mark.parametrize("over", ["auto", "random_walk", "mala"])
@pytest.mark.usefixtures("optimised")
def test_tempering_of_reals_weighs_two_modes(over):
    """Modes ten standard deviations apart; means over chains within four standard errors."""
    settings = {"num_chains": 40, "num_samples": 300, "num_warmup": 256, "num_temperatures": 6, "hottest": 0.05}
    fit = pg.fit(two_modes, {}, "tempering", over=over, seed=5, **settings)
    left = (fit.draws["x"].sum(axis=2) < 0).mean(axis=1)
    error = left.std(ddof=1) / np.sqrt(len(left))
    assert error < 0.05
    assert abs(left.mean() - 0.3) < 4 * error
    spread = abs(fit.draws["x"]).mean(axis=1) - 5
    assert (abs(spread.mean(axis=0)) < 4 * spread.std(axis=0, ddof=1) / np.sqrt(len(spread))).all()


def bent():
    x = numpyro.sample("x", bits(3))
    numpyro.factor("energy", jnp.sum(x) ** 3 / 9 - x @ jnp.array([1.0, 0.5, 2.0]) ** 2)


@pytest.mark.parametrize("over", ["auto", "metropolis"])
def test_tempering_takes_bits_that_are_not_affine(over):
    """Means of three bits against enumeration, within four standard errors."""
    x = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    p = np.exp(x.sum(1) ** 3 / 9 - x @ np.array([1.0, 0.25, 4.0]))
    fit = pg.fit(bent, {}, "tempering", over=over, num_temperatures=3, num_chains=50, num_samples=200, seed=7)
    found = fit.draws["x"].mean(axis=1)
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert (abs(found.mean(axis=0) - p @ x / p.sum()) < 4 * error).all()


def test_tempering_sums_bits_out_where_its_sampler_is_of_reals():
    def program():
        k, x = numpyro.sample("k", bits()), numpyro.sample("x", reals())
        numpyro.factor("energy", -0.5 * (x - 8 * k) ** 2 + k * jnp.log(3.0))

    fit = pg.fit(program, {}, "tempering", over="hmc", num_temperatures=5, num_chains=20, num_samples=300, seed=6)
    right = (fit.draws["x"] > 4).mean(axis=1)
    assert abs(right.mean() - 0.75) < 4 * right.std(ddof=1) / np.sqrt(20)
    with pytest.raises(pg.Incompatible, match="gibbs needs a Conditional target"):
        pg.fit(two_modes, {}, "tempering", over="gibbs")


def mixed():
    k, x = numpyro.sample("k", levels(3, 2)), numpyro.sample("x", reals(2))
    numpyro.factor("energy", -0.25 * jnp.sum((x - k) ** 4) + 0.5 * (k[0] == k[1]))


@pytest.mark.parametrize(("inference", "settings"), [("metropolis", {"thin": 5}), ("gibbs", {})])
def test_what_asks_nothing_of_the_density(inference, settings):
    """Levels that attract, and reals with a quartic conditional, which no derivative gives; four standard errors."""
    with pytest.raises(NotConditional, match="quadratic in x"):
        pg.fit(mixed, {}, "gibbs", conditionals="gradient")
    fit = pg.fit(mixed, {}, inference, num_chains=100, num_samples=400, seed=4, **settings)
    k, x = fit.draws["k"], fit.draws["x"]
    weight = 3 * math.exp(0.5)
    for draws, exact in (
        ((k[..., 0] == k[..., 1]), weight / (weight + 6)),
        (((x - k) ** 2).mean(axis=2), 2 * math.gamma(0.75) / math.gamma(0.25)),
        (k[..., 0] == 2, 1 / 3),
    ):
        chains = draws.mean(axis=1)
        assert abs(chains.mean() - exact) < 4 * chains.std(ddof=1) / 10


# ---- random walks ------------------------------------------------------------------------------------------------

COVARIANCE, MEAN = np.array([[1.0, 0.9], [0.9, 2.0]]), np.array([1.0, -2.0])


def gaussian(P, mu):
    x = numpyro.sample("x", reals(2)) - mu
    numpyro.factor("energy", -0.5 * x @ P @ x)


def gaussian_pyro(scale):
    import pyro
    import pyro.distributions as dist

    x = pyro.sample("x", dist.Normal(1.0, 1.0))
    pyro.sample("y", dist.Normal(0.9 * (x - 1) - 2, scale))


def has_moments(x):
    """Means and second moments (chain, draw, 2) within four Monte Carlo standard errors: a false alarm in 3,000."""
    centred = x - MEAN
    for draws, exact in [(centred[..., i], 0.0) for i in range(2)] + [
        (centred[..., i] * centred[..., j], COVARIANCE[i, j]) for i, j in ((0, 0), (0, 1), (1, 1))
    ]:
        assert abs(draws.mean() - exact) < 4 * float(array_stats.mcse(draws))
    return True


def test_random_walk_has_the_moments_of_a_gaussian():
    data = {"P": np.linalg.inv(COVARIANCE), "mu": MEAN}
    fit = pg.fit(gaussian, data, "random_walk", seed=5)
    assert has_moments(fit.draws["x"])
    assert fit.diagnose().status == "pass"
    assert abs(fit.records["acceptance_rate"][:, 400:].mean() - 0.234) < 0.05


@needs_pyro
def test_random_walk_runs_on_pyro():
    settings = {"num_chains": 2, "num_samples": 300, "num_warmup": 100, "thin": 10}
    fit = pg.fit(gaussian_pyro, {"scale": np.array(1.19**0.5)}, "random_walk", seed=6, **settings)
    assert has_moments(np.stack([fit.draws["x"], fit.draws["y"]], axis=-1))


# ---- modes -------------------------------------------------------------------------------------------------------

COUNT, UNITS = 100, 12


def attracting(W, b):
    """Independent instances, side by side: their modes are each its own."""
    x = numpyro.sample("x", bits(*b.shape))
    numpyro.factor("energy", jnp.einsum("ki,kij,kj->", x, W, x) / 2 + jnp.sum(b * x))


def instances(seed=0):
    rng = np.random.default_rng(seed)
    W = np.triu(rng.exponential(size=(COUNT, UNITS, UNITS)) * (rng.random((COUNT, UNITS, UNITS)) < 0.4), 1)
    W = W + W.transpose(0, 2, 1)
    return {"W": W, "b": rng.normal(size=(COUNT, UNITS)) - W.sum(axis=2) / 2}


def densities(x, W, b):
    """Of every instance: (..., instance)."""
    return np.einsum("...ki,kij,...kj->...k", x, W, x) / 2 + (b * x).sum(axis=-1)


def test_the_minimum_cut_is_the_optimum_and_no_search_betters_it():
    """A hundred random instances of twelve bits, against all 4096 states of each."""
    data = instances()
    every = np.array(list(itertools.product([0.0, 1.0], repeat=UNITS)))
    best = densities(np.broadcast_to(every[:, None], (len(every), COUNT, UNITS)), **data).max(axis=0)
    fit = pg.fit(attracting, data, "minimum_cut")
    exact = densities(fit.draws["x"][0, 0], **data)
    assert fit.draws["x"].shape == (1, 1, COUNT, UNITS)
    assert fit.records["gap"].max() < 1e-4
    np.testing.assert_allclose(exact, best, atol=1e-6)
    for inference, settings in (("icm", {}), ("annealing", {"num_steps": 200})):
        found = pg.fit(attracting, data, inference, num_restarts=10, seed=7, **settings)
        each = densities(found.draws["x"][:, 0], **data)
        assert (each <= exact + 1e-9).all()
        np.testing.assert_allclose(each.sum(axis=1), found.answer["log_p"][:, 0], rtol=1e-6)
        assert (np.diff(each.sum(axis=1)) <= 1e-9).all()
        assert (each.max(axis=0) > exact - 1e-9).mean() > 0.9
        assert found.diagnose()["point"].status == "warn"


def test_searches_end_where_no_change_of_one_bit_helps():
    W, b = normal(14, 14), normal(14)
    W = np.triu(W, 1) + np.triu(W, 1).T
    for inference in ("icm", "annealing"):
        fit = pg.fit(visible, {"W": W, "b": b}, inference, num_steps=100)
        x = fit.draws["v"][:, 0].astype(float)
        assert ((1 - 2 * x) * (x @ W + b) <= 1e-9).all()


def gaussian_rbm(W, c):
    x, h = numpyro.sample("x", reals(W.shape[0])), numpyro.sample("h", bits(W.shape[1]))
    numpyro.factor("energy", -0.5 * x @ x + x @ W @ h + h @ c)


@pytest.mark.parametrize("inference", ["icm", "annealing"])
def test_searches_find_the_mode_over_bits_and_reals(inference):
    """max over x is |W h|^2 / 2 + c h, over all h."""
    W, c = normal(4, 6), normal(6)
    h = np.array(list(itertools.product([0.0, 1.0], repeat=6)))
    best = (((h @ W.T) ** 2).sum(axis=1) / 2 + h @ c).max()
    fit = pg.fit(gaussian_rbm, {"W": W, "c": c}, inference, num_steps=200, num_restarts=100)
    assert fit.answer["log_p"][0, 0] == pytest.approx(best, abs=1e-6)


@pytest.fixture(scope="module")
def clamped():
    """A target with a third of its bits known, those bits, the states that agree with them, and these' log densities."""
    data = {k: v[0] for k, v in instances(seed=1).items()}
    target = conditioned(visible, data)[1]
    known, value = np.arange(UNITS) % 3 == 0, np.arange(UNITS) % 2 == 1.0
    parts = {"v known": jnp.asarray(known), "v value": jnp.asarray(value, float)}
    every = np.array(list(itertools.product([0.0, 1.0], repeat=UNITS)))
    every = every[(every[:, known] == value[known]).all(axis=1)]
    log_p = np.einsum("ni,ij,nj->n", every, np.triu(data["W"], 1), every) + every @ data["b"]
    return type(target)(target.structure, {**target.arrays, **parts}), known, every, log_p


@pytest.mark.parametrize("inference", ["icm", "annealing", "minimum_cut"])
def test_modes_given_known_bits(clamped, inference):
    target, known, every, log_p = clamped
    settings = {} if inference == "minimum_cut" else {"num_steps": 50}
    fit = pg.fit(target, inference=inference, **settings)
    assert (fit.draws["v"][..., known] == every[0, known]).all()
    assert fit.answer["log_p"][0, 0] == pytest.approx(log_p.max(), abs=1e-7)
    assert solve(target).x.tolist() == fit.z[0, 0].tolist()


@pytest.mark.parametrize("inference", ["gibbs", "tempering", "metropolis"])
def test_draws_given_known_bits(clamped, inference):
    """Means of all bits within 0.02, which is over four standard errors."""
    target, known, every, log_p = clamped
    fit = pg.fit(target, inference=inference, num_chains=100, num_samples=300, num_warmup=50, seed=8)
    assert (fit.draws["v"][..., known] == every[0, known]).all()
    exact = np.exp(log_p - np.logaddexp.reduce(log_p)) @ every
    np.testing.assert_allclose(fit.draws["v"].mean(axis=(0, 1)), exact, atol=0.02)


def test_a_minimum_cut_is_loaded_again(tmp_path):
    data = {"coupling": 0.3, "side": 3}
    fit = pg.fit(ising, data, "minimum_cut", out=tmp_path / "run")
    assert (pg.load(tmp_path / "run").z == fit.z).all()
    assert "minimum cut value" not in fit.target.data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ's, on more chains than draws
        assert fit.tree["posterior"]["s"].shape == (1, 1, 3, 3)
        assert pg.fit(ising, data, "icm", num_restarts=3).tree["posterior"]["s"].shape == (3, 1, 3, 3)


def cubic():
    x = numpyro.sample("x", bits(5))
    numpyro.factor("energy", x[1] * x[2] + x[2] * x[3] * x[4])


def test_what_has_no_minimum_cut_is_refused():
    W = np.zeros((4, 4))
    W[1, 3] = -0.5
    with pytest.raises(NotSubmodular, match=r"v\[1\] and v\[3\] repel each other \(by 0.5 nats"):
        pg.fit(visible, {"W": W, "b": np.ones(4)}, "minimum_cut")
    with pytest.raises(NotSubmodular, match=r"one and two bits in x\[[234]\]"):
        pg.fit(cubic, {}, "minimum_cut")
    with pytest.raises(pg.Incompatible):
        pg.fit(mixed, {}, "minimum_cut")


@pytest.mark.parametrize(
    ("inference", "settings", "message"),
    [
        ("tempering", {"num_temperatures": 1}, "2 or more"),
        ("tempering", {"hottest": 0.0}, "between 0 and 1"),
        ("tempering", {"ladder": "steep"}, "known: adaptive, geometric"),
        ("tempering", {"over": "cd"}, "known: auto, gibbs"),
        ("annealing", {"last": 0.01}, "above first"),
        ("icm", {"num_restarts": 0}, "above 0"),
        ("metropolis", {"thin": 0}, "above 0"),
        ("random_walk", {"target_accept": 1.5}, "between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(inference, settings, message):
    with pytest.raises(ValueError, match=message):
        pg.fit(ising, {"coupling": 0.2}, inference, **settings)


# ---- devices -----------------------------------------------------------------------------------------------------

SPREAD = """
import jax, jax.numpy as jnp, numpyro, probgen as pg
from probgen.engine.numpyro.running.executor import Executor
from probgen.measures import bits

def ising():
    s = 2 * numpyro.sample("s", bits(3, 3)) - 1
    numpyro.factor("energy", 0.3 * sum(jnp.sum(s * jnp.roll(s, 1, axis)) for axis in (0, 1)))

devices, advance = set(), Executor.advance
def watched(self, *span):
    records = advance(self, *span)
    devices.add(len(jax.tree.leaves(self.states)[0].devices()))
    return records

Executor.advance = watched
fit = pg.fit(ising, {}, "gibbs", num_chains=8, num_samples=20, num_warmup=5)
print(devices, fit.z.ravel().tolist())
"""


def test_chains_are_spread_over_devices_and_draw_the_same():
    found = []
    for count in (1, 2):
        flags = f"--xla_force_host_platform_device_count={count}"
        done = python("-c", SPREAD, env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"})
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert found[0].startswith("{1}")
    assert found[1] == found[0].replace("{1}", "{2}")


@pytest.mark.parametrize("inference", ["mala", "random_walk"])
def test_many_chains_advance_in_one_and_draw_what_few_do(inference):
    """From 64 chains on; means and variances within four standard errors of chains that know nothing of each other."""
    data = {"P": np.linalg.inv(COVARIANCE), "mu": MEAN}
    fit = pg.fit(gaussian, data, inference, num_chains=100, num_samples=100, num_warmup=200, seed=9)
    x = fit.draws["x"]
    for chains, exact in ((x.mean(axis=1), MEAN), (((x - MEAN) ** 2).mean(axis=1), np.diag(COVARIANCE))):
        assert (abs(chains.mean(axis=0) - exact) < 4 * chains.std(axis=0, ddof=1) / 10).all()


def test_chains_in_blocks_draw_what_they_draw_in_one(monkeypatch):
    """Without warm-up the state holds empty arrays."""
    from probgen.engine.numpyro.running import executor as xla

    data, settings = (
        {"P": np.linalg.inv(COVARIANCE), "mu": MEAN},
        {"num_chains": 2048, "num_samples": 3, "num_warmup": 0},
    )
    found = []
    for block in (xla.BLOCK, 4096):
        monkeypatch.setattr(xla, "BLOCK", block)
        found.append(pg.fit(gaussian, data, "ula", step_size=0.1, **settings).draws["x"])
    assert found[0].shape == (2048, 3, 2)
    np.testing.assert_allclose(*found, atol=1e-6)
