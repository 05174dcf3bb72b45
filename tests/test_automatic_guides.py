"""NumPyro's automatic guides as `guide=`: classes, objects and lists of them, against closed forms; runs are found again."""

import functools

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import autoguide, init_to_value

import probgen as pg

Y = np.random.default_rng(0).normal(2.0, 1.0, 30)
X = np.random.default_rng(1).normal(size=(40, 2))
Z = np.concatenate([np.random.default_rng(2).normal(m, 0.5, 60) for m in (-3.0, 3.0)])
MEAN, SD = Y.sum() / (30 + 1 / 9), (30 + 1 / 9) ** -0.5  # of mu in `normal`
QUICK = {"num_steps": 800, "num_particles": 8, "learning_rate": 0.05, "block": 50, "progress": False}


def normal(y):
    mu = numpyro.sample("mu", dist.Normal(0, 3))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def bounded(y):
    """p ~ Beta(2, 3), 30 coins of which as many are heads as y is positive: Beta in closed form."""
    p = numpyro.sample("p", dist.Beta(2.0, 3.0))
    numpyro.sample("heads", dist.Bernoulli(p).expand([30]), obs=(y > 2.0))


def mixture(z):
    w = numpyro.sample("w", dist.Dirichlet(numpyro.primitives.jnp.ones(2)))
    m = numpyro.sample("m", dist.Normal(numpyro.primitives.jnp.array([-1.0, 1.0]), 5.0).to_event(1))
    with numpyro.plate("n", len(z)):
        k = numpyro.sample("k", dist.Categorical(w))
        numpyro.sample("z", dist.Normal(m[k], 0.5), obs=z)


def test_a_class_of_automatic_guides_is_one_of_the_program():
    fit = pg.fit(normal, {"y": Y}, "svi", guide=autoguide.AutoNormal, **QUICK)
    assert fit.draws["mu"].mean() == pytest.approx(MEAN, abs=0.2 * SD)
    assert fit.draws["mu"].std() == pytest.approx(SD, rel=0.1)
    assert "log_q" in fit.answer
    assert fit.diagnose()["k_hat"].status == "pass"


@pytest.mark.parametrize("kind", ["AutoMultivariateNormal", "AutoLaplaceApproximation"])
def test_an_object_has_the_mean_and_the_width_of_its_library(kind):
    fit = pg.fit(bounded, {"y": Y}, "svi", guide=getattr(autoguide, kind)(bounded), **QUICK)
    heads = (Y > 2).sum()
    a, b = 2 + heads, 3 + 30 - heads
    assert fit.draws["p"].mean() == pytest.approx(a / (a + b), abs=0.02)
    assert fit.draws["p"].std() == pytest.approx(np.sqrt(a * b / (a + b + 1)) / (a + b), rel=0.15)


def test_the_mode_of_auto_delta_is_that_of_the_constrained_density_and_has_no_width():
    fit = pg.fit(bounded, {"y": Y}, "svi", guide=autoguide.AutoDelta, **QUICK)
    assert fit.draws["p"].mean() == pytest.approx((1 + (Y > 2).sum()) / 33, abs=1e-3)
    assert fit.diagnose()["point"].status == "warn"


def test_a_guide_begins_where_it_is_told():
    guide = autoguide.AutoDelta(normal, init_loc_fn=init_to_value(values={"mu": 50.0}))
    fit = pg.fit(normal, {"y": Y}, "svi", guide=guide, num_steps=1, num_draws=1, progress=False)
    assert fit.draws["mu"].mean() == pytest.approx(50.0, abs=0.1)


def test_a_list_of_guides_draws_each_part_by_its_own():
    def two(y):
        mu = numpyro.sample("mu", dist.Normal(0, 3))
        s = numpyro.sample("s", dist.LogNormal(0, 0.2))
        numpyro.sample("y", dist.Normal(mu, s).expand([30]), obs=y)

    guide = autoguide.AutoGuideList(two)
    part = lambda hidden: numpyro.handlers.block(numpyro.handlers.seed(two, 0), hide=[hidden])  # noqa: E731
    guide.append(autoguide.AutoNormal(part("s")))
    guide.append(autoguide.AutoDelta(part("mu"), prefix="point"))
    fit = pg.fit(two, {"y": Y}, "svi", guide=guide, **QUICK)
    assert fit.draws["s"].std() < 1e-6
    assert fit.draws["mu"].std() == pytest.approx(fit.draws["s"].mean() / np.sqrt(30), rel=0.15)
    assert fit.diagnose()["point"].status == "warn"


def test_a_class_leaves_finite_unknowns_to_their_sum():
    fit = pg.fit(mixture, {"z": Z}, "svi", guide=autoguide.AutoNormal, **QUICK)
    np.testing.assert_allclose(np.sort(fit.draws["m"].mean((0, 1))), [-3.0, 3.0], atol=0.2)


def test_a_guide_of_another_program_is_told():
    with pytest.raises(ValueError, match=r"not drawn by the guide|does not run on the data"):
        pg.fit(normal, {"y": Y}, "svi", guide=autoguide.AutoNormal(bounded), progress=False)


@pytest.mark.parametrize(
    "guide",
    [
        autoguide.AutoNormal,
        autoguide.AutoNormal(normal, init_scale=0.3, init_loc_fn=init_to_value(values={"mu": 1.0})),
        functools.partial(autoguide.AutoDiagonalNormal, init_scale=0.2),
    ],
)
def test_a_run_with_an_automatic_guide_is_found_again(guide, tmp_path):
    settings = {"num_steps": 40, "num_draws": 10, "progress": False, "guide": guide}
    whole = pg.fit(normal, {"y": Y}, "svi", out=tmp_path / "run", **settings)
    for again in (pg.load(tmp_path / "run"), pg.resume(tmp_path / "run")):
        assert again.inference.name == "guided_svi"
        np.testing.assert_array_equal(whole.draws["mu"], again.draws["mu"])


def test_another_data_set_of_the_same_shape_is_not_the_first_ones():
    def lower(y):
        floor = numpyro.sample("floor", dist.Uniform(y.min() - 1.0, y.min()))
        numpyro.sample("y", dist.Normal(floor + 1.0, 1.0).expand([30]), obs=y)

    for shift in (0.0, 50.0):
        fit = pg.fit(lower, {"y": Y + shift}, "svi", guide=autoguide.AutoNormal, **QUICK | {"num_steps": 50})
        low = (Y + shift).min()
        assert ((fit.draws["floor"] > low - 1) & (fit.draws["floor"] < low)).all()
