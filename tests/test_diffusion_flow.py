"""A velocity as a flow: densities against closed forms, probes against their variance, solves that stop early, gradients."""

import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy import linalg, stats

from probgen.nets.diffusion import schedules
from probgen.nets.diffusion.denoiser import Normal
from probgen.nets.diffusion.flow import ContinuousFlow, ProbabilityFlow, Solver, carried, density, moved

MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[1.0, 0.9], [0.9, 1.0]])
POINTS = np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, 12)
EXACT = stats.multivariate_normal(MEAN, COVARIANCE).logpdf(POINTS)
SCHEDULES = {
    "levels": schedules.linear_levels(50), "linear": schedules.Linear(), "sub": schedules.SubPreserving(),
    "cosine": schedules.Cosine(), "log_snr": schedules.LinearLogSNR(), "exploding": schedules.Exploding(),
    "elucidated": schedules.Elucidated(), "straight": schedules.Straight(),
}  # fmt: skip


class Affine(eqx.Module):
    """The velocity whose marginals are those of straight paths from N(0, I) to N(mean, covariance)."""

    mean: jax.Array
    covariance: jax.Array

    def __call__(self, x, u):
        eye = jnp.eye(len(self.mean))
        total = u**2 * self.covariance + (1 - u) ** 2 * eye
        return self.mean + (u * self.covariance - (1 - u) * eye) @ jnp.linalg.solve(total, x - u * self.mean)


class Spread(eqx.Module):
    """x to twice x, of any shape: log |det| = D log 2."""

    def __call__(self, x, u):
        return jnp.log(2.0) * x


class Waves(eqx.Module):
    """Every coordinate shrinks in waves; of a point at rest the log volume is all that a step can get wrong."""

    def __call__(self, x, u):
        return -7.0 * jnp.sin(40 * u) ** 2 * x


def affine(dtype=jnp.float32):
    return Affine(jnp.asarray(MEAN, dtype), jnp.asarray(COVARIANCE, dtype))


def noise(*shape):
    return dist.Normal(0, 1).expand(shape).to_event(len(shape))


def flow(velocity, shape=2, **settings):
    transform = ContinuousFlow(velocity, shape, **settings)
    return dist.TransformedDistribution(noise(*transform.shape), [transform])


def of_a_path(schedule, first):
    """What the probability flow of normal data makes of N(0, sigma(1)^2): in units of the marginals' deviations all stand still."""
    (a1, s1), (a0, s0) = ([float(v) for v in schedule.scales(jnp.asarray(t))] for t in (1.0, first))
    roots = [np.real(linalg.sqrtm(a**2 * COVARIANCE + s**2 * np.eye(2))) for a, s in ((a0, s0), (a1, s1))]
    push = roots[0] @ np.linalg.inv(roots[1])
    return stats.multivariate_normal(a0 * MEAN - push @ (a1 * MEAN), s1**2 * push @ push.T)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_probability_flow_of_normal_data_has_its_density(name):
    schedule = SCHEDULES[name]
    velocity = ProbabilityFlow(Normal(schedule, *affine().__dict__.values()))
    got = density(velocity, jnp.asarray(POINTS, jnp.float32), scale=velocity.scale)
    exact = of_a_path(schedule, schedule.first).logpdf(POINTS)
    assert np.abs(got.value - exact).max() < 3e-4
    assert not got.probes.any()


def test_straight_paths_to_a_normal_have_its_density_in_every_way_of_asking():
    x = jnp.asarray(POINTS, jnp.float32)
    learned = flow(affine())
    np.testing.assert_allclose(jax.jit(learned.log_prob)(x), EXACT, atol=3e-5)
    np.testing.assert_allclose(jax.jit(lambda d, x: jax.vmap(d.log_prob)(x))(learned, x), EXACT, atol=3e-5)


def test_draws_come_with_their_density():
    y, kept = flow(affine()).sample_with_intermediates(jax.random.key(0), (3, 4))
    assert y.shape == (3, 4, 2)
    again = flow(affine()).log_prob(y, kept)
    np.testing.assert_allclose(again, stats.multivariate_normal(MEAN, COVARIANCE).logpdf(y), atol=5e-4)
    np.testing.assert_allclose(flow(affine()).sample(jax.random.key(0), (3, 4)), y, atol=2e-4)


def test_the_error_shrinks_with_the_tolerance_in_float64():
    with jax.enable_x64(True):
        x = jnp.asarray(POINTS)
        for tolerance in (1e-5, 1e-9):
            got = density(affine(jnp.float64), x, solver=Solver("dopri8", rtol=tolerance, atol=tolerance))
            assert got.value.dtype == jnp.float64
            assert np.abs(got.value - EXACT).max() < 3 * tolerance


def test_a_density_on_the_plane_integrates_to_one():
    net = eqx.nn.MLP(3, 2, 16, 2, jnp.tanh, key=jax.random.key(3))
    wavy = flow(lambda x, u: 3 * net(jnp.append(x, u)), solver=Solver("tsit5", num_steps=12))
    side = jnp.linspace(-9, 9, 121)
    grid = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
    total = jnp.exp(jax.jit(wavy.log_prob)(grid)).sum() * (side[1] - side[0]) ** 2
    assert abs(total - 1) < 2e-3


def test_pictures_have_events_of_three_axes_and_a_scale():
    scaled = dist.transforms.AffineTransform(1.0, 3.0)
    pictures = dist.TransformedDistribution(noise(1, 6, 6), [ContinuousFlow(Spread(), (1, 6, 6), num_probes=1), scaled])
    x = jax.random.normal(jax.random.key(0), (3, 1, 6, 6))
    np.testing.assert_allclose(pictures.log_prob(x), dist.Normal(1, 6).log_prob(x).sum((1, 2, 3)), rtol=1e-5)
    with pytest.raises(ValueError, match=r"points of shape \(1, 6, 6\); got an array of shape \(1, 6, 5\)"):
        pictures.log_prob(x[0, ..., 1:])


def test_probes_err_as_their_variance_says():
    rows = jnp.tile(jnp.asarray(POINTS[:1], jnp.float32), (400, 1))
    got = density(affine(), rows, exact=False, num_probes=16)
    per_probe = np.std(got.value, ddof=1) * 4
    assert abs(per_probe - 1.4722) < 4 * 1.4722 / np.sqrt(2 * 400)  # one in 16,000
    assert abs(np.sqrt(np.mean(got.probes**2)) * 4 / 1.4722 - 1) < 0.05
    assert abs(np.mean(got.value) - EXACT[0]) < 4 * 1.4722 / 4 / 20
    apart = Affine(jnp.zeros(2), jnp.diag(jnp.array([0.2, 3.0])))
    assert np.abs(density(apart, rows[:2], exact=False).probes).max() < 1e-5  # of a diagonal Jacobian


def test_normal_probes_err_more_than_signs():
    at, solver = jnp.asarray(POINTS[0], jnp.float32), Solver()
    sd = lambda probes: float(np.std(carried(affine(), at, solver, False, probes)[1], ddof=1))  # noqa: E731
    assert sd(jax.random.normal(jax.random.key(0), (4000, 2))) == pytest.approx(1.6902, rel=0.06)
    assert sd(jax.random.rademacher(jax.random.key(0), (4000, 2), "float32")) == pytest.approx(1.4722, rel=0.01)


def test_probes_are_those_of_a_seed_or_of_a_key():
    x = jnp.asarray(POINTS, jnp.float32)
    even = Solver("heun", num_steps=64)
    ask = lambda x, **how: flow(affine(), exact=False, num_probes=2, solver=even, **how).log_prob(x)  # noqa: E731
    np.testing.assert_allclose(ask(x)[3:5], ask(x[3:5]), atol=1e-5)  # the same for every point
    errors = ask(x, key=jax.random.key(1)) - EXACT
    assert len(np.unique(np.round(errors, 1))) == 3  # a row's own: both up, both down, or one of each
    assert len(np.unique(np.round(ask(x) - EXACT, 1))) == 1
    with pytest.raises(ValueError, match="num_probes=2 or more"):
        density(affine(), x, exact=False, num_probes=1)


def test_the_error_of_a_log_volume_is_held_on_its_own():
    with jax.enable_x64(True):
        ask = jax.jit(lambda x: carried(Waves(), x, Solver(rtol=1e-13, atol=1e-4), False, jnp.ones((1, 784)))[1])
        volume = -784 * 7.0 * (0.5 - np.sin(80) / 160)
        assert abs(ask(jnp.zeros(784))[0] - volume) < 1e-4  # 4.4e-4 where its error is one of 785


def test_a_solve_that_stops_early_is_no_number():
    x = jnp.asarray(POINTS, jnp.float32)
    early = Solver(max_steps=4)
    assert np.isnan(density(affine(), x, solver=early).value).all()
    stopped = flow(affine(), solver=early)
    assert np.isnan(jax.jit(stopped.log_prob)(x)).all()
    assert np.isnan(stopped.sample(jax.random.key(0))).all()


def test_few_steps_of_euler_overclaim_and_doubling_them_shows_it():
    narrow = Affine(jnp.zeros(2), 0.01 * jnp.eye(2))
    x = 0.1 * jax.random.normal(jax.random.key(0), (200, 2))
    exact = stats.norm.logpdf(x, scale=0.1).sum(-1)
    few = density(narrow, x, solver=Solver("euler", num_steps=8))
    assert np.mean(few.value - exact) > 0.05
    assert np.mean(few.solver) > 0.5 * np.mean(np.abs(few.value - exact))


def test_gradients_in_parameters_are_those_of_the_density():
    x = jnp.asarray(POINTS, jnp.float32)

    def slope(make):
        log_prob = lambda mean, root: make(Affine(mean, root @ root.T)).log_prob(x).sum()  # noqa: E731
        root = jnp.linalg.cholesky(jnp.asarray(COVARIANCE, jnp.float32))
        return jax.jit(jax.grad(log_prob, (0, 1)))(jnp.asarray(MEAN, jnp.float32), root)

    exact = slope(lambda velocity: dist.MultivariateNormal(velocity.mean, velocity.covariance))
    for got in (slope(flow), slope(lambda velocity: flow(lambda x, u: velocity(x, u)))):
        for one, other in zip(got, exact, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=5e-3)


def test_gradients_in_a_network_are_those_of_finite_differences():
    with jax.enable_x64(True):
        x, net = jnp.asarray(POINTS), eqx.nn.MLP(3, 2, 8, 1, jnp.tanh, key=jax.random.key(0), dtype=jnp.float64)
        arrays, rest = eqx.partition(net, eqx.is_array)

        def log_prob(a):
            net = eqx.combine(jax.tree.map(lambda w: (1 + a) * w, arrays), rest)
            return flow(lambda x, u: net(jnp.append(x, u)), solver=Solver(rtol=1e-8, atol=1e-8)).log_prob(x).sum()

        ask = jax.jit(jax.vmap(jax.value_and_grad(log_prob)))
        values, slopes = ask(jnp.array([-1e-4, 0.0, 1e-4]))
        assert abs((values[2] - values[0]) / 2e-4 / slopes[1] - 1) < 1e-5


def test_even_steps_can_be_differentiated_twice():
    even = flow(affine(), solver=Solver("heun", num_steps=32))
    hessian = jax.jit(jax.hessian(even.log_prob))(jnp.asarray(POINTS[0], jnp.float32))
    np.testing.assert_allclose(hessian, -np.linalg.inv(COVARIANCE), rtol=0.02)


def test_even_steps_stay_within_the_time_that_there_is():
    within = lambda x, u: jnp.where((u < 0) | (u > 1), jnp.nan, x)  # noqa: E731
    for name, num_steps in (("euler", 7), ("heun", 10), ("heun", 41), ("tsit5", 10)):
        for forward in (True, False):
            assert np.isfinite(moved(within, jnp.ones(1), Solver(name, num_steps=num_steps), forward)).all()


def test_a_flow_is_a_site_of_a_program():
    def program(y=None):
        z = numpyro.sample("z", flow(affine()))
        with numpyro.plate("row", 3):
            numpyro.sample("y", dist.Normal(z[0], 0.5), obs=y)

    y = jnp.array([1.0, 2.0, 0.5])
    z = jnp.array([0.7, -1.9])
    got = jax.jit(lambda z: log_density(program, (y,), {}, {"z": z})[0])(z)
    exact = stats.multivariate_normal(MEAN, COVARIANCE).logpdf(z) + stats.norm.logpdf(y, 0.7, 0.5).sum()
    assert abs(got - exact) < 1e-4
    drawn = handlers.trace(handlers.seed(program, 0)).get_trace()["z"]["value"]
    assert drawn.shape == (2,)


def test_a_flow_is_pickled_and_forgets_its_last_solve():
    transform = ContinuousFlow(affine(), 2)
    with jax.checking_leaks():
        jax.jit(dist.TransformedDistribution(noise(2), [transform]).log_prob)(jnp.ones(2))
    again = pickle.loads(pickle.dumps(transform))
    np.testing.assert_array_equal(again(jnp.ones(2)), transform(jnp.ones(2)))


def test_solvers_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="Unknown solver 'rk45'"):
        Solver("rk45")
    with pytest.raises(ValueError, match="give num_steps"):
        Solver("euler")
    with pytest.raises(ValueError, match="rtol is positive; got 0"):
        Solver(rtol=0.0)
    with pytest.raises(ValueError, match="below what float32 can hold"):
        density(affine(), jnp.asarray(POINTS, jnp.float32), solver=Solver(rtol=1e-9))
