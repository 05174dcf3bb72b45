"""Metrics from windows of few draws keep their shapes, and their directions stay orthonormal; so do warm-ups of any length."""

import jax
import numpy as np
import pytest

import probgen as pg
from probgen.inference.mcmc import _adaptation, _metric


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


@pytest.mark.parametrize("kind", ["low_rank", "diagonal", "dense"])
@pytest.mark.parametrize("dim", [1, 2, 3, 41])
@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_a_metric_of_any_size_stays_one_of_its_kind(kind, dim, count):
    """Fewer draws than rank, one dimension, an odd number of them: shapes stay, and push and pull stay adjoint."""
    rng = np.random.default_rng(1)
    metric = _metric.initial(np, kind, np.ones(dim))
    new = metric.update(np, rng.normal(size=(count, dim)), rng.normal(size=(count, dim)))
    assert [leaf.shape for leaf in new] == [leaf.shape for leaf in metric]
    a, b = rng.normal(size=(2, dim))
    assert abs(new.push(a) @ b - a @ new.pull(b)) < 1e-9 * np.linalg.norm(a) * np.linalg.norm(b)
    assert np.linalg.norm(new.push(a)) > 0


def test_the_windows_of_a_warm_up_fill_it_and_no_more():
    for num_warmup in [*range(200), 399, 400, 401, 1000, 10_001]:
        first, length, count, total = _adaptation.schedule(num_warmup)
        assert total == num_warmup
        assert first >= 0
        assert length >= 1
        assert first + count * length <= num_warmup
        if count:
            assert num_warmup - first - count * length == num_warmup // 10


class _Normal:
    """A standard normal in so many dimensions, in the words of one engine."""

    begin_at = None

    def __init__(self, ops, dim):
        self.ops, self.dim = ops, dim

    def value_and_grad(self, z):
        return -0.5 * (z @ z), -z

    def log_density(self, z):
        return -0.5 * (z @ z)

    def log_density_batch(self, z):
        return -0.5 * (z * z).sum(axis=1)

    def gradient_batch(self, z):
        return -z


@pytest.mark.parametrize("word", ["nuts", "hmc"])
@pytest.mark.parametrize("num_warmup", [0, 1, 2, 5, 20, 40, 63])
def test_a_state_keeps_its_shapes_at_any_length_of_warm_up(word, num_warmup):
    """1,003 unknowns, and one: a step that gave back another shape is what a compiled loop cannot take."""
    from probgen.engine.numpyro.running.ops import Ops

    for dim, metric in ((1003, "auto"), (1, "low_rank"), (2, "low_rank")):
        settings = {"nuts": pg.inference.NUTS, "hmc": pg.inference.HMC}[word](num_warmup=num_warmup, metric=metric)
        target, key = _Normal(Ops(), dim), jax.random.key(0)
        state = jax.eval_shape(lambda key, s=settings, t=target: s.init(key, t), key)
        after, _ = jax.eval_shape(lambda key, state, s=settings, t=target: s.step(key, state, t), key, state)
        assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), state)


@pytest.mark.parametrize(("dim", "num_warmup"), [(1, 0), (2, 1), (3, 2), (60, 20), (60, 41), (1, 41)])
def test_any_length_of_warm_up_runs_where_steps_are_numpys(dim, num_warmup):
    """The Pyro engine's kernels are NumPy: no compiler looks at their shapes. Draws keep the normal's second moment."""
    from probgen.engine.pyro.executor import Ops

    ops = Ops()
    settings = pg.inference.NUTS(num_warmup=num_warmup, metric="low_rank", start="uniform")
    target, key = _Normal(ops, dim), ops.key(3)
    state, squares = settings.init(key, target), []
    for i in range(num_warmup + 300):
        with np.errstate(all="ignore"):  # as the executor has it: 0 / 0 where nothing has been counted yet
            state, info = settings.step(ops.fold_in(key, i), state, target)
        squares.append(float(info.z @ info.z) / dim)
    kept = np.array(squares[num_warmup:])
    # 300 draws whose squares have an autocorrelation time of at most 10: an sd of sqrt(20 / 300 / dim) or less
    assert abs(kept.mean() - 1) < 4 * np.sqrt(20 / 300 / dim) + 0.02
