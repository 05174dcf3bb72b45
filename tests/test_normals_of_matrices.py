"""Multivariate normals whose derivative is in closed form: NumPyro's own density, SciPy's, numbers of fifty digits."""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import init_to_uniform
from numpyro.infer.util import initialize_model, log_density
from scipy import stats as scipy_stats

import probgen as pg
from probgen import engine, runtime
from probgen.distributions import matrices
from probgen.distributions.normal import OfMatrix
from probgen.engine.numpyro.programs.edges import Edges
from probgen.engine.numpyro.programs.messengers import FullPlates
from probgen.engine.numpyro.sums import rows
from probgen.engine.numpyro.sums.rows import Together

stats: Any = scipy_stats
sample: Any = numpyro.sample
RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def double():
    with runtime.in_precision("float64"):
        yield


def matrix(size, *batch):
    a = RNG.normal(size=(*batch, size, size))
    return a @ np.swapaxes(a, -1, -2) / size + np.eye(size)


WORDS = ("covariance_matrix", "precision_matrix", "scale_tril")
SHAPES = {  # of the matrix' batch, of loc, of the value
    "one": ((), (3,), (3,)),
    "a plate": ((), (), (40, 3)),
    "a matrix for each": ((40,), (), (40, 3)),
    "of one row": ((1,), (1, 3), (1, 3)),
    "rows of groups": ((4, 1), (4, 1, 3), (4, 10, 3)),
}


def made(word, a, loc):
    given = {word: jnp.linalg.cholesky(a) if word == "scale_tril" else a}
    return dist.MultivariateNormal(loc, **given)


def fast(fn):
    fn = copy.copy(fn)
    fn.__class__ = OfMatrix
    return fn


TWICE = ("a plate", "a matrix for each")  # differentiated twice


@pytest.mark.parametrize("shape", SHAPES)
def test_density_and_derivatives_are_numpyros(shape):
    """The gradient, and that of the slope along a direction: reverse of forward, and forward of reverse."""
    batch, of_loc, of_value = SHAPES[shape]
    point = (matrix(3, *batch), RNG.normal(size=of_loc), RNG.normal(size=of_value))
    weights = RNG.normal(size=np.broadcast_shapes(of_value[:-1], of_loc[:-1], batch))
    along = tuple(RNG.normal(size=np.shape(x)) for x in point)

    def all_of(word, as_, point):
        f = lambda a, loc, value: jnp.sum(weights * as_(made(word, a, loc)).log_prob(value))  # noqa: E731
        gradient = lambda *x: jax.grad(f, (0, 1, 2))(*x)  # noqa: E731
        slope = lambda *x: jax.jvp(f, x, along)[1]  # noqa: E731
        first = f(*point), gradient(*point), slope(*point)
        return (first, jax.jvp(gradient, point, along)[1], jax.grad(slope)(*point)) if shape in TWICE else first

    both = lambda point: [[all_of(word, as_, point) for word in WORDS] for as_ in (fast, lambda fn: fn)]  # noqa: E731
    ours, theirs = jax.jit(both, compiler_options=runtime.ONCE)(point)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("size", "batch"), [(1, ()), (7, (32,)), (6, (32,)), (1, (32,)), (70, ())])
def test_density_of_every_size_is_scipys(size, batch):
    a, value = matrix(size, *batch), RNG.normal(size=(*batch, size))
    run = lambda a: matrices.log_density(a, value)  # noqa: E731
    found = jax.jit(run, compiler_options=runtime.ONCE)(a)
    flat = zip(a.reshape(-1, size, size), value.reshape(-1, size), strict=True)
    exact = [stats.multivariate_normal(cov=one).logpdf(x) for one, x in flat]
    np.testing.assert_allclose(np.ravel(found), exact, rtol=1e-11)
    slope = jax.jit(jax.grad(lambda a: jnp.sum(run(a))), compiler_options=runtime.ONCE)(a)
    inverse = np.linalg.inv(a)
    pull = np.einsum("...ij,...j->...i", inverse, value)
    np.testing.assert_allclose(slope, 0.5 * (pull[..., :, None] * pull[..., None, :] - inverse), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("batch", [(), (40,)])
def test_a_matrix_that_depends_on_no_unknown_has_the_slope_of_the_vectors(batch):
    """-P r, and its own slope -P; of many points at once, too, as where chains are vectorised."""
    a, value = matrix(3, *batch), RNG.normal(size=(2, 40, 3))
    inverses = {"covariance_matrix": np.linalg.inv(a), "precision_matrix": a, "scale_tril": np.linalg.inv(a)}
    f = lambda word, x: jnp.sum(fast(made(word, a, np.zeros(3))).log_prob(x))  # noqa: E731
    slope = lambda word, x: jax.grad(lambda x: f(word, x))(x)  # noqa: E731
    along = lambda word, x: jax.jvp(lambda x: slope(word, x), (x,), (jnp.ones_like(x),))[1]  # noqa: E731
    run = jax.jit(
        lambda x: {k: (jax.vmap(lambda x, k=k: slope(k, x))(x), along(k, x[0])) for k in WORDS},
        compiler_options=runtime.ONCE,
    )
    for word, (found, turned) in run(value).items():
        inverse = np.broadcast_to(inverses[word], (40, 3, 3))
        np.testing.assert_allclose(found, -np.einsum("nij,cnj->cni", inverse, value), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(turned, -inverse.sum(-1), rtol=1e-10, atol=1e-12)


def near_singular():
    """Twelve points of a squared exponential kernel with hardly any noise: condition 3e10."""
    x = np.linspace(0, 1, 12)
    return np.exp(-0.5 * ((x[:, None] - x) / 0.3) ** 2) + 1e-10 * np.eye(12), np.sin(3 * x)


def test_near_singular_matrices_are_as_exact_as_before():
    """Against fifty digits: the errors of value and slope are at most a few times those of the derivative through the factor."""
    mpmath = pytest.importorskip("mpmath")
    a, value = near_singular()
    with mpmath.workdps(50):
        exact = mpmath.matrix(a.tolist())
        inverse, x = exact**-1, mpmath.matrix(value.tolist())
        pull = inverse * x
        log_p = -(x.T * pull)[0] / 2 - mpmath.log(mpmath.det(exact)) / 2 - len(value) * mpmath.log(2 * mpmath.pi) / 2
        slope = np.array(((pull * pull.T - inverse) / 2).tolist(), float)
    f = lambda a, as_: as_(dist.MultivariateNormal(covariance_matrix=a)).log_prob(value)  # noqa: E731
    both = lambda a: [jax.value_and_grad(f)(a, as_) for as_ in (fast, lambda fn: fn)]  # noqa: E731
    ours, theirs = jax.jit(both, compiler_options=runtime.ONCE)(a)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-13)  # the same factor
    assert abs(float(ours[0]) - float(log_p)) < 1e-6 * abs(float(log_p))
    off = [np.abs(found - slope).max() for found in (ours[1], theirs[1])]
    assert off[0] < 4 * off[1] + 1e-12 * np.abs(slope).max()


@pytest.mark.parametrize("batch", [(), (40,)])
def test_matrices_that_are_not_positive_definite_give_nan(batch):
    """As in JAX: negative, singular and NaN; of many, those alone."""
    value, row = RNG.normal(size=(*batch, 3)), (1,) * len(batch)
    f = lambda a, word, as_: as_(made(word, a, np.zeros(3))).log_prob(value)  # noqa: E731
    slope = lambda *given: jax.grad(lambda a: jnp.sum(f(a, *given[1:])))(given[0])  # noqa: E731
    kinds = [(word, as_) for word in WORDS[:2] for as_ in (fast, lambda fn: fn)]
    run = jax.jit(lambda a: [(f(a, *kind), slope(a, *kind)) for kind in kinds], compiler_options=runtime.ONCE)
    for bad in (-np.eye(3), np.diag([1.0, 0.0, 1.0]), np.full((3, 3), np.nan)):
        a = matrix(3, *batch)
        a[row] = bad
        for found, gradient in run(a):
            for nan in (np.isnan(found), np.isnan(gradient).any((-1, -2))):
                assert np.sum(nan) == np.sum(nan[row]) == 1


def test_what_is_looked_at_before_is_not_what_it_is_made_of():
    """The covariance of a singular-looking root is no positive definite matrix in double precision; the root is fine."""
    root = np.array([[1.0, 0.0], [1.0, 1e-9]])
    fn = dist.MultivariateNormal(np.zeros(2), scale_tril=root)
    assert np.isnan(np.asarray(jnp.linalg.cholesky(fn.covariance_matrix))).any()
    value = np.array([[1.0, 1.0], [0.5, 0.5]])
    assert np.isfinite(fast(fn).log_prob(value)).all()


def test_single_precision_and_mixed_types():
    """Of 32 bits as exact as NumPyro's own; of two types NumPyro's own."""
    with runtime.in_precision("float32"):
        a, value = matrix(5, 40).astype("float32"), RNG.normal(size=(40, 5)).astype("float32")
        found = matrices.log_density(a, value)
        assert found.dtype == jnp.float32
        own = dist.MultivariateNormal(covariance_matrix=a).log_prob(value)
    exact = [stats.multivariate_normal(cov=one).logpdf(x) for one, x in zip(a.astype(float), value, strict=True)]
    assert np.abs(np.asarray(found) - exact).max() < 2 * np.abs(np.asarray(own) - exact).max() + 1e-6
    mixed = fast(dist.MultivariateNormal(covariance_matrix=jnp.asarray(a[0]))).log_prob(value.astype("float64"))
    plain = dist.MultivariateNormal(covariance_matrix=jnp.asarray(a[0])).log_prob(value.astype("float64"))
    assert mixed.dtype == plain.dtype
    assert np.array_equal(mixed, plain)


@pytest.mark.parametrize("kind", ["scale_tril", "precision_matrix"])
def test_ill_conditioned_roots_and_precisions_of_32_bits_are_numpyros_own(kind):
    """Products with an inverse lose digits that a solve keeps; in double precision these do not show."""
    t = np.linspace(0, 1, 60)
    covariance = np.exp(-0.5 * ((t[:, None] - t) / 0.2) ** 2) + 1e-5 * np.eye(60)
    root = np.linalg.cholesky(covariance)
    value = RNG.normal(size=(20, 60)) @ root.T
    given = (root if kind == "scale_tril" else np.linalg.inv(covariance)).astype("float32")
    with runtime.in_precision("float32"):
        fn = dist.MultivariateNormal(jnp.zeros(60), **{kind: jnp.asarray(given)})
        of = lambda fn: jax.value_and_grad(lambda x: fn.log_prob(x).sum())(jnp.asarray(value, "float32"))  # noqa: E731
        for ours, theirs in zip(of(fast(fn)), of(fn), strict=True):
            assert np.array_equal(ours, theirs)


# ---- whole programs --------------------------------------------------------------------------------------------------------


def process(x, y=None):
    length, noise = sample("length", dist.InverseGamma(5.0, 1.0)), sample("noise", dist.HalfNormal(0.5))
    K = jnp.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + (noise**2 + 1e-6) * jnp.eye(len(x))
    sample("y", dist.MultivariateNormal(0.0, K), obs=y)


def masked(x, y=None):
    """Latent vectors in a plate, some of them masked, each with a covariance of its own, as one event."""
    scale = sample("scale", dist.LogNormal(0.0, 1.0).expand([40]).to_event(1))
    K = scale[:, None, None] * jnp.asarray(0.5 + 0.5 * np.eye(3))
    with numpyro.plate("row", 40), numpyro.handlers.mask(mask=jnp.arange(40) % 3 > 0):
        b = sample("b", dist.MultivariateNormal(jnp.zeros(3), K))
    whole = dist.MultivariateNormal(b, jnp.eye(3)).to_event(1).mask(jnp.asarray(True))
    sample("y", whole, obs=y)


X = np.linspace(0, 1, 9)
PROGRAMS = {
    "process": (process, {"x": X, "y": np.sin(6 * X)}, {"length": 0.3, "noise": 0.2}),
    "masked": (masked, {"x": X, "y": RNG.normal(size=(40, 3))}, {"scale": RNG.uniform(1, 2, 40), "b": RNG.normal(size=(40, 3))}),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_engine_writes_normals_so_and_means_the_same(name):
    program, data, values = PROGRAMS[name]
    args = {k: jnp.asarray(v) for k, v in data.items()}
    values = {k: jnp.asarray(v) for k, v in values.items()}
    density = lambda wrapped: lambda values: log_density(wrapped, (), args, values)[0]  # noqa: E731
    wrapped = Edges(program)
    traced = handlers.trace(handlers.substitute(handlers.seed(wrapped, 0), values)).get_trace(**args)
    fn = traced["y"]["fn"]
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    assert type(fn) is OfMatrix
    assert type(fn).__name__ == "MultivariateNormal"  # as the site is told
    ours, theirs = (jax.jit(jax.value_and_grad(density(run)))(values) for run in (wrapped, program))
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def test_chains_have_the_posterior_of_a_process():
    """Means by quadrature over both unknowns; a false alarm in ten thousand runs at 400 effective draws."""
    y = np.sin(6 * X) + 0.3 * np.random.default_rng(3).normal(size=len(X))
    lengths, noises = np.exp(np.linspace(-3, 1.5, 90)), np.exp(np.linspace(-9, 1, 120))
    distance = (X[:, None] - X) ** 2
    K = np.exp(-0.5 * distance / lengths[:, None, None, None] ** 2) + (noises[:, None, None] ** 2 + 1e-6) * np.eye(
        len(X)
    )
    quadratic = np.einsum("lni,i->ln", np.linalg.solve(K, np.broadcast_to(y[:, None], (*K.shape[:-1], 1)))[..., 0], y)
    log_p = -0.5 * quadratic - 0.5 * np.linalg.slogdet(K)[1] + np.log(lengths[:, None] * noises)
    log_p += stats.invgamma(5).logpdf(lengths)[:, None] + stats.halfnorm(scale=0.5).logpdf(noises)
    weight = np.exp(log_p - log_p.max()) / np.exp(log_p - log_p.max()).sum()
    fit = pg.fit(process, {"x": X, "y": y}, "nuts", num_samples=500, progress=False)
    for name, grid, axis in (("length", lengths, 1), ("noise", noises, 0)):
        mean = weight.sum(axis) @ grid
        sd = np.sqrt(weight.sum(axis) @ (grid - mean) ** 2)
        assert abs(fit.draws[name].mean() - mean) < 4 * sd / np.sqrt(400)


# ---- rows of one normal, together ------------------------------------------------------------------------------------------


def many_rows(y=None):
    """Rows of one law by each of three words, one of them at half weight; and rows that are not of one law, or not all seen."""
    spread = sample("spread", dist.LogNormal(0.0, 0.5).expand([3]).to_event(1))
    loc = sample("loc", dist.Normal().expand([3]).to_event(1))
    K = spread[:, None] * jnp.asarray(0.3 + 0.7 * np.eye(3)) * spread
    root = jnp.linalg.cholesky(K)
    with numpyro.plate("row", 60):
        sample("covariance", dist.MultivariateNormal(loc, K), obs=y)
        sample("precision", dist.MultivariateNormal(loc, precision_matrix=K), obs=y)
        with numpyro.handlers.scale(scale=0.5):
            sample("root", dist.MultivariateNormal(0.0, scale_tril=root), obs=y)
        sample("doubled", dist.MultivariateNormal(loc, K), obs=2 * y)
        sample("apart", dist.MultivariateNormal(loc, K * jnp.linspace(1, 2, 60)[:, None, None]), obs=y)
        sample("moved", dist.MultivariateNormal(loc * jnp.linspace(1, 2, 60)[:, None], K), obs=y)
        with numpyro.handlers.scale(scale=jnp.linspace(0.5, 1, 60)):
            sample("weighed", dist.MultivariateNormal(loc, K), obs=y)
        with numpyro.handlers.mask(mask=jnp.arange(60) % 3 > 0):
            sample("masked", dist.MultivariateNormal(loc, K), obs=y)
    sample("no plate", dist.MultivariateNormal(loc, K), obs=y)


def test_rows_of_one_normal_count_together():
    """Value, gradient and the Hessian along a direction are NumPyro's, whether the rows of a site are taken together or not."""
    y = 5 + RNG.normal(size=(60, 3)) @ np.diag([1.0, 2.0, 3.0])
    target = engine.load("numpyro").prepare(many_rows, {"y": y})
    short = target.for_run()
    np.testing.assert_array_equal(short.arrays["y together"], rows.compressed(y))
    z, along = 0.3 * RNG.normal(size=(2, target.dim))
    potential = initialize_model(jax.random.key(0), many_rows, model_kwargs={"y": jnp.asarray(y)}).potential_fn
    theirs = lambda z: -potential(target.structure.unravel(z))  # noqa: E731
    ours = lambda z: short.value_and_grad(z)[0]  # noqa: E731
    twice = lambda f, z: (f(z), *jax.jvp(jax.grad(f), (z,), (along,)))  # noqa: E731
    both = jax.jit(lambda z: [twice(f, z) for f in (ours, theirs)], compiler_options=runtime.ONCE)
    for one, other in zip(*both(z), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
    assert _seen(short).count("_Rows") == 4


def _seen(target):
    """The names of what stands for the distributions of the sites."""
    run = Together(FullPlates(target.structure.closed(target.arrays)), target.arrays)
    trace = handlers.trace(handlers.substitute(run, substitute_fn=init_to_uniform)).get_trace()
    return [type(site["fn"]).__name__ for site in trace.values() if site["type"] == "sample"]


def test_what_rows_say_together(monkeypatch):
    """The triangle and the mean of any rows, in blocks; rows that are few or not finite stay as they are."""
    y = np.array([1e6, -3.0]) + RNG.normal(size=(500, 2)) @ np.array([[1.0, 1.0], [0.0, 1e-4]])
    monkeypatch.setattr(rows, "AT_ONCE", 7)
    found = rows.compressed(y.reshape(50, 10, 2))
    spread = np.cov(y.T, bias=True) * len(y)
    np.testing.assert_allclose(found[-1], y.mean(0), rtol=1e-14)
    np.testing.assert_allclose(found[:-1].T @ found[:-1], spread, rtol=1e-9)
    assert rows.compressed(y[:7]) is None
    assert rows.compressed(np.where(y > 1e6, np.nan, y)) is None


def test_chains_of_rows_have_the_posterior_of_a_mean():
    """Conjugate: the precision of the mean is I + N P. A false alarm in ten thousand runs at 400 effective draws."""
    K = 4 * (0.5 + 0.5 * np.eye(3))
    y = np.array([1.0, 0.0, -1.0]) + RNG.normal(size=(30, 3)) @ np.linalg.cholesky(K).T

    def program(K, y=None):
        loc = sample("loc", dist.Normal().expand([3]).to_event(1))
        with numpyro.plate("row", 30):
            sample("y", dist.MultivariateNormal(loc, K), obs=y)

    fit = pg.fit(program, {"K": K, "y": y}, "nuts", num_samples=300, progress=False)
    assert set(fit.target.arrays) == {"K", "y"}
    assert fit.target.for_run().arrays["y together"].shape == (4, 3)
    covariance = np.linalg.inv(np.eye(3) + 30 * np.linalg.inv(K))
    mean, sd = covariance @ np.linalg.inv(K) @ y.sum(0), np.sqrt(np.diag(covariance))
    draws = fit.draws["loc"].reshape(-1, 3)
    assert (np.abs(draws.mean(0) - mean) < 4 * sd / np.sqrt(400)).all()
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.2)
