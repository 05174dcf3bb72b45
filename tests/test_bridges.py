"""Schroedinger bridges: pairs and paths of normal data against closed forms, both ways; what a verdict sees; what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.diagnostics.samples.bridges import sinkhorn
from probgen.model import Model
from probgen.nets.bridges.drift import Drift, Driven, times
from probgen.nets.diffusion.networks import perceptron

SIGMA = 1.0
MEANS = np.array([0.0, 1.0, -2.0]), np.array([0.0, 3.0, 0.5])
# The first coordinate is N(0, 1) at both ends; the others are correlated, otherwise at each end.
FIRST = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.3], [0.0, 0.3, 0.5]])
LAST = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, -0.2], [0.0, -0.2, 2.0]])


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(values) @ vectors.T


def coupling(first, last, sigma):
    """Cov(X_0, X_1) of the bridge between normals: (A^1/2 (4 A^1/2 B A^1/2 + sigma^4)^1/2 A^-1/2 - sigma^2) / 2.

    Bunne et al. 2023 (arXiv:2202.05722).
    """
    half, one = root(first), np.eye(len(first))
    return 0.5 * (half @ root(4 * half @ last @ half + sigma**4 * one) @ np.linalg.inv(half) - sigma**2 * one)


def between(t):
    """Mean and covariance of X_t."""
    cross = coupling(FIRST, LAST, SIGMA)
    mixed = (1 - t) ** 2 * FIRST + t**2 * LAST + t * (1 - t) * (cross + cross.T + SIGMA**2 * np.eye(3))
    return (1 - t) * MEANS[0] + t * MEANS[1], mixed


def drawn(seed, count, end):
    return MEANS[end] + np.random.default_rng(seed).normal(size=(count, 3)) @ root((FIRST, LAST)[end])


QUIET = {"progress": False, "ema": 0.99, "num_pairs": 1024, "num_fresh": 512}
ROWS = {"a": drawn(0, 2600, 0), "b": drawn(1, 2200, 1), "sigma": SIGMA, "width": 32, "depth": 2, "num_steps": 16}


@pytest.fixture(scope="module")
def fit():
    return pg.fit("schroedinger_bridge", ROWS, num_steps=2400, learning_rate=4e-3, **QUIET)


def cross(x, y):
    return (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)


# ---- closed forms --------------------------------------------------------------------------------------------------


def test_the_closed_form_is_that_of_one_dimension():
    one = np.eye(1)
    assert coupling(one, one, 1.0)[0, 0] == pytest.approx(0.618034, abs=1e-6)
    assert coupling(FIRST, LAST, SIGMA)[0, 0] == pytest.approx(0.618034, abs=1e-6)
    four = coupling(4 * one, 0.25 * one, 2.0)[0, 0]
    assert four == pytest.approx((np.sqrt(4 * 4 * 0.25 + 2.0**4) - 2.0**2) / 2)


def exact(cov):
    """What a network says that knows the drift between N(0, 1) and itself at sigma = 1, pairs of a covariance."""

    def net(scaled, level):
        t = jax.nn.sigmoid(level)
        seen = jnp.sqrt((1 - t) ** 2 + t**2 + t * (1 - t))
        total = (1 - t) ** 2 + t**2 + t * (1 - t) * (2 * cov + 1)
        mean = ((1 - t) * cov + t) / total  # E[X_1 | X_t = x] / x
        return (mean - 1) / (1 - t) * seen * scaled / jnp.sqrt(2 + t / (1 - t))

    return Drift(net)


@pytest.mark.parametrize("num_steps", [8, 40])
def test_paths_of_the_exact_drift_have_the_pairs_of_the_bridge(num_steps):
    start = jax.random.normal(jax.random.key(0), (40_000, 1))
    path = jax.jit(lambda x, key: exact(0.618034).path(x, key, num_steps))
    x = np.asarray(jax.vmap(path)(start, jax.random.split(jax.random.key(1), len(start))))[:, :, 0]
    assert np.mean(x[:, 0] * x[:, -1]) == pytest.approx(0.618034, abs=0.02)  # three standard errors
    assert x[:, -1].std() == pytest.approx(1.0, abs=0.015)
    middle = np.argmin(abs(np.asarray(times(num_steps)) - 0.5))
    t = float(times(num_steps)[middle])
    assert x[:, middle].var() == pytest.approx(1 + t * (1 - t) * (2 * 0.618034 + 1 - 2), abs=0.03)


def test_what_a_network_learns_is_the_drift():
    """The mean of what it should have said, given where a bridge is, is what the exact network says there."""
    rng, cov, t = np.random.default_rng(0), 0.618034, 0.7
    x0 = rng.normal(size=400_000)
    x1 = cov * x0 + np.sqrt(1 - cov**2) * rng.normal(size=len(x0))
    drift, e = exact(cov), rng.normal(size=len(x0))
    z = np.asarray(drift.bridged(x0, x1, e, t))
    slope = np.mean(z * np.asarray(drift.wanted(x0, x1, e, t))) / np.mean(z**2)
    assert slope == pytest.approx(float(drift.said(jnp.ones(1), t)[0]), abs=0.01)
    assert np.std(np.asarray(drift.wanted(x0, rng.permutation(x1), e, t))) == pytest.approx(1.0, abs=0.01)


def test_pairs_are_those_of_the_bridge(fit):
    expected = coupling(FIRST, LAST, SIGMA)
    x, y = drawn(2, 8000, 0), drawn(3, 8000, 1)
    there, back = cross(x, fit.translate(a=x)["b"]), cross(fit.translate(b=y)["a"], y)
    assert there == pytest.approx(expected, abs=0.1)
    assert back == pytest.approx(expected, abs=0.1)
    assert (there + back)[0, 0] / 2 == pytest.approx(0.618034, abs=0.05)


@pytest.mark.parametrize("way", ["a", "b"])
def test_marginals_on_the_way_are_those_of_the_bridge(fit, way):
    found = fit.trajectory(**{way: drawn(4, 6000, 0 if way == "a" else 1)})
    times, z = found["times"], found["z"]
    assert (np.diff(times) > 0).all() if way == "a" else (np.diff(times) < 0).all()
    for t in (0.3, 0.6, 1.0 if way == "a" else 0.0):
        at = np.argmin(abs(times - t))
        mean, covariance = between(times[at])
        assert z[:, at].mean(0) == pytest.approx(mean, abs=0.12)
        assert np.cov(z[:, at].T) == pytest.approx(covariance, abs=0.15)


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_sinkhorn_pairs_are_those_of_the_bridge(sigma):
    a, b = drawn(5, 700, 0)[:, 1:], drawn(6, 900, 1)[:, 1:]
    first, last = np.cov(a.T), np.cov(b.T)
    expected = np.mean(np.diag(coupling(first, last, sigma)) / np.sqrt(np.diag(first) * np.diag(last)))
    value, off = sinkhorn(a, b, sigma**2)
    assert off < 1e-3
    assert value == pytest.approx(expected, abs=0.02)


# ---- a fit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, -1])
def test_a_bridge_draws_one_pair_or_more(fit, count):
    with pytest.raises(ValueError, match=f"num_samples is {count}; it must be at least 1"):
        fit.sample(count)


def test_a_fit_draws_and_translates_by_a_seed(fit):
    drawn = fit.sample(5)
    assert drawn["a"].shape == drawn["b"].shape == (5, 3)
    assert fit.sample(4, a=ROWS["a"][0])["b"].std(0).min() > 0.05  # a row has many ends
    one, two = fit.translate(a=ROWS["a"][:3]), fit.translate(a=ROWS["a"][:3], seed=7)
    assert np.array_equal(one["b"], fit.translate(a=ROWS["a"][:3])["b"])
    assert not np.array_equal(one["b"], two["b"])
    path = fit.trajectory(a=ROWS["a"][:3])
    assert np.array_equal(path["z"][:, 0].astype("float32"), ROWS["a"][:3].astype("float32"))
    assert np.array_equal(path["z"][:, -1], one["b"])
    assert {k: len(v) for k, v in fit.held_out.items()} == {"a": 260, "b": 220}


def test_the_verdict_looks_at_both_ends_and_at_the_pairs(fit):
    checks = {f.check: f for f in fit.diagnose().findings}
    assert {"two_sample", "way_back", "one_process", "pairs"} <= set(checks)
    for name in ("two_sample", "way_back", "one_process", "pairs"):
        assert checks[name].status == "pass", checks[name]


@pytest.mark.parametrize(
    ("net", "factor", "failing"),
    [
        ("a to b", 0.0, {"two_sample", "one_process"}),
        ("b to a", 0.0, {"way_back", "one_process"}),
        ("both", 0.0, {"pairs"}),
    ],
)
def test_the_verdict_sees_a_way_that_was_not_learned(fit, net, factor, failing):
    """Without its network a diffusion is Brownian motion with a shift: too wide at the end, its pairs too near."""
    nets = ("a to b", "b to a") if net == "both" else (net,)
    spoilt = {k: factor * v if k.startswith(nets) else v for k, v in fit.answer.items()}
    found = {f.check: f.status for f in dataclasses.replace(fit, answer=spoilt).diagnose().findings}
    assert all(found[name] != "pass" for name in failing), found


def test_a_report_shows_paths(fit, tmp_path):
    text = fit.report(tmp_path / "bridge.html").read_text()
    assert "way_back" in text
    assert "Trajectories" in text or "Loss" in text


def test_a_run_goes_on_bit_for_bit(tmp_path, killed):
    rng = np.random.default_rng(0)
    data = {"a": rng.normal(size=(60, 2)), "b": rng.normal(size=(45, 2)), "width": 8, "depth": 1, "num_steps": 4}
    settings = {"num_steps": 240, "batch_size": 16, "num_pairs": 64, "num_fresh": 32, "progress": False}
    whole = pg.fit("schroedinger_bridge", data, "bridge_matching", **settings)
    killed(pg.fit, "schroedinger_bridge", data, "bridge_matching", out=tmp_path / "run", **settings)
    resumed = pg.resume(tmp_path / "run", progress=False)
    assert all(np.array_equal(v, resumed.answer[k]) for k, v in whole.answer.items())
    assert all(np.array_equal(v, resumed.state[k]) for k, v in whole.state.items())
    assert np.array_equal(whole.held_out["a"], pg.load(tmp_path / "run").held_out["a"])


# ---- programs of one's own, and what is refused -----------------------------------------------------------------------


def pictures(p, q=None, sigma=0.5):
    numpyro.sample("q", Driven(Drift(perceptron("there", 4, 8, 1), sigma), p, 4), obs=q)


def pictures_back(q, sigma=0.5):
    numpyro.sample("p", Driven(Drift(perceptron("back", 4, 8, 1), sigma), q, 4))


def louder(q):
    return pictures_back(q, 0.7)


P, Q = np.random.default_rng(0).normal(size=(2, 50, 2, 2))
FEW = {"num_steps": 60, "batch_size": 8, "num_pairs": 16, "num_fresh": 8, "progress": False}


def test_a_program_of_ones_own_may_have_rows_of_any_shape():
    model = Model(pictures, guide=pictures_back)
    found = pg.fit(model, {"p": P, "q": Q[:31]}, **FEW)
    assert found.translate(p=P[:3])["q"].shape == found.translate(q=Q[:3])["p"].shape == (3, 2, 2)
    assert found.inference.name == "bridge_matching"
    assert found.trajectory(q=Q[:3])["z"].shape == (3, 5, 2, 2)


@pytest.mark.parametrize(
    ("guide", "data", "inference", "error", "told"),
    [
        (None, {}, "bridge_matching", Incompatible, "give a guide that draws 'p' given q"),
        (louder, {}, "bridge_matching", ValueError, "same noise both ways"),
        (lambda q: numpyro.sample("r", Driven(Drift(perceptron("w", 4, 8, 1)), q)), {}, "bridge_matching", ValueError, "draws r"),
        (pictures_back, {"sigma": 0.0}, "bridge_matching", ValueError, "sigma is 0.0; expected a number above 0"),
        (pictures_back, {}, "gan", Incompatible, "bridge_matching"),
        (pictures_back, {}, "cycle_gan", Incompatible, "bridge_matching"),
        (pictures_back, {"q": Q[:, 0]}, "bridge_matching", ValueError, "shape"),
    ],
)  # fmt: skip
def test_programs_that_are_no_bridge_are_refused(guide, data, inference, error, told):
    with pytest.raises(error, match=told):
        pg.fit(Model(pictures, guide=guide), {"p": P, "q": Q} | data, inference, progress=False)


def beside_noise(p, q=None):
    numpyro.sample("z", numpyro.distributions.Normal(0, 1))
    pictures(p, q)


def test_a_diffusion_beside_other_sites_is_refused():
    with pytest.raises(ValueError, match="has 1 observed, 1 hidden"):
        pg.fit(
            Model(beside_noise, guide=pictures_back, by_row=True),
            {"p": P, "q": Q[:31]},
            "bridge_matching",
            progress=False,
        )


@pytest.mark.parametrize("inference", ["svi", "nuts", "mle"])
def test_algorithms_that_need_a_density_say_what_does_not(inference):
    with pytest.raises(Incompatible, match="none that is known: 'b' is where a diffusion ends"):
        pg.fit("schroedinger_bridge", (Q[:, 0], P[:, 0]), inference, progress=False)


def each(name):
    """A drift that looks at one coordinate at a time, so that the program runs on all rows at once as well."""
    slope = numpyro.param(name, 0.1)
    return Drift(lambda x, level: slope * x + 0 * level)


def any_shape(a, b=None):
    numpyro.sample("b", Driven(each("slope"), a, 8), obs=b)


def any_shape_back(b):
    numpyro.sample("a", Driven(each("slope back"), b, 8))


def test_a_program_that_runs_on_all_rows_at_once_is_one_of_a_row():
    found = pg.fit(Model(any_shape, guide=any_shape_back), {"a": P[:, 0], "b": Q[:, 0]}, **FEW)
    assert found.translate(a=P[:3, 0])["b"].shape == (3, 2)
    assert found.inference.name == "bridge_matching"


@pytest.mark.parametrize(
    ("data", "error", "told"),
    [
        (Q[:, 0], TypeError, r"rows of a and b; an array gives 1 of 2 arrays"),
        ({"a": Q[:, 0]}, ValueError, "b is missing"),
        ((Q[:, 0], np.ones((9, 3))), ValueError, r"a \(2,\) and b \(3,\)"),
        ({"a": Q[:, 0], "b": P[:, 0], "sigma": -1.0}, ValueError, "sigma is -1.0"),
        ({"a": Q[:, 0], "b": P[:, 0], "num_steps": 1}, ValueError, "num_steps is 1"),
        ((Q[:1, 0], P[:, 0]), ValueError, "two rows or more"),
    ],
)
def test_data_that_make_no_bridge_are_refused(data, error, told):
    with pytest.raises(error, match=told):
        pg.fit("schroedinger_bridge", data, progress=False)


@pytest.mark.parametrize("settings", [{"first": 1.0}, {"num_fresh": 5000}, {"held_out": -0.1}, {"num_pairs": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        pg.fit("schroedinger_bridge", (Q[:, 0], P[:, 0]), "bridge_matching", **settings)


@pytest.mark.parametrize("asked", ["log_prob", "energy", "log_z", "condition", "decode", "interpolate"])
def test_what_a_bridge_does_not_have_is_refused(fit, asked):
    with pytest.raises(Incompatible, match=r"density|diffusion"):
        getattr(fit, asked)()


@pytest.mark.parametrize("rows", [{}, {"c": Q[:, 0]}, {"a": ROWS["a"][:2], "b": ROWS["b"][:2]}])
def test_rows_of_no_kind_are_refused(fit, rows):
    with pytest.raises(TypeError, match="translate takes rows of a, or of b for the way back"):
        fit.translate(**rows)
    with pytest.raises(ValueError, match="expected rows of shape"):
        fit.translate(a=ROWS["a"][0])


def normal(x=None):
    numpyro.sample("x", numpyro.distributions.Normal(numpyro.param("m", 0.0), 1.0), obs=x)


@pytest.mark.parametrize(
    ("word", "data", "told"),
    [
        (Model(normal, by_row=True), {"x": Q[:, 0, 0]}, "needs a Bridging target"),
        pytest.param("gan_pyro", None, "bridge_matching runs on numpyro; this is a pyro program", marks=needs_pyro),
    ],
)
def test_other_programs_are_refused(word, data, told):
    with pytest.raises(Incompatible, match=told):
        pg.fit(word, data, inference="bridge_matching")
