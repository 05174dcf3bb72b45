"""Every file of models/energy against an independent formula, enumeration or quadrature; and products of learned models."""

import importlib
import itertools
import pkgutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy.special import expit, gammaln, logsumexp
from scipy.stats import t as student_t

import probgen as pg
from probgen.datasets import bars_and_stripes, ising_samples
from probgen.engine.numpyro.sums.energy import NotConditional
from probgen.evaluate.energy import log_z
from probgen.evaluate.product import product
from probgen.measures import reals
from probgen.models import energy
from probgen.run import conditioned
from probgen.target import Variable

NAMES = sorted(module.name for module in pkgutil.iter_modules(energy.__path__))
QUIET = {"progress": False}


def model(name):
    return importlib.import_module(f"probgen.models.energy.{name}").model


# ---- independent formulas: parameters p and points, arrays (point, ...) a site, give log densities (point,)


def pairs(W, u):
    """sum_{i<j} W_ij u_i u_j, by a loop."""
    return sum(W[i, j] * u[:, i] * u[:, j] for i in range(u.shape[1]) for j in range(i + 1, u.shape[1]))


def between(a, W, b):
    return np.einsum("ni,ij,nj->n", a, W, b)


def rbm_softmax(p, v, h):
    total = h @ p["c"]
    for n, i in np.ndindex(v.shape):
        total[n] += p["b"][i, int(v[n, i])] + p["W"][i, int(v[n, i])] @ h[n]
    return total


def dbn(p, v, h1, h2):
    on = expit(h1 @ p["W1"].T + p["b"])
    given = (v * np.log(on) + (1 - v) * np.log(1 - on)).sum(1)
    return given + between(h1, p["W2"], h2) + h1 @ p["c1"] + h2 @ p["c2"]


def ising(p, x):
    s, total = 2 * x - 1, 0.0
    for r, c in np.ndindex(x.shape[1:]):
        total = total + p["field"][r, c] * s[:, r, c]
        total = total + p["J"][r, c, 0] * s[:, r, c] * s[:, r, (c + 1) % x.shape[2]]
        total = total + p["J"][r, c, 1] * s[:, r, c] * s[:, (r + 1) % x.shape[1], c]
    return total


def rbm_gaussian(p, v, h):
    sigma = np.exp(p["log_sigma"])
    return -((v - p["b"]) ** 2 / (2 * sigma**2)).sum(1) + between(v / sigma**2, p["W"], h) + h @ p["c"]


def product_of_experts(p, x):
    along = (x - p["b"]) @ p["w"].T
    return -((0.5 + np.exp(p["log_alpha"])) * np.log(1 + along**2 / 2)).sum(1)


ORACLES = {
    "boltzmann_machine": ({"num_visible": 6}, lambda p, v: pairs(p["W"], v) + v @ p["b"]),
    "boltzmann_machine_hidden": (
        {"num_visible": 4, "num_hidden": 3},
        lambda p, v, h: pairs(p["W"], np.hstack([v, h])) + np.hstack([v, h]) @ p["b"],
    ),
    "dbm": (
        {"num_visible": 4, "num_hidden1": 3, "num_hidden2": 2},
        lambda p, v, h1, h2: (
            between(v, p["W1"], h1) + between(h1, p["W2"], h2) + v @ p["b"] + h1 @ p["c1"] + h2 @ p["c2"]
        ),
    ),
    "dbn": ({"num_visible": 4, "num_hidden1": 3, "num_hidden2": 2}, dbn),
    "hopfield": ({"num_units": 6, "beta": 0.7}, lambda p, x: 0.7 * pairs(p["W"], 2 * x - 1)),
    "ising": ({"height": 3, "width": 4}, ising),
    "product_of_experts": ({"dim": 2, "num_experts": 3}, product_of_experts),
    "rbm": (
        {"num_visible": 4, "num_hidden": 3},
        lambda p, v, h: between(v, p["W"], h) + v @ p["b"] + h @ p["c"],
    ),
    "rbm_gaussian": ({"num_visible": 3, "num_hidden": 2}, rbm_gaussian),
    "rbm_softmax": ({"num_visible": 3, "num_levels": 3, "num_hidden": 2}, rbm_softmax),
}


def program(name):
    """The program at a small size, its sites (the random ones) and its parameters, drawn at random."""
    sizes, _ = ORACLES[name]
    traced = handlers.trace(handlers.seed(lambda: model(name).program(**sizes), jax.random.key(0))).get_trace()
    rng = np.random.default_rng(5)
    parameters = {k: rng.normal(size=site["value"].shape) for k, site in traced.items() if site["type"] == "param"}
    sites = {k: site for k, site in traced.items() if site["type"] == "sample" and type(site["fn"]).__name__ != "Unit"}
    return sizes, parameters, sites


def random_points(sites, n=20):
    rng, found = np.random.default_rng(6), {}
    for name, site in sites.items():
        shape, support = (n, *site["value"].shape), site["fn"].support
        high = getattr(getattr(support, "base_constraint", support), "upper_bound", 1)
        found[name] = rng.integers(0, high + 1, shape).astype(float) if support.is_discrete else rng.normal(size=shape)
    return found


@pytest.mark.parametrize("name", ORACLES)
def test_log_density_is_the_formula(name):
    sizes, parameters, sites = program(name)
    points = random_points(sites)

    def joint(values):
        with handlers.substitute(data=parameters):
            return log_density(model(name).program, (), sizes, values)[0]

    with jax.enable_x64(True):
        found = jax.vmap(joint)(points)
    expected = ORACLES[name][1](parameters, **points)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_names_equation_shapes_and_source(name):
    doc = model(name).doc
    assert doc.split("\n")[0].endswith((".", ":"))
    assert "log p(" in doc
    assert "Shapes:" in doc
    assert any(word in doc for word in ("doi:", "arXiv:", "proceedings", "NIPS"))


# ---- constants


def fixed(name, parameters, **settings):
    """The program of a model with given parameters and settings."""
    parameters = {k: np.asarray(v, np.float32) for k, v in parameters.items()}

    def program():
        with handlers.substitute(data=parameters):
            model(name).program(**settings)

    return program


def every(*sizes):
    """All states of sites of bits of these sizes: one array (state, size) each."""
    states = np.array(list(itertools.product([0.0, 1.0], repeat=sum(sizes))))
    return np.split(states, np.cumsum(sizes)[:-1], axis=1)


def test_gaussian_rbm_is_a_mixture_of_normals():
    """log Z by summing the integrals of the 4 normals in closed form."""
    sizes, p, _ = program("rbm_gaussian")
    sigma2 = np.exp(2 * p["log_sigma"])
    (h,) = every(2)
    mean = p["b"] + h @ p["W"].T
    weight = h @ p["c"] + ((mean**2 - p["b"] ** 2) / (2 * sigma2)).sum(1)
    constant = logsumexp(weight) + 0.5 * np.log(2 * np.pi * sigma2).sum()
    _, target = conditioned(fixed("rbm_gaussian", p, **sizes), {}, "numpyro")
    assert log_z(target.blocked()).value == pytest.approx(constant, abs=1e-4)


def test_complete_product_of_experts_has_the_constant_of_its_docstring():
    """Two experts in the plane, by quadrature on a grid that grows like the tails (u = tan), with alpha above 2."""
    rng = np.random.default_rng(0)
    w, log_alpha = rng.normal(size=(2, 2)), np.log([1.5, 2.0])
    alpha = 0.5 + np.exp(log_alpha)
    t = (np.arange(2000) + 0.5) / 2000 * np.pi - np.pi / 2
    u, area = 3 * np.tan(t), 3 / np.cos(t) ** 2 * np.pi / 2000
    x = np.stack(np.meshgrid(u, u), -1).reshape(-1, 2)
    log_p = ORACLES["product_of_experts"][1]({"w": w, "b": np.zeros(2), "log_alpha": log_alpha}, x)
    total = logsumexp(log_p, b=np.outer(area, area).ravel())
    exact = -np.log(abs(np.linalg.det(w))) + (0.5 * np.log(2 * np.pi) + gammaln(alpha - 0.5) - gammaln(alpha)).sum()
    assert total == pytest.approx(exact, abs=1e-3)


# ---- sampling


def total_variation(fit, log_p, **sites):
    """Half the L1 distance between the share of draws in every state and its probability."""
    p = np.exp(log_p - logsumexp(log_p))
    states = {tuple(state): i for i, state in enumerate(np.hstack(list(sites.values())).astype(int).tolist())}
    draws = np.concatenate([fit.draws[k].reshape(fit.z.shape[0] * fit.z.shape[1], -1) for k in sites], axis=1)
    found, count = np.unique(draws.astype(int), axis=0, return_counts=True)
    q = np.zeros(len(p))
    q[[states[tuple(state)] for state in found.tolist()]] = count / count.sum()
    return 0.5 * np.abs(p - q).sum()


MANY = {"num_chains": 400, "num_samples": 500, "num_warmup": 50, "seed": 1, **QUIET}


def test_dbn_is_drawn_by_evaluation():
    sizes, p, _ = program("dbn")
    states = dict(zip(("v", "h1", "h2"), every(4, 3, 2), strict=True))
    with pytest.raises(NotConditional, match="not affine in the bit h1"):
        pg.fit(fixed("dbn", p, **sizes), {}, "gibbs", engine="numpyro", conditionals="gradient", **MANY)
    for conditionals in ("evaluation", "auto"):
        fit = pg.fit(fixed("dbn", p, **sizes), {}, "gibbs", engine="numpyro", conditionals=conditionals, **MANY)
        assert total_variation(fit, dbn(p, **states), **states) < 0.02


def test_rbm_softmax_is_drawn_by_levels():
    sizes, p, _ = program("rbm_softmax")
    grid = np.array(list(itertools.product(range(3), range(3), range(3), (0, 1), (0, 1))), float)
    states = {"v": grid[:, :3], "h": grid[:, 3:]}
    fit = pg.fit(fixed("rbm_softmax", p, **sizes), {}, "gibbs", engine="numpyro", **MANY)
    assert total_variation(fit, rbm_softmax(p, **states), **states) < 0.02


def test_ising_denoises_by_bayes_rule():
    """prior x likelihood of independent flips, on an open lattice of 2 x 4 spins with a coupling and a field."""
    noisy, flips = np.random.default_rng(0).integers(0, 2, (2, 4)).astype(float), 0.2
    (x,) = every(8)
    grid = x.reshape(-1, 2, 4)
    s = 2 * grid - 1
    prior = 0.4 * ((s[:, :, 1:] * s[:, :, :-1]).sum((1, 2)) + (s[:, 1:] * s[:, :-1]).sum((1, 2))) - 0.3 * s.sum((1, 2))
    likelihood = np.where(grid == noisy, np.log(1 - flips), np.log(flips)).sum((1, 2))
    data = {"noisy": noisy, "J": 0.4, "field": -0.3, "flips": flips, "height": 2, "width": 4, "periodic": False}
    fit = pg.fit("ising", data, "gibbs", **MANY)
    assert total_variation(fit, prior + likelihood, x=x) < 0.02


def test_hopfield_takes_couplings_or_learns_them():
    """Hebb's rule writes the mean product of the patterns' spins; the same couplings as data give the same density."""
    stored = model("hopfield").default_data()["x"]
    s = 2 * stored - 1
    fit = pg.fit("hopfield", inference="hebbian", **QUIET)
    W = s.T @ s / 100
    np.testing.assert_allclose(np.triu(fit.parameters["W"], 1), np.triu(W, 1), atol=1e-6)
    _, target = conditioned("hopfield", {"W": W}, precision="float32")
    expected = [(z @ W @ z - np.trace(W)) / 2 for z in s[:3]]
    np.testing.assert_allclose([target.joint({"x": x}) for x in stored[:3]], expected, rtol=1e-5)


# ---- learning


def bits_of(count):
    return (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(float)


def exact_log_likelihood(name, parameters, rows, *hidden):
    """Mean log p(v) of rows, by enumeration of all units with the independent formula."""
    formula, units = ORACLES[name][1], [rows.shape[1], *hidden]
    states = np.split(bits_of(sum(units)), np.cumsum(units)[:-1], axis=1)
    sites = dict(zip(("v", "h") if len(hidden) == 1 else ("v", "h1", "h2"), states, strict=False))
    log_p = formula({k: np.asarray(v, float) for k, v in parameters.items()}, **sites)
    index = sites["v"] @ 2 ** np.arange(units[0])
    order = np.argsort(index, kind="stable")
    marginal = logsumexp(log_p[order].reshape(2 ** units[0], -1), axis=1)
    return float((marginal[(rows @ 2 ** np.arange(units[0])).astype(int)] - logsumexp(log_p)).mean())


@pytest.mark.parametrize(
    ("name", "sizes", "bar"),
    [
        ("boltzmann_machine", {}, -3.1),
        ("boltzmann_machine_hidden", {"num_hidden": 4}, -3.1),
        ("dbm", {"num_hidden1": 4, "num_hidden2": 2}, -5.0),
    ],
)
def test_pcd_learns_bars_and_stripes(name, sizes, bar):
    """3 x 3: independent bits reach -6.24 nats a row, the optimum is -2.60; few steps of a small machine get this far."""
    rows = bars_and_stripes(3).reshape(16, 9)
    data, settings = {"v": rows, "num_visible": 9, **sizes}, {"learning_rate": 0.3, "batch_size": 16, "seed": 1}
    fit = pg.fit(name, data, "pcd", num_steps=2000 if name == "dbm" else 1000, **settings, **QUIET)
    assert exact_log_likelihood(name, fit.parameters, rows, *sizes.values()) > bar


def test_ising_learns_the_coupling_of_its_samples():
    """4,000 pictures of the periodic lattice: every coupling is the inverse temperature, no field."""
    x = ising_samples(6, 0.3, 4000, seed=2)
    data = {"x": x, "height": 6, "width": 6, "periodic": True}
    fit = pg.fit("ising", data, "pcd", num_steps=500, batch_size=400, num_chains=400, seed=1, **QUIET)
    J = fit.parameters["J"]
    assert J.mean() == pytest.approx(0.3, abs=0.015)
    assert np.abs(J - 0.3).max() < 0.15


def test_gaussian_rbm_beats_a_gaussian_of_the_same_rows():
    """Two modes in the plane: exact log likelihoods by enumeration of the hidden units, against that of the truth."""
    rng = np.random.default_rng(0)
    x = 2.0 * rng.integers(0, 2, (1000, 1)) - 1 + 0.3 * rng.normal(size=(1000, 2))
    data = {"v": x, "num_visible": 2, "num_hidden": 4}
    fit = pg.fit("rbm_gaussian", data, "pcd", num_steps=2000, learning_rate=0.05, seed=1, **QUIET)
    gaussian = -0.5 * np.log(np.linalg.det(2 * np.pi * np.e * np.cov(x.T, bias=True)))
    truth = logsumexp([-((x - m) ** 2).sum(1) / 0.18 for m in (-1, 1)], axis=0).mean() - np.log(4 * np.pi * 0.09)
    print(fit.log_prob().value.mean(), gaussian, truth)
    assert gaussian + 0.3 < fit.log_prob().value.mean() < truth + 0.05


@pytest.mark.usefixtures("optimised")
def test_softmax_rbm_by_pcd_reaches_exact_maximum_likelihood():
    """Three units of three levels that agree in 70 % of 300 rows; both log likelihoods by the independent formula.

    Independent levels are 1.0 nats lower.
    """
    rng = np.random.default_rng(0)
    one = rng.choice(3, (300, 1), p=[0.2, 0.3, 0.5])
    rows = np.where(rng.random((300, 1)) < 0.7, one, rng.integers(0, 3, (300, 3))).astype(float)
    grid = np.array(list(itertools.product(range(3), range(3), range(3), (0, 1), (0, 1))), float)
    index = (rows @ [9, 3, 1]).astype(int)
    data = {"v": rows, "num_visible": 3, "num_levels": 3, "num_hidden": 2}

    def learned(inference, **settings):
        """log p(v) of all 27 states."""
        fit = pg.fit("rbm_softmax", data, inference, seed=1, **settings, **QUIET)
        f = rbm_softmax({k: np.asarray(v, float) for k, v in fit.parameters.items()}, grid[:, :3], grid[:, 3:])
        return logsumexp(f.reshape(27, 4), axis=1) - logsumexp(f)

    exact = learned("mle", num_steps=2000, learning_rate=0.05, batch_size=300)
    found = learned("pcd", num_steps=10_000, learning_rate=0.4, batch_size=300, num_chains=200)
    independent = sum(np.log(np.bincount(unit.astype(int)) / 300)[unit.astype(int)].mean() for unit in rows.T)
    assert exact[index].mean() > independent + 0.5
    assert exact[index].mean() - 0.01 < found[index].mean() < exact[index].mean() + 1e-3
    assert 0.5 * np.abs(np.exp(exact) - np.exp(found)).sum() < 0.03


@pytest.mark.usefixtures("optimised")
def test_product_of_experts_finds_the_sources():
    """Score matching: directions of the two mixed sources within 5 degrees, log likelihood that of the truth."""
    x, unmixing = model("product_of_experts").default_data()["x"], np.array([[1.0, 0.0], [-0.6, 1.0]])
    fit = pg.fit("product_of_experts", inference="score_matching", num_steps=3000, learning_rate=0.02, seed=1, **QUIET)
    p = {k: np.asarray(v, float) for k, v in fit.parameters.items()}
    unit = lambda w: w / np.linalg.norm(w, axis=1, keepdims=True)  # noqa: E731
    cosines = np.abs(unit(p["w"]) @ unit(unmixing).T)
    assert cosines.max(axis=0).min() > np.cos(np.radians(5))
    alpha = 0.5 + np.exp(p["log_alpha"])
    constant = (0.5 * np.log(2 * np.pi) + gammaln(alpha - 0.5) - gammaln(alpha)).sum() - np.log(
        abs(np.linalg.det(p["w"]))
    )
    found = (product_of_experts(p, x) - constant).mean()
    assert found == pytest.approx(student_t.logpdf(x @ unmixing.T, 4).sum(1).mean(), abs=0.05)


# ---- products


def two_rbms():
    """Of full rows, and of full columns, of 2 x 2 pictures."""
    rows, settings = bars_and_stripes(2).reshape(8, 4), {"num_steps": 300, "batch_size": 4, "learning_rate": 0.3}
    data = [{"v": part, "num_visible": 4, "num_hidden": 3} for part in (rows[:4], rows[4:])]
    return [pg.fit("rbm", part, "pcd", **settings, **QUIET) for part in data]


def test_product_multiplies_the_marginals():
    """Gibbs sampling of rows AND columns: p(v) is proportional to p_1(v) p_2(v), found by enumeration."""
    fits = two_rbms()
    target = product(*fits)
    assert target.named("latent") == ("v", "expert0.h", "expert1.h")
    fit = pg.fit(target, inference="gibbs", **MANY)
    log_p = 0.0
    (v,) = every(4)
    (h,) = every(3)
    for one in fits:
        p = {k: np.asarray(x, float) for k, x in one.parameters.items()}
        log_p = log_p + v @ p["b"] + logsumexp((v @ p["W"] + p["c"]) @ h.T, axis=1)
    assert total_variation(fit, log_p, v=v) < 0.02
    assert fit.draws["v"].mean() == pytest.approx(0.5, abs=0.2)


def test_product_of_different_sites_is_refused():
    one, two = (SimpleNamespace(target=SimpleNamespace(visible=[Variable("v", (size,), "bits", 2)])) for size in (4, 3))
    with pytest.raises(ValueError, match=r"different things: v bits \(4,\) and v bits \(3,\)"):
        product(one, two)
    with pytest.raises(ValueError, match="at least one"):
        product()


@pytest.mark.parametrize("inference", ["nuts", "mala"])
def test_reals_known_in_part_are_held(inference):
    """A bivariate normal learned exactly, given one coordinate: mean rho x, variance 1 - rho^2."""
    rho = 0.8
    P = np.linalg.inv(np.array([[1, rho], [rho, 1]]))

    def program(x=None):
        scale = numpyro.param("scale", jnp.ones(()))
        x = numpyro.sample("x", reals(2), obs=x)
        numpyro.factor("energy", -0.5 * scale * x @ jnp.asarray(P) @ x)

    rows = np.random.default_rng(0).normal(size=(50, 2))
    fit = pg.fit(program, {"x": rows}, "score_matching", num_steps=1, learning_rate=1e-9)
    found = pg.fit(fit.condition(x=np.array([1.5, np.nan])), inference=inference, num_samples=2000, seed=0)
    assert (found.draws["x"][..., 0] == 1.5).all()
    drawn = found.draws["x"][..., 1]
    assert drawn.mean() == pytest.approx(rho * 1.5, abs=0.06)
    assert drawn.std() == pytest.approx(np.sqrt(1 - rho**2), rel=0.06)
