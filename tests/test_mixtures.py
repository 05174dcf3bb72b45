"""Mixtures and their kin: expectation maximisation, programs with priors learned by likelihood alone, inputs, completions."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import probgen as pg
from probgen import catalog
from probgen.data.toys import eight_gaussians
from probgen.distributions.ordered import Ordered, sorted_rows
from probgen.run import conditioned
from probgen.run.runner import Run


def mixture_data(x, **settings):
    return {**catalog.model("gaussian_mixture").rows(x), **settings}


# ---- expectation maximisation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("covariance", "theirs"), [("full", "full"), ("diagonal", "diag"), ("tied", "tied")])
def test_em_meets_scikit_learn_from_the_same_start_and_never_gets_worse(covariance, theirs):
    """Overlapping clusters, so that many iterations are needed; scikit-learn starts at our first parameters."""
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)) * [1, 0.5] + np.array([[0, 0], [1.5, 1], [3, -0.5]])[rng.integers(3, size=600)]
    data = mixture_data(x, num_components=3, covariance=covariance)
    first = pg.fit("gaussian_mixture", data, "em", num_steps=1).parameters
    fit = pg.fit("gaussian_mixture", data, "em", tolerance=1e-10, num_steps=3000)
    loss = fit.records["loss"][0]
    assert fit.complete
    assert len(loss) > 20
    assert np.diff(loss).max() < 1e-7
    if covariance == "diagonal":
        precisions = first["scale"] ** -2.0
    else:
        precisions = np.linalg.inv(first["scale_tril"] @ np.swapaxes(first["scale_tril"], -1, -2))
    peer = GaussianMixture(
        3, covariance_type=theirs, tol=1e-10, max_iter=5000, reg_covar=0, means_init=first["loc"],
        weights_init=first["weights"], precisions_init=precisions,
    ).fit(x)  # fmt: skip
    assert fit.log_prob().value.mean() == pytest.approx(peer.score(x), abs=1e-3)
    order = np.argsort(peer.means_[:, 0])
    np.testing.assert_allclose(fit.parameters["loc"], peer.means_[order], atol=0.02)
    np.testing.assert_allclose(fit.parameters["weights"], peer.weights_[order], atol=0.01)
    assert fit.diagnose().status == "pass"


def test_em_of_a_single_component_is_the_closed_form_in_one_step():
    x = np.random.default_rng(0).normal(size=(400, 3)) @ np.triu(np.ones((3, 3)))
    fit = pg.fit("gaussian", {"x": x, "dim": 3}, "em")
    np.testing.assert_allclose(fit.parameters["loc"], x.mean(0), atol=1e-6)
    tril = fit.parameters["scale_tril"]
    np.testing.assert_allclose(tril @ tril.T, np.cov(x.T, bias=True), rtol=1e-5, atol=1e-6)
    assert fit.num_steps <= 3


def test_em_of_counts_finds_their_rates():
    """A mixture of Poisson distributions, the user's own program with parameters."""

    def counts(x=None):
        weights = numpyro.param("weights", jnp.ones(2) / 2, constraint=dist.constraints.simplex)
        rate = numpyro.param("rate", jnp.array([1.0, 2.0]), constraint=dist.constraints.positive)
        numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(probs=weights), dist.Poisson(rate)), obs=x)

    rng = np.random.default_rng(0)
    x = rng.poisson(np.where(rng.random(20_000) < 0.3, 2.0, 12.0)).astype(float)
    fit = pg.fit(counts, {"x": x}, "em")
    np.testing.assert_allclose(fit.parameters["rate"], [2, 12], rtol=0.03)
    np.testing.assert_allclose(fit.parameters["weights"], [0.3, 0.7], atol=0.02)


def test_em_of_bits_survives_pixels_that_are_never_on():
    x = np.zeros((200, 6))
    x[:100, :2] = 1
    fit = pg.fit("bernoulli_mixture", {"x": x, "num_visible": 6, "num_components": 2}, "em")
    assert np.isfinite(fit.parameters["logits"]).all()
    assert fit.log_prob().value.mean() == pytest.approx(-np.log(2), abs=0.01)


def test_what_em_cannot_do_is_said():
    def shifted(x=None):
        loc = numpyro.param("loc", jnp.zeros(2))
        numpyro.sample(
            "x", dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Poisson(jnp.exp(loc))), obs=x
        )

    with pytest.raises(TypeError, match="needs every argument of 'x' to be a parameter; 'rate' is not"):
        pg.fit(shifted, {"x": np.ones(20)}, "em")
    with pytest.raises(TypeError, match="Flow is not one of the exponential families"):
        pg.fit("realnvp", inference="em")
    with pytest.raises(ValueError, match="12 components need as many rows; there are 5"):
        pg.fit("gaussian_mixture", mixture_data(np.random.default_rng(0).normal(size=(5, 2)), num_components=12), "em")
    with pytest.raises(ValueError, match="known: full, diagonal, tied"):
        pg.fit("gaussian_mixture", mixture_data(np.zeros((9, 2)), covariance="round"), "em")


# ---- one program, several algorithms -----------------------------------------------------------------------------


def test_mle_finds_the_clusters_that_em_finds():
    x = eight_gaussians(2000, seed=0)
    data = mixture_data(x, num_components=8)
    by_em, by_mle = (pg.fit("gaussian_mixture", data, name, **settings) for name, settings in
                     (("em", {}), ("mle", {"num_steps": 1000, "learning_rate": 0.01})))  # fmt: skip
    assert by_mle.log_prob().value.mean() == pytest.approx(by_em.log_prob().value.mean(), abs=2e-3)
    new = by_mle.sample(4000)["x"]
    np.testing.assert_allclose(np.cov(new.T), np.cov(x.T), rtol=0.1, atol=0.2)


def test_an_array_is_enough_for_a_model_that_learns_from_rows():
    x = eight_gaussians(500, seed=1)
    fit = pg.fit("gaussian_mixture", x, "em")
    assert fit.parameters["loc"].shape == (2, 2)
    with pytest.raises(TypeError, match=r"does not say how it takes an array: name it(.|\n)*Its arguments: \w+, "):
        pg.fit("eight_schools", x)


def test_the_posterior_of_two_normals_is_the_same_in_both_programs():
    """The general mixture, diagonal in one dimension: its log density differs from the other's by a constant."""
    y = conditioned("two_normals", None)[1].data["y"]
    general = conditioned(
        "gaussian_mixture",
        {"centre": np.zeros(1), "spread": np.ones(1), "x": y[:, None], "covariance": "diagonal"},
    )[1]
    oracle = catalog.model("two_normals").oracle.log_density
    found, rng = [], np.random.default_rng(0)
    with jax.enable_x64():
        for _ in range(5):
            loc, scale, theta = np.sort(rng.normal(size=2) * 2), np.exp(rng.normal(size=2)), rng.uniform(0.1, 0.9)
            values = {"loc": loc[:, None], "scale": scale[:, None], "weights": np.array([theta, 1 - theta])}
            z = jnp.asarray(general.unconstrain(values))
            at = general.structure.unravel(z)
            from numpyro.distributions import biject_to

            supports = {"loc": sorted_rows, "scale": dist.constraints.positive, "weights": dist.constraints.simplex}
            jacobian = sum(
                float(jnp.sum(biject_to(c).log_abs_det_jacobian(at[k], jnp.asarray(values[k]))))
                for k, c in supports.items()
            )
            theirs = oracle(
                {"midpoint": loc.mean(), "reach": (loc[1] - loc[0]) / 2, "sigma": scale, "theta": theta}, {"y": y}
            )
            found.append(float(general.log_density(z)) - jacobian - theirs)
    np.testing.assert_allclose(found, found[0], atol=1e-6)


@pytest.mark.slow
def test_nuts_meets_em_where_the_data_decide():
    x = eight_gaussians(2000, seed=0)
    data = mixture_data(x, num_components=8)
    fit = pg.fit("gaussian_mixture", data, "nuts", num_samples=500, num_warmup=500)
    em = pg.fit("gaussian_mixture", data, "em")
    mean, sd = (getattr(fit.posterior["loc"], how)(("chain", "draw")).to_numpy() for how in ("mean", "std"))
    assert np.mean(abs(mean - em.parameters["loc"]) < 3 * sd + 0.03) > 0.9


def test_sorted_draws_have_the_density_of_order_statistics():
    prior = Ordered(dist.Normal(jnp.zeros(2), jnp.array([1.0, 3.0])).to_event(1), 3)
    draws = prior.sample(jax.random.key(0), (20_000,))
    assert bool(sorted_rows(draws).all())
    exact = stats.norm.ppf(np.linspace(0, 1, 200_001)[1:-1])  # the largest of three: density 3 cdf^2 pdf
    cdf = stats.norm.cdf(exact)
    assert float(draws[:, 2, 0].mean()) == pytest.approx(np.mean(3 * cdf**2 * exact), abs=0.02)
    expected = np.log(6) + stats.norm.logpdf(draws[0], 0, [1, 3]).sum()
    assert float(prior.log_prob(draws[0])) == pytest.approx(expected, abs=1e-4)
    transform = dist.biject_to(sorted_rows)
    u = jax.random.normal(jax.random.key(1), (3, 2))
    jacobian = jax.jacobian(lambda flat: transform(flat.reshape(3, 2)).ravel())(u.ravel())
    assert float(transform.log_abs_det_jacobian(u, transform(u))) == pytest.approx(
        np.linalg.slogdet(jacobian)[1], abs=1e-4
    )
    with pytest.raises(ValueError, match="to_event"):
        Ordered(dist.Normal(jnp.zeros(2), 1.0), 3)


def regression(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0, 0.001))  # a prior that likelihood has to ignore
    scale = numpyro.sample("scale", dist.Uniform(0.0, 10.0))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(slope * x, scale), obs=y)


def test_a_posterior_program_is_learned_by_likelihood_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=500)
    y = 2 * x + rng.normal(size=500)
    fit = pg.fit(regression, {"x": x, "y": y}, "mle", num_steps=3000, learning_rate=0.02, batch_size=500)
    slope = (x @ y) / (x @ x)
    assert float(fit.parameters["slope"]) == pytest.approx(slope, abs=2e-3)
    assert float(fit.parameters["scale"]) == pytest.approx(np.sqrt(np.mean((y - slope * x) ** 2)), rel=2e-3)
    drawn = fit.condition(x=np.array(1.5)).sample(4000)["y"]
    assert drawn.mean() == pytest.approx(1.5 * slope, abs=0.07)


def test_rows_that_depend_on_each_other_are_refused():
    def walk(y=None):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("y", dist.GaussianRandomWalk(scale, num_steps=1 if y is None else len(y)), obs=y)

    with pytest.raises(TypeError, match="Its rows are not independent"):
        pg.fit(walk, {"y": np.cumsum(np.random.default_rng(0).normal(size=50))}, "mle")


# ---- inputs ------------------------------------------------------------------------------------------------------


def test_softmax_regression_meets_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 3))
    y = np.argmax(x @ rng.normal(size=(3, 3)) + rng.gumbel(size=(1500, 3)), axis=1)
    settings = {"batch_size": 1500, "num_steps": 3000, "learning_rate": 0.02}
    fit = pg.fit("softmax_regression", {"x": x, "y": y, "num_classes": 3}, "mle", **settings)
    peer = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(x, y)
    ours = np.exp(np.stack([fit.log_prob(x=x, y=np.full(1500, k)).value for k in range(3)], 1))
    np.testing.assert_allclose(ours, peer.predict_proba(x), atol=2e-3)
    drawn = fit.condition(x=x[0]).sample(20_000)["y"]
    np.testing.assert_allclose(np.bincount(drawn.astype(int), minlength=3) / 20_000, ours[0], atol=0.015)


def test_inputs_are_asked_for_and_checked():
    x, y = np.random.default_rng(0).normal(size=(60, 16)), np.arange(60) % 3
    fit = pg.fit("softmax_regression", {"x": x, "y": y, "num_classes": 3}, "mle", num_steps=20)
    panels = fit.plot("filters").axes
    assert [panel.get_title() for panel in panels] == ["0", "1", "2"], "a class each, in order"
    assert np.array_equal(panels[1].images[0].get_array(), fit.parameters["W"][:, 1].reshape(4, 4))
    with pytest.raises(TypeError, match=r"given x: say x=\.\.\. in fit\.sample or fit\.condition"):
        fit.sample(3)
    with pytest.raises(ValueError, match="Different numbers of rows"):
        fit.log_prob(x=x, y=y[:5])
    with pytest.raises(TypeError, match="Missing rows of x"):
        fit.log_prob(y=y)
    with pytest.raises(ValueError, match="support"):
        pg.fit("softmax_regression", {"x": x, "y": y, "num_classes": 2}, "mle", num_steps=20)


# ---- completions -------------------------------------------------------------------------------------------------


def test_a_normal_is_completed_by_its_conditional():
    x = np.random.default_rng(0).normal(size=(3000, 2)) @ np.array([[1, 0.9], [0, 0.3]])
    for name, data in (("gaussian", {"x": x, "dim": 2}), ("gaussian_mixture", mixture_data(x, num_components=2))):
        fit = pg.fit(name, data, "em")
        drawn = fit.condition(x=np.array([1.5, np.nan])).sample(20_000)["x"]
        assert (drawn[:, 0] == 1.5).all()
        assert drawn[:, 1].mean() == pytest.approx(1.35, abs=0.05)
        assert drawn[:, 1].std() == pytest.approx(0.3, abs=0.02)


def test_a_mixture_of_bits_is_completed_by_enumeration():
    rng = np.random.default_rng(0)
    pictures = np.array([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1]])
    x = (pictures[rng.integers(2, size=500)] ^ (rng.random((500, 5)) < 0.1)).astype(float)
    fit = pg.fit("bernoulli_mixture", {"x": x, "num_visible": 5, "num_components": 2}, "em")
    every = np.array([[1, b, c, d, 0] for b in (0, 1) for c in (0, 1) for d in (0, 1)], float)
    exact = np.exp(fit.log_prob(x=every).value)
    drawn = fit.condition(x=np.array([1, np.nan, np.nan, np.nan, 0])).sample(40_000)["x"]
    found = [(drawn == row).all(1).mean() for row in every]
    np.testing.assert_allclose(found, exact / exact.sum(), atol=0.01)


def components():
    """Batches of distributions over five reals, written in as many ways, with their equal as a dense normal."""
    rng = np.random.default_rng(0)
    loc, scale = rng.normal(size=(3, 5)), rng.uniform(0.5, 2, size=5)
    root = np.linalg.cholesky(np.cov(rng.normal(size=(8, 5)).T))
    dense = lambda loc, cov: (np.broadcast_to(loc, (3, 5)), np.broadcast_to(cov, (3, 5, 5)))  # noqa: E731
    return {
        "independent": (dist.Normal(loc, scale).to_event(1), dense(loc, np.diag(scale**2))),
        "expanded": (dist.Normal(0, 1).expand([3, 5]).to_event(1), dense(0, np.eye(5))),
        "expanded twice": (dist.Normal(0, scale).to_event(1).expand([3]), dense(0, np.diag(scale**2))),
        "dense": (dist.MultivariateNormal(loc, scale_tril=root), dense(loc, root @ root.T)),
        "dense, expanded": (dist.MultivariateNormal(loc[0], scale_tril=root).expand([3]), dense(loc[0], root @ root.T)),
    }


@pytest.mark.parametrize("case", components())
def test_the_known_part_of_a_mixture_has_its_marginal_density(case):
    """Known coordinates 1 and 3 choose the component, whose conditional mean and covariance the other three have."""
    from probgen.engine.numpyro.programs import completion

    batch, (loc, cov) = components()[case]
    known = np.array([False, True, False, True, False])
    value = np.where(known, np.arange(5) / 3, np.nan)
    weights = np.array([0.2, 0.3, 0.5])
    seen, hidden = np.flatnonzero(known), np.flatnonzero(~known)
    of = lambda k: stats.multivariate_normal(loc[k][seen], cov[k][np.ix_(seen, seen)]).logpdf(value[seen])  # noqa: E731
    log_known = np.array([of(k) for k in range(3)])
    found = completion._given(batch, jax.random.key(0), jnp.where(known, value, 0), known)[1]
    np.testing.assert_allclose(found, log_known, atol=1e-5)
    fn = dist.MixtureSameFamily(dist.Categorical(probs=jnp.asarray(weights)), batch)
    one = jax.jit(lambda key: completion.complete(fn, key, value, known))
    drawn, exact = jax.vmap(one)(jax.random.split(jax.random.key(1), 40_000))
    assert np.asarray(exact).all()
    drawn = np.asarray(drawn, float)
    share = weights * np.exp(log_known) / (weights @ np.exp(log_known))
    pull = [cov[k][np.ix_(hidden, seen)] @ np.linalg.inv(cov[k][np.ix_(seen, seen)]) for k in range(3)]
    means = np.array([loc[k][hidden] + pull[k] @ (value[seen] - loc[k][seen]) for k in range(3)])
    inner = [cov[k][np.ix_(hidden, hidden)] - pull[k] @ cov[k][np.ix_(seen, hidden)] for k in range(3)]
    mean = share @ means
    whole = sum(s * (c + np.outer(m - mean, m - mean)) for s, c, m in zip(share, inner, means, strict=True))
    np.testing.assert_allclose(drawn[:, seen], np.broadcast_to(value[seen], (40_000, 2)), atol=1e-6)
    np.testing.assert_allclose(drawn[:, hidden].mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(drawn[:, hidden].T), whole, atol=0.12)


def test_independent_dense_normals_are_completed_one_by_one():
    from probgen.engine.numpyro.programs import completion

    root = np.linalg.cholesky(np.array([[1.0, 0.8], [0.8, 1.0]]))
    fn = dist.MultivariateNormal(jnp.zeros((3, 2)), scale_tril=root).to_event(1)
    value = np.array([[1.0, np.nan], [np.nan, -1.0], [np.nan, np.nan]])
    one = lambda key: completion.complete(fn, key, value, ~np.isnan(value))[0]  # noqa: E731
    drawn = np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(0), 40_000)))
    np.testing.assert_allclose(drawn.mean(0), [[1, 0.8], [-0.8, -1], [0, 0]], atol=0.02)
    np.testing.assert_allclose(drawn.std(0), [[0, 0.6], [0.6, 0], [1, 1]], atol=0.02)


def test_nothing_is_drawn_forward_where_that_is_not_the_density():
    v = np.ones((20, 4))
    fit = pg.fit("rbm", {"v": v, "num_visible": 4, "num_hidden": 2}, "cd", num_steps=20)
    with pytest.raises(TypeError, match="part of an energy"):
        fit.condition().sample(3)

    def posterior(y=None):
        loc = numpyro.sample("loc", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(loc, 1).expand([3]).to_event(1), obs=y)

    with pytest.raises(TypeError, match="'y' is known and comes after 'loc'"):
        conditioned(posterior, {"y": np.zeros(3)})[1].sample(3)
    assert conditioned(posterior, {})[1].sample(3)["y"].shape == (3, 3)


@pytest.mark.parametrize(("inference", "num_steps"), [("em", 60), ("mle", 200)])
def test_a_mixture_goes_on_from_its_state_bit_for_bit(tmp_path, killed, inference, num_steps):
    data = mixture_data(np.random.default_rng(0).normal(size=(300, 2)), num_components=2)
    settings = {"num_steps": num_steps} | ({"tolerance": 1e-12} if inference == "em" else {})
    whole = pg.fit("gaussian_mixture", data, inference, out=tmp_path / "whole", **settings)
    killed(pg.fit, "gaussian_mixture", data, inference, out=tmp_path / "part", **settings)
    assert pg.load(tmp_path / "part").num_steps < whole.num_steps
    again = pg.resume(tmp_path / "part")
    for name, array in whole.parameters.items():
        np.testing.assert_array_equal(array, again.parameters[name])
        np.testing.assert_array_equal(array, pg.load(tmp_path / "whole").parameters[name])


def test_a_learner_ends_where_it_converged_and_not_where_the_clock_ends_a_chunk(tmp_path, monkeypatch):
    data = mixture_data(np.random.default_rng(0).normal(size=(200, 2)), num_components=2)
    found = pg.fit("gaussian_mixture", data, "em", tolerance=1e-5, out=tmp_path / "run", progress=False)
    steps = found.num_steps
    assert found.complete
    assert steps < 1000
    assert steps % 16, "it ends within a chunk"
    monkeypatch.setattr(Run, "agreed", lambda run, size, stops: (1, stops))
    told = pg.fit("gaussian_mixture", data, "em", tolerance=1e-5, progress=False)
    assert told.num_steps == steps
    for name, array in told.parameters.items():
        np.testing.assert_array_equal(array, found.parameters[name])
        np.testing.assert_array_equal(array, pg.load(tmp_path / "run").parameters[name])


def test_a_component_without_rows_is_told():
    x = np.concatenate([np.random.default_rng(0).normal(size=(100, 1)), [[1000.0]]])
    verdict = pg.fit("gaussian_mixture", mixture_data(x, num_components=2), "em").diagnose()
    assert [f.status for f in verdict.findings if f.check == "components"] == ["warn"]


def test_what_has_no_closed_form_is_sent_to_a_chain():
    fit = pg.fit("realnvp", {"x": np.random.default_rng(0).normal(size=(64, 2)), "dim": 2}, "mle", num_steps=2)
    with pytest.raises(TypeError, match="by a Markov chain"):
        fit.condition(x=np.array([0.0, np.nan])).sample(3)


def test_the_scales_of_rows_are_derived_where_they_are_not_given():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(m, 0.3, (60, 2)) for m in (-3, 0, 3)])
    fit = pg.fit("gaussian_mixture", {"x": x, "num_components": 3}, "em", progress=False)
    assert np.allclose(fit.parameters["loc"][:, 0], [-3, 0, 3], atol=0.2)
    with pytest.raises(TypeError, match="centre, spread"):
        pg.fit("gaussian_mixture", {"x": x[:, 0], "num_components": 3}, "em", progress=False)
