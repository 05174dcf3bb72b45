"""Exponential families: densities against NumPyro's, moments against draws, fits against SciPy's and against the score."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro import handlers

import probgen as pg
from probgen import runtime
from probgen.distributions import families, normal

ROOT = [[1.0, 0, 0], [0.5, 0.7, 0], [-0.3, 0.2, 1.4]]

MEMBERS = {  # some with a batch, some with independent coordinates, some with both
    "normal": lambda: dist.Normal(jnp.array([[0.0, 3], [-2, 5], [1, 1]]), jnp.array([0.5, 2])).to_event(1),
    "lognormal": lambda: dist.LogNormal(jnp.array([0.3, -1.0]), 0.7),
    "halfnormal": lambda: dist.HalfNormal(2.5),
    "multivariate_normal": lambda: dist.MultivariateNormal(
        jnp.array([[1.0, 2, 3], [0, 0, 1]]), scale_tril=jnp.array(ROOT)
    ),
    "multivariate_normal of the house": lambda: normal.MultivariateNormal(
        jnp.zeros((2, 3)), scale_tril=jnp.array(ROOT)
    ),
    "exponential": lambda: dist.Exponential(jnp.array([0.2, 3.0])).to_event(1),
    "gamma": lambda: dist.Gamma(jnp.array([0.4, 7.0]), jnp.array([3.0, 0.5])),
    "inverse_gamma": lambda: dist.InverseGamma(5.0, jnp.array([3.0, 0.5])),
    "beta": lambda: dist.Beta(jnp.array([0.8, 7.0]), 2.0),
    "dirichlet": lambda: dist.Dirichlet(jnp.array([[0.8, 2, 5], [9.0, 9, 9]])),
    "wishart": lambda: dist.Wishart(jnp.array([4.5, 9.0]), scale_tril=jnp.array(ROOT)),
    "von_mises": lambda: dist.VonMises(jnp.array([0.3, -2.0]), jnp.array([0.4, 6.0])),
    "bernoulli": lambda: dist.Bernoulli(logits=jnp.array([[0.2, -2], [1, 0]])).to_event(1),
    "bernoulli probs": lambda: dist.Bernoulli(jnp.array(0.3)).expand([2, 3]).to_event(1),
    "binomial": lambda: dist.Binomial(7, jnp.array([0.3, 0.6])),
    "binomial logits": lambda: dist.Binomial(jnp.array([3, 8]), logits=jnp.array([0.3, -0.6])).to_event(1),
    "geometric": lambda: dist.Geometric(jnp.array([0.2, 0.9])),
    "geometric logits": lambda: dist.Geometric(logits=jnp.array([0.2, -1.0])),
    "poisson": lambda: dist.Poisson(jnp.array([[0.2, 4.0, 30.0], [1, 2, 3]])).to_event(1),
    "categorical": lambda: dist.Categorical(jnp.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])),
    "categorical logits": lambda: dist.Categorical(logits=jnp.array([[0.2, 1.5], [1, 3], [0, 0]])).to_event(1),
    "multinomial": lambda: dist.Multinomial(9, jnp.array([0.2, 0.5, 0.3])),
    "multinomial logits": lambda: dist.Multinomial(9, logits=jnp.array([0.2, 0.5, 0.3])),
}
every = pytest.mark.parametrize("word", MEMBERS)


@pytest.fixture(autouse=True)
def _double():
    with runtime.jax_scope("float64"):
        yield


def member(word):
    d = MEMBERS[word]()
    return d, families.of(d)


@functools.lru_cache
def computed(word):
    """All that the tests look at, compiled once: 40,000 draws, and the fit to the first 500 of them."""
    d, family = member(word)

    @jax.jit
    def compute(key):
        x = d.sample(key, (40_000,))
        statistics, eta, mean = family.statistics(x), family.natural(d), family.mean(d)
        fitted = family.arguments(family.fitted(statistics[:500].mean(0)))
        found = {"log_prob": d.log_prob(x), "mean": mean, "statistics": statistics, "arguments": family.arguments(d)}
        found["terms"] = family.log_base(x) + jnp.sum(eta * statistics, -1) - family.log_normaliser(eta)
        found["contains"] = family.contains(x)
        found["back"] = family.arguments(family.fitted(mean))
        slopes = jax.grad(lambda arguments: likelihood(family, arguments, x[:500]))(fitted)
        return found | {"score": {k: v * jnp.maximum(1, abs(fitted[k])) for k, v in slopes.items()}}

    return compute(jax.random.key(0))


def likelihood(family, arguments, x):
    """The mean log likelihood by NumPyro, of arguments kept within their constraints."""
    if "probs" in arguments and family.name in ("categorical", "multinomial"):
        arguments = {"probs": arguments["probs"] / arguments["probs"].sum(-1, keepdims=True)}
    if "scale_tril" in arguments:
        arguments = {**arguments, "scale_tril": jnp.tril(arguments["scale_tril"])}
    d = family.member(**arguments, **family.known).to_event(len(family.coordinates))
    return jnp.sum(d.log_prob(x)) / len(x)


def test_every_family_is_tested():
    assert {families.of(make()).name for make in MEMBERS.values()} == set(families.FAMILIES)
    assert {type(families.unwrapped(make())) for make in MEMBERS.values()} == set(families.MEMBERS)


@every
def test_the_density_is_numpyros(word):
    found = computed(word)
    np.testing.assert_allclose(found["terms"], found["log_prob"], rtol=1e-9, atol=1e-9)
    assert found["contains"].all()


@every
def test_the_gradient_of_the_normaliser_is_the_mean_of_the_statistics(word):
    """Within 5 standard errors of 40,000 draws: false alarms once in 10^5; an error of 3 % of an sd is found."""
    found = computed(word)
    statistics = np.asarray(found["statistics"])
    error = statistics.std(0) / np.sqrt(len(statistics))
    np.testing.assert_array_less(abs(statistics.mean(0) - found["mean"]), 5 * error + 1e-12)


@every
def test_fitted_gives_back_a_member_from_its_mean(word):
    d, family = member(word)
    back = jax.eval_shape(lambda: family.fitted(family.mean(d)))
    assert type(families.unwrapped(back)) is type(families.unwrapped(d))
    assert (back.batch_shape, back.event_shape) == (d.batch_shape, d.event_shape)
    for name, value in computed(word)["arguments"].items():
        if name == "logits" and family.name in ("categorical", "multinomial"):
            value = jax.nn.log_softmax(value)
        np.testing.assert_allclose(computed(word)["back"][name], value, rtol=1e-7, atol=1e-9, err_msg=name)


@every
def test_the_score_is_zero_at_the_fit(word):
    """The gradient of NumPyro's log_prob in the arguments: an oracle that knows nothing of statistics."""
    for name, slope in computed(word)["score"].items():
        assert abs(slope).max() < 1e-6, name


@every
def test_batches_are_members_one_by_one_and_float32_agrees_with_float64(word):
    d, _ = member(word)
    x = np.asarray(d.sample(jax.random.key(3), (2000,)))
    weights = np.random.default_rng(0).random((2, *([1] * len(d.batch_shape)), 2000))
    if d.batch_shape:  # the weights of every member of the batch
        weights = np.broadcast_to(weights, (2, *d.batch_shape, 2000))

    def fit(x, weights):
        family = families.of(MEMBERS[word]())
        statistics = jnp.moveaxis(family.statistics(x), 0, -2)
        means = (weights[..., None, :] @ statistics)[..., 0, :] / weights.sum(-1)[..., None]
        each = lambda mean: family.arguments(family.fitted(mean))  # noqa: E731
        return jax.vmap(each)(means) if means.dtype == "float32" else each(means)

    double = jax.jit(fit)(x, weights)
    with runtime.jax_scope("float32"):
        single = jax.jit(fit)(np.float32(x), np.float32(weights))
    for name, value in double.items():
        assert single[name].dtype == "float32"
        np.testing.assert_allclose(single[name], value, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(("precision", "bar"), [("float64", 1e-6), ("float32", 0.05)])
def test_newton_comes_home_from_far_away(precision, bar):
    """Concentrations of every size; the bar is on the log, where float32 loses log E x - E log x to rounding."""
    sizes = 10.0 ** np.arange(-3, 5 if precision == "float64" else 4)
    with runtime.jax_scope(precision):
        sizes = jnp.asarray(sizes)
        one, other = (a.ravel() for a in jnp.meshgrid(sizes, sizes))
        rows = [
            dist.Gamma(sizes, 3.0),
            dist.InverseGamma(sizes, 3.0),
            dist.Wishart(sizes + 2, scale_tril=jnp.array(ROOT)),
            dist.VonMises(0.3, sizes),
        ]
        if precision == "float64":
            rows += [dist.Beta(one, other), dist.Dirichlet(jnp.stack([one, other, one + other], -1))]
        else:
            rows += [dist.Beta(sizes, 2.0), dist.Dirichlet(jnp.stack([sizes, sizes, sizes], -1))]
        for d in rows:
            family = families.of(d)
            back, true = jax.jit(lambda f=family, d=d: (f.arguments(f.fitted(f.mean(d))), f.arguments(d)))()
            for name in set(true) - {"loc", "scale_tril"}:
                np.testing.assert_allclose(np.log(back[name]), np.log(true[name]), atol=bar, err_msg=family.name)


def test_fits_are_scipys():
    rng = np.random.default_rng(0)
    x = rng.gamma(2.5, 0.4, size=300)
    cases = [
        (dist.Gamma(1.0, 1.0), x, scipy.stats.gamma.fit(x, floc=0), lambda a: (a["concentration"], 0, 1 / a["rate"])),
        (dist.InverseGamma(1.0, 1.0), 1 / x, scipy.stats.invgamma.fit(1 / x, floc=0), lambda a: (a["concentration"], 0, a["rate"])),
        (dist.LogNormal(0.0, 1.0), x, scipy.stats.lognorm.fit(x, floc=0), lambda a: (a["scale"], 0, jnp.exp(a["loc"]))),
        (dist.Normal(0.0, 1.0), x, scipy.stats.norm.fit(x), lambda a: (a["loc"], a["scale"])),
        (dist.Exponential(1.0), x, scipy.stats.expon.fit(x, floc=0), lambda a: (0, 1 / a["rate"])),
    ]  # fmt: skip
    b = rng.beta(0.7, 3, size=300)
    fixed = scipy.stats.beta.fit(b, floc=0, fscale=1)
    cases.append((dist.Beta(1.0, 1.0), b, fixed, lambda a: (a["concentration1"], a["concentration0"], 0, 1)))
    v = scipy.stats.vonmises.rvs(2.0, loc=1.0, size=300, random_state=0)
    turns = scipy.stats.vonmises.fit(v, fscale=1)
    cases.append((dist.VonMises(0.0, 1.0), v, turns, lambda a: (a["concentration"], a["loc"], 1)))
    for d, data, expected, found in cases:
        family = families.of(d)
        arguments = jax.jit(lambda x, f=family: f.arguments(f.fitted(f.statistics(x).mean(0))))(data)
        np.testing.assert_allclose(found(arguments), expected, rtol=1e-4, atol=1e-6, err_msg=family.name)


def test_data_without_spread_give_the_largest_concentration_and_no_nan():
    for d, x in ((dist.Gamma(1.0, 1.0), 2.0), (dist.Beta(1.0, 1.0), 0.3), (dist.Dirichlet(jnp.ones(2)), [0.4, 0.6])):
        family = families.of(d)
        for value in family.arguments(family.fitted(family.statistics(jnp.asarray(x)))).values():
            assert (value > 1e6).all(), family.name
            assert np.isfinite(value).all(), family.name
    family = families.of(dist.Bernoulli(logits=0.0))
    assert np.isfinite(family.fitted(jnp.zeros(1)).logits)


@pytest.mark.parametrize(
    ("d", "outside"),
    [
        (dist.Gamma(1.0, 1.0), [0.0, -1.0]),
        (dist.Beta(1.0, 1.0), [0.0, 1.0, 1.5]),
        (dist.Poisson(1.0), [-1.0, 0.5]),
        (dist.Bernoulli(0.5), [2.0, 0.5]),
        (dist.Categorical(np.ones(3) / 3), [3.0, -1.0]),
        (dist.Dirichlet(np.ones(2)), [[0.5, 0.6], [1.0, 0.0]]),
        (dist.Wishart(3.0, scale_tril=np.eye(2)), [[[1.0, 2], [2, 1]], [[1.0, 0.1], [0.2, 1]]]),
        (dist.Gamma(np.ones(2), 1.0).to_event(1), [[1.0, -1.0]]),
    ],
)
def test_points_outside_are_told(d, outside):
    family = families.of(d)
    assert not np.any(family.contains(np.asarray(outside)))
    assert np.all(family.contains(d.sample(jax.random.key(0), (5,))))


def test_other_distributions_are_refused():
    with pytest.raises(TypeError, match=r"StudentT is not one of the exponential families .*: normal, lognormal"):
        families.of(dist.StudentT(3.0).expand([2]).to_event(1))
    with pytest.raises(TypeError, match="Chi2"):
        families.of(dist.Chi2(3.0))


# ---- the program of a family, learned by maximum likelihood


def learned(word, x, dim, **settings):
    from probgen.models.density.exponential_family import member

    data = {"x": x, "dim": dim, "family": word}
    settings = {"num_steps": 1500, "learning_rate": 0.02, "batch_size": len(x), "average": 0.05} | settings
    fit = pg.fit("exponential_family", data, "mle", **settings)
    family = families.of(handlers.seed(member, 0)(word, dim))
    return fit, jax.jit(lambda x: family.arguments(family.fitted(family.statistics(x).mean(0))))(x)


@pytest.mark.parametrize(
    ("word", "dim", "draw"),
    [
        ("gamma", 2, lambda rng: rng.gamma([2.0, 0.7], size=(200, 2))),
        ("normal", 0, lambda rng: rng.normal(1, 2, size=200)),
        ("beta", 1, lambda rng: rng.beta(2, 3, size=(200, 1))),
        ("bernoulli", 3, lambda rng: (rng.random((200, 3)) < [0.2, 0.5, 0.9]).astype(float)),
        ("poisson", 2, lambda rng: rng.poisson([0.5, 6.0], size=(200, 2)).astype(float)),
        ("geometric", 0, lambda rng: rng.geometric(0.3, size=200) - 1.0),
        ("categorical", 4, lambda rng: rng.choice(4, p=[0.1, 0.2, 0.3, 0.4], size=200).astype(float)),
        ("dirichlet", 3, lambda rng: rng.dirichlet([0.7, 2.0, 5.0], size=200)),
        ("wishart", 2, lambda rng: scipy.stats.wishart(5, np.eye(2)).rvs(200, random_state=rng)),
    ],
)
def test_maximum_likelihood_matches_moments(word, dim, draw):
    x = draw(np.random.default_rng(0))
    fit, expected = learned(word, x, dim)
    assert set(fit.parameters) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(fit.parameters[name], value, rtol=5e-3, atol=2e-3, err_msg=name)


def test_every_word_of_the_program_is_a_family_and_runs():
    from probgen.models.density.exponential_family import KNOWN, member

    for word in KNOWN:
        assert families.of(handlers.seed(member, 0)(word, 2)).name == word
    with pytest.raises(ValueError, match="family is 'gama'; known: normal"):
        pg.fit("exponential_family", {"x": np.ones((5, 1)), "family": "gama"}, "mle")


@pytest.mark.parametrize(("word", "bad"), [("gamma", -1.0), ("exponential", -0.5), ("bernoulli", 1.5), ("beta", 1.5)])
def test_data_outside_the_support_are_refused(word, bad):
    x = np.array([[1.0], [bad]]) if word != "beta" else np.array([[0.5], [bad]])
    with pytest.raises(ValueError, match=r"support is .*; x\[1, 0\] is"):
        pg.fit("exponential_family", {"x": x, "dim": 1, "family": word}, "mle")


@pytest.mark.parametrize(
    ("family", "x"), [("dirichlet", np.full((9, 3), 0.4)), ("wishart", np.tile([[1.0, 2], [2, 1]], (9, 1, 1)))]
)
def test_rows_off_the_simplex_or_not_positive_definite_are_refused(family, x):
    with pytest.raises(ValueError, match=r"whose support is .*; x\[0\] is not in it"):
        pg.fit("exponential_family", {"x": x, "family": family, "dim": x.shape[-1]}, "mle", num_steps=2)
