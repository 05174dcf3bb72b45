"""Metrics from windows of few draws keep their shapes, and their directions stay orthonormal."""

import numpy as np
import pytest

from probgen.inference.mcmc import _metric


@pytest.mark.parametrize("count", [1, 2, 12, 60])
def test_a_low_rank_metric_of_few_draws_keeps_its_rank(count):
    rng = np.random.default_rng(0)
    metric = _metric.initial(np, "low_rank", np.ones(100))
    new = metric.update(np, rng.normal(size=(count, 100)), rng.normal(size=(count, 100)))
    assert [leaf.shape for leaf in new] == [leaf.shape for leaf in metric]
    np.testing.assert_allclose(new.vectors.T @ new.vectors, np.eye(40), atol=1e-10)
    assert all(np.isfinite(leaf).all() for leaf in new)


def test_a_low_rank_metric_finds_the_one_long_direction():
    rng = np.random.default_rng(0)
    metric, long = _metric.initial(np, "low_rank", np.ones(60)), np.ones(60) / np.sqrt(60)
    draws = rng.normal(size=(400, 60)) + 30 * rng.normal(size=(400, 1)) * long
    precision = np.eye(60) - (1 - 1 / 901) * np.outer(long, long)
    new = metric.update(np, draws, -draws @ precision)
    across = (np.eye(60)[0] - np.eye(60)[1]) / np.sqrt(2)
    assert 15 < np.linalg.norm(new.pull(long)) < 35  # the sd along it is 30
    assert 0.5 < np.linalg.norm(new.pull(across)) < 2
