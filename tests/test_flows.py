"""Normalizing flows: round trips, Jacobians, integrals, starts measured on data, and flows inside other programs."""

from importlib import import_module

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import handlers

import probgen as pg
from probgen import runtime
from probgen.algorithm import Incompatible
from probgen.data.dequantise import dequantised
from probgen.data.toys import eight_gaussians, two_moons
from probgen.evaluate.density import bits_per_dim
from probgen.nets import flows
from probgen.nets.glow import started

CONDITIONAL = ("realnvp", "maf", "neural_spline", "iaf")
VECTORS = (*CONDITIONAL, "planar", "radial")
IMAGES = ("glow", "realnvp_images")
SMALL = {
    "realnvp": {"num_layers": 4, "width": 16}, "maf": {"num_layers": 4, "width": 16},
    "neural_spline": {"num_layers": 4, "width": 16}, "iaf": {"num_layers": 4, "width": 16},
    "planar": {"num_layers": 8}, "radial": {"num_layers": 8},
    "glow": {"num_levels": 2, "num_steps": 2, "hidden": 8}, "realnvp_images": {"num_levels": 2, "num_steps": 2, "hidden": 8},
}  # fmt: skip


def program_of(name):
    return import_module(f"probgen.models.density.{name}").model.program


class Case:
    """A program of one point with parameters: the initial ones with noise of some size, or as given."""

    def __init__(self, name, seed=0, size=0.1, parameters=None, **settings):
        run = lambda: program_of(name)(**{**SMALL[name], **settings})  # noqa: E731
        self.program = handlers.seed(run, jax.random.key(seed))
        self.parameters = parameters or jax.jit(lambda: self._begun(seed, size))()

    def _begun(self, seed, size):
        begun = handlers.trace(self.program).get_trace()["flow$params"]["value"]
        flat, unravel = ravel_pytree(begun)
        return {"flow$params": unravel(flat + size * jax.random.normal(jax.random.key(seed + 1), flat.shape))}

    def flow(self, parameters):
        return handlers.trace(handlers.substitute(self.program, data=parameters)).get_trace()["x"]["fn"]

    def find(self, ask, *given):
        """ask(flow, *given), compiled as one."""
        return jax.jit(lambda parameters, *given: ask(self.flow(parameters), *given))(self.parameters, *given)


def points(shape, count=20, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(jnp.result_type(float))


PRECISIONS = pytest.mark.parametrize(("precision", "bar"), [("float32", 1e-5), ("float64", 1e-10)])
CASES = [(name, {"dim": dim}, (dim,)) for name in VECTORS for dim in (2, 5)]
CASES += [(name, {"dim": 5, "given": np.array([0.3, -1.0, 2.0])}, (5,)) for name in CONDITIONAL]
CASES += [
    (name, {"height": 4, "width": 4, "channels": 3} | more, (4, 4, 3)) for name in IMAGES for more in ({}, {"knots": 5})
]


def label(case):
    return f"{case[0]}-{'x'.join(map(str, case[2]))}{'-given' * ('given' in case[1])}{'-knots' * ('knots' in case[1])}"


@PRECISIONS
@pytest.mark.parametrize("case", CASES, ids=label)
def test_flows_invert_and_their_determinant_is_that_of_the_jacobian(case, precision, bar):
    name, settings, shape = case

    def both_ways(flow, u):
        t, given = flow.bijection, flow.condition
        x, log_det = jax.vmap(lambda u: t.transform_and_log_det(u, given))(u)
        back, inverse = jax.vmap(lambda x: t.inverse_and_log_det(x, given))(x)
        return x, back, log_det, inverse, jax.vmap(jax.jacfwd(lambda u: t.transform(u, given)))(u[:5])

    with runtime.jax_scope(precision):
        u = points(shape)
        case = Case(name, size=0.03 if name in IMAGES else 0.1, **settings)
        x, back, log_det, inverse, jacobians = map(np.asarray, case.find(both_ways, u))
        assert x.dtype == precision
    assert abs(x - u).max() > 0.1
    np.testing.assert_allclose(back, u, atol=bar)
    exact = np.linalg.slogdet(jacobians.astype(float).reshape(5, np.prod(shape), -1))[1]
    np.testing.assert_allclose(log_det[:5], exact, atol=bar)
    np.testing.assert_allclose(log_det + inverse, 0, atol=2 * bar)


def mass(case, reach=12.0, step=0.1):
    """The integral of a density on the plane, by the midpoints of squares."""
    side = np.arange(-reach, reach, step) + step / 2
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    return float(case.find(lambda flow, grid: jnp.exp(flow.log_prob(grid)).sum(), grid)) * step**2


@pytest.mark.parametrize("name", VECTORS)
def test_densities_integrate_to_one(name):
    with runtime.jax_scope("float64"):
        assert mass(Case(name, size=0.15, dim=2)) == pytest.approx(1, abs=2e-3)


def log_prob(case, x):
    return np.asarray(case.find(lambda flow, x: flow.log_prob(x), x))


@pytest.mark.parametrize("name", CONDITIONAL)
def test_conditional_densities_integrate_to_one_given_each_condition(name):
    """They differ from condition to condition; a number is a vector of one."""
    with runtime.jax_scope("float64"):
        parameters = Case(name, given=np.array(0.0), dim=2).parameters
        cases = [Case(name, parameters=parameters, given=g, dim=2) for g in (np.array(-1.5), np.array([1.5]))]
        assert [mass(case) for case in cases] == pytest.approx([1, 1], abs=2e-3)
        x = points((2,))
        assert abs(log_prob(cases[0], x) - log_prob(cases[1], x)).max() > 1e-3


def test_a_condition_is_a_vector():
    with pytest.raises(ValueError, match="expected a vector"):
        program_of("realnvp")(given=np.zeros((4, 3)))


@pytest.mark.parametrize("name", [*VECTORS, *IMAGES])
def test_a_program_means_one_flow_whatever_its_seed(name):
    """Masks, permutations and rotations do not depend on the key, of which only the parameters' start is drawn."""
    settings = {"height": 4, "width": 4, "channels": 3} if name in IMAGES else {"dim": 7}
    case, other = Case(name, **settings), Case(name, seed=5, **settings)
    again = Case(name, seed=5, parameters=case.parameters, **settings)
    x = points((4, 4, 3) if name in IMAGES else (7,))
    np.testing.assert_array_equal(log_prob(case, x), log_prob(again, x))
    assert abs(log_prob(case, x) - log_prob(other, x)).max() > 0.1


@pytest.mark.parametrize("dim", [3, 6])
def test_two_couplings_move_all_of_x(dim):
    """No coordinate of u is one of x."""
    slopes = Case("realnvp", dim=dim, num_layers=2, size=0.3).find(
        lambda flow, x: jax.jacfwd(flow.bijection.inverse)(x), jnp.ones(dim)
    )
    assert ((np.asarray(slopes) != 0).sum(1) > 1).all()


# ---- planar and radial layers ------------------------------------------------------------------------------------


def extreme(layer, seed):
    """A layer with large parameters, as if learning had run away."""
    moving, rest = eqx.partition(layer, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(moving)
    return eqx.combine(unravel(3 * jax.random.normal(jax.random.key(seed), flat.shape)), rest)


@pytest.mark.parametrize("kind", [flows.Planar, flows.Radial])
def test_layers_are_invertible_whatever_their_parameters(kind):
    @jax.jit
    def both_ways(seed, x):
        layer = extreme(kind(jax.random.key(0), 3), seed)
        y, log_det = jax.vmap(layer.transform_and_log_det)(x)
        return jax.vmap(layer.inverse)(y), log_det, jax.vmap(jax.jacfwd(layer.transform))(x)

    with runtime.jax_scope("float64"):
        x = 3 * points((3,), 200)
        for seed in range(20):
            back, log_det, jacobians = both_ways(seed, x)
            np.testing.assert_allclose(back, x, atol=1e-9)
            signs, exact = np.linalg.slogdet(jacobians)
            assert (signs == 1).all()
            np.testing.assert_allclose(log_det, exact, atol=1e-9)


@pytest.mark.parametrize("kind", [flows.Planar, flows.Radial])
def test_inverses_have_the_derivatives_of_the_implicit_function(kind):
    """In the point, both ways of differentiating, twice; and in the parameters, against differences."""
    with runtime.jax_scope("float64"):
        moving, rest = eqx.partition(extreme(kind(jax.random.key(0), 3), 0), eqx.is_inexact_array)
        flat, unravel = ravel_pytree(moving)
        y, h = points((3,), 1, seed=2)[0], 1e-5

        def inverse(flat, y):
            return eqx.combine(unravel(flat), rest).inverse_and_log_det(y)

        @jax.jit
        def found(flat, y):
            layer, f = eqx.combine(unravel(flat), rest), lambda y: jnp.sin(inverse(flat, y)[0]).sum()
            g = lambda flat: jnp.sin(inverse(flat, y)[0]).sum() + inverse(flat, y)[1]  # noqa: E731
            steps = h * jnp.eye(len(flat))
            differences = jax.vmap(lambda s: (g(flat + s) - g(flat - s)) / (2 * h))(steps)
            curved = jax.vmap(lambda s: (jax.grad(f)(y + s) - jax.grad(f)(y - s)) / (2 * h))(h * jnp.eye(3))
            forward = jax.jacfwd(layer.transform)(layer.inverse(y))
            ways = jax.jacfwd(layer.inverse)(y) @ forward, jax.jacrev(layer.inverse)(y) @ forward
            return ways, (jax.grad(g)(flat), differences), (jax.hessian(f)(y), curved)

        ways, slopes, curvatures = found(flat, y)
    for way in ways:
        np.testing.assert_allclose(way, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(*slopes, atol=1e-6)
    np.testing.assert_allclose(*curvatures, atol=1e-6)


@pytest.mark.parametrize("name", ["planar", "radial"])
def test_layers_stay_invertible_while_they_learn(name):
    """Even at a learning rate that is far too large."""
    data = {"x": eight_gaussians(5000, seed=1) / 2, "dim": 2, "num_layers": 8}
    fit = pg.fit(name, data, "mle", num_steps=400, learning_rate=0.2, progress=False)
    assert np.isfinite(fit.records["loss"]).all()
    with runtime.jax_scope("float64"):
        double = lambda leaf: jnp.asarray(leaf, float) if eqx.is_inexact_array_like(leaf) else leaf  # noqa: E731
        bijection, u = jax.tree.map(double, flows.learned(fit).bijection), points((2,), 200)
        x = jax.jit(jax.vmap(bijection.transform))(u)
        inverse = jax.jit(lambda x: (jax.vmap(bijection.inverse)(x), jax.vmap(jax.jacfwd(bijection.inverse))(x)))
        u, x, back, slopes = map(np.asarray, (u, x, *inverse(x)))
    rounding = 1e-13 * abs(slopes).max((1, 2)) * (1 + abs(x).max(1))  # of x, as the layers enlarge it
    assert (abs(back - u).max(1) < 1e-10 + rounding).all()
    assert (np.linalg.slogdet(slopes)[0] == 1).all()


# ---- pictures ----------------------------------------------------------------------------------------------------


def pictures(count=50, channels=3):
    rng = np.random.default_rng(3)
    smooth = rng.normal(size=(count, 1, 1, channels)) + 0.5 * rng.normal(size=(count, 8, 8, channels))
    return smooth * np.arange(1, channels + 1) + 4


@pytest.mark.parametrize("name", IMAGES)
def test_act_norm_begins_with_zero_means_and_unit_variances(name):
    """Of what reaches every layer of the start: the first by its formula, the others since measuring again changes nothing."""
    arrays = lambda flow: jax.tree.leaves(eqx.filter(flow, eqx.is_array))  # noqa: E731

    def ask(flow, x):
        inner = flow.bijection.bijection
        same = [jnp.allclose(a, b, atol=1e-10) for a, b in zip(*map(arrays, (inner, started(inner, x))), strict=True)]
        seen = x if name == "realnvp_images" else jax.vmap(inner.levels[0].stages[0].transform)(x)
        stage = next(stage for stage in inner.levels[0].stages if hasattr(stage, "bijection"))
        norm = jax.tree.map(lambda v: v[0] if eqx.is_array(v) else v, stage.bijection.bijections[0])
        return same, jax.vmap(norm.transform)(seen), jax.vmap(flow.encode)(x)

    with runtime.jax_scope("float64"):
        x = pictures()
        case = Case(name, size=0, start=x, height=8, width=8, channels=3)
        same, out, z = jax.tree.map(np.asarray, case.find(ask, x))
    assert all(same)
    pixels = np.asarray(out).reshape(-1, out.shape[-1])
    np.testing.assert_allclose(pixels.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(pixels.std(0), 1, atol=1e-10)
    assert all(abs(level.mean()) < 0.1 and abs(level.std() - 1) < 0.1 for level in z)


@pytest.mark.parametrize(("name", "shapes"), [
    ("glow", [(4, 4, 6), (2, 2, 12), (1, 1, 48)]), ("realnvp_images", [(4, 4, 6), (2, 2, 12), (2, 2, 12)]),
])  # fmt: skip
def test_every_level_is_open(name, shapes):
    """decode undoes encode, a level of latent variables each; the density is the normal one of all of them."""

    def ask(flow, x):
        z = flow.encode(x)
        return z, flow.decode(z), flow.log_prob(x), jax.jacfwd(flow.bijection.inverse)(x)

    with runtime.jax_scope("float64"):
        x = pictures(1)[0]
        case = Case(name, size=0.03, height=8, width=8, channels=3, num_levels=3)
        z, back, log_p, jacobian = jax.tree.map(np.asarray, case.find(ask, x))
    assert [level.shape for level in z] == shapes
    np.testing.assert_allclose(back, x, atol=1e-10)
    base = sum((-0.5 * np.asarray(level) ** 2 - 0.5 * np.log(2 * np.pi)).sum() for level in z)
    log_det = np.linalg.slogdet(np.asarray(jacobian).reshape(192, 192))[1]
    assert float(log_p) == pytest.approx(base + log_det, abs=1e-8)


def test_pictures_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="cannot be halved 2 times"):
        program_of("glow")(height=6, width=6)
    with pytest.raises(ValueError, match="start has shape"):
        program_of("glow")(start=np.zeros((5, 8, 8, 2)))


def test_points_between_two_points_lie_on_a_line_of_the_noise():
    x = two_moons(200, seed=1)
    fit = pg.fit("realnvp", {"x": x, "dim": 2, "num_layers": 4}, "mle", num_steps=50, batch_size=100, progress=False)
    line = fit.interpolate(x[0], x[1], num_points=5)["x"]
    with runtime.jax_scope(fit.target.precision):
        flow = flows.learned(fit)
        u = np.asarray(jax.vmap(flow.bijection.inverse)(line))
    np.testing.assert_allclose(line[[0, -1]], x[:2], atol=1e-5)
    np.testing.assert_allclose(u, np.linspace(u[0], u[-1], 5), atol=1e-4)
    with pytest.raises(ValueError, match="x has shape"):
        fit.interpolate(x[0], x[:2])
    with pytest.raises(ValueError, match="num_points is 1"):
        fit.interpolate(x[0], x[1], 1)


def test_points_between_two_points_of_a_conditional_flow_are_those_of_its_condition():
    x, given = two_moons(100, seed=1), np.linspace(-1, 1, 100)[:, None]
    fit = pg.fit("maf", {"x": x, "given": given, "dim": 2}, "mle", num_steps=50, batch_size=50, progress=False)
    one, other = (fit.interpolate(x[0], x[1], 3, given=np.array([g]))["x"] for g in (-1.0, 1.0))
    np.testing.assert_allclose(one[[0, 2]], x[:2], atol=1e-5)
    np.testing.assert_allclose(other[[0, 2]], x[:2], atol=1e-5)
    assert abs(one[1] - other[1]).max() > 1e-3


def test_only_flows_have_points_between_points():
    fit = pg.fit("made", "digits", "mle", num_steps=1, progress=False)
    with pytest.raises(Incompatible, match="has no latent space"):
        fit.interpolate(*np.zeros((2, 64)))


def test_settings_of_couplings_of_pictures_are_checked():
    with pytest.raises(ValueError, match="knots is -3; expected a whole number"):
        program_of("glow")(knots=-3)
    with pytest.raises(ValueError, match="bound is 0"):
        program_of("realnvp_images")(bound=0)
    with pytest.raises(ValueError, match="interval -1"):
        program_of("realnvp_images")(knots=4, interval=-1)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_picture_flows_learn_digits(name):
    """Fewer bits than the best Gaussian on rows that were held out, and draws within the range of pixels."""
    model = import_module(f"probgen.models.density.{name}").model
    x = model.default_data()["x"]
    train, test = x[:1500], x[1500:]
    fit = pg.fit(name, model.rows(train), "mle", num_steps=1000, batch_size=128, learning_rate=0.003, progress=False)
    flat, cov = train.reshape(-1, 64), np.cov(train.reshape(-1, 64).T)
    gaussian = dist.MultivariateNormal(flat.mean(0), cov + 1e-5 * np.eye(64)).log_prob(test.reshape(-1, 64))
    ours, theirs = bits_per_dim(fit.log_prob(x=test).value, 64, 17), bits_per_dim(gaussian, 64, 17)
    assert ours.value < theirs.value - 0.1
    drawn = fit.sample(200, seed=0)["x"]
    np.testing.assert_allclose(drawn.mean((0, 3)), train.mean((0, 3)), atol=0.15)


# ---- learning, and use in other programs ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["realnvp", *(pytest.param(name, marks=pytest.mark.slow) for name in VECTORS[1:])])
@pytest.mark.usefixtures("optimised")
def test_flows_learn_two_moons(name):
    """A short run; the density sums to one on a grid, and draws look like the rows."""
    data = {"x": two_moons(20_000, seed=1), "dim": 2, **({"num_layers": 4, "width": 32} if name in CONDITIONAL else {})}
    fit = pg.fit(name, data, "mle", num_steps=1500, learning_rate=0.005, seed=0)
    test = two_moons(5000, seed=2)
    bar = 0.25 if name in CONDITIONAL else 0.45
    assert -fit.log_prob(x=test).value.mean() < -two_moons.log_prob(test).mean() + bar
    side = np.linspace(-6, 6, 401)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    density = np.exp(fit.log_prob(x=grid).value.astype(float))
    assert density.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=2e-3)
    drawn = fit.sample(4000, seed=0)["x"]
    np.testing.assert_allclose(drawn.mean(0), test.mean(0), atol=0.06)
    np.testing.assert_allclose(drawn.std(0), test.std(0), rtol=0.06)


def test_draws_of_a_fit_are_those_of_its_density():
    """In five dimensions, where layers permute: the mean log density of a fit's draws is that of draws from the flow itself."""
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(2000, 5)) @ rng.normal(size=(5, 5)), "dim": 5, **SMALL["realnvp"]}
    fit = pg.fit("realnvp", data, "mle", num_steps=200, learning_rate=0.01, progress=False)
    drawn = fit.log_prob(x=fit.sample(4000, seed=1)["x"]).value
    with runtime.jax_scope("float32"):
        own = np.asarray(flows.learned(fit).flow.sample_and_log_prob(jax.random.key(3), (4000,))[1])
    assert drawn.mean() == pytest.approx(own.mean(), abs=5 * own.std() / np.sqrt(2000))
    np.testing.assert_allclose(drawn.std(), own.std(), rtol=0.2)


def test_a_flow_is_a_prior_of_another_program():
    """NUTS on z ~ flow, y ~ N(z_1, 0.5), against sums over a grid."""
    with runtime.jax_scope("float64"):
        case = Case("realnvp", dim=2, size=0.15)
        flow = case.flow(case.parameters)

        def program(y=None):
            z = numpyro.sample("z", flow)
            numpyro.sample("y", dist.Normal(z[0], 0.5), obs=y)

        side = np.arange(-10, 10, 0.05)
        grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
        log_p = log_prob(case, grid) - (1.0 - grid[:, 0]) ** 2 / (2 * 0.25)
    weights = np.exp(log_p - log_p.max())
    weights /= weights.sum()
    mean = weights @ grid
    sd = np.sqrt(weights @ (grid - mean) ** 2)
    fit = pg.fit(program, {"y": np.array(1.0)}, "nuts", num_chains=2, num_warmup=300, num_samples=1000, progress=False)
    drawn = fit.draws["z"].reshape(-1, 2)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.2 * sd.max())  # ESS over 400: four standard errors
    np.testing.assert_allclose(drawn.std(0), sd, rtol=0.2)


# ---- integers ----------------------------------------------------------------------------------------------------


def test_dequantised_integers_keep_their_cells_and_bits():
    x = np.random.default_rng(0).integers(0, 4, size=(500, 3))
    y = dequantised(x, levels=4, seed=1, draws=2)
    assert y.shape == (1000, 3)
    np.testing.assert_array_equal(np.floor(4 * y).astype(int), np.concatenate([x, x]))
    assert (y[:500] != y[500:]).all()
    np.testing.assert_array_equal(y, dequantised(x, levels=4, seed=1, draws=2))
    uniform = bits_per_dim(0.0, 3, 4)  # on the unit cube: two bits for one of four
    assert uniform.value == pytest.approx(2)
    log_p = np.log(np.array([0.1, 0.2, 0.3, 0.4]))  # a density that is flat in every cell loses nothing
    same = -log_p[x].sum(1).mean() / np.log(2) / 3
    assert bits_per_dim((log_p[x] + np.log(4)).sum(1), 3, 4).value == pytest.approx(same)
    with pytest.raises(ValueError, match=r"x\[1, 0\] is 4; expected integers from 0 to 3"):
        dequantised([[0], [4]], levels=4)
    with pytest.raises(ValueError, match=r"0\.5"):
        dequantised([0.5], levels=4)
