"""Predictions whose size is read off what was observed: totals of multinomials, lengths of hidden Markov models."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from conftest import needs_pyro
from scipy.stats import multinomial

import probgen as pg
from probgen.run import conditioned

P = np.array([0.2, 0.5, 0.3])


def test_a_multinomial_has_the_totals_that_were_observed():
    def program(k):
        p = numpyro.sample("p", dist.Dirichlet(jnp.ones(3)))
        with numpyro.plate("row", k.shape[0]):
            numpyro.sample("k", dist.Multinomial(k.sum(-1), p), obs=k)

    k = np.array([[2, 3, 1], [0, 0, 0], [10, 10, 10]])
    target = conditioned(program, {"k": k})[1]
    np.testing.assert_array_equal(target.prior(0, 20)["k"].sum(-1), np.tile(k.sum(-1), (20, 1)))
    drawn = target.predict({"p": np.tile(P, (1, 2000, 1))}, {"k": k}, 0)["k"][0]
    np.testing.assert_array_equal(drawn.sum(-1), np.tile(k.sum(-1), (2000, 1)))
    assert drawn.min() >= 0
    np.testing.assert_allclose(drawn.mean(0), np.outer(k.sum(-1), P), atol=0.3)
    np.testing.assert_allclose(np.cov(drawn[:, 2].T), 30 * (np.diag(P) - np.outer(P, P)), atol=1.2)


def test_new_rows_of_a_learned_multinomial_have_their_totals():
    def program(n, k=None):
        p = numpyro.param("p", jnp.array(P), constraint=dist.constraints.simplex)
        numpyro.sample("k", dist.Multinomial(n, p), obs=k)

    rows = {"n": np.array([6, 4]), "k": np.array([[2, 3, 1], [0, 4, 0]])}
    fit = pg.fit(pg.Model(program, by_row=True), rows, "mle", num_steps=2, progress=False)
    found = fit.simulate(50)
    np.testing.assert_array_equal(found["k"].sum(-1), found["n"])
    assert (fit.condition(n=9).sample(5)["k"].sum(-1) == 9).all()


@needs_pyro
def test_totals_of_a_pyro_multinomial_that_differ_are_refused_in_words():
    """One after the other the counts have the multinomial's own density."""
    import pyro
    import pyro.distributions as pd
    import torch

    def program(n, k):
        p = pyro.sample("p", pd.Dirichlet(torch.ones(3)))
        with pyro.plate("row", len(n)):
            pyro.sample("k", pd.Multinomial(n, p), obs=k)

    def in_turn(n, k):
        p = pyro.sample("p", pd.Dirichlet(torch.ones(3)))
        with pyro.plate("row", len(n)):
            for j in range(2):
                left = n - k[:, :j].sum(-1)
                pyro.sample(f"k{j}", pd.Binomial(left.double(), p[j] / p[j:].sum()), obs=k[:, j].double())

    data = {"n": np.array([6, 4]), "k": np.array([[2, 3, 1], [0, 4, 0]])}
    with pytest.raises(ValueError, match=r"takes one total, an int: `int\(n\)`"):
        conditioned(program, data)
    found = [sum(conditioned(in_turn, data)[1].log_likelihood({"p": P[None, None]}, data).values())]
    exact = multinomial.logpmf(data["k"], data["n"], P)
    np.testing.assert_allclose(np.ravel(found), exact, rtol=1e-9)


@needs_pyro
def test_a_hidden_markov_model_is_as_long_as_what_was_observed():
    import pyro
    import pyro.distributions as pd
    import torch

    from probgen.engine.pyro.programs.data import Unobserved

    def program(y=None):
        a = pyro.sample("a", pd.Normal(0.0, 1.0))
        change = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        states = pd.Normal(torch.stack([a, a + 10]), 1.0)
        pyro.sample("y", pd.DiscreteHMM(torch.zeros(2), change, states), obs=y)

    y = np.linspace(0, 10, 12)
    target = conditioned(program, {"y": y})[1]
    drawn = target.predict({"a": np.zeros((1, 1000))}, {"y": y}, 0)["y"][0]
    assert drawn.shape == (1000, 12)
    up = drawn > 5
    assert drawn[up].mean() == pytest.approx(10, abs=0.1)
    assert up.mean(0) == pytest.approx(np.full(12, 0.5), abs=0.08)
    assert (up[:, 1:] != up[:, :-1]).mean() == pytest.approx(0.1, abs=0.015)
    wrong = pytest.raises(ValueError, match=r"'y' \(DiscreteHMM\) has no duration and nothing was observed")
    with wrong, torch.random.fork_rng(), Unobserved():
        program()
