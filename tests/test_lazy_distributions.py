"""Distributions made outside a program: what their library fills in is no change of them, and a change of a parameter is one."""

import functools
import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ENGINES

import probgen as pg
from probgen.programs.pinned import Changed, check_pins
from probgen.programs.reads import digest_of

FEW = {"num_samples": 4, "num_warmup": 4, "num_chains": 1, "progress": False}
BOTH = (
    ("LogNormal", 0.0, 1.0), ("Pareto", 1.0, 2.0), ("InverseGamma", 2.0, 1.0), ("AsymmetricLaplace", 0.0, 1.0, 1.0),
    ("Beta", 1.0, 2.0), ("Cauchy", 0.0, 1.0), ("Chi2", 2.0), ("Exponential", 1.0), ("Gamma", 1.0, 1.0), ("Gumbel", 0.0, 1.0),
    ("HalfCauchy", 1.0), ("HalfNormal", 1.0), ("Kumaraswamy", 2.0, 3.0), ("Laplace", 0.0, 1.0), ("Logistic", 0.0, 1.0),
    ("Normal", 0.0, 1.0), ("StudentT", 3.0), ("SoftLaplace", 0.0, 1.0), ("Uniform", 0.0, 1.0), ("Weibull", 1.0, 1.0),
    ("VonMises", 0.0, 1.0), ("SineBivariateVonMises", 0.0, 0.0, 1.0, 1.0, 0.5),
    ("Poisson", 1.0), ("GammaPoisson", 1.0, 1.0), ("BetaBinomial", 1.0, 2.0, 5), ("OrderedLogistic", 0.0, [1.0, 2.0]),
    ("Dirichlet", [1.0, 1.0, 1.0]), ("DirichletMultinomial", [1.0, 1.0], 4), ("ProjectedNormal", [1.0, 1.0]),
    ("LowRankMultivariateNormal", [0.0, 0.0], [[1.0], [1.0]], [1.0, 1.0]), ("LKJ", 2, 1.0), ("LKJCholesky", 2, 1.0),
    ("Multinomial", {"probs": [0.5, 0.5], "total_count": 3}), ("Binomial", {"total_count": 5, "probs": 0.5}),
    ("Geometric", {"probs": 0.5}), ("Geometric", {"logits": 0.5}), ("Bernoulli", {"probs": 0.5}), ("Bernoulli", {"logits": 0.0}),
    ("Categorical", {"probs": [0.5, 0.5]}), ("Categorical", {"logits": [0.0, 0.0]}),
    ("MultivariateNormal", {"loc": [0.0, 0.0], "covariance_matrix": [[2.0, 0.0], [0.0, 1.0]]}),
    ("MultivariateNormal", {"loc": [0.0, 0.0], "precision_matrix": [[2.0, 0.0], [0.0, 1.0]]}),
    ("MultivariateNormal", {"loc": [0.0, 0.0], "scale_tril": [[2.0, 0.0], [0.0, 1.0]]}),
)  # fmt: skip
OF_NUMPYRO = (
    ("LogUniform", 1.0, 2.0), ("Gompertz", 1.0, 1.0), ("Levy", 0.0, 1.0), ("NegativeBinomial2", 1.0, 2.0),
    ("TruncatedCauchy", 0.0, 1.0), ("TruncatedNormal", {"low": 0.0}), ("TruncatedNormal", {"low": 0.0, "high": 2.0}),
    ("TruncatedNormal", {"high": 0.0}), ("ZeroInflatedPoisson", 0.5, 1.0), ("Wishart", 3.0, [[1.0, 0.0], [0.0, 1.0]]),
    ("RelaxedBernoulliLogits", 0.5, 0.0), ("CAR", 0.0, 0.5, 1.0, [[0.0, 1.0], [1.0, 0.0]]), ("DiscreteUniform", 0, 4),
)  # fmt: skip
OF_PYRO = (
    ("NegativeBinomial", 3.0, {"probs": 0.5}), ("ContinuousBernoulli", 0.4), ("LogisticNormal", [0.0, 0.0], 1.0),
    ("RelaxedBernoulli", 0.5, 0.4), ("OneHotCategorical", [0.5, 0.5]), ("SkewLogistic", 0.0, 1.0),
    ("MultivariateStudentT", 3.0, [0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]),
)  # fmt: skip


def library(engine):
    if engine == "numpyro":
        import numpyro

        return numpyro, numpyro.distributions, jnp.array
    import pyro
    import torch

    return pyro, pyro.distributions, torch.tensor


def made(engine, name, *given):
    _, dist, array = library(engine)
    of = lambda x: x if isinstance(x, int) else array(x)  # noqa: E731
    words = given[-1] if isinstance(given[-1], dict) else {}
    return getattr(dist, name)(
        *(of(x) for x in given if not isinstance(x, dict)), **{k: of(v) for k, v in words.items()}
    )


def composed(engine):
    """Distributions of distributions."""
    _, dist, array = library(engine)
    normal, affine = dist.Normal(array(0.0), array(1.0)), dist.transforms.AffineTransform
    yield dist.TransformedDistribution(normal, [dist.transforms.ExpTransform(), affine(1.0, 2.0)])
    yield dist.TransformedDistribution(normal, [affine(1.0, 2.0).inv])
    yield made(engine, "Pareto", 1.0, 1.0).expand((3,)).to_event(1)
    yield made(engine, "LogNormal", 0.0, 1.0).mask(True)
    yield dist.FoldedDistribution(made(engine, "StudentT", 3.0))
    yield dist.MixtureSameFamily(
        made(engine, "Categorical", {"probs": [0.5, 0.5]}), made(engine, "Normal", [0.0, 1.0], 1.0)
    )
    yield dist.ZeroInflatedDistribution(made(engine, "GammaPoisson", 1.0, 1.0), gate=array(0.5))


def used(engine, d):
    """Everything that makes a library fill something in."""
    if engine == "pyro":
        import torch

        with torch.random.fork_rng():
            _used(engine, d)
    else:
        _used(engine, d)


def _used(engine, d):
    key = (jax.random.key(0),) if engine == "numpyro" else ()
    x = d.sample(*key)
    lazy = [k for k in dir(type(d)) if type(inspect.getattr_static(type(d), k)).__name__ == "lazy_property"]
    for ask in (
        lambda: d.log_prob(x), lambda: d.support, lambda: [t.inv for t in d.transforms],
        lambda: d.base_dist.log_prob(d.base_dist.sample(*key)), *(functools.partial(getattr, d, k) for k in lazy),
    ):  # fmt: skip
        try:
            ask()
        except (AttributeError, ValueError):  # another kind; NumPyro's precision matrix of low rank
            continue


@pytest.mark.parametrize("engine", ENGINES)
def test_use_fills_nothing_in_that_counts(engine):
    listed = (*BOTH, *(OF_NUMPYRO if engine == "numpyro" else OF_PYRO))
    several = [*(made(engine, *one) for one in listed), *composed(engine)]
    filled = 0
    for d in several:
        before, words = digest_of(d), set(d.__dict__)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            used(engine, d)
        assert before is not None, type(d).__name__
        assert digest_of(d) == before, type(d).__name__
        filled += bool(set(d.__dict__) - words)
    assert filled > 10


@pytest.mark.parametrize("engine", ENGINES)
def test_every_parameter_counts(engine):
    """Two distributions that differ in one parameter, before and after use, and the same again are told apart."""
    for name, *given in BOTH[:20]:
        other = [*given[:-1], given[-1] + 0.25]
        one, same, two = (made(engine, name, *x) for x in (given, given, other))
        assert digest_of(one) == digest_of(same) != digest_of(two), name
        used(engine, one)
        used(engine, two)
        assert digest_of(one) == digest_of(same) != digest_of(two), name


@pytest.mark.parametrize("engine", ENGINES)
def test_values_that_are_assigned_to_what_is_filled_in_count(engine):
    array = library(engine)[2]
    plain, late, early = (made(engine, "Categorical", {"probs": [0.5, 0.5]}) for _ in range(3))
    fresh = digest_of(plain)
    used(engine, late)
    assert digest_of(late) == fresh
    for d in (late, early):
        d.logits = array([0.0, 3.0])
        assert digest_of(d) != fresh
    early.logits = array([0.0, 4.0])
    assert digest_of(early) != digest_of(late)


def outside(engine):
    """A program whose distributions were made outside of it."""
    library_, dist, array = library(engine)
    prior = [made(engine, *one) for one in BOTH[:4]]
    prior.append(next(composed(engine)))
    prior.append(made(engine, "Weibull", 2.0, 1.0))
    coin = made(engine, "Categorical", {"probs": [0.3, 0.7]})

    def program(y, k):
        total = 0.0
        for i, d in enumerate(prior):
            total = total + library_.sample(f"x{i}", d)
        library_.sample("y", dist.Normal(0.1 * total, array(1.0)), obs=y)
        library_.sample("k", coin, obs=k)

    return program, prior, coin


@pytest.mark.parametrize("engine", ENGINES)
def test_fits_of_distributions_made_outside(engine):
    program, prior, coin = outside(engine)
    data = {"y": np.array(1.0), "k": np.array(1)}
    first = pg.fit(program, data, **FEW)
    again = pg.fit(program, data, **FEW)
    for fit in (first, again):
        fit.diagnose()
        check_pins(fit.target)
    for k in first.draws:
        assert np.array_equal(first.draws[k], again.draws[k])
    coin.probs = library(engine)[2]([0.6, 0.4])
    with pytest.raises(Changed, match="reads coin"):
        check_pins(first.target)
    coin.probs = library(engine)[2]([0.3, 0.7])
    prior[0].base_dist.loc = library(engine)[2](1.0)
    with pytest.raises(Changed, match="reads prior"):
        check_pins(first.target)
