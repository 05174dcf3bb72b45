"""Variational inference against closed forms: normal targets, a banana of known constant, reference draws."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import paramax
import posteriordb
import pytest
from scipy.stats import truncnorm

import probgen as pg
from probgen import catalog, engine, runtime
from probgen.inference.variational import _guide, _jax
from probgen.run import conditioned

KEY = jax.random.key(7)

MEAN = np.array([1.0, -2.0, 30.0])
ROOT = np.array([[2.0, 0.0, 0.0], [-1.5, 0.5, 0.0], [30.0, 10.0, 20.0]])
COVARIANCE = ROOT @ ROOT.T
NORMALS = ["full_rank", "mean_field", "low_rank"]
FLOWS = ["planar", "iaf", "maf", "realnvp", "neural_spline", "bnaf", "flow"]


def correlated(mean, root):
    numpyro.sample("x", dist.MultivariateNormal(mean, scale_tril=root))


def banana(scale):
    """a ~ N(0, 1), b ~ N(a^2, scale): E b = 1, var b = 2 + scale^2, and the density integrates to one."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("b", dist.Normal(a**2, scale))


def one(scale):
    numpyro.sample("a", dist.StudentT(5.0, 3.0, scale))


def minibatched(x):
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    with numpyro.plate("row", len(x), subsample_size=20):
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=numpyro.subsample(x, 0))


def fit(program, data, inference, **settings):
    return pg.fit(program, data, inference, progress=False, **settings)


def normal_fit(inference, **settings):
    return fit(correlated, {"mean": MEAN, "root": ROOT}, inference, **settings)


def log_ratio(fitted):
    return (fitted.answer["log_p"] - fitted.answer["log_q"]).ravel()


@pytest.fixture(scope="module")
def normal():
    return normal_fit("full_rank")


def test_full_rank_is_exact_on_a_normal(normal):
    z = normal.z.reshape(-1, 3)
    sd = np.sqrt(np.diag(COVARIANCE))
    np.testing.assert_allclose((z.mean(0) - MEAN) / sd, 0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(np.cov(z.T) / np.outer(sd, sd), COVARIANCE / np.outer(sd, sd), atol=0.11)
    np.testing.assert_allclose(log_ratio(normal), 0, atol=1e-3)  # log Z = 0


@pytest.mark.parametrize("guide", ["full_rank", "mean_field"])
def test_svi_is_the_normal_guide_of_its_setting(guide):
    ours, theirs = normal_fit("svi", guide=guide, num_steps=400), normal_fit(guide, num_steps=400)
    np.testing.assert_array_equal(ours.z, theirs.z)
    with pytest.raises(ValueError, match="known: full_rank, mean_field"):
        normal_fit("svi", guide="round")


def test_shapes_precision_and_records(normal):
    assert normal.z.shape == (4, 1000, 3)
    assert normal.z.dtype == np.float64
    assert normal.answer["log_q"].shape == normal.answer["log_p"].shape == (4, 1000)
    assert set(normal.records) == {"loss", "learning_rate", "skipped", "converged"}
    assert not normal.records["skipped"].any()
    assert fit(one, {"scale": 1.0}, "mean_field", num_steps=20, precision="float32").z.dtype == np.float32


def test_learning_ends_when_the_elbo_stalls(normal):
    assert normal.complete
    assert normal.num_steps < normal.inference.num_steps
    converged = normal.records["converged"][0]
    assert converged[-1]
    assert not converged[:-1].any()
    rates = normal.records["learning_rate"][0]
    np.testing.assert_allclose(rates[-1], rates[0] / 3**normal.inference.num_cuts, rtol=1e-6)


def test_mean_field_has_the_precisions_diagonal():
    """KL(q | p) between normals is least where var_i = 1 / precision_ii: too small on correlated targets."""
    z = normal_fit("mean_field").z.reshape(-1, 3)
    expected = 1 / np.diag(np.linalg.inv(COVARIANCE))
    np.testing.assert_allclose(z.var(0), expected, rtol=0.15)  # 5 sds of a variance of 4,000 draws is 0.11
    assert (z.var(0) < np.diag(COVARIANCE)).all()


def test_low_rank_recovers_a_factor_model():
    data = {"mean": MEAN, "root": np.linalg.cholesky(np.diag([1.0, 4.0, 9.0]) + np.outer(ROOT[:, 0], ROOT[:, 0]) / 9)}
    assert abs(log_ratio(fit(correlated, data, "low_rank", rank=1)).mean()) < 2e-3


def test_map_is_the_mode():
    found = normal_fit("map")
    assert found.z.shape == (1, 1, 3)
    np.testing.assert_allclose(found.z[0, 0], MEAN, atol=1e-5)
    assert "log_q" not in found.answer
    assert "no uncertainty" in found.inference.bias
    assert found.complete


def test_map_finds_the_mode_of_a_banana():
    found = fit(banana, {"scale": 0.1}, "map")
    np.testing.assert_allclose(found.z[0, 0], 0, atol=1e-5)


def test_laplace_is_exact_on_a_normal():
    found = normal_fit("laplace")
    np.testing.assert_allclose(log_ratio(found), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(found.z.reshape(-1, 3).T)[2, 2], COVARIANCE[2, 2], rtol=0.12)


def test_laplace_has_the_inverse_curvature_of_the_mode():
    """At the mode of the banana -Hessian = diag(1, 1 / scale^2)."""
    z = fit(banana, {"scale": 0.5}, "laplace").z.reshape(-1, 2)
    np.testing.assert_allclose(z.std(0), [1.0, 0.5], rtol=0.06)


@pytest.mark.parametrize("inference", [word for word in FLOWS if word != "realnvp"])  # `flow` is realnvp
@pytest.mark.usefixtures("optimised")
def test_flows_on_a_banana(inference):
    """The ELBO, at most log Z = 0, is well above the best normal's, -0.54; p/q over draws has no mean above one.

    E_q[p/q] is the integral of p where q lives: one, less what the guide misses. False alarms below 1e-5.
    """
    found = fit(banana, {"scale": 0.5}, inference, num_steps=3000)
    ratio = log_ratio(found)
    error = 5 / np.sqrt(ratio.size)
    assert -0.35 < ratio.mean() < error * ratio.std()
    assert 0.7 < np.exp(ratio).mean() < 1 + error * np.exp(ratio).std()
    assert not found.records["skipped"].any()


@pytest.mark.usefixtures("optimised")
def test_flow_has_the_moments_of_a_banana():
    a, b = (fit(banana, {"scale": 0.5}, "flow").draws[site].ravel() for site in "ab")
    np.testing.assert_allclose([a.mean(), a.std(), b.mean()], [0.0, 1.0, 1.0], atol=0.13)
    np.testing.assert_allclose(b.std(), 1.5, rtol=0.15)


@pytest.mark.usefixtures("optimised")
def test_flow_is_nearly_exact_on_a_normal():
    found = normal_fit("flow", num_steps=2000)
    ratio = log_ratio(found)
    assert -2e-3 < ratio.mean() < 2e-3
    assert ratio.std() < 0.05


def test_best_normal_on_a_banana_is_far():
    assert log_ratio(fit(banana, {"scale": 0.5}, "full_rank")).mean() < -0.45


def shaken(inference, dim, seed=1):
    """A guide with parameters far from its start."""
    settings = catalog.inference(inference, {})
    parts = _jax.parts(settings, dim, "float64")
    return parts.build(parts.flat + 0.2 * jax.random.normal(jax.random.key(seed), parts.flat.shape))


def halved(y):
    m = numpyro.sample("m", dist.TruncatedNormal(0.0, 1.0, low=0.0))
    numpyro.sample("y", dist.Normal(m, 1.0).expand([len(y)]).to_event(1), obs=y)


def test_a_guide_misses_what_lies_at_a_bound():
    """k-hat is no false alarm, though moments are right: a normal of log m has hardly any mass at 0, the posterior has."""
    y = np.array([0.3, -0.2, 0.1])
    found = fit(halved, {"y": y}, "svi")
    exact = truncnorm(-y.sum() / 2, np.inf, y.sum() / 4, 0.5)  # of precision 1 + 3
    m = found.draws["m"]
    assert m.mean() == pytest.approx(exact.mean(), abs=0.1 * exact.std())
    assert exact.cdf(0.02) > 0.02
    assert (m < 0.02).mean() < 0.25 * exact.cdf(0.02)
    assert found.diagnose()["k_hat"].status == "fail"


@pytest.mark.parametrize("inference", ["full_rank", "mean_field", *FLOWS])
def test_log_q_by_the_jacobian(inference):
    """log q(f(e)) = log N(e) - log |det df/de|, the Jacobian by autodiff."""
    with runtime.jax_scope("float64"):
        guide = shaken(inference, 3)
        u, log_q = guide.sample_and_log_prob(KEY, (4,))
        noise = guide.base_dist.sample(KEY, (4,))
        transform = paramax.unwrap(guide).bijection.transform
        jacobian = jax.jit(jax.vmap(jax.jacfwd(transform)))(noise)
        np.testing.assert_allclose(jax.vmap(transform)(noise), u, rtol=1e-9)
        expected = guide.base_dist.log_prob(noise) - jnp.linalg.slogdet(jacobian)[1]
        np.testing.assert_allclose(log_q, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inference", ["realnvp", "maf", "iaf", "neural_spline", "low_rank"])
def test_log_q_by_the_inverse(inference):
    with runtime.jax_scope("float64"):
        guide = shaken(inference, 3)
        u, log_q = guide.sample_and_log_prob(KEY, (20,))
        np.testing.assert_allclose(guide.log_prob(u), log_q, rtol=1e-6, atol=1e-6)


def test_low_rank_density_integrates_to_one():
    """By the trapezoid rule on a grid of two dimensions."""
    with runtime.jax_scope("float64"):
        axis = np.linspace(-12, 12, 241)
        grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        density = np.exp(shaken("low_rank", 2).log_prob(grid))
        np.testing.assert_allclose(density.sum() * (axis[1] - axis[0]) ** 2, 1, rtol=1e-6)


def test_path_gradient_has_no_variance_at_the_optimum():
    """With q = p every draw gives the gradient zero; the total gradient is that only in the mean."""
    _, target = conditioned(correlated, {"mean": MEAN, "root": ROOT})
    with runtime.jax_scope("float64"):
        anchor = _guide.Anchor(jnp.asarray(MEAN), jnp.asarray(ROOT))
        largest = {}
        for gradient in ("path", "total"):
            settings = catalog.inference("full_rank", {"gradient": gradient, "num_particles": 1})
            flat = _jax.initial(settings, None, target)
            found = [_jax.loss_and_gradient(settings, jax.random.key(i), flat, anchor, target) for i in range(5)]
            np.testing.assert_allclose([loss for loss, _ in found], 0, atol=1e-9)
            largest[gradient] = max(float(jnp.abs(g).max()) for _, g in found)
    assert largest["path"] < 1e-9
    assert largest["total"] > 0.1


def executor(settings, seed=3):
    _, target = conditioned(correlated, {"mean": MEAN, "root": ROOT})
    made = engine.load("numpyro").Executor(settings, target, seed, 1)
    made.init()
    return made


def test_chunks_and_seeds():
    """A run cut into sevens is that in one piece, bit for bit, past the step at which it converges too."""
    settings = catalog.inference("full_rank", {"block": 5, "patience": 1, "num_cuts": 2, "num_particles": 4})
    whole, cut, other = executor(settings), executor(settings), executor(settings, seed=4)
    records = [whole.advance(0, 140), other.advance(0, 140)]
    pieces = [cut.advance(start, 7) for start in range(0, 140, 7)]
    assert records[0]["converged"].any()
    for name, values in records[0].items():
        np.testing.assert_array_equal(values, np.concatenate([p[name] for p in pieces], axis=1))
    for name, value in whole.state().items():
        np.testing.assert_array_equal(value, cut.state()[name])
    for name, value in whole.answer().items():
        np.testing.assert_array_equal(value, cut.answer()[name])
    assert (records[0]["loss"] != records[1]["loss"]).any()


def test_state_survives_a_checkpoint():
    settings = catalog.inference("full_rank", {"num_particles": 4})
    first, second = executor(settings), executor(settings, seed=3)
    first.advance(0, 10)
    second.restore(first.state())
    np.testing.assert_array_equal(first.advance(10, 5)["loss"], second.advance(10, 5)["loss"])


def test_minibatches():
    """The conjugate posterior of the mean of 200 points, learned from 20 rows a step."""
    x = np.random.default_rng(0).normal(2.0, 1.0, 200)
    found = fit(minibatched, {"x": x}, "mean_field", num_steps=4000)
    variance = 1 / (200 + 1 / 100)
    z = found.z.ravel()
    assert abs(z.mean() - variance * x.sum()) < 0.35 * np.sqrt(variance)
    np.testing.assert_allclose(z.std(), np.sqrt(variance), rtol=0.15)


def test_one_unknown():
    """Student's t in one dimension: flows gain on the best normal, and coupling says that it needs two unknowns."""
    assert log_ratio(fit(one, {"scale": 2.0}, "flow", num_steps=3000)).mean() > -0.02
    with pytest.raises(ValueError, match="realnvp needs at least 2 unknowns; this program has 1"):
        fit(one, {"scale": 2.0}, "realnvp")


@pytest.mark.parametrize(
    ("inference", "settings", "message"),
    [
        ("full_rank", {"gradient": "both"}, "known: path, total"),
        ("planar", {"gradient": "path"}, "needs the inverse of the guide"),
        ("low_rank", {"rank": 0}, "rank is 0; it must be above 0"),
        ("flow", {"learning_rate": -1.0}, "learning_rate"),
    ],
)
def test_bad_settings_are_refused(inference, settings, message):
    with pytest.raises(ValueError, match=message):
        catalog.inference(inference, settings)


# ---- Pyro ----------------------------------------------------------------------------------------------------------


def correlated_pyro(mean, root):
    import pyro

    pyro.sample("x", pyro.distributions.MultivariateNormal(mean, scale_tril=root))


def pyro_target():
    pytest.importorskip("pyro")
    return conditioned(correlated_pyro, {"mean": MEAN, "root": ROOT})[1]


def pyro_executor(settings, seed=3):
    made = engine.load("pyro").Executor(settings, pyro_target(), seed, 1)
    made.init()
    return made


@pytest.mark.parametrize("inference", [*NORMALS, *FLOWS])
def test_pyro_log_q(inference):
    """log q by the Jacobian of the draws, by autodiff; and by the inverse, where the guide has one."""
    pytest.importorskip("pyro")
    with engine.load("pyro").scoped("float64", seed=1):
        _check_pyro_log_q(catalog.inference(inference, {}))


def _check_pyro_log_q(settings):
    import torch
    from torch.func import functional_call

    from probgen.inference.variational import _torch

    guide = _torch.module(settings, 3, "float64")
    named = {name: p + 0.2 * torch.randn(p.shape) for name, p in guide.named_parameters()}
    noise = torch.randn(4, guide.noise_dim)
    u, log_q = functional_call(guide, named, (noise,))
    if guide.noise_dim == 3:
        draw = lambda e: functional_call(guide, named, (e[None],))[0][0]  # noqa: E731
        jacobian = torch.stack([torch.autograd.functional.jacobian(draw, e) for e in noise])
        expected = -0.5 * (noise**2).sum(1) - 1.5 * np.log(2 * np.pi) - torch.linalg.slogdet(jacobian)[1]
        np.testing.assert_allclose(log_q, expected, rtol=1e-6, atol=1e-6)
    if settings.has_density:
        np.testing.assert_allclose(functional_call(guide, named, (None, u.clone()))[1], log_q, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("inference", ["full_rank", "realnvp", "planar"])
def test_pyro_gradient_is_that_of_the_loss(inference):
    """The chain rule through the compiled density, against differences of the loss along a random direction."""
    target = pyro_target()
    from probgen.inference.variational import _torch

    settings = catalog.inference(inference, {"gradient": "total", "num_particles": 8, "minibatch": False})
    anchor, key = _guide.Anchor(MEAN + 1.0, ROOT), target.ops.key(1)
    rng = np.random.default_rng(0)
    at = _torch.initial(settings, None, target)
    at = at + 0.1 * rng.normal(size=at.shape)
    along = rng.normal(size=at.shape) / np.sqrt(at.size)
    loss = lambda t: _torch.loss_and_gradient(settings, key, at + t * along, anchor, target)  # noqa: E731
    difference = (loss(1e-5)[0] - loss(-1e-5)[0]) / 2e-5
    np.testing.assert_allclose(loss(0.0)[1] @ along, difference, rtol=1e-6, atol=1e-8)


def test_pyro_full_rank_is_exact_on_a_normal():
    pytest.importorskip("pyro")
    settings = {"num_steps": 1200, "block": 50, "num_particles": 8}
    found = fit(correlated_pyro, {"mean": MEAN, "root": ROOT}, "full_rank", **settings)
    assert found.z.shape == (4, 1000, 3)
    np.testing.assert_allclose(log_ratio(found).mean(), 0, atol=2e-3)


@pytest.mark.parametrize("inference", ["map", "laplace"])
def test_pyro_mode(inference):
    pytest.importorskip("pyro")
    found = fit(correlated_pyro, {"mean": MEAN, "root": ROOT}, inference)
    tolerance = 1e-5 if inference == "map" else 6 * np.sqrt(np.diag(COVARIANCE) / 4000)
    assert (np.abs(found.z.mean((0, 1)) - MEAN) < tolerance).all()
    if inference == "laplace":
        np.testing.assert_allclose(log_ratio(found), 0, atol=1e-5)


def test_pyro_chunks_and_checkpoint():
    settings = catalog.inference("realnvp", {"num_layers": 2, "block": 4, "patience": 1, "num_cuts": 2, "width": 4})
    whole, cut = pyro_executor(settings), pyro_executor(settings)
    records = whole.advance(0, 28)
    pieces = [cut.advance(start, 7) for start in (0, 7)]
    resumed = pyro_executor(settings, seed=3)
    resumed.restore(cut.state())
    pieces += [resumed.advance(start, 7) for start in (14, 21)]
    for name, values in records.items():
        np.testing.assert_array_equal(values, np.concatenate([p[name] for p in pieces], axis=1))
    for name, value in whole.answer().items():
        np.testing.assert_array_equal(value, resumed.answer()[name])


# ---- reference draws ---------------------------------------------------------------------------------------------

FAST = ["kidiq-kidscore_momhsiq", "eight_schools-eight_schools_noncentered"]


def distances(name, fitted):
    """The largest differences of means, in sds of the reference, and of sds, as ratios."""
    ours, theirs = posteriordb.POSTERIORS[name].parameters(fitted.draws), posteriordb.reference(name)
    mean = max(abs(ours[key].mean() - value.mean()) / value.std() for key, value in theirs.items())
    return mean, max(abs(ours[key].std() / value.std() - 1) for key, value in theirs.items())


@pytest.mark.skipif(not posteriordb.available(), reason="without ../shared/data/posteriordb: agreement with references")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in posteriordb.POSTERIORS]
)
def test_flow_agrees_with_reference_draws(name):
    """Means within 0.1 sd (six Monte Carlo errors of 4,000 draws) and sds within 10 % (nine)."""
    posterior = posteriordb.POSTERIORS[name]
    mean, sd = distances(name, fit(posterior.program, posterior.data(), "flow"))
    assert mean < 0.1
    assert sd < 0.1
