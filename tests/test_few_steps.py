"""Jumps in few steps: by closed forms of normal data, whose flow is an affine map, and fits end to end."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.inference.denoising.consistency import Consistency
from probgen.inference.denoising.mean_flow import MeanFlow
from probgen.model import Model
from probgen.nets.diffusion import sampling as jumps
from probgen.nets.diffusion import schedules
from probgen.nets.diffusion.denoiser import Denoiser, Network, Normal, Posterior
from probgen.nets.diffusion.networks import between_times, perceptron
from probgen.nets.diffusion.site import diffused

MEAN, ROOT = np.array([0.5, -1.0]), np.array([[1.2, 0.4], [0.4, 0.5]])
COVARIANCE = ROOT @ ROOT
ROWS = MEAN + np.random.default_rng(0).normal(size=(4000, 2)) @ ROOT
SCHEDULES = [schedules.Straight(), schedules.Elucidated(), schedules.Linear(), schedules.linear_levels(1000)]
SMALL = {"width": 32, "depth": 2}
QUICK = {"progress": False, "batch_size": 128, "ema": 0.99, "learning_rate": 3e-3, "num_steps": 1200}


class Exact(Denoiser):
    """The flow's map of N(MEAN, COVARIANCE) as both kinds of jump: z_s = alpha_s m + S_s^1/2 S_t^-1/2 (z_t - alpha_t m)."""

    schedule: schedules.Schedule

    def at(self, z, t, s):
        (alpha, sigma), (alpha_s, sigma_s) = self.schedule.scales(t), self.schedule.scales(s)
        values, axes = np.linalg.eigh(COVARIANCE)
        scale = jnp.sqrt((alpha_s**2 * values + sigma_s**2) / (alpha**2 * values + sigma**2))
        return alpha_s * MEAN + axes @ (scale * (axes.T @ (z - alpha * MEAN)))

    def __call__(self, z, t):
        end = jumps.earliest(self.schedule)
        (alpha, sigma), (alpha_e, sigma_e) = self.schedule.scales(t), self.schedule.scales(end)
        left = sigma_e / sigma
        share = jnp.where(t > end, alpha_e - left * alpha, 1.0)  # at the end any D will do
        return Posterior((self.at(z, t, end) - left * z) / share, jnp.zeros(()))

    def mean_velocity(self, z, t, s):
        return (z - self.at(z, t, s)) / (t - s)


def normal(schedule):
    return Normal(schedule, jnp.array(MEAN), jnp.array(COVARIANCE))


def mean_loss(learner, denoiser, teacher, *times):
    """The loss that is told, of many points and times."""
    k_x, k_noise = jax.random.split(jax.random.key(0))
    x = MEAN + jax.random.normal(k_x, (len(times[0]), 2)) @ ROOT
    noise = jax.random.normal(k_noise, x.shape)
    with jax.default_matmul_precision("highest"):
        one = jax.jit(jax.vmap(lambda x, noise, *t: learner.of_jump(denoiser, teacher, x, noise, *t)[1]))
        return float(one(x, noise, *times).mean())


# ---- closed forms


def test_the_consistency_function_of_a_normal_as_in_the_book():
    """VE, m = 1, s = .5, sigma = 2, x = 3: m + (x - m) s / sqrt(s^2 + sigma^2)."""
    schedule = schedules.Exploding(low=1e-3, high=10.0)
    teacher = Normal(schedule, jnp.ones(1), jnp.full((1, 1), 0.25))
    t = jnp.log(2 / 1e-3) / jnp.log(1e4)
    z = jnp.array([3.0])
    for at, to in itertools.pairwise(jnp.linspace(t, 0, 200)):
        z = jumps.to_the_end(teacher, z, at, to)  # a step of DDIM's
    assert float(z[0]) == pytest.approx(1.485071, abs=1e-2)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_at_the_earliest_time_a_point_stays_whatever_the_network_says(schedule):
    class Wild(Denoiser):
        schedule: schedules.Schedule

        def __call__(self, z, t):
            return Posterior(100 * jnp.sin(7 * z) + 3, jnp.ones(()))

    z, end = jnp.array([0.3, -1.7]), jumps.earliest(schedule)
    assert np.array_equal(jumps.to_the_end(Wild(schedule), z, end, end), z)
    assert not np.allclose(jumps.to_the_end(Wild(schedule), z, jnp.array(0.5), end), z, atol=0.1)


@pytest.mark.parametrize("schedule", SCHEDULES[:3], ids=lambda s: type(s).__name__)
def test_the_loss_of_the_exact_consistency_function_is_that_of_the_teacher_s_step(schedule):
    """Neighbours of 128 levels are close for any function; that of the exact one is what a step of Heun's misses."""
    u = (jnp.arange(512) + 0.5) / 512
    times = u, jnp.zeros(512, bool), jnp.ones(512, int)
    right = mean_loss(Consistency(), Exact(schedule), normal(schedule), *times)
    wrong = mean_loss(Consistency(), normal(schedule), normal(schedule), *times)
    assert right < 2e-6
    assert wrong > 30 * right


def test_the_loss_of_the_exact_mean_velocity_is_zero():
    rng = np.random.default_rng(1)
    times = jnp.array(rng.uniform(0.05, 1, 512)), jnp.array(rng.uniform(0.05, 1, 512))
    straight = schedules.Straight()
    assert mean_loss(MeanFlow(), Exact(straight), normal(straight), *times) < 1e-3

    class Off(Exact):
        def mean_velocity(self, z, t, s):
            return super().mean_velocity(z, t, s) + 0.1 * t

    assert mean_loss(MeanFlow(), Off(straight), normal(straight), *times) > 0.05


@pytest.mark.parametrize("num_steps", [1, 2, 4])
@pytest.mark.parametrize("kind", ["consistency", "mean_flow"])
def test_draws_by_exact_jumps_are_of_the_data_s_law(kind, num_steps):
    """20,000 draws at five standard errors; the noise of the end is of data of variance one, a part in thousands here."""
    denoiser = Exact(schedules.Straight() if kind == "mean_flow" else schedules.Elucidated())
    keys = jax.random.split(jax.random.key(3), 20_000)
    z = np.asarray(jax.jit(jax.vmap(lambda key: jumps.DRAWN[kind](denoiser, key, (2,), num_steps)))(keys), float)
    white = np.linalg.solve(ROOT, (z - MEAN).T)
    assert np.abs(white.mean(1)).max() < 5 / np.sqrt(20_000)
    assert np.abs(np.cov(white) - np.eye(2)).max() < 5 * np.sqrt(2 / 20_000)


def test_levels_without_a_teacher_narrow_normal_data():
    """E[z_s | z_t] of N(0, 1) with the same noise is (alpha_t alpha_s + sigma_t sigma_s) / (alpha_t^2 + sigma_t^2) z_t."""
    schedule = schedules.Elucidated()
    times = jumps.ladder(schedule, 16)
    alpha, sigma = (np.asarray(v, float) for v in jax.vmap(schedule.scales)(times))
    gain = np.prod((alpha[1:] * alpha[:-1] + sigma[1:] * sigma[:-1]) / (alpha[:-1] ** 2 + sigma[:-1] ** 2))
    left = gain * np.hypot(alpha[0], sigma[0]) / np.hypot(alpha[-1], sigma[-1])
    assert float(jumps.narrowed(schedule, 16)) == pytest.approx(left, rel=1e-4)
    assert left < 0.9 < 0.98 < float(jumps.narrowed(schedule, 128))


# ---- fits


DATA = {"x": ROWS, "dim": 2} | SMALL


@pytest.fixture(scope="module")
def velocity():
    return pg.fit("velocity", DATA, inference="flow_matching", **QUICK)


@pytest.fixture(scope="module")
def mean_flow(velocity):
    return pg.fit("mean_flow", DATA, inference="mean_flow", init=velocity, **QUICK)


@pytest.fixture(scope="module")
def consistency(velocity):
    return pg.fit("velocity", DATA, inference="consistency", init=velocity, **QUICK)


def agrees(x, mean=0.1, covariance=0.15):
    assert x.mean(0) == pytest.approx(MEAN, abs=mean)
    assert np.cov(x.T) == pytest.approx(COVARIANCE, abs=covariance)


@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize("which", ["mean_flow", "consistency"])
def test_one_step_of_what_was_learned_of_a_fit_draws_the_data_s_law(request, which, num_steps):
    agrees(request.getfixturevalue(which).sample(4000, num_steps=num_steps)["x"])


def test_one_step_of_the_teacher_draws_one_point(velocity):
    x = velocity.sample(1000, sampler="euler", num_steps=1)["x"]
    assert np.linalg.det(np.cov(x.T)) < 0.05 * np.linalg.det(COVARIANCE)


def test_a_mean_velocity_is_learned_of_rows_with_a_velocity_beside():
    fit = pg.fit("mean_flow", DATA, inference="mean_flow", **QUICK | {"num_steps": 2000})
    agrees(fit.sample(4000)["x"], covariance=0.25)
    exact = (-0.5 * np.linalg.solve(ROOT, (ROWS - MEAN).T) ** 2 - 0.5 * np.log(2 * np.pi)).sum(0)
    exact -= np.log(np.linalg.det(ROOT))
    assert fit.log_prob(ROWS[:200], method="ode").value.mean() == pytest.approx(exact[:200].mean(), abs=0.1)


def test_consistency_without_a_teacher_is_as_narrow_as_told():
    """At 16 levels a tenth of the spread is lost: the draws' and what the verdict says."""
    data = {"x": np.random.default_rng(2).normal(size=(4000, 1)), "dim": 1} | SMALL
    fit = pg.fit("edm", data, inference="consistency", num_levels=16, first_levels=8, **QUICK)
    told = {f.check: f for f in fit.diagnose().findings}["narrow"]
    assert told.status == "warn"
    assert told.value == pytest.approx(float(jumps.narrowed(schedules.Elucidated(), 16)))
    assert fit.sample(4000)["x"].std() == pytest.approx(told.value, abs=0.05)


def test_the_velocity_of_the_teacher_stays_and_its_density_is_said_to_be_another_law(velocity, mean_flow):
    for name, value in velocity.answer.items():
        assert np.array_equal(mean_flow.answer[name], value), name
    own, beside = velocity.log_prob(ROWS[:20]), mean_flow.log_prob(ROWS[:20], method="ode")
    assert beside.value == pytest.approx(own.value, abs=1e-3)
    assert "no law of jumps" in beside.kind
    with pytest.raises(Incompatible, match="jumps"):
        mean_flow.log_prob(ROWS[:20])


@pytest.mark.parametrize("which", ["mean_flow", "consistency"])
def test_the_verdict_is_of_the_draws_that_are_made(request, which):
    fit = request.getfixturevalue(which)
    verdict = fit.diagnose()
    found = {f.check: f.status for f in verdict.findings}
    assert found["two_sample"] == found["coverage"] == found["quality"] == "pass"
    assert not {"laws", "levels", "narrow"} & set(found)
    assert any("1 evaluation" in note for note in fit.target.notes)


def energy(a, b):
    """The energy distance of two samples."""
    between = lambda x, y: np.linalg.norm(x[:, None] - y[None], axis=-1).mean()  # noqa: E731
    return 2 * between(a, b) - between(a, a) - between(b, b)


def test_one_step_on_two_moons_beside_one_and_four_of_the_teacher():
    data = {"x": np.asarray(pg.data.load("two_moons"), float), "dim": 2} | SMALL
    teacher = pg.fit("velocity", data, inference="flow_matching", **QUICK)
    fit = pg.fit("mean_flow", data, inference="mean_flow", init=teacher, **QUICK)
    rows = teacher.held_out["x"]
    few = [energy(teacher.sample(500, sampler="euler", num_steps=n)["x"], rows) for n in (1, 4)]
    assert energy(fit.sample(500)["x"], rows) < min(0.05 * few[0], 0.7 * few[1])


# ---- labels


def labelled(label, x=None):
    given = jax.nn.one_hot(label, 2)
    v = eqx.Partial(perceptron("net", 1, 32, 2, 2), given=given)
    u = eqx.Partial(between_times("mean", 1, 32, 2, 2), given=given)
    numpyro.sample("x", diffused(Network(schedules.Straight(), v, "velocity", mean=u), (1,)), obs=x)


def test_jumps_know_labels():
    label = np.arange(2000) % 2
    data = {"x": (2 * label - 1 + 0.3 * np.random.default_rng(4).normal(size=2000))[:, None], "label": label}
    model, quick = Model(labelled, by_row=True), QUICK | {"num_steps": 800}
    teacher = pg.fit(model, data, inference="flow_matching", **quick)
    for learner in ("consistency", "mean_flow"):
        fit = pg.fit(model, data, inference=learner, init=teacher, **quick)
        for value in (0, 1):
            x = fit.sample(1000, label=value)["x"]
            assert x.mean() == pytest.approx(2 * value - 1, abs=0.15)
            assert x.std() == pytest.approx(0.3, abs=0.15)
        with pytest.raises(Incompatible, match="guidance"):
            fit.sample(4, label=1, guidance=2.0)


# ---- refused


@pytest.mark.parametrize("which", ["mean_flow", "consistency"])
@pytest.mark.parametrize(
    "ask",
    ["sampler", "start", "log_prob", "bound", "losses", "trajectory", "condition", "interpolate", "energy", "log_z"],
)
def test_a_fit_of_jumps_is_no_denoiser(request, which, ask):
    fit = request.getfixturevalue(which)
    asked = {
        "sampler": lambda: fit.sample(2, sampler="heun"), "start": lambda: fit.sample(2, start=ROWS[0], level=0.5),
        "log_prob": lambda: fit.log_prob(ROWS[:2]), "bound": lambda: fit.log_prob(ROWS[:2], method="bound"),
        "condition": lambda: fit.condition(x=ROWS[0]), "interpolate": lambda: fit.interpolate(ROWS[0], ROWS[1]),
    }.get(ask, getattr(fit, ask, None))  # fmt: skip
    with pytest.raises(Incompatible, match="learned jumps"):
        asked()


def test_more_jumps_than_levels_are_refused(consistency):
    with pytest.raises(ValueError, match="1 to 128"):
        consistency.sample(2, num_steps=129)
    with pytest.raises(ValueError, match="expected 1"):
        consistency.sample(2, num_steps=0)
    with pytest.raises(ValueError, match="at most num_levels"):
        Consistency(num_levels=8, jumps=9)
    with pytest.raises(ValueError, match="doubled"):
        Consistency(num_levels=100)


def preserving(x=None):
    numpyro.sample("x", diffused(Network(schedules.Linear(), perceptron("net", 2, 32, 2), "velocity"), (2,)), obs=x)


@pytest.mark.parametrize("learner", ["consistency", "reflow"])
def test_a_teacher_of_another_program_is_refused(velocity, learner):
    """A network under another schedule has the same shapes, and another flow."""
    other = pg.fit(Model(preserving, by_row=True), {"x": ROWS}, inference="flow_matching", **QUICK | {"num_steps": 50})
    with pytest.raises(Incompatible, match="another program"):
        pg.fit("velocity", DATA, inference=learner, init=other, **QUICK)


def test_a_teacher_in_other_units_of_other_shapes_or_of_jumps_is_refused(velocity, consistency):
    with pytest.raises(Incompatible, match="what the network sees"):
        pg.fit("velocity", DATA | {"spread": 2.0}, inference="consistency", init=velocity, **QUICK)
    with pytest.raises(ValueError, match="shape"):
        pg.fit("velocity", DATA | {"width": 16}, inference="consistency", init=velocity, **QUICK)
    with pytest.raises(Incompatible, match="learned by consistency"):
        pg.fit("velocity", DATA, inference="consistency", init=consistency, **QUICK)


def test_programs_that_cannot_jump_are_refused():
    with pytest.raises(Incompatible, match="two times"):
        pg.fit("velocity", DATA, inference="mean_flow", **QUICK)
    with pytest.raises(Incompatible, match="says the noise"):
        pg.fit("score_vp", DATA, inference="consistency", **QUICK)


# ---- runs


@pytest.mark.parametrize("learner", ["consistency", "mean_flow"])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, killed, velocity, learner):
    model = {"consistency": "velocity", "mean_flow": "mean_flow"}[learner]
    settings = {"progress": False, "batch_size": 32, "num_steps": 60, "init": velocity}
    whole = pg.fit(model, DATA, inference=learner, **settings)
    killed(pg.fit, model, DATA, inference=learner, out=tmp_path / "run", **settings)
    resumed = pg.resume(tmp_path / "run", progress=False)
    for name, value in whole.state.items():
        assert np.array_equal(value, resumed.state[name]), name
    assert np.array_equal(whole.sample(5, seed=1)["x"], resumed.sample(5, seed=1)["x"])
    assert np.array_equal(whole.held_out["x"], resumed.held_out["x"])


def test_in_double_precision_of_a_teacher_in_single(velocity):
    settings = {"progress": False, "num_steps": 10, "precision": "float64", "init": velocity}
    fits = [
        pg.fit(m, DATA, inference=i, **settings) for m, i in (("velocity", "consistency"), ("mean_flow", "mean_flow"))
    ]
    assert all(fit.sample(3, num_steps=2)["x"].dtype == np.float64 for fit in fits)


def test_the_report_of_jumps_is_written(tmp_path, consistency):
    consistency.report(tmp_path / "jumps.html")
    assert "two_sample" in (tmp_path / "jumps.html").read_text()
