"""What a learner answers at every step: its parameters, and from the step on that the average counts the mean of them."""

import jax
import numpy as np
import pytest

import probgen as pg
from probgen import runtime
from probgen.run import conditioned


@pytest.mark.parametrize(("settings", "counted"), [({"average": 0.2}, 2), ({"average": 0.5}, 5), ({"average": 0.0}, 0)])
def test_answers_are_parameters_and_then_their_mean(settings, counted):
    """So that a run that is stopped early answers with what it has learned, not with where it began."""
    learner = pg.inference.MLE(num_steps=10, batch_size=8, **settings)
    target = learner.prepare(conditioned("fvsbn", {"x": np.eye(8), "dim": 8}, precision="float32")[1])
    with runtime.jax_scope("float32"):
        state, parameters, answers = learner.init(jax.random.key(0), target), [], []
        for i in range(10):
            state, _ = learner.step(jax.random.key(i), state, target)
            parameters.append(state.parameters)
            answers.append(learner.answer(jax.random.key(0), state, target))
    begin = 10 - counted  # the step after which the mean has one term
    for i, answer in enumerate(answers):
        mean = jax.tree.map(lambda *p: np.mean(p, 0), *parameters[min(i, begin - 1) : i + 1])
        for name, value in answer.items():
            np.testing.assert_allclose(value, mean[name], atol=1e-6)
    assert any(np.abs(parameters[0][k] - parameters[-1][k]).max() > 1e-3 for k in parameters[0])
