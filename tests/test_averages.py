"""What a learner answers at every step: its parameters, and from the step on that the average counts the mean of them."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pyro
import pyro.distributions as pyro_dist
import pytest
import torch

import probgen as pg
from probgen import runtime
from probgen.run import conditioned


@pytest.mark.parametrize(("settings", "counted"), [({"average": 0.2}, 2), ({"average": 0.5}, 5), ({"average": 0.0}, 0)])
def test_answers_are_parameters_and_then_their_mean(settings, counted):
    """So that a run that is stopped early answers with what it has learned, not with where it began."""
    learner = pg.inference.MLE(num_steps=10, batch_size=8, **settings)
    target = learner.prepare(conditioned("fvsbn", {"x": np.eye(8), "dim": 8}, precision="float32")[1])
    with runtime.jax_scope("float32"):
        step = jax.jit(lambda key, state: learner.step(key, state, target)[0])
        answer_of = jax.jit(lambda state: learner.answer(jax.random.key(0), state, target))
        state, parameters, answers = learner.init(jax.random.key(0), target), [], []
        for i in range(10):
            state = step(jax.random.key(i), state)
            parameters.append(state.parameters)
            answers.append(answer_of(state))
    begin = 10 - counted  # the step after which the mean has one term
    for i, answer in enumerate(answers):
        mean = jax.tree.map(lambda *p: np.mean(p, 0), *parameters[min(i, begin - 1) : i + 1])
        for name, value in answer.items():
            np.testing.assert_allclose(value, mean[name], atol=1e-6)
    assert any(np.abs(parameters[0][k] - parameters[-1][k]).max() > 1e-3 for k in parameters[0])


Y = np.random.default_rng(0).normal(2.0, 1.0, 20)


def numpyro_mean(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def numpyro_guide(y):
    scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
    numpyro.sample("mu", dist.Normal(numpyro.param("loc", -1.0), scale))


def pyro_mean(y):
    mu = pyro.sample("mu", pyro_dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", pyro_dist.Normal(mu, 1.0), obs=y)


def pyro_guide(y):
    scale = pyro.param("scale", torch.tensor(1.0), constraint=pyro_dist.constraints.positive)
    pyro.sample("mu", pyro_dist.Normal(pyro.param("loc", torch.tensor(-1.0)), scale))


@pytest.mark.parametrize(("program", "guide"), [(numpyro_mean, numpyro_guide), (pyro_mean, pyro_guide)])
def test_a_short_run_of_svi_is_no_average_of_where_it_began(program, guide):
    """800 steps end before the first cut: a plain mean of all iterates is three sds too low here."""
    settings = {"num_steps": 800, "learning_rate": 0.02, "num_draws": 2000}
    fit = pg.fit(program, {"y": Y}, "svi", guide=guide, progress=False, **settings)
    mean, sd = Y.sum() / 21, 21**-0.5
    assert abs(fit.draws["mu"].mean() - mean) < 0.3 * sd
    assert 0.8 < fit.draws["mu"].std() / sd < 1.25
