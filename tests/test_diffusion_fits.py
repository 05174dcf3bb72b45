"""Fits of denoisers end to end: what is learned, drawn and told, of data whose law is known."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.diagnostics.samples import denoisers
from probgen.fitted import LogProb
from probgen.model import Model
from probgen.nets.diffusion.chains import Backward, Noised, levels
from probgen.nets.diffusion.denoiser import Normal
from probgen.nets.diffusion.flow import Solver
from probgen.nets.diffusion.schedules import Linear, Straight, linear_levels
from probgen.nets.diffusion.site import diffused
from probgen.run.conditioning import conditioned

MEAN, SD = np.array([0.5, -1.0]), np.array([0.6, 0.3])
ROWS = MEAN + SD * np.random.default_rng(0).normal(size=(2000, 2))
QUIET = {"progress": False}


def exact(schedule):
    """The denoiser of normal data, whose mean and variances are learned."""
    mean = numpyro.param("mean", jnp.zeros(2))
    variance = numpyro.param("variance", jnp.ones(2), constraint=dist.constraints.positive)
    return Normal(schedule, mean, jnp.diag(variance))


def straight(x=None):
    numpyro.sample("x", diffused(exact(Straight()), (2,)), obs=x)


def preserving(x=None):
    numpyro.sample("x", diffused(exact(Linear()), (2,)), obs=x)


def chain(x=None):
    steps = Backward(exact(linear_levels(50)), (2,), levels(linear_levels(50), 50), "beta")
    z = numpyro.sample("z", steps)
    mean, scale = steps.last(z[0])
    numpyro.sample("x", dist.Normal(mean, scale).to_event(1), obs=x)


def noising(x):
    numpyro.sample("z", Noised(x, linear_levels(50), levels(linear_levels(50), 50)))


def log_normal(x):
    return (-0.5 * ((x - MEAN) / SD) ** 2 - np.log(SD * np.sqrt(2 * np.pi))).sum(-1)


LEARNED = {"num_steps": 1500, "learning_rate": 0.02, "batch_size": 256, "ema": 0.99, **QUIET}


@pytest.fixture(scope="module")
def flow():
    return pg.fit(Model(straight, by_row=True), {"x": ROWS}, inference="flow_matching", **LEARNED)


@pytest.fixture(scope="module")
def levelled():
    return pg.fit(Model(chain, guide=noising, by_row=True), {"x": ROWS}, inference="svi", **LEARNED)


def test_flow_matching_finds_the_mean_and_the_variances(flow):
    """Sampling error of the rows' own moments is 3 % of a variance."""
    assert flow.parameters["mean"] == pytest.approx(MEAN, abs=0.05)
    assert flow.parameters["variance"] == pytest.approx(SD**2, rel=0.15)


def test_the_bound_of_a_chain_finds_the_mean_and_the_variances(levelled):
    assert levelled.parameters["mean"] == pytest.approx(MEAN, abs=0.05)
    assert levelled.parameters["variance"] == pytest.approx(SD**2, rel=0.15)


def test_densities_say_of_which_law_they_are(flow, levelled):
    x = ROWS[:200]
    ode, bound, own = flow.log_prob(x), levelled.log_prob(x), levelled.log_prob(x, method="ode")
    assert ode.kind == own.kind == "ODE density"
    assert bound.kind == "lower bound: chain"
    sde = flow.log_prob(x, method="bound")
    assert sde.kind == "lower bound: reverse SDE"
    truth = log_normal(x).mean()
    assert ode.value.mean() == pytest.approx(truth, abs=0.05)
    assert own.value.mean() == pytest.approx(truth, abs=0.06)  # at log SNR of the first level: x with a little noise
    for lower in (bound, sde):
        error = np.sqrt(np.mean(lower.stderr**2) / len(x))
        assert truth - 0.6 < lower.value.mean() < truth + 0.05 + 4 * error


@pytest.mark.parametrize("which", ["flow", "levelled"])
@pytest.mark.parametrize("sampler", ["own", "ancestral", "ddim", "heun", "dpm++", "sde"])
def test_draws_of_every_sampler_have_the_moments(request, which, sampler):
    """2000 draws: 5 standard errors of a mean, 8 % of a standard deviation, plus 2 % for steps."""
    fit = request.getfixturevalue(which)
    x = fit.sample(2000, sampler=sampler, **({} if sampler == "own" else {"num_steps": 64}))["x"]
    assert x.shape == (2000, 2)
    assert (abs(x.mean(0) - MEAN) < 0.03 + 5 * SD / np.sqrt(2000)).all(), sampler
    assert x.std(0) == pytest.approx(SD, rel=0.14), sampler


def test_times_are_those_that_were_asked_for(flow):
    own, same, other = (flow.sample(3, 1, sampler="dpm++", num_steps=6, times=t)["x"] for t in (None, "log_snr", "rho"))
    np.testing.assert_array_equal(own, same)
    assert (abs(own - other).max(1) > 1e-3).all()


def test_a_start_is_kept_as_its_level_says(flow):
    """SDEdit of a point: mean and variance by conjugate normals, given the share of noise."""
    start, level = np.array([1.1, -0.7]), 0.3
    x = flow.sample(4000, start=start, level=level, num_steps=64)["x"]
    t = 1 / (1 + np.sqrt((1 - level) / level))  # straight paths: sigma^2 / alpha^2 = level / (1 - level)
    alpha, sigma = 1 - t, t
    total = alpha**2 * SD**2 + sigma**2
    mean = MEAN + alpha**2 * SD**2 / total * (start - MEAN)
    variance = SD**2 * sigma**2 / total + (alpha * SD**2 / total) ** 2 * sigma**2
    assert x.mean(0) == pytest.approx(mean, abs=0.06)
    assert x.var(0) == pytest.approx(variance, rel=0.2)


def test_points_between_two_lie_between(flow):
    between = flow.interpolate(ROWS[0], ROWS[1], 5)["x"]
    assert between[0] == pytest.approx(ROWS[0], abs=0.02)
    assert between[-1] == pytest.approx(ROWS[1], abs=0.02)
    with pytest.raises(ValueError, match="give it in their units"):
        flow.interpolate(ROWS[0], 255 * ROWS[1])


def test_the_network_is_no_worse_than_a_linear_one_at_any_level(flow):
    found = flow.losses()
    assert found["error"] == pytest.approx(np.ones(10), abs=0.15)  # of normal data a linear denoiser is the best
    assert np.all(np.diff(found["log_ratio"]) > 0)


def test_numbers_of_steps_and_levels_are_whole(flow):
    for ask in (lambda: flow.trajectory(2, num_steps=2.5), lambda: flow.losses(2.5)):
        with pytest.raises(ValueError, match=r"is 2\.5; expected a whole number"):
            ask()


def test_a_trajectory_begins_at_noise_and_ends_at_a_point(flow):
    path = flow.trajectory(4, num_steps=10)
    assert path["z"].shape == (4, len(path["times"]), 2)
    assert path["times"][0] == 1
    assert path["times"][-1] == 0
    even, rho = (flow.trajectory(2, num_steps=10, times=t)["times"] for t in ("even", "rho"))
    assert even[:-1] == pytest.approx(np.linspace(1, even[-2], len(even) - 1), abs=1e-5)
    assert not np.allclose(even, rho)
    with pytest.raises(ValueError, match="times is 'evn'; known: "):
        flow.trajectory(2, times="evn")


def test_the_verdict_of_what_is_exact_passes_and_names_both_laws(flow):
    found = {f.check: f for f in flow.diagnose().findings}
    assert found["laws"].status == found["levels"].status == found["density"].status == "pass"
    assert found["two_sample"].status == found["coverage"].status == "pass"


@pytest.mark.parametrize(("more", "status"), [(0.0, "pass"), (0.3, "warn"), (1.0, "fail")])
def test_a_density_that_sums_to_more_than_one_does_not_pass(flow, monkeypatch, more, status):
    """As many nats too much a row: its mass is their exponential. `laws` leaves that open."""
    asked = denoisers._asked

    def over(fit, rows, **how):
        found = asked(fit, rows, **how)
        return found._replace(value=found.value + more) if how["method"] == "ode" else found

    monkeypatch.setattr(denoisers, "_asked", over)
    found = denoisers._mass(SimpleNamespace(fit=flow))
    assert found.status == status
    assert found.value == pytest.approx(np.exp(more), rel=0.15)


def eight_steps(x=None):
    numpyro.sample("x", diffused(exact(Straight()), (2,), solver=Solver("euler", num_steps=8)), obs=x)


@pytest.mark.parametrize(("apart", "status"), [(0.01, "pass"), (0.2, "warn"), (0.9, "fail")])
def test_few_steps_of_the_programs_own_solver_are_told(apart, status):
    """Draws of the program, its energy and `mle` go by eight steps of Euler's, `log_prob` by a solver that holds its error."""
    target = conditioned(Model(eight_steps, by_row=True), {"x": ROWS})[1]
    assert target.rough_solver() == "euler, 8 steps"
    assert conditioned(Model(straight, by_row=True), {"x": ROWS})[1].rough_solver() == ""
    value = log_normal(ROWS[:5])
    fit = SimpleNamespace(
        target=target,
        held_out={"x": ROWS[:5]},
        energy=lambda x: apart - log_normal(x),
        _laws=(None, LogProb(value, 0 * value, "ODE density")),
    )
    found = denoisers._density(SimpleNamespace(fit=fit))
    assert found.status == status
    if status != "pass":
        assert found.value == pytest.approx(apart)
        assert "euler, 8 steps" in found.message


def test_points_about_rows_come_with_their_density():
    """A normal inside of them sums to one by importance sampling, within four standard errors."""
    rows = np.array([3.0, -1.0]) + np.array([2.0, 0.1]) * np.random.default_rng(0).random((2000, 2))
    x, log_q = denoisers._about(rows, 400)
    normal = np.exp(-0.5 * (((x - [4, -0.95]) / [0.3, 0.015]) ** 2).sum(1)) / (2 * np.pi * 0.3 * 0.015)
    ratio = normal * np.exp(-log_q)
    assert ratio.mean() == pytest.approx(1.0, abs=4 * ratio.std() / 20)
    assert ratio.std() < 2.5


def test_a_network_that_learned_nothing_does_not_pass():
    fit = pg.fit("velocity", data="two_moons", inference="flow_matching", num_steps=10, **QUIET)
    verdict = fit.diagnose()
    assert verdict.status == "fail", verdict


def test_maximum_likelihood_through_the_ode():
    fit = pg.fit(
        Model(preserving, by_row=True),
        {"x": ROWS},
        inference="mle",
        num_steps=40,
        learning_rate=0.1,
        batch_size=64,
        **QUIET,
    )
    assert fit.parameters["mean"] == pytest.approx(MEAN, abs=0.2)


def test_a_killed_run_goes_on_bit_for_bit(tmp_path, killed):
    model, settings = Model(straight, by_row=True), {"num_steps": 60, "batch_size": 16, **QUIET}
    whole = pg.fit(model, {"x": ROWS[:100]}, inference="flow_matching", **settings)
    killed(pg.fit, model, {"x": ROWS[:100]}, inference="flow_matching", out=tmp_path / "run", **settings)
    resumed = pg.resume(tmp_path / "run", program=model, progress=False)
    for name, value in whole.state.items():
        assert np.array_equal(value, resumed.state[name]), name


def test_a_fit_is_written_down_and_read(flow, tmp_path):
    flow.save(tmp_path / "run")
    again = pg.load(tmp_path / "run", program=Model(straight, by_row=True))
    assert np.array_equal(again.sample(5)["x"], flow.sample(5)["x"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sampler": "dimm"}, "Known: own, ancestral, ddim"),
        ({"sampler": "ddim", "num_steps": 0}, "num_steps"),
        ({"num_steps": 10}, "say which"),
        ({"times": "rho"}, "say which"),
        ({"sampler": "dpm++", "times": "late"}, "known: even, log_snr, rho"),
        ({"start": MEAN, "level": 1.5}, "level is 1.5"),
        ({"level": 0.5}, "level is of a start"),
        ({"start": MEAN, "level": [0.2, 0.5]}, r"level is \[0.2, 0.5\]; expected one number"),
        ({"guidance": np.ones(2)}, "expected one number"),
        ({"sampler": "ddim", "times": np.array([1.0, 0.5])}, "known: even, log_snr, rho"),
        ({"sampler": None}, "Unknown sampler None. Known: own, ancestral"),
        ({"start": np.zeros(3)}, "expected \\(2,\\)"),
        ({"start": np.full(2, 1e6)}, "in their units"),
        ({"guidance": 2.0}, "no inputs of whole numbers"),
    ],
)
def test_bad_ways_to_draw_are_refused(flow, given, message):
    with pytest.raises(ValueError, match=message):
        flow.sample(2, **given)


def test_bad_data_and_settings_are_refused():
    whole = np.random.default_rng(0).integers(-5, 300, size=(50, 3))
    for model in ("velocity", "score_vp", "score_ve", "edm", "score_sub_vp"):
        with pytest.raises(ValueError, match="dequantise"):
            pg.fit(model, data=whole, inference="denoising", **QUIET)
    with pytest.raises(ValueError, match="num_levels is 0"):
        pg.fit("ddpm", data={"x": ROWS, "dim": 2, "num_levels": 0}, inference="svi", **QUIET)
    with pytest.raises(ValueError, match=r"num_levels is 2\.5; expected a whole number"):
        pg.fit("ddpm", data={"x": ROWS, "dim": 2, "num_levels": 2.5}, inference="denoising", **QUIET)
    for num in (0, 1):  # one level is no chain from noise; a batch once hid what the program says
        with pytest.raises(ValueError, match=f"num_levels is {num}; it must be at least 2"):
            pg.fit("vdm", {"x": ROWS, "dim": 2, "num_levels": num}, inference="svi", batch_size=10, **QUIET)
    with pytest.raises(Incompatible, match="Diffused"):
        pg.fit("realnvp", data=ROWS, inference="flow_matching", **QUIET)
    with pytest.raises(Incompatible, match="log ratios"):
        pg.fit(Model(chain, guide=noising, by_row=True), {"x": ROWS}, inference="svi", objective="iwae", **QUIET)
    with pytest.raises(ValueError, match="Choose log_mean and log_sd among them"):
        pg.fit("edm", data=ROWS, inference="denoising", times="normal", log_mean=50.0, **QUIET)
    with pytest.raises(ValueError, match="coupling is 'ot'"):
        pg.fit("velocity", data=ROWS, inference="flow_matching", coupling="ot", **QUIET)


def other_noise(x):
    numpyro.sample("z", Noised(x, linear_levels(50, high=0.01), levels(linear_levels(50), 50)))


def fewer_levels(x):
    numpyro.sample("z", Noised(x, linear_levels(40), levels(linear_levels(40), 40)))


@pytest.mark.parametrize("guide", [other_noise, fewer_levels])
def test_a_guide_of_another_noise_is_refused(guide):
    with pytest.raises(ValueError, match=r"noise is not the program's|has 40 levels|draws 'z'|shape"):
        pg.fit(Model(chain, guide=guide, by_row=True), {"x": ROWS}, inference="svi", num_steps=5, **QUIET)


def test_a_velocity_is_one_in_its_own_schedules_time():
    """A network that says the velocity of DDPM's levels has the density of the exact denoiser of the same data."""
    import equinox as eqx
    import jax

    from probgen.nets.diffusion.denoiser import Network
    from probgen.nets.diffusion.flow import ProbabilityFlow, Solver, density

    class Exact(eqx.Module):
        truth: Normal

        def __call__(self, z, level):
            schedule = self.truth.schedule
            times = jnp.linspace(schedule.first, 1.0, 4001)
            t = jnp.interp(level, -0.5 * jax.vmap(schedule.log_snr)(times), times)
            alpha, sigma = schedule.scales(t)
            return self.truth.velocity(z * jnp.sqrt(alpha**2 + sigma**2), t)

    with jax.enable_x64(True):
        truth = Normal(linear_levels(100), jnp.zeros(2), jnp.diag(jnp.array([0.3, 0.8])))
        said = Network(truth.schedule, Exact(truth), "velocity")
        x, solver = jnp.array([[0.2, -0.5], [1.0, 0.1]]), Solver(rtol=1e-4, atol=1e-4)
        ours, exact = (density(ProbabilityFlow(d), x, solver=solver).value for d in (said, truth))
        assert np.asarray(ours) == pytest.approx(np.asarray(exact), abs=0.02)


class Rising(Linear):
    def log_snr(self, t):
        return -5.0 + 10.0 * t


def rising(x=None):
    numpyro.sample("x", diffused(exact(Rising()), (2,)), obs=x)


def little_noise(x=None):
    numpyro.sample("x", diffused(exact(Linear(0.1, 2.0)), (2,)), obs=x)


def test_the_likelihoods_weights_are_the_integral_however_times_are_drawn():
    """Of the exact denoiser E|e - e(z)|^2 is known, and the mean loss is 1/2 log of (1 + v SNR) at both ends, less each other."""
    import jax

    from probgen.inference.denoising.denoising import Denoising

    variance = 0.3
    with jax.enable_x64(True):
        denoiser = Normal(Linear(), jnp.zeros(1), jnp.eye(1) * variance)
        nodes = [(a, b) for a in (-1.0, 1.0) for b in (-1.0, 1.0)]  # exact for squares of normals

        def mean(learner, count=4000):
            def one(u):
                t, share = jax.jvp(lambda u: learner.time(denoiser, u), (u,), (jnp.ones_like(u),))
                points = [(jnp.array([a * variance**0.5]), jnp.array([b])) for a, b in nodes]
                return sum(learner.loss(denoiser, x, e, t, share) for x, e in points) / len(nodes)

            return float(jnp.mean(jax.vmap(one)((jnp.arange(count) + 0.5) / count)))

        within = [float(denoiser.schedule.log_snr(t)) for t in (1e-5, 1.0)]
        exact = 0.5 * np.log((1 + variance * np.exp(within[0])) / (1 + variance * np.exp(within[1])))
        even, normal = (Denoising(weighting="likelihood", times=times, log_sd=3.0) for times in ("even", "normal"))
        assert mean(normal) == pytest.approx(exact, rel=0.02)
        assert mean(even, 200_000) == pytest.approx(exact, rel=0.02)


def test_a_schedule_that_rises_is_refused():
    with pytest.raises(ValueError, match="does not fall with time"):
        pg.fit(Model(rising, by_row=True), {"x": ROWS}, inference="denoising", num_steps=5, **QUIET)


def test_what_is_left_of_a_point_at_the_end_is_told(flow):
    fit = pg.fit(Model(little_noise, by_row=True), {"x": ROWS}, inference="denoising", num_steps=5, **QUIET)
    found = {f.check: f for f in fit.diagnose().findings}
    assert found["end"].status != "pass"
    assert next(f for f in flow.diagnose().findings if f.check == "end").status == "pass"
