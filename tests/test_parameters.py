"""Parameters beside unknowns, what a program means, and guides of the author's: learned, refused or told, never dropped."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probgen as pg
from probgen.algorithm import Incompatible

POSITIVE = dist.constraints.positive
Y = np.random.default_rng(0).normal(2, 3, 50)
SD = Y.std(ddof=1)  # where the bound of mu's posterior is exact, its maximum over s with mu's prior as good as flat


def plate(y):
    s = numpyro.param("s", 1.0, constraint=POSITIVE)
    mu = numpyro.sample("mu", dist.Normal(0, 100))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(mu, s), obs=y)


def no_plate(y=None):
    s = numpyro.param("s", 1.0, constraint=POSITIVE)
    mu = numpyro.sample("mu", dist.Normal(0, 100))
    numpyro.sample("y", dist.Normal(mu, s), obs=y)


def tree(y):
    net = numpyro.module("net", (lambda key, shape: (shape, {"s": np.ones(1)}), lambda p, x: x * p["s"]), (1,))
    mu = numpyro.sample("mu", dist.Normal(0, 100))
    s = net(np.ones(1))[0] ** 2
    numpyro.sample("y", dist.Normal(mu, s).expand([len(y)]).to_event(1), obs=y)


@pytest.mark.parametrize("program", [plate, no_plate, tree])
@pytest.mark.parametrize("inference", ["mean_field", "svi"])
def test_a_parameter_is_learned_beside_the_posterior_of_an_unknown(program, inference):
    fit = pg.fit(program, {"y": Y}, inference, progress=False)
    (name,) = fit.target.points
    learned = fit.draws[name].reshape(-1)[0] ** (2 if program is tree else 1)
    assert learned == pytest.approx(SD, rel=0.03)
    assert fit.draws["mu"].mean() == pytest.approx(Y.mean(), abs=0.1)
    assert fit.draws["mu"].std() == pytest.approx(SD / np.sqrt(50), rel=0.1)
    assert fit.diagnose().status == "pass"
    assert fit.predict()["y"].values.std() == pytest.approx(SD, rel=0.1)  # predictions have the learned one


def test_the_mode_is_one_of_parameters_and_unknowns():
    fit = pg.fit(plate, {"y": Y}, "map", progress=False)
    assert fit.draws["s"].item() == pytest.approx(Y.std(), rel=1e-3)


@pytest.mark.parametrize("inference", ["nuts", "random_walk", "laplace", "mle", "em"])
def test_what_cannot_learn_a_parameter_refuses_it_by_name(inference):
    with pytest.raises(Incompatible, match=r"parameters? 's'[\s\S]*'svi'"):
        pg.fit(plate, {"y": Y}, inference, progress=False)


def groups(y):
    tau = numpyro.param("tau", 1.0, constraint=POSITIVE)
    with numpyro.plate("group", len(y)):
        theta = numpyro.sample("theta", dist.Normal(0, tau))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


WIDE = np.random.default_rng(1).normal(0, 7, 40)


def test_a_parameter_of_the_prior_alone_is_no_likelihoods_business():
    with pytest.raises(Incompatible, match="integral over 'theta'"):
        pg.fit(groups, {"y": WIDE}, "mle", progress=False)


def test_a_parameter_of_the_prior_alone_is_learned_by_a_bound():
    """The posterior is independent normals: the bound is exact."""
    fit = pg.fit(groups, {"y": WIDE}, "mean_field", progress=False)
    assert fit.draws["tau"].reshape(-1)[0] == pytest.approx(np.sqrt((WIDE**2).mean() - 1), rel=0.03)


def test_parameters_of_a_density_that_is_no_sum_over_rows_have_a_maximum_too():
    x = np.linspace(0, 5, 12)
    y = np.sin(x) + 0.1 * np.random.default_rng(0).normal(size=12)

    def process(x, y, jnp):
        s, scale = (numpyro.param(k, 1.0, constraint=POSITIVE) for k in ("s", "l"))
        cov = jnp.exp(-0.5 * (x[:, None] - x) ** 2 / scale**2) + s**2 * jnp.eye(len(x))
        numpyro.sample("y", dist.MultivariateNormal(0.0, cov), obs=y)

    import functools

    import jax.numpy as jnp
    from scipy.optimize import minimize
    from scipy.stats import multivariate_normal

    def loss(p):
        cov = np.exp(-0.5 * (x[:, None] - x) ** 2 / np.exp(2 * p[0])) + np.exp(2 * p[1]) * np.eye(12)
        return -multivariate_normal(np.zeros(12), cov).logpdf(y)

    best = np.exp(minimize(loss, [0.0, 0.0]).x)
    program = functools.partial(process, jnp=jnp)
    fit = pg.fit(program, {"x": x, "y": y}, "mle", engine="numpyro", progress=False)
    np.testing.assert_allclose([fit.draws["l"].item(), fit.draws["s"].item()], best, rtol=1e-3)
    with pytest.raises(Incompatible, match="mle"):
        pg.fit(program, {"x": x, "y": y}, "nuts", engine="numpyro", progress=False)


def test_a_program_means_the_same_with_and_without_a_plate():
    whole, same = (pg.fit(p, {"y": Y}, "mean_field", progress=False) for p in (plate, no_plate))
    np.testing.assert_allclose(whole.draws["s"][0, 0], same.draws["s"][0, 0], rtol=1e-6)
    assert any("'mu' is one unknown for all rows" in note for note in same.notes)
    assert "by_row=True" in str(same.diagnose())


def test_a_row_of_its_own_is_what_is_declared():
    fit = pg.fit(no_plate, {"y": Y}, "svi", by_row=True, num_steps=20, batch_size=50, progress=False)
    assert fit.inference.name == "amortised_svi"
    assert [v.name for v in fit.target.hidden] == ["mu"]


@pytest.mark.parametrize("inference", ["iwae", "amortised_svi"])
def test_a_learner_that_knows_rows_alone_says_how_it_reads_the_program(inference):
    fit = pg.fit(no_plate, {"y": Y}, inference, num_steps=20, batch_size=50, progress=False)
    assert [v.name for v in fit.target.hidden] == ["mu"]
    assert any("read as one of a single row, with 'mu' of its own" in note for note in fit.notes)
    assert "by_row" in str(fit.diagnose())


def test_parameters_alone_are_learned_from_rows_or_whole_to_the_same_maximum():
    def plain(y=None):
        s, m = numpyro.param("s", 1.0, constraint=POSITIVE), numpyro.param("m", 0.0)
        numpyro.sample("y", dist.Normal(m, s), obs=y)

    rows = pg.fit(plain, {"y": Y}, "em", progress=False)
    whole = pg.fit(plain, {"y": Y}, "mle", by_row=False, progress=False)
    assert (rows.inference.name, whole.inference.name) == ("em", "maximum_likelihood")
    for fit in (rows, whole):
        assert fit.draws["s"].item() == pytest.approx(Y.std(), rel=1e-4)


def test_state_that_changes_in_a_run_is_refused():
    def counting(y):
        numpyro.primitives.mutable("count", {"n": 0.0})
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0, 1)), 1.0), obs=y)

    with pytest.raises(ValueError, match="'count' is state that changes"):
        pg.fit(counting, {"y": Y}, "nuts", progress=False)


# ---- guides


def family(y):
    numpyro.sample("mu", dist.Normal(numpyro.param("a", 0.0), numpyro.param("b", 1.0, constraint=POSITIVE)))


def stubborn(y):
    numpyro.sample("mu", dist.Normal(100.0, 0.001))


def point(y):
    numpyro.sample("mu", dist.Delta(numpyro.param("a", 0.0)))


def test_a_guide_of_the_authors_is_learned_with_the_programs_parameters():
    fit = pg.fit(plate, {"y": Y}, "svi", guide=family, progress=False)
    assert fit.inference.name == "guided_svi"
    assert fit.draws["mu"].std() == pytest.approx(SD / np.sqrt(50), rel=0.15)
    assert fit.draws["s"].reshape(-1)[0] == pytest.approx(SD, rel=0.03)
    assert fit.diagnose().status == "pass"


def test_a_guide_that_is_wrong_is_used_and_fails():
    fit = pg.fit(pg.Model(plate, guide=stubborn), {"y": Y}, "svi", num_steps=2000, progress=False)
    assert fit.draws["mu"].mean() == pytest.approx(100, abs=0.01)
    assert fit.diagnose().status == "fail"


def test_a_guide_of_points_has_no_uncertainty_and_says_so():
    fit = pg.fit(plate, {"y": Y}, "svi", guide=point, progress=False)
    assert fit.draws["mu"].std() < 1e-6
    assert fit.diagnose()["point"].status == "warn"


def test_a_guide_is_run():
    def broken(y):
        raise RuntimeError("the guide was called")

    with pytest.raises((RuntimeError, ValueError), match="the guide was called"):
        pg.fit(plate, {"y": Y}, "svi", guide=broken, progress=False)


@pytest.mark.parametrize("names", [("nu",), ("mu", "nu"), ()])
def test_a_guide_draws_just_the_unknowns(names):
    def odd(y):
        for name in names:
            numpyro.sample(name, dist.Normal(0, 1))
        numpyro.param("a", 0.0)

    with pytest.raises(ValueError, match="must draw the program's hidden sites"):
        pg.fit(plate, {"y": Y}, "svi", guide=odd, progress=False)


def test_an_algorithm_without_use_for_a_guide_says_so():
    def plain(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0, 100)), 3.0).expand([50]), obs=y)

    fit = pg.fit(plain, {"y": Y}, "nuts", guide=stubborn, num_samples=100, num_warmup=100, progress=False)
    assert any("nuts does not use the program's guide" in note for note in fit.notes)
    assert fit.draws["mu"].mean() == pytest.approx(Y.mean(), abs=0.3)


def test_a_guided_run_resumes_bit_for_bit(tmp_path):
    settings = {"num_steps": 60, "num_draws": 10, "progress": False, "guide": family}
    whole = pg.fit(plate, {"y": Y}, "svi", **settings)
    pg.fit(plate, {"y": Y}, "svi", out=tmp_path / "run", **settings)
    again = pg.load(tmp_path / "run")
    for name, value in whole.draws.items():
        np.testing.assert_array_equal(value, again.draws[name])
