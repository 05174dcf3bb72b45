"""Points of Pyro's diffusion models that are known in part, completed: against closed forms, and the twins in JAX.

Statistical tests compare at five standard errors: a false alarm in two million.
"""

import numpy as np
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen import catalog
from probgen.algorithm import Incompatible
from probgen.run.conditioning import conditioned

torch = pytest.importorskip("torch", reason="torch is not installed")
pyro = pytest.importorskip("pyro", reason="Pyro is not installed")
dist = pyro.distributions

from probgen.nets.torch_diffusion import inverse, schedules, twisted  # noqa: E402
from probgen.nets.torch_diffusion.chains import Backward, Noised, levels  # noqa: E402
from probgen.nets.torch_diffusion.denoiser import Denoiser, Network, Normal, Posterior  # noqa: E402
from probgen.nets.torch_diffusion.observed import measured, observed  # noqa: E402
from probgen.nets.torch_diffusion.site import diffused  # noqa: E402

pytestmark = [needs_pyro, pytest.mark.usefixtures("one_thread")]
COVARIANCE = np.array([[1.0, 0.8], [0.8, 1.0]])
KNOWN = np.array([np.nan, 1.5])
MEAN, VARIANCE, LOG_PRIOR = 1.2, 0.36, -0.5 * 1.5**2 - 0.5 * np.log(2 * np.pi)
LOG_EVIDENCE = -1.430510  # of y = 1 under N(0, 1 + .25), whose posterior is N(.8, .2)


class Exact(Normal):
    """The exact denoiser of normal data, as one that a learner can ask what it says."""

    def said(self, z, t):
        return self(z, t).mean

    def wanted(self, x, noise, t):
        return x


def flow(x):
    mean = pyro.param("mean", lambda: torch.zeros(x.shape[1]))
    covariance = torch.tensor(COVARIANCE).to(mean) if x.shape[1] == 2 else torch.eye(1).to(mean)
    with pyro.plate("row", len(x)):
        pyro.sample("x", diffused(Exact(schedules.Cosine(), mean, covariance), x.shape[1:]), obs=x)


def chain(x, whole=0):
    schedule, mean = schedules.linear_levels(100), pyro.param("mean", lambda: torch.zeros(2))
    denoiser = Exact(schedule, mean, 0.2 * torch.tensor(COVARIANCE).to(mean))
    steps = Backward(denoiser, (2,), levels(schedule, 100), "bridge")
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", steps)
        pyro.sample("x", observed(*steps.last(z[:, 0]), whole), obs=x)


def guide(x, whole=0):
    schedule = schedules.linear_levels(100)
    with pyro.plate("row", len(x)):
        pyro.sample("z", Noised(measured(x, whole), schedule, levels(schedule, 100)))


class About(Denoiser):
    """The exact denoiser of N(middle, 1), middle: (row, dim), of these rows alone."""

    schedule = schedules.Cosine()

    def __init__(self, middle):
        self.middle = middle

    def __call__(self, z, t):
        assert len(z) == len(self.middle)
        alpha, sigma = self.scales(z, t)
        total = alpha**2 + sigma**2
        return Posterior(self.middle + alpha / total * (z - alpha * self.middle), (sigma**2 / total).expand_as(z))

    def said(self, z, t):
        return self(z, t).mean

    def wanted(self, x, noise, t):
        return x


def labelled(x, label, spread=1.0):
    middle = pyro.param("middle", lambda: torch.tensor([0.0, 4.0]))
    with pyro.plate("row", len(x)):
        pyro.sample("x", diffused(About(middle[label][:, None].expand(-1, 2)), (2,), spread=spread), obs=x)


RNG = np.random.default_rng(0)
ROWS = RNG.multivariate_normal([0, 0], COVARIANCE, 400)
LABELS = RNG.integers(0, 2, 400)
NOTHING = {
    "inference": "denoising", "num_steps": 1, "learning_rate": 1e-9, "ema": 0.0, "unlabelled": 0.0, "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def learned():
    """The flow of normal data with its exact denoiser, of which nothing is left to learn."""
    return pg.fit(flow, {"x": ROWS}, **NOTHING)


@pytest.fixture(scope="module")
def one():
    """The same of N(0, 1)."""
    return pg.fit(flow, {"x": ROWS[:, :1]}, **NOTHING).condition(x=pg.Linear([[1.0]], [1.0], 0.5))


@pytest.fixture(scope="module")
def completed(learned):
    return pg.fit(learned.condition(x=KNOWN), inference="twisted_smc", num_particles=1000, progress=False)


def is_normal(x, mean, variance, slack=0.0):
    """Whether independent draws have a mean and a variance, at five standard errors and what else they may be off."""
    near = abs(x.mean() - mean) < 5 * (variance / x.size) ** 0.5 + slack
    return near and abs(x.var() / variance - 1) < 5 * (2 / x.size) ** 0.5 + slack


# ---- closed forms


@pytest.mark.parametrize(("sampler", "covariance"), [("sde", "jacobian"), ("sde", "variance"), ("heun", "jacobian")])
def test_guided_draws_have_the_posterior_s_law(one, sampler, covariance):
    found = pg.fit(
        one,
        inference="guided",
        num_particles=2000,
        num_steps=100,
        sampler=sampler,
        covariance=covariance,
        progress=False,
    )
    assert is_normal(found.draws["x"], 0.8, 0.2, slack=0.01)
    assert found.diagnose()["bias"].status == "warn"
    with pytest.raises(Incompatible, match="twisted_smc"):
        _ = found.log_evidence


def test_particles_have_the_posterior_s_law_and_its_evidence(one):
    found = pg.fit(one, inference="twisted_smc", num_particles=2000, progress=False)
    assert is_normal(found.draws["x"], 0.8, 0.2, slack=0.05)  # particles share ancestors
    assert abs(found.log_evidence.value - LOG_EVIDENCE) < 5 * found.log_evidence.stderr + 1e-3 < 0.02


@pytest.mark.parametrize("covariance", ["rows", "jacobian"])
def test_the_evidence_is_unbiased_however_few_the_particles_and_levels(one, covariance):
    """Of a chain with the posterior's variance, which is exact for N(0, 1) at any number of levels."""
    found = pg.fit(
        one, inference="twisted_smc", num_particles=4, num_runs=400, num_steps=4, covariance=covariance, progress=False
    )
    ratio = np.exp(found.answer["log_evidence"][:, 0].astype(float) - LOG_EVIDENCE)
    assert ratio.std() > 0.01, "otherwise this test would show nothing"
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / 20 < 0.2
    weighed = ratio * (found.draws["x"][..., 0].mean(1) - 0.8)
    assert abs(weighed.mean()) < 5 * weighed.std() / 20 < 0.2


def test_particles_have_the_conditional_and_the_verdict_tells_of_them(completed, learned):
    x = completed.draws["x"]
    assert x.shape == (4, 1000, 2)
    assert (x[..., 1] == 1.5).all(), "what is known exactly is what it was"
    assert x[..., 0].mean() == pytest.approx(MEAN, abs=0.08)
    assert x[..., 0].var() == pytest.approx(VARIANCE, abs=0.06)
    found = completed.log_evidence
    assert abs(found.value - LOG_PRIOR) < 5 * found.stderr + 0.055 < 0.1, "50 levels are .05 off, as in NumPyro"
    verdict = completed.diagnose()
    assert verdict.status == "pass", str(verdict)
    assert {"particles", "evidence", "runs"} <= {f.check for f in verdict.findings}
    few = pg.fit(learned.condition(x=np.array([9.0, np.nan])), inference="twisted_smc", num_particles=6, progress=False)
    assert few.diagnose()["particles"].status != "pass", "a point far from all data leaves few particles"
    assert few.diagnose()["seen"].status == "warn", "and is unlike all rows"


def test_a_part_that_is_known_with_noise_is_drawn_too(learned):
    found = pg.fit(learned.condition(x=KNOWN), inference="guided", num_particles=500, noise=1.0, progress=False)
    x = found.draws["x"]
    assert x[..., 1].mean() == pytest.approx(0.75, abs=0.1)
    assert x[..., 1].var() == pytest.approx(0.5, abs=0.1)
    assert x[..., 0].mean() == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize("inference", ["guided", "twisted_smc"])
def test_combinations_by_a_function_in_torch(learned, inference):
    row, noise = np.array([1.0, -1.0]), 0.3
    seen = pg.Linear(lambda x: torch.diff(x.flip(0)), [0.9], noise)
    total = row @ COVARIANCE @ row + noise**2
    gain = COVARIANCE @ row / total
    found = pg.fit(learned.condition(x=seen), inference=inference, num_particles=1000, num_steps=100, progress=False)
    x = found.draws["x"].reshape(-1, 2)
    assert np.abs(x.mean(0) - gain * 0.9).max() < 0.06
    assert np.abs(np.cov(x.T) - (COVARIANCE - np.outer(gain, row @ COVARIANCE))).max() < 0.08


def test_a_chain_of_whole_numbers_is_completed_in_whole_numbers():
    rows = np.clip(np.round(4 + 4 * 0.2**0.5 * ROWS), 0, 8)
    model = pg.Model(program=chain, guide=guide)
    fit = pg.fit(model, {"x": rows, "whole": 9}, **NOTHING)
    found = pg.fit(fit.condition(x=np.array([7.0, np.nan])), inference="twisted_smc", num_particles=500, progress=False)
    x = found.draws["x"]
    assert (x[..., 0] == 7).all()
    assert (x == np.round(x)).all()
    assert x.min() >= 0
    assert x.max() <= 8
    assert x[..., 1].mean() == pytest.approx(4 + 0.8 * 3, abs=0.25)
    spread = 4 * 0.2**0.5
    mass = -0.5 * (3 / spread) ** 2 - 0.5 * np.log(2 * np.pi * spread**2)
    assert found.log_evidence.value == pytest.approx(mass, abs=0.25)


def test_a_point_is_completed_given_its_label_in_the_units_of_the_program():
    spread = np.array([[2.0, 0.5]])
    rows = spread * (4.0 * LABELS[:, None] + RNG.normal(size=(400, 2)))
    fit = pg.fit(labelled, {"x": rows, "label": LABELS, "spread": spread}, **NOTHING)
    target = fit.condition(x=pg.Linear.masked([1.0, np.nan], 1.0), label=1)
    x = pg.fit(target, inference="guided", num_particles=500, progress=False).draws["x"]
    gain = 4 / (4 + 1)  # x_0 ~ N(8, 4), seen with noise 1
    assert is_normal(x[..., 0], 8 + gain * (1 - 8), 4 * (1 - gain), slack=0.1)
    assert is_normal(x[..., 1], 2.0, 0.25, slack=0.1)
    with pytest.raises(TypeError, match="given label"):
        fit.condition(x=np.array([1.0, np.nan]))


# ---- runs


def test_a_completion_is_saved_and_read(completed, learned, tmp_path):
    completed.save(tmp_path / "run")
    again = pg.load(tmp_path / "run")
    assert np.array_equal(again.draws["x"], completed.draws["x"])
    assert again.log_evidence == completed.log_evidence
    assert np.allclose(again.target.told().value, KNOWN, equal_nan=True)
    seen = pg.Linear.masked([0.4, np.nan], 0.1, truth=[0.4, 0.0])
    settings = {"inference": "guided", "sampler": "dpm++", "num_particles": 20, "progress": False}
    whole = pg.fit(learned.condition(x=seen), **settings, out=tmp_path / "whole")
    assert whole.target.told().truth[0] == 0.4
    assert "Completion" in whole.report(tmp_path / "page.html").read_text()
    again = pg.load(tmp_path / "whole")
    assert np.array_equal(again.draws["x"], whole.draws["x"])
    assert again.diagnose().status != "fail"


@pytest.mark.parametrize(
    "settings",
    [("guided", {"sampler": "dpm++"}), ("twisted_smc", {"covariance": "variance"})],
    ids=["guided", "twisted_smc"],
)
def test_a_stopped_run_goes_on_bit_for_bit(learned, settings):
    from probgen.engine.pyro.executor import Executor

    word, own = settings
    algorithm = catalog.inference(word, {"num_particles": 5, "num_steps": 6, **own})
    target = conditioned(learned.condition(x=KNOWN), None, None, "float32")[1]
    target = algorithm.prepare(target)
    whole = Executor(algorithm, target, 0, 1)
    whole.init()
    whole.advance(0, 6)
    first, then = Executor(algorithm, target, 0, 1), Executor(algorithm, target, 0, 1)
    first.init()
    first.advance(0, 3)
    assert np.isfinite(first.answer()["z"]).all(), "what is believed so far"
    then.restore(first.state())
    then.advance(3, 3)
    for name, value in whole.answer().items():
        assert np.array_equal(then.answer()[name], value)


def test_without_a_word_it_is_the_particles(learned):
    found = pg.fit(learned.condition(x=KNOWN), num_particles=20, num_steps=4, progress=False)
    assert found.inference.name == "twisted_smc"
    assert any("No inference was named: twisted_smc" in note for note in found.target.notes)


def density(x):
    loc = pyro.param("loc", lambda: torch.zeros(2))
    with pyro.plate("row", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


def beside(x):
    schedule, mean = schedules.linear_levels(10), pyro.param("mean", lambda: torch.zeros(2))
    steps = Backward(Exact(schedule, mean, torch.eye(2).to(mean)), (2,), levels(schedule, 10), "bridge")
    with pyro.plate("row", len(x)):
        pyro.sample("k", dist.Normal(torch.zeros(1).to(mean), 1.0).to_event(1))
        z = pyro.sample("z", steps)
        pyro.sample("x", observed(*steps.last(z[:, 0])), obs=x)


def beside_guide(x):
    schedule = schedules.linear_levels(10)
    with pyro.plate("row", len(x)):
        pyro.sample("k", dist.Normal(x[:, :1], 1.0).to_event(1))
        pyro.sample("z", Noised(x, schedule, levels(schedule, 10)))


def test_an_evidence_by_a_derivative_of_many_numbers_is_refused(learned, monkeypatch):
    monkeypatch.setattr("probgen.inference.denoising.twisted_smc.DENSE", 0)
    with pytest.raises(ValueError, match=r"at most 0 numbers that are known; got 1\."):
        pg.fit(learned.condition(x=KNOWN), inference="twisted_smc", covariance="jacobian")


def test_what_is_refused(learned):
    target = learned.condition(x=KNOWN)
    with pytest.raises(Incompatible, match="Try inference='twisted_smc' or 'guided'"):
        pg.fit(target, inference="nuts", progress=False)
    with pytest.raises(Incompatible, match="draws forward know nothing"):
        target.sample(3)
    with pytest.raises(ValueError, match="Nothing of x is known"):
        pg.fit(learned.condition(x=np.full(2, np.nan)), inference="guided")
    with pytest.raises(ValueError, match="noise is of points known in part"):
        pg.fit(learned.condition(x=pg.Linear.noisy([0.0, 0.0], 1.0)), inference="guided", noise=0.1)
    other = pg.fit(density, {"x": ROWS}, inference="mle", num_steps=2, progress=False)
    with pytest.raises(
        Incompatible, match="Points that are known in part are for NumPyro programs, and for those Pyro"
    ):
        other.condition(x=KNOWN)
    model = pg.Model(program=beside, guide=beside_guide)
    other = pg.fit(model, {"x": ROWS}, **NOTHING)
    with pytest.raises(Incompatible, match="other unknowns beside its chain: 'k'"):
        other.condition(x=KNOWN)
    coupled = pg.fit(
        flow, {"x": ROWS}, **{**NOTHING, "inference": "flow_matching"}, coupling="optimal_transport", batch_size=64
    )
    with pytest.raises(Incompatible, match="needs a score"):
        pg.fit(coupled.condition(x=KNOWN), inference="guided")


# ---- twins


@pytest.fixture(scope="module")
def x64():
    """JAX, its numbers double."""
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        yield jax


def net(z, level):
    """A network of one point in JAX, and of rows in torch."""
    xp = torch if hasattr(z, "detach") else __import__("jax").numpy
    turned = xp.flip(z, (-1,)) if xp is torch else z[::-1]
    return xp.tanh(z * 1.3 - (level[:, None] if level.ndim else level) * 0.2) + 0.1 * turned


Z = np.random.default_rng(1).normal(size=(5, 4))
Y, NOISE = np.array([0.3, -0.4]), np.array([0.2, 0.5])
AT, WEIGHTS = np.array([[0, 2], [1, 3]]), np.array([[0.5, 0.5], [0.7, -0.2]])
ROTATION = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 2)))[0].T
KINDS = {
    "Gathered": (AT, WEIGHTS), "Overlapping": (np.array([[0, 2], [2, 3]]), WEIGHTS, 4),
    "Combinations": (2 * ROTATION,), "Rotated": (ROTATION,),
}  # fmt: skip


def double(x):
    return x if isinstance(x, int) else torch.tensor(x)


def both(jax, name):
    """The same of a network in torch, and in JAX: two denoisers, and what was seen."""
    from probgen.nets.diffusion import denoiser as theirs
    from probgen.nets.diffusion import inverse as original
    from probgen.nets.diffusion.schedules import Cosine

    kind, given = name.split()[0], KINDS[name.split()[0]]
    seen = getattr(inverse, kind)(double(Y), double(NOISE), *map(double, given))
    other = getattr(original, kind)(*(jax.numpy.asarray(x) for x in (Y, NOISE)), *given)
    return Network(schedules.Cosine(), net, "v"), seen, theirs.Network(Cosine(), net, "v"), other


@pytest.mark.parametrize("covariance", ["jacobian", "variance"])
@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_agree_with_those_in_jax(x64, kind, covariance):
    from probgen.nets.diffusion.inverse import Informed

    own, seen, other, there = both(x64, kind)
    for t in (0.02, 0.5, 1.0):
        ours = inverse.Informed(own, seen, covariance).likelihood(torch.tensor(Z), torch.tensor(t, dtype=torch.float64))
        informed = Informed(other, there, covariance)
        theirs = x64.jit(x64.vmap(lambda z: informed.likelihood(z, t)))(Z)  # noqa: B023
        for a, b in zip(ours[1:], theirs[1:], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(ours.posterior.mean, theirs.posterior.mean, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("full", [True, False])
def test_twists_and_their_steps_agree_with_those_in_jax(x64, full, monkeypatch):
    from probgen.nets.diffusion import twisted as original

    own, seen, other, there = both(x64, "Rotated")
    rng = np.random.default_rng(3)
    root = rng.normal(size=(3, 2, 2))
    held = {
        "log_snr": np.array([-8.0, 0.0, 8.0]), "gain": rng.normal(size=(3, 4)), "slope": rng.normal(size=(3, 4)),
        "offset": rng.normal(size=(3, 4)), "spread": root @ root.mT + np.eye(2) if full else rng.uniform(size=(3, 2)),
        "cross": rng.normal(size=(3, 4, 2)) if full else None,
    }  # fmt: skip
    e = rng.normal(size=Z.shape)
    monkeypatch.setattr(twisted, "noise_like", lambda like, generator: torch.tensor(e))
    monkeypatch.setattr(original.jax.random, "normal", lambda key, shape, dtype: x64.numpy.asarray(e))
    t, s = 0.5, 0.4
    ours = twisted.Twist(
        own, seen, twisted.Calibration(*(None if v is None else torch.tensor(v) for v in held.values()))
    )
    theirs = original.Twist(other, there, original.Calibration(*held.values()))
    at = [torch.tensor(v, dtype=torch.float64) for v in (t, s)]
    beliefs = ours.likelihood(torch.tensor(Z), at[0]), x64.vmap(lambda z: theirs.likelihood(z, t))(Z)
    for a, b in zip(beliefs[0][1:], beliefs[1][1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)

    def step(module, informed, believed, z, times):
        here, there = (module.level(informed.schedule, v) for v in times)
        known = module.Ancestral("posterior"), believed, z, here, there
        variance, pull = module._kernel(*known)[1], module._pull(*known)
        return informed.aimed(None, module.Cloud(z, None, believed, None, None), pull, variance, here, there)

    steps = (
        step(twisted, ours, beliefs[0], torch.tensor(Z), at),
        step(original, theirs, beliefs[1], x64.numpy.asarray(Z), (t, s)),
    )
    for a, b in zip(*steps, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


# ---- parts


def test_conjugate_gradients_are_the_dense_answer_row_by_row(monkeypatch):
    root = np.tril(np.random.default_rng(0).normal(size=(6, 6)))
    prior = Normal(schedules.Cosine(), torch.zeros(6).double(), torch.tensor(root @ root.T + 0.3 * np.eye(6)))
    y, at = torch.tensor([1.0, 0.3, -1.0]).double(), torch.tensor([[0], [2], [5]])
    seen = inverse.Gathered(y, torch.full_like(y, 0.3), at, torch.ones(3, 1).double())
    z, t = torch.tensor(np.random.default_rng(1).normal(size=(4, 6))), torch.tensor(0.4, dtype=torch.float64)
    dense = inverse.Informed(prior, seen)(z, t).mean
    monkeypatch.setattr(inverse, "DENSE", 1)
    assert np.allclose(inverse.Informed(prior, seen)(z, t).mean, dense, atol=1e-6)
    monkeypatch.setattr(inverse, "AT_ONCE", 13)
    assert np.allclose(inverse.Informed(prior, seen)(z, t).mean, dense, atol=1e-6), "rows in parts"


def test_what_is_not_symmetric_bounds_what_a_network_s_error_does():
    wild = Network(schedules.Cosine(), lambda z, at: z + 0.3 * torch.sin(7 * z.flip(1)), "noise")
    seen = inverse.Gathered(torch.ones(1), torch.full((1,), 0.01), torch.zeros(1, 1).long(), torch.ones(1, 1))
    z, times = torch.tensor([[0.4, -0.2]]), torch.tensor([0.3, 0.6, 0.9, 0.999])
    far = [
        max(float((informed(z, t).mean - wild(z, t).mean).abs()[0, 1]) for t in times)
        for informed in (inverse.Informed(wild, seen), inverse.Informed(wild, seen, wary=True))
    ]
    assert far[1] < 5 < far[0]


def test_a_network_that_fails_is_nan_and_no_error():
    broken = Network(schedules.Cosine(), lambda z, at: z * torch.nan, "v")
    seen = inverse.Rotated(torch.ones(2), torch.ones(2), torch.eye(2))
    found = inverse.Informed(broken, seen, wary=True).likelihood(torch.zeros(3, 2), torch.tensor(0.5))
    assert found.log_prob.isnan().all()


def test_resampling_keeps_shares():
    log_w = torch.log(torch.tensor([0.5, 0.25, 0.25, 1e-30]))
    draw = torch.Generator().manual_seed(0)
    counts = np.mean([np.bincount(twisted.systematic(draw, log_w), minlength=4) for _ in range(50)], 0)
    assert np.allclose(counts, [2, 1, 1, 0], atol=1e-6)
    assert float(twisted.effective(torch.full((8,), -np.log(8)))) == pytest.approx(8, rel=1e-5)
