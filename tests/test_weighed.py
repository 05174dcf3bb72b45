"""Sites that a scale or a mask weighs, and draws that are no posterior's: numbers of the right law and kind, or a refusal."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pyro
import pyro.distributions as pdist
import pytest
import torch
from numpyro import handlers
from pyro import poutine
from scipy import stats

import probgen as pg
from probgen.measures import bits
from probgen.run.conditioning import conditioned

Y = np.array([-1.0, 0.5, 2.0, 3.0])
parameter: Any = numpyro.param
SHORT = {"num_samples": 200, "num_warmup": 100, "num_chains": 2, "progress": False}


def line(y=None, weight=1.0):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    with numpyro.plate("row", 4), handlers.scale(scale=weight):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def line_pyro(y=None, weight=1.0):
    mu = pyro.sample("mu", pdist.Normal(0.0, 5.0))
    with pyro.plate("row", 4), poutine.scale(scale=weight):
        pyro.sample("y", pdist.Normal(mu, 1.0), obs=y)


def mixture(y=None, weight=2.0):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    with numpyro.plate("row", 4), handlers.scale(scale=weight):
        k = numpyro.sample("k", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(mu + k, 1.0), obs=y)


def mixture_pyro(y=None, weight=2.0):
    mu = pyro.sample("mu", pdist.Normal(0.0, 5.0))
    with pyro.plate("row", 4), poutine.scale(scale=weight):
        k = pyro.sample("k", pdist.Bernoulli(0.5))
        pyro.sample("y", pdist.Normal(mu + k, 1.0), obs=y)


def minibatch(y, weight=1.0):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    with numpyro.plate("row", 4, subsample_size=2) as i, handlers.scale(scale=weight):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y[i])


def minibatch_pyro(y, weight=1.0):
    mu = pyro.sample("mu", pdist.Normal(0.0, 5.0))
    with pyro.plate("row", 4, subsample_size=2) as i, poutine.scale(scale=weight):
        pyro.sample("y", pdist.Normal(mu, 1.0), obs=y[i])


def narrow(word):
    context = handlers.scale(scale=4.0) if word == "scale" else handlers.mask(mask=jnp.array(False))
    with context:
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    if word == "mask":
        numpyro.sample("z", dist.Normal(x, 1.0))


@pytest.mark.parametrize("program", [line, line_pyro, minibatch, minibatch_pyro])
def test_a_scale_is_told_from_a_minibatch(program):
    for weight, weighed in ((1.0, False), (2.0, True)):
        target = conditioned(program, {"y": Y, "weight": weight})[1]
        found = {site.name: (site.weighed, site.subsampled) for site in target.sites}
        assert found == {"mu": (False, False), "y": (weighed, program in (minibatch, minibatch_pyro))}
        assert ("Subsampled" in type(target).__name__) == (program in (minibatch, minibatch_pyro))


@pytest.mark.parametrize(
    ("program", "inference"), [(line, "nuts"), (line_pyro, "laplace")]
)  # exact for a normal posterior
def test_what_is_weighed_is_predicted_and_not_left_out(program, inference):
    fit = pg.fit(program, {"y": Y, "weight": 2.0}, inference, **(SHORT if inference == "nuts" else {"progress": False}))
    precision = 1 / 25 + 8
    exact = stats.norm.logpdf(Y, 2 * Y.sum() / precision, np.sqrt(1 + 1 / precision))
    found = fit.log_prob()
    assert np.all(np.abs(found.value - exact) < 5 * found.stderr + 1e-3)
    kind = "posterior predictive" if inference == "nuts" else "under draws of laplace"
    assert found.kind == f"{kind}, Monte Carlo estimate"
    with pytest.raises(pg.Incompatible, match=r"'y' has a scale"):
        fit.loo()
    with pytest.raises(pg.Incompatible, match=r"'y' has a scale"):
        pg.compare({"a": fit, "b": fit}, loo=True)


@pytest.mark.parametrize("program", [mixture, mixture_pyro])
def test_a_weighed_mixture_has_no_likelihood_of_points(program):
    fit = pg.fit(program, {"y": Y}, "map", progress=False)
    with pytest.raises(pg.Incompatible, match=r"'k' has a scale.*\n.*repeating them"):
        fit.log_prob()


def test_expectations_under_a_weighed_prior_are_those_of_its_chains():
    fit = pg.fit(narrow, {"word": "scale"}, num_samples=1000, num_warmup=200, num_chains=2, progress=False)
    found = fit.expectation(lambda draw: draw["x"] ** 2)
    assert abs(found.value - 1 / 4) < 5 * found.stderr
    assert found.kind == "estimate by autocorrelated draws"
    rare = fit.probability("x", above=2.2)  # 5e-6, and 0.014 by draws of the program without its scale
    assert rare.is_bound
    assert "'x' has a scale or a mask" in rare.notes[-1]


def test_points_and_guides_say_what_they_average_and_weigh_what_they_leave_out():
    y = np.random.default_rng(0).normal(1.0, 1.0, 30)

    def program(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        with numpyro.plate("row", len(y)):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    fits: Any = {word: pg.fit(program, {"y": y}, word, progress=False) for word in ("map", "laplace")}
    point, fit = fits.values()
    at = point.log_prob()
    np.testing.assert_allclose(at.value, stats.norm.logpdf(y, y.sum() / (30 + 1 / 25), 1.0), atol=1e-5)
    assert at.kind == "at the point of map: no posterior is averaged"
    assert not np.any(at.stderr)
    assert fit.log_prob().kind == "under draws of laplace, Monte Carlo estimate"
    with pytest.raises(pg.Incompatible, match="map gives a point"):
        point.loo()
    mode, sd = fit.z.mean(), fit.z.std()
    wide = np.asarray(1.5 * (fit.z - mode) + mode)  # another guide, half as wide again: weights make up for it
    log_q = stats.norm.logpdf(wide[..., 0], mode, 1.5 * sd)
    log_p = fit.target.densities(wide.reshape(-1, 1)).reshape(wide.shape[:2])
    fit.answer.update(z=wide, log_q=log_q, log_p=log_p)
    for kept in ("z", "draws", "tree"):
        vars(fit).pop(kept, None)
    precision = 1 / 25 + 29
    exact = sum(stats.norm.logpdf(x, (y.sum() - x) / precision, np.sqrt(1 + 1 / precision)) for x in y)
    assert fit.loo().elpd == pytest.approx(exact, abs=0.05)
    ranked: Any = pg.compare({"a": fit}, loo=True)
    assert fit.loo().elpd == pytest.approx(ranked.loo["elpd"].iloc[0])


def within(y):
    top = numpyro.sample("top", dist.Uniform(1.0, 2.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("sure", dist.Uniform(0.0, 1.0), obs=0.5 * jnp.ones(len(y)))
        numpyro.sample("y", dist.Uniform(0.0, top), obs=y)


def within_pyro(y):
    top = pyro.sample("top", pdist.Uniform(1.0, 2.0))
    with pyro.plate("row", len(y)):
        pyro.sample("sure", pdist.Uniform(0.0, 1.0), obs=0.5 * torch.ones(len(y)))
        pyro.sample("y", pdist.Uniform(0.0, top), obs=y)


@pytest.mark.parametrize("program", [within, within_pyro])
def test_a_density_of_one_is_a_point_and_one_of_nothing_is_minus_infinity(program):
    fit = pg.fit(program, {"y": np.array([0.2, 0.5, 0.9])}, "laplace", progress=False)
    found = fit.log_prob(y=np.array([0.3, 0.5, 3.0]))
    assert found.value.shape == (6,)
    inside = np.log(np.mean(1 / fit.draws["top"]))
    np.testing.assert_allclose(found.value, [0.0, 0.0, 0.0, inside, inside, -np.inf], atol=1e-9)
    assert np.isfinite(found.stderr[:5]).all()


def coupled():
    s = numpyro.sample("s", bits(3))
    numpyro.factor("energy", s.sum() + 2.0 * s[0] * s[1])


def test_ends_of_searches_are_no_draws():
    fit = pg.fit(coupled, inference="icm", num_restarts=12, progress=False)
    with pytest.raises(pg.Incompatible, match="ends of 12 searches"):
        fit.expectation(lambda draw: draw["s"].sum())


# ---- rows ----------------------------------------------------------------------------------------------------------


def row(x=None):
    with handlers.scale(scale=2.0):
        numpyro.sample("x", dist.Normal(numpyro.param("m", 0.0), 1.0), obs=x)


def row_pyro(x):
    m = pyro.param("m", torch.tensor(0.0))
    with pyro.plate("row", len(x)), poutine.scale(scale=2.0):
        pyro.sample("x", pdist.Normal(m, 1.0), obs=x)


def two(x=None, weight=1.0):
    p: Any = numpyro.param("p", jnp.array([0.5, 0.5]), constraint=dist.constraints.simplex)
    m: Any = numpyro.param("m", jnp.array([-1.0, 1.0]))
    with handlers.scale(scale=weight):
        numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(probs=p), dist.Normal(m, 1.0)), obs=x)


def components(x=None):
    W, v = parameter("W", jnp.ones((3, 1))), parameter("v", 1.0, constraint=dist.constraints.positive)
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
    with handlers.scale(scale=2.0):
        numpyro.sample("x", dist.Normal(W @ z, jnp.sqrt(v)).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("program", "inference"), [(two, "em"), (components, "em"), (components, "pca"), (components, "mle")]
)
def test_closed_forms_know_no_weights(program, inference):
    rng = np.random.default_rng(0)
    x, weight = np.concatenate([rng.normal(-3, 1, 30), rng.normal(3, 1, 90)]), np.repeat([3.0, 1.0], [30, 90])
    data = {"x": x, "weight": weight} if program is two else {"x": rng.normal(size=(100, 3))}
    with pytest.raises(pg.Incompatible, match=f"'x' has a scale.*{inference}"):
        pg.fit(pg.Model(program, by_row=True), data, inference, progress=False)


def test_the_likelihood_of_weighed_rows_weighs_them():
    rng = np.random.default_rng(0)
    x, weight = np.concatenate([rng.normal(-3, 1, 30), rng.normal(3, 1, 90)]), np.repeat([3.0, 1.0], [30, 90])
    settings = {"num_steps": 400, "learning_rate": 0.03, "batch_size": 120}
    fit: Any = pg.fit(pg.Model(two, by_row=True), {"x": x, "weight": weight}, "mle", progress=False, **settings)
    assert fit.parameters["p"] == pytest.approx([0.5, 0.5], abs=0.02)  # 0.25 and 0.75 of the rows


def annealed(x=None):
    with handlers.scale(scale=0.1):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("x", dist.Normal(parameter("w", 1.0) * z, 1.0), obs=x)


def annealed_guide(x):
    with handlers.scale(scale=0.1):
        numpyro.sample("z", dist.Normal(parameter("a", 0.5) * x, 0.5))


@pytest.mark.parametrize("program", [row, row_pyro])
def test_weighed_rows_have_no_log_probability(program, tmp_path):
    x = np.random.default_rng(0).normal(1.0, 1.0, 100)
    fit: Any = pg.fit(program, {"x": x}, "mle", num_steps=50, by_row=True, progress=False)
    for asked in (fit.log_prob, fit.energy, fit.log_z):
        with pytest.raises(pg.Incompatible, match="'x' has a scale"):
            asked()
    assert "baseline" not in {finding.check for finding in fit.diagnose().findings}
    fit.report(tmp_path / "page.html")
    with pytest.raises(TypeError, match="round_to"):
        fit.summary(round_to=3)


def test_a_kl_that_a_scale_weighs_makes_no_bound():
    x = np.random.default_rng(0).normal(0.0, 2.0, 100)
    model = pg.Model(annealed, guide=annealed_guide, by_row=True)
    fit = pg.fit(model, {"x": x}, "svi", num_steps=50, progress=False)
    with pytest.raises(pg.Incompatible, match="kl_weight"):
        fit.log_prob()
    assert fit.diagnose()["objective"].status == "warn"
    assert "a scale counts 'z'" in fit.diagnose()["objective"].message


def test_one_draw_has_no_known_error():
    x = np.random.default_rng(0).normal(0.0, 2.0, 20)

    def program(x=None):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(parameter("w", 1.0) * z, 1.0), obs=x)

    def guide(x):
        numpyro.sample("z", dist.Normal(parameter("a", 0.5) * x, 0.7))

    fit = pg.fit(pg.Model(program, guide=guide, by_row=True), {"x": x}, "svi", num_steps=20, progress=False)
    for method in ("elbo", "iwae"):
        assert np.isnan(fit.log_prob(method=method, num_particles=1).stderr).all()
    two = [fit.log_prob(method="elbo", num_particles=2, seed=i) for i in range(400)]
    spread = np.var([f.value for f in two], axis=0, ddof=1)
    assert np.mean([f.stderr**2 for f in two], axis=0) / spread == pytest.approx(np.ones(20), abs=0.5)


# ---- learned from rows -------------------------------------------------------------------------------------------


def chain(x=None, y=None, weight=5.0):
    m = parameter("m", 0.0)
    with handlers.scale(scale=weight):
        x = numpyro.sample("x", dist.Normal(m, 1.0), obs=x)
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)


def test_what_is_drawn_given_something_is_of_the_weighed_density_and_refused():
    """Given y the weighed density of x is N((5 m + y) / 6, 1 / 6), the program's N((m + y) / 2, 1 / 2)."""
    x = np.random.default_rng(0).normal(1.0, 1.0, 200)
    settings: Any = {"inference": "mle", "by_row": True, "num_steps": 20, "progress": False}
    fit: Any = pg.fit(chain, {"x": x, "y": x}, **settings)
    with pytest.raises(pg.Incompatible, match=r"'x' has a scale.*given y.*\nLeave the scale out"):
        fit.condition(y=2.0)
    assert fit.sample(2000)["x"].std() == pytest.approx(1.0, abs=0.1)  # run forward, which no scale weighs
    given: Any = pg.fit(chain, {"x": x, "y": x, "weight": np.ones(200)}, **settings)
    target = given.condition(y=2.0, weight=1.0)
    assert any("A scale counts 'x' in what is drawn given y" in note for note in target.notes)
    m = given.parameters["m"]
    density = [float(target.densities(np.array([[z]]))[0]) for z in (0.0, 1.0, -1.0)]
    exact = [stats.norm.logpdf(z, m, 1.0) + stats.norm.logpdf(2.0, z, 1.0) for z in (0.0, 1.0, -1.0)]
    np.testing.assert_allclose(density, exact, atol=1e-4)


def hidden(x=None):
    a = parameter("a", 1.0)
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("x", dist.Normal(a * z, 1.0), obs=x)


def hidden_pyro(x):
    a = pyro.param("a", torch.tensor(1.0))
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", pdist.Normal(0.0, 1.0))
        pyro.sample("x", pdist.Normal(a * z, 1.0), obs=x)


def guide(weight):
    def program(x):
        w, s = parameter("w", 0.5), numpyro.param("s", 0.7, constraint=dist.constraints.positive)
        with handlers.scale(scale=weight):
            numpyro.sample("z", dist.Normal(w * x, s))

    return program


def guide_pyro(weight):
    def program(x):
        w, s = pyro.param("w", torch.tensor(0.5)), pyro.param("s", torch.tensor(0.7))
        with pyro.plate("row", len(x)), poutine.scale(scale=weight):
            pyro.sample("z", pdist.Normal(w * x, s))

    return program


@pytest.mark.parametrize(("program", "of"), [(hidden, guide), (hidden_pyro, guide_pyro)])
def test_a_scale_of_the_guide_alone_makes_no_bound(program, of):
    """It gave log q three times: a "lower bound" above log p(x) of N(0, a^2 + 1)."""
    x = np.random.default_rng(0).normal(0.0, 2.0, 100)
    settings: Any = {"inference": "svi", "num_steps": 20, "batch_size": 100, "progress": False}
    plain, weighed = (pg.fit(pg.Model(program, guide=of(w), by_row=True), {"x": x}, **settings) for w in (1.0, 3.0))
    found: Any = plain.log_prob()
    exact = stats.norm.logpdf(x, 0.0, np.sqrt(plain.parameters["a"] ** 2 + 1))
    assert np.all(np.asarray(found.value) < exact + 0.2)
    assert np.mean(found.value) == pytest.approx(exact.mean(), abs=0.05)
    with pytest.raises(pg.Incompatible, match=r"'z' has a scale"):
        weighed.log_prob()
    assert "a scale counts 'z'" in weighed.diagnose()["objective"].message
    assert plain.diagnose()["objective"].status == "pass"
    with pytest.raises(TypeError, match=r"num_particles is of method='elbo'"):
        plain.log_prob(method="exact", num_particles=10)
