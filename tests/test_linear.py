"""A point of which combinations were seen, y = A x + noise: against the closed-form posterior and evidence of normal data."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import sparse, stats

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.nets.diffusion.denoiser import Normal
from probgen.nets.diffusion.grids import grid
from probgen.nets.diffusion.samplers import CLEAN, Ancestral, level
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


class Lost(Exact):
    def __call__(self, z, t):
        alpha, sigma = self.schedule.scales(t)
        found = super().__call__(z, t)
        return found._replace(mean=found.mean + 0.3 * sigma / alpha * jnp.sin(5 * z[::-1]))


def lost(x=None):
    mean = numpyro.param("mean", jnp.zeros(4))
    numpyro.sample("x", diffused(Lost(Cosine(), mean, jnp.array(COVARIANCE / 4)), (4,), jnp.array(MEAN), 2.0), obs=x)


@pytest.fixture(scope="module")
def learned():
    return pg.fit(flow, {"x": ROWS}, inference="denoising", num_steps=1, learning_rate=1e-9, ema=0.0, progress=False)


def chain_law(num_steps=50):
    """Mean and covariance of what the chain of so many levels draws, which is normal: in the units of the program."""
    denoiser = Exact(Cosine(), jnp.zeros(4), jnp.array(COVARIANCE / 4))
    times, chain = grid(denoiser.schedule, num_steps, kind="log_snr"), Ancestral("posterior")
    alpha, sigma = denoiser.schedule.scales(1.0)
    spread = float(alpha**2 + sigma**2) * np.eye(4)
    for i in range(num_steps):
        here = level(denoiser.schedule, times[i])
        there = level(denoiser.schedule, times[i + 1]) if i + 1 < num_steps else CLEAN
        mean = lambda z: chain.kernel(denoiser(z, times[i]), z, here, there)[0]  # noqa: B023, E731
        step = np.asarray(jax.jacfwd(mean)(jnp.zeros(4)), float)
        own = np.asarray(chain.kernel(denoiser(jnp.zeros(4), times[i]), jnp.zeros(4), here, there)[1], float)
        spread = step @ spread @ step.T + np.diag(own)
    return MEAN, 4 * spread


def posterior(matrix, y, noise, covariance=COVARIANCE):
    """Mean, covariance, log evidence of x ~ N(MEAN, covariance) given y = matrix x + N(0, noise^2)."""
    total = matrix @ covariance @ matrix.T + np.diag(np.broadcast_to(noise, len(y)) ** 2)
    gain = covariance @ matrix.T @ np.linalg.inv(total)
    evidence = stats.multivariate_normal.logpdf(y, matrix @ MEAN, total)
    return MEAN + gain @ (y - matrix @ MEAN), covariance - gain @ matrix @ covariance, evidence


CHAIN = chain_law()[1]
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


@pytest.mark.parametrize("name", ["noisy", "blurred"])
def test_particles_have_the_closed_form_of_their_chain(learned, name):
    matrix, y, noise, linear = PROBLEMS[name]
    found = pg.fit(
        learned.condition(x=linear(y, noise)), inference="twisted_smc", num_particles=200, num_runs=8, progress=False
    )
    mean, left, evidence = posterior(matrix, y, noise, CHAIN)  # of the chain's own law, which 50 levels make
    assert abs(found.log_evidence.value - evidence) < 5 * found.log_evidence.stderr < 0.2
    assert np.abs(found.draws["x"].mean((0, 1)) - mean).max() < 0.15 * np.diag(COVARIANCE).max() ** 0.5
    x = found.draws["x"].reshape(-1, 4)
    assert np.abs(np.cov(x.T) - left).max() < 0.15 * np.diag(COVARIANCE).max()
    assert abs(evidence - posterior(matrix, y, noise)[2]) < 0.06


def test_the_evidence_is_unbiased_however_few_the_particles(learned):
    """The mean over 400 runs of six particles, at five standard errors: a false alarm in two million."""
    target = learned.condition(x=pg.Linear(CROSSED, [1.0, 0.3], 0.4))
    evidence = posterior(CROSSED, np.array([1.0, 0.3]), 0.4, CHAIN)[2]
    found = pg.fit(target, inference="twisted_smc", num_particles=6, num_runs=400, progress=False)
    ratio = np.exp(found.answer["log_evidence"][:, 0].astype(float) - evidence)
    assert ratio.std() > 0.05, "otherwise this test would show nothing"
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / 20 < 0.2


@pytest.mark.parametrize("name", ["crossed", "grey"])
def test_guided_draws_are_exact_for_normal_data(learned, name):
    matrix, y, noise, linear = PROBLEMS[name]
    mean, left, _ = posterior(matrix, y, noise)
    fit = pg.fit(
        learned.condition(x=linear(y, noise)), inference="guided", num_particles=500, num_steps=100, progress=False
    )
    x = fit.draws["x"].reshape(-1, 4)
    assert (np.abs(x.mean(0) - mean) < 5 * (np.diag(left) / len(x)) ** 0.5 + 0.02).all()
    assert np.abs(np.cov(x.T) - left).max() < 0.1 * np.diag(left).max() + 0.01


def test_a_network_that_is_lost_in_noise_costs_few_particles():
    """Its mean at low signal is far from all data, as that of networks is which say the noise."""
    fit = pg.fit(lost, {"x": ROWS}, inference="denoising", num_steps=1, learning_rate=1e-9, ema=0.0, progress=False)
    target = fit.condition(x=pg.Linear.noisy([1.0, 0.0, 0.5, 1.5], 0.3))
    worst = {}
    for covariance in ("rows", "jacobian"):
        found = pg.fit(target, inference="twisted_smc", num_particles=64, covariance=covariance, progress=False)
        worst[covariance] = found.diagnose()["particles"].value
    assert worst["rows"] > 10 > worst["jacobian"]


# ---- what A is


def columns(function, points):
    return np.stack([np.asarray(function(point)) for point in points])


def matrix_of(linear, event):
    found = linear.combined("x", event, columns)
    return found.matrix, found


def test_the_words_for_pictures_are_these_matrices():
    x, rng = np.arange(24.0).reshape(4, 6), np.random.default_rng(0)
    small = x.reshape(2, 2, 2, 3).mean((1, 3))
    for event in ((4, 6), (24,)):
        matrix, found = matrix_of(pg.Linear.averages(small, (2, 3)), event)
        assert np.allclose(matrix @ x.ravel(), small.ravel())
        assert found.apart
    colours, weights = rng.normal(size=(2, 3, 3)), np.array([0.2, 0.3, 0.5])
    for event, at in (((2, 3, 3), colours), ((3, 2, 3), np.moveaxis(colours, -1, 0))):
        matrix, _ = matrix_of(pg.Linear.grey(colours @ weights, weights), event)
        assert np.allclose(matrix @ at.ravel(), (colours @ weights).ravel())
    halves = colours.reshape(2, 3, 3)[:, :2].mean(1, keepdims=True)
    matrix, _ = matrix_of(pg.Linear.averages(colours[:, :2].reshape(1, 2, 1, 2, 3).mean((1, 3)), 2), (2, 2, 3))
    assert np.allclose(matrix.sum(1), 1)
    assert halves.shape == (2, 1, 3)
    half = np.where(np.arange(24) < 12, x.ravel(), np.nan)
    matrix, found = matrix_of(pg.Linear.masked(half), (24,))
    assert np.array_equal(matrix, np.eye(24)[:12])
    assert np.array_equal(found.y, half[:12])


def test_a_function_is_the_matrix_that_it_stands_for():
    matrix = np.random.default_rng(1).normal(size=(6, 12)) * (np.random.default_rng(2).random((6, 12)) < 0.4)
    by_function = pg.Linear(lambda x: (matrix @ np.asarray(x).ravel()).reshape(2, 3), np.ones((2, 3)), 0.1)
    assert np.allclose(matrix_of(by_function, (3, 4))[0], matrix, atol=1e-12)
    assert np.allclose(matrix_of(pg.Linear(sparse.csr_array(matrix), np.ones(6), 0.1), (3, 4))[0], matrix)
    assert not matrix_of(by_function, (3, 4))[1].apart


BAD = [
    (lambda: pg.Linear(np.ones((2, 3)), [1.0, 2.0]), r"A of x has shape \(2, 3\); expected \(2, 4\)"),
    (lambda: pg.Linear(np.ones((2, 4)), [1.0, 2.0, 3.0]), r"expected \(3, 4\)"),
    (lambda: pg.Linear(lambda x: x[:3], [1.0, 2.0]), r"of= says \(3,\) of one x"),
    (lambda: pg.Linear(lambda x: x + 1.0, np.zeros(4)), "of a x of zeros; expected 0"),
    (lambda: pg.Linear(lambda x: x**2, np.zeros(4)), "not linear"),
    (lambda: pg.Linear(lambda x: x @ np.ones(7), np.zeros(())), "does not run on one x"),
    (lambda: pg.Linear(np.eye(4), np.full(4, np.nan)), "Nothing was seen"),
    (lambda: pg.Linear(np.eye(4), np.zeros(4), 0.0), "noise is 0; expected a standard deviation above 0"),
    (lambda: pg.Linear(np.eye(4), np.zeros(4), [1.0, 1.0, -1.0, 1.0]), "noise is -1"),
    (lambda: pg.Linear(np.eye(4), np.zeros(4), [1.0, 1.0]), r"noise has shape \(2,\)"),
    (lambda: pg.Linear(np.eye(4), [0.0, np.inf, 0.0, 0.0]), "infinite"),
    (lambda: pg.Linear(np.zeros((2, 4)), [0.0, 0.0], 1.0), "says nothing of x"),
    (lambda: pg.Linear(np.diag([1.0, 0, 1, 1]), [0.0, 2.0, 0.0, 0.0]), "zero for number 1 of y, which is 2"),
    (lambda: pg.Linear(np.eye(4), np.zeros(4), 1.0, truth=np.zeros(3)), r"truth has shape \(3,\)"),
    (lambda: pg.Linear.noisy(np.zeros(4), None), "say its standard deviation"),
    (lambda: pg.Linear.noisy(np.zeros(3), 1.0), r"value has shape \(3,\); expected \(4,\)"),
    (lambda: pg.Linear.averages(np.zeros((2, 2)), 2), "expected a picture 2 times smaller"),
    (lambda: pg.Linear.averages(np.zeros((1, 1)), 1.5), "factor is 1.5"),
    (lambda: pg.Linear.grey(np.zeros((2, 2))), "without its 3 channels"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "told"), BAD)
def test_what_is_no_such_thing_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make().combined("x", (4,), columns)


# ---- fits


@pytest.fixture(scope="module")
def guided(learned):
    seen = pg.Linear.masked([0.4, np.nan, np.nan, 30.0], 0.1, truth=[0.4, 0.0, 0.0, 30.0])
    return pg.fit(learned.condition(x=seen), inference="guided", num_particles=20, progress=False)


def test_what_was_seen_is_saved_with_the_fit_and_drawn_on_its_page(guided, tmp_path):
    guided.save(tmp_path / "run")
    again = pg.load(tmp_path / "run")
    assert np.array_equal(again.draws["x"], guided.draws["x"])
    told = again.target.told()
    assert np.allclose(told.value, [0.4, np.nan, np.nan, 30.0], equal_nan=True)
    assert told.truth[3] == 30
    assert told.itself
    page = again.report(tmp_path / "page.html").read_text()
    assert "Completion" in page
    assert again.plot().axes, "the completion itself"


def test_the_verdict_fails_for_what_no_row_is_like(guided, learned):
    finding = guided.diagnose()["seen"]
    assert finding.status == "fail"
    assert "1 numbers that were seen are outside of what rows hold: 30" in finding.message
    near = learned.condition(x=pg.Linear.noisy(ROWS[0], 0.5))
    assert not any(k.endswith("outside value") for k in near.data)


def test_what_fits_refuse(learned):
    target = learned.condition(x=pg.Linear.noisy(ROWS[0], 0.5))
    for settings, told in (
        ({"noise": 0.1}, "noise is of points known in part"),
        ({"covariance": "rows"}, "twisted_smc alone"),
    ):
        with pytest.raises(ValueError, match=told):
            pg.fit(target, inference="guided", **settings)
    with pytest.raises(Incompatible, match="Try inference='twisted_smc' or 'guided'"):
        pg.fit(target, inference="nuts", progress=False)
    with pytest.raises(Incompatible, match="draws forward know nothing"):
        target.sample(3)
    other = pg.fit("gaussian", inference="mle", num_steps=2, progress=False)
    with pytest.raises(Incompatible, match="is for what a diffusion model draws"):
        other.condition(x=pg.Linear.noisy([0.0, 0.0], 1.0))


# ---- what is no combination, or none of a point ----------------------------------------------------------------------


@pytest.mark.parametrize("cut", [lambda v: jnp.minimum(v[:1], 50.0), lambda v: jnp.clip(v, -1e4, 1e4)])
def test_functions_that_are_linear_near_zero_alone_are_refused(learned, cut):
    value = np.ones(np.shape(cut(jnp.zeros(4))))
    with pytest.raises(ValueError, match=r"not linear: what it says of 1,000"):
        learned.condition(x=pg.Linear(cut, value, 1.0))


def test_exact_observations_that_contradict_each_other_are_refused(learned):
    twice = [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match=r"contradicts the others\. Say noise="):
        learned.condition(x=pg.Linear(twice, [0.0, 2.0]))
    learned.condition(x=pg.Linear(twice, [2.0, 2.0]))  # the same twice
    learned.condition(x=pg.Linear(twice, [0.0, 2.0], 1.0))


def test_a_number_that_is_made_of_nothing_is_named(learned):
    with pytest.raises(ValueError, match=r"zero for number 1 of y, which says nothing of x: put NaN there"):
        learned.condition(x=pg.Linear([[1.0, 1, 0, 0], [0.0, 0, 0, 0]], [2.0, 1.0], 0.3))
    learned.condition(x=pg.Linear([[1.0, 1, 0, 0], [0.0, 0, 0, 0]], [2.0, np.nan], 0.3))


def test_few_levels_of_noise_are_told(learned):
    given = learned.condition(x=pg.Linear([[1.0, 1.0, 0.0, 0.0]], [0.0], 0.3))
    for count, status in ((5, "fail"), (20, "warn")):
        few = pg.fit(given, inference="twisted_smc", num_particles=50, num_steps=count, progress=False)
        assert few.diagnose()["levels"].status == status
