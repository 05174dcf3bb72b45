"""The Pyro engine: densities against formulas, compiled gradients against eager ones, and globals left alone."""

import itertools
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from conftest import python
from scipy import special, stats

pyro = pytest.importorskip("pyro", reason="no Pyro: nothing of that engine is tested")
torch = pytest.importorskip("torch")

import pyro.distributions as dist  # noqa: E402
from pyro.distributions import constraints  # noqa: E402

from probgen.engine.pyro import engine  # noqa: E402
from probgen.target import Continuous, Discrete, Mixed, Simulable, SubsampledContinuous  # noqa: E402

OPS = engine.OPS
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 2))
Y = X @ [1.0, -2.0] + RNG.normal(size=20)


def regression(X, y=None):
    beta = pyro.sample("beta", dist.Normal(torch.zeros(X.shape[1]), 2.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(1.0))
    pyro.deterministic("first", beta[..., 0] / sigma)
    with pyro.plate("row", len(X)):
        pyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)


def zoo(small=False):
    """Every kind of support, one of them dependent on another site, and an improper prior."""
    scale = pyro.sample("scale", dist.HalfCauchy(2.0))
    pyro.sample("below", dist.Uniform(0.0, scale))
    pyro.sample("factor", dist.LKJCholesky(2, 1.5))
    if small:
        return
    weights = pyro.sample("weights", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    cuts = pyro.sample("cuts", dist.ImproperUniform(constraints.ordered_vector, (), (3,)))
    with pyro.plate("two", 2):
        pyro.sample("rate", dist.Gamma(2.0, 3.0))
    pyro.factor("extra", -0.5 * (cuts**2).sum() + weights[0])


def zoo_log_density(v):
    """The zoo's density of constrained values, from SciPy."""
    r = v["factor"][1, 0]
    return (
        stats.halfcauchy.logpdf(v["scale"], scale=2)
        - np.log(v["scale"])
        + stats.dirichlet.logpdf(v["weights"] / v["weights"].sum(), [1, 2, 3])
        + 0.5 * np.log1p(-(r**2)) - 2 * np.log(2) - special.betaln(1.5, 1.5)
        + stats.gamma.logpdf(v["rate"], 2, scale=1 / 3).sum()
        - 0.5 * (v["cuts"] ** 2).sum()
        + v["weights"][0]
    )  # fmt: skip


def free(v):
    """As many coordinates of constrained values as there are unconstrained ones."""
    return np.concatenate(
        [np.ravel(x) for x in (v["scale"], v["below"], v["weights"][:2], v["factor"][1, 0], v["cuts"], v["rate"])]
    )


def at(target, z):
    """Constrained values at one point."""
    return {name: value[0, 0] for name, value in target.constrain(np.asarray(z)[None, None]).items()}


def jacobian(f, z, step=1e-5):
    return np.stack([(f(z + step * e) - f(z - step * e)) / (2 * step) for e in np.eye(len(z))], axis=1)


def eager(target, z):
    return target.torch_log_density(torch.tensor(np.asarray(z), dtype=getattr(torch, target.precision))).item()


# ---- densities ---------------------------------------------------------------------------------------------------


def test_density_with_jacobian_matches_formula():
    target = engine.prepare(zoo, {})
    assert target.dim == 10
    for z in np.random.default_rng(1).normal(size=(3, target.dim)):
        sign, logdet = np.linalg.slogdet(jacobian(lambda z: free(at(target, z)), z))
        assert sign != 0
        np.testing.assert_allclose(eager(target, z), zoo_log_density(at(target, z)) + logdet, rtol=1e-7)


def test_compiled_gradient_is_the_gradient():
    target = engine.prepare(zoo, {"small": True})
    z = np.random.default_rng(2).normal(size=target.dim)
    value, gradient = target.value_and_grad(z)
    assert target.structure.gradients["full"].is_compiled
    np.testing.assert_allclose(value, eager(target, z), rtol=1e-10)
    differences = jacobian(lambda z: np.array([eager(target, z)]), z)[0]
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-6)
    assert isinstance(value, float)
    assert gradient.shape == (target.dim,)
    assert gradient.dtype == np.float64
    batch = np.stack([z, 0.5 * z])
    one_by_one = [target.log_density(point) for point in batch]
    np.testing.assert_allclose(target.log_density_batch(batch), one_by_one, rtol=1e-10)
    vectorised = target.torch_log_density_batch(torch.tensor(batch)).numpy()
    np.testing.assert_allclose(vectorised, one_by_one, rtol=1e-10)
    assert np.isnan(target.value_and_grad(np.full(target.dim, np.nan))[0])


def test_unconstrain_inverts_constrain():
    target = engine.prepare(zoo, {})
    z = np.random.default_rng(3).normal(size=target.dim)
    np.testing.assert_allclose(target.unconstrain(at(target, z)), z, atol=1e-8)
    with pytest.raises(ValueError, match="No value for site 'below'"):
        target.unconstrain({"scale": 1.0})


def test_a_factorisation_that_fails_gives_nan():
    def program():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        matrix = torch.stack([torch.stack([x**0, x]), torch.stack([x, x**0])])
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(2), matrix), obs=torch.ones(2))

    target = engine.prepare(program, {})
    assert np.isfinite(target.value_and_grad(np.array([0.5]))[0])
    value, gradient = target.value_and_grad(np.array([2.0]))
    assert np.isnan(value)
    assert np.isnan(gradient).all()


def test_float32():
    target = engine.prepare(regression, {"X": X, "y": Y}, "float32")
    assert target.torch_log_density(torch.zeros(3)).dtype is torch.float32
    z = np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(eager(engine.prepare(regression, {"X": X, "y": Y}), z), eager(target, z), rtol=1e-5)


# ---- finite unknowns ---------------------------------------------------------------------------------------------


def mixture(y=None, n=20):
    weight = pyro.sample("weight", dist.Beta(2.0, 2.0))
    with pyro.plate("row", n):
        k = pyro.sample("k", dist.Bernoulli(weight))
        pyro.sample("y", dist.Normal(3.0 * k, 1.0), obs=y)


def chain(y):
    """A hidden Markov chain of three states in which the first step is free."""
    stay = pyro.sample("stay", dist.Beta(2.0, 1.0))
    move = torch.stack([torch.stack([stay, 1 - stay]), torch.stack([1 - stay, stay])])
    state = pyro.sample("state_0", dist.Categorical(torch.tensor([0.5, 0.5])))
    for t in pyro.markov(range(len(y))):
        if t:
            state = pyro.sample(f"state_{t}", dist.Categorical(move[state]))
        pyro.sample(f"y_{t}", dist.Normal(2.0 * state, 1.0), obs=y[t])


def test_mixture_is_summed_out():
    target = engine.prepare(mixture, {"y": Y})
    assert type(target).__mro__.count(Mixed) == 1
    continuous = target.marginalise()
    assert isinstance(continuous, Continuous)
    z = np.array([0.3])
    weight = special.expit(z[0])
    terms = np.logaddexp(np.log(1 - weight) + stats.norm.logpdf(Y), np.log(weight) + stats.norm.logpdf(Y, 3))
    expected = stats.beta.logpdf(weight, 2, 2) + np.log(weight * (1 - weight)) + terms.sum()
    np.testing.assert_allclose(continuous.value_and_grad(z)[0], expected, rtol=1e-10)
    assert continuous.structure.gradients["full"].is_compiled
    posterior = {"weight": np.full((1, 2), weight)}
    np.testing.assert_allclose(continuous.log_likelihood(posterior, {"y": Y})["y"][0, 1], terms, rtol=1e-10)
    assert continuous.predict(posterior, {"n": 7}, 0)["y"].shape == (1, 2, 7)


def test_markov_chain_is_summed_out():
    y = np.array([0.1, 1.9, 2.2])
    target = engine.prepare(chain, {"y": y}).marginalise()
    stay = special.expit(0.4)
    move = np.array([[stay, 1 - stay], [1 - stay, stay]])
    total = sum(
        0.5 * move[a, b] * move[b, c] * np.exp(stats.norm.logpdf(y, 2.0 * np.array([a, b, c])).sum())
        for a, b, c in itertools.product((0, 1), repeat=3)
    )
    expected = np.log(total) + stats.beta.logpdf(stay, 2, 1) + np.log(stay * (1 - stay))
    np.testing.assert_allclose(eager(target, [0.4]), expected, rtol=1e-10)
    terms = target.log_likelihood({"stay": np.full((1, 1), stay)}, {"y": y})
    rest = sum(
        0.5 * move[a, b] * move[b, c] * np.exp(stats.norm.logpdf(y[:2], 2.0 * np.array([a, b])).sum())
        for a, b, c in itertools.product((0, 1), repeat=3)
    )
    np.testing.assert_allclose(terms["y_2"], np.log(total / rest), rtol=1e-10)  # given the others


def test_kinds_of_target():
    def coin():
        pyro.sample("x", dist.Bernoulli(0.5))

    assert isinstance(engine.prepare(coin, {}), Discrete)
    assert isinstance(
        engine.prepare(lambda: pyro.sample("x", dist.Normal(0.0, 1.0), obs=torch.ones(())), {}), Simulable
    )


def test_unknowns_that_nothing_can_treat():
    def count():
        pyro.sample("n", dist.Poisson(3.0))

    def hole():
        pyro.sample("x", dist.ProjectedNormal(torch.ones(3)))

    def scaled():
        k = pyro.sample("k", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Uniform(0.0, 1.0 + k))

    with pytest.raises(ValueError, match=r"'n' \(Poisson\) is discrete"):
        engine.guided(engine.prepare(count, {}), None)  # a guide could draw it
    with pytest.raises(ValueError, match=r"'x' \(ProjectedNormal\): no bijection"):
        engine.prepare(hole, {})
    with pytest.raises(ValueError, match="support of site 'x' depends"):
        engine.guided(engine.prepare(scaled, {}), None)
    with pytest.raises(ValueError, match=r"Observed site 'y' has data of shape \(20, 1\)"):
        engine.prepare(regression, {"X": X, "y": Y[:, None]})


# ---- minibatches -------------------------------------------------------------------------------------------------


def subsampled(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("row", len(y), subsample_size=2) as rows:
        rate = pyro.sample("rate", dist.LogNormal(mu, 1.0))
        pyro.sample("y", dist.Exponential(rate), obs=y[rows])


def test_minibatches_are_unbiased():
    """Over all six minibatches of two rows out of four, value and gradient average to those of all data, exactly."""
    y = np.array([0.5, 1.0, 2.0, 4.0])
    target = engine.prepare(subsampled, {"y": y})
    assert isinstance(target, SubsampledContinuous)
    assert [site.subsampled for site in target.sites] == [False, True, True]
    z = np.array([0.2, -0.3, 0.4, 0.1, 0.7])
    rate, mu = np.exp(z[1:]), z[0]
    local = stats.norm.logpdf(z[1:], mu, 1) + stats.expon.logpdf(y, scale=1 / rate)
    value, gradient = target.value_and_grad(z)
    np.testing.assert_allclose(value, stats.norm.logpdf(mu) + local.sum(), rtol=1e-10)
    batches = {}
    for i in range(60):  # misses one of six with probability 1e-4, and the seed is fixed
        estimate, slope = target.minibatch_value_and_grad(OPS.fold_in(OPS.key(0), i), z)
        batches[round(float(estimate), 9)] = slope
    assert len(batches) == 6
    assert target.structure.gradients["minibatch"].is_compiled
    np.testing.assert_allclose(np.mean(list(batches)), value, rtol=1e-8)
    np.testing.assert_allclose(np.mean(list(batches.values()), axis=0), gradient, rtol=1e-8, atol=1e-10)
    point = torch.tensor(z)
    one = target.torch_minibatch_log_density(point, seed=3)
    many = target.torch_minibatch_log_density_batch(torch.stack([point, point]), seed=3)
    assert one.item() == pytest.approx(many[1].item(), rel=1e-12)
    assert round(one.item(), 9) in batches


# ---- programs whose Python reads tensors -------------------------------------------------------------------------


def test_a_branch_on_an_unknown_falls_back_with_a_warning():
    def program():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("kink", -x if x > 0 else 2 * x)

    target = engine.prepare(program, {})
    with pytest.warns(RuntimeWarning, match="is not compiled"):
        value, gradient = target.value_and_grad(np.array([1.0]))
    assert value == pytest.approx(stats.norm.logpdf(1.0) - 1)
    assert gradient == pytest.approx([-2.0])
    assert target.value_and_grad(np.array([-1.0]))[1] == pytest.approx([3.0])


def test_random_numbers_in_a_density_fall_back_with_a_warning():
    def program():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("noise", x * torch.randn(()))

    target = engine.prepare(program, {})
    with pytest.warns(RuntimeWarning, match="draws random numbers"):
        first = target.value_and_grad(np.array([1.0]))[0]
    assert target.value_and_grad(np.array([1.0]))[0] == first


def grouped(group):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(int(group.max()) + 1), 1.0).to_event(1))
    with pyro.plate("row", len(group)):
        pyro.sample("y", dist.Normal(mean[group], 1.0), obs=torch.ones(len(group)))


def test_values_read_from_the_data_are_not_shared_between_data_sets():
    first = engine.prepare(grouped, {"group": np.array([0, 1, 1])})
    assert first.dim == 2
    with pytest.warns(RuntimeWarning, match="compiled again for each data set"):
        second = engine.prepare(grouped, {"group": np.array([0, 1, 2])})
    assert second.dim == 3
    expected = 3 * (stats.norm.logpdf(0.5) + stats.norm.logpdf(1.0, 0.5))
    assert second.value_and_grad(np.full(3, 0.5))[0] == pytest.approx(expected)
    assert second.structure.gradients["full"].is_compiled


# ---- no second trace ---------------------------------------------------------------------------------------------


def test_same_shapes_are_neither_traced_nor_compiled_again():
    calls = []

    def program(y):
        calls.append(y)
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    engine.prepare(program, {"y": Y}).value_and_grad(np.zeros(1))
    before = len(calls)
    other = Y + 1
    target = engine.prepare(program, {"y": other})
    value, _ = target.value_and_grad(np.array([0.5]))
    assert len(calls) == before
    other += 100  # a caller's later change of the array does not reach the target
    expected = stats.norm.logpdf(0.5) + stats.norm.logpdf(Y + 1, 0.5).sum()
    assert value == pytest.approx(expected, rel=1e-12)
    engine.prepare(program, {"y": Y[:5]})
    assert len(calls) > before


# ---- runs of the program -----------------------------------------------------------------------------------------


def test_prior_predict_and_log_likelihood():
    target = engine.prepare(regression, {"X": X, "y": Y})
    prior = target.prior(seed=0, num_samples=2000)
    assert {name: value.shape for name, value in prior.items()} == {
        "beta": (2000, 2), "sigma": (2000,), "first": (2000,), "y": (2000, 20),
    }  # fmt: skip
    assert stats.kstest(prior["beta"][:, 1], stats.norm(scale=2).cdf).pvalue > 1e-4
    np.testing.assert_array_equal(prior["beta"], target.prior(seed=0, num_samples=2000)["beta"])
    posterior = {"beta": np.tile([1.0, -2.0], (2, 300, 1)), "sigma": np.full((2, 300), 0.5)}
    new = RNG.normal(size=(5, 2))
    drawn = target.predict(posterior, {"X": new}, seed=1)["y"]
    assert drawn.shape == (2, 300, 5)
    standard = (drawn - new @ [1.0, -2.0]) / 0.5
    assert stats.kstest(standard.ravel(), "norm").pvalue > 1e-4
    np.testing.assert_array_equal(drawn, target.predict(posterior, {"X": new, "y": None}, seed=1)["y"])
    terms = target.log_likelihood(posterior, {"X": X, "y": Y})["y"]
    np.testing.assert_allclose(terms[1, 7], stats.norm.logpdf(Y, X @ [1.0, -2.0], 0.5), rtol=1e-10)
    np.testing.assert_array_equal(target.observed_values()["y"], Y)
    assert sum(target.terms(np.zeros(3)).values()) == pytest.approx(eager(target, np.zeros(3)))


def test_runs_that_cannot_be():
    with pytest.raises(ValueError, match="'cuts' has an improper prior"):
        engine.prepare(zoo, {}).prior(0, 2)
    target = engine.prepare(regression, {"X": X, "y": Y})
    with pytest.raises(ValueError, match="lacks site 'sigma'"):
        target.predict({"beta": np.zeros((1, 1, 2))}, {"X": X}, 0)
    with pytest.raises(ValueError, match=r"'beta' is given a value of shape \(3,\)"):
        target.predict({"beta": np.zeros((1, 1, 3)), "sigma": np.ones((1, 1))}, {"X": X}, 0)


def test_a_run_that_vmap_cannot_follow_is_looped():
    def program():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.deterministic("size", torch.tensor(float(x.abs())))

    target = engine.prepare(program, {})
    np.testing.assert_allclose(target.constrain(np.array([[[-2.0], [1.0]]]))["size"], [[2.0, 1.0]])


# ---- globals -----------------------------------------------------------------------------------------------------


def snapshot():
    store = pyro.get_param_store()
    return (
        torch.get_default_dtype(), torch.get_rng_state().tolist(), torch.get_num_threads(), torch.is_grad_enabled(),
        pyro.settings.get(), {name: id(value) for name, value in store.get_state()["params"].items()},
        np.random.get_state()[1].tolist(),  # noqa: NPY002
    )  # fmt: skip


def test_globals_are_left_alone():
    def failing(y):
        pyro.sample("x", dist.Normal(0.0, pyro.param("w", torch.ones(()))))
        raise KeyError("the program's own error")

    pyro.clear_param_store()
    pyro.param("w", torch.tensor(3.0))
    before = snapshot()
    target = engine.prepare(regression, {"X": X[:7], "y": Y[:7]})
    target.value_and_grad(np.zeros(3))
    target.prior(0, 3)
    target.log_density_batch(np.zeros((200, 3)))
    with pytest.raises(KeyError, match="own error"):
        engine.prepare(failing, {"y": Y})
    assert snapshot() == before
    pyro.clear_param_store()


def test_jax_is_not_imported():
    done = python("-c", "import sys, probgen.engine.pyro; print('jax' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


# ---- words and loops ---------------------------------------------------------------------------------------------


def test_keys_and_draws():
    key = OPS.key(7)
    np.testing.assert_array_equal(OPS.normal(key, (3,)), OPS.normal(OPS.key(7), (3,)))
    seen = {tuple(OPS.fold_in(k, i)) for k in (key, OPS.key(8)) for i in range(-5, 500)}
    assert len(seen) == 2 * 505
    uniforms = [OPS.uniform(k) for k in OPS.split(key, 2000)]
    assert stats.kstest(uniforms, "uniform").pvalue > 1e-4
    assert stats.kstest(OPS.exponential(key, 2000), "expon").pvalue > 1e-4
    one, other = OPS.stream(key), OPS.stream(key)
    late = other(100)
    assert [one(i) for i in range(101)] == [*(other(i) for i in range(100)), late]


def test_array_words():
    class Pair(NamedTuple):
        a: np.ndarray
        b: float

    pair = OPS.map(lambda x: Pair(x[0] + x[1], 2.0), (np.arange(3.0), np.ones(3)))
    np.testing.assert_array_equal(pair.a, [1, 2, 3])
    np.testing.assert_array_equal(pair.b, [2, 2, 2])
    array = np.zeros(3)
    np.testing.assert_array_equal(OPS.put(array, 1, 5.0), [0, 5, 0])
    assert not array.any()
    assert OPS.popcount(np.int32(13)) == 3
    assert OPS.while_loop(lambda s: s < 10, lambda s: s + 3, 0) == 12
    assert OPS.cond(False, lambda x: x, lambda x: -x, 2) == -2
    assert np.isnan(OPS.cholesky(-np.eye(2))).all()
    assert np.isnan(OPS.xp.linalg.solve(np.zeros((2, 2)), np.ones(2))).all()


class WalkState(NamedTuple):
    z: np.ndarray
    count: np.int64
    nest: dict


class WalkInfo(NamedTuple):
    z: np.ndarray
    accept: bool


@dataclass(frozen=True)
class Walk:
    """A random walk whose state holds every kind of leaf; interrupts itself at one step, once."""

    trap: tuple = ()

    def kernel(self):
        return self

    def on(self, engine):
        return self

    def init(self, key, target):
        nest = {"torch": torch.zeros((), dtype=torch.float32), "python": 0, "none": None, "pair": (True, np.float32(1))}
        return WalkState(OPS.normal(key, (target.dim,)), np.int64(0), nest)

    def step(self, key, state, target):
        if self.trap and state.count == 12 and self.trap[0].pop("armed", False):
            raise KeyboardInterrupt
        k_move, k_accept = OPS.split(key)
        z = state.z + OPS.normal(k_move, state.z.shape)
        gain = -0.5 * (z @ z - state.z @ state.z)
        accept = np.log(OPS.uniform(k_accept)) < gain
        nest = {**state.nest, "torch": state.nest["torch"] + float(accept), "python": state.nest["python"] + 1}
        new = WalkState(OPS.where(accept, z, state.z), state.count + 1, nest)
        return new, WalkInfo(new.z, accept)


class Stub:
    dim, precision = 3, "float64"


def run(executor, *sizes, start=0):
    parts = []
    for size in sizes:
        parts.append(executor.advance(start, size))
        start += size
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}


def fresh(inference=None, seed=5, num_chains=2):
    executor = engine.Executor(inference or Walk(), Stub(), seed, num_chains)
    executor.init()
    return executor


def test_chunks_do_not_matter():
    whole, cut = run(fresh(), 20), run(fresh(), 3, 1, 16)
    assert whole["z"].shape == (2, 20, 3)
    assert whole["accept"].dtype == bool
    for name in whole:
        np.testing.assert_array_equal(whole[name], cut[name])
    assert not np.array_equal(whole["z"][0], whole["z"][1])


def test_an_interrupted_chunk_can_be_repeated():
    executor = fresh(Walk(trap=({"armed": True},)))
    run(executor, 10)
    with pytest.raises(KeyboardInterrupt):
        executor.advance(10, 10)
    np.testing.assert_array_equal(executor.advance(10, 10)["z"], run(fresh(), 20)["z"][:, 10:])


def test_state_survives_bit_for_bit():
    executor = fresh()
    run(executor, 10)
    arrays = executor.state()
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    other = engine.Executor(Walk(), Stub(), 5, 2)
    other.restore(arrays)
    np.testing.assert_array_equal(other.advance(10, 10)["z"], run(fresh(), 20)["z"][:, 10:])
    for one, two in zip(executor._states, fresh()._states, strict=True):
        assert type(one.count) is type(two.count)
    restored = other._states[0].nest
    assert restored["torch"].dtype is torch.float32
    assert [type(x) for x in restored["pair"]] == [bool, np.float32]
    np.testing.assert_array_equal(other.read("count"), [20, 20])
    with pytest.raises(ValueError, match="does not fit Walk with 3 chains"):
        engine.Executor(Walk(), Stub(), 5, 3).restore(arrays)


def test_shares_of_chains_are_those_of_all_chains():
    """Thirteen of them, so that the tenth follows the ninth and not the first."""
    shares = [range(11), range(11, 13)]
    whole = fresh(num_chains=13)
    parts = [engine.Executor(Walk(), Stub(), 5, 13, share=share) for share in shares]
    for part in parts:
        part.init()
    records, theirs = run(whole, 10), [run(part, 10) for part in parts]
    for name, value in records.items():
        np.testing.assert_array_equal(np.concatenate([each[name] for each in theirs]), value)
    state, joined = whole.state(), parts[0].joined([part.state() for part in parts], shares)
    assert state.keys() == joined.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(joined[name], value)
    again = engine.Executor(Walk(), Stub(), 5, 13, share=shares[1])
    again.restore(again.part(state, shares[1]))
    np.testing.assert_array_equal(again.advance(10, 5)["z"], whole.advance(10, 5)["z"][11:])


def test_no_warning_comes_from_the_arithmetic_of_a_kernel():
    class Overflowing(Walk):
        def step(self, key, state, target):
            return state, WalkInfo(np.exp(np.full(3, 1e4)), np.log(np.zeros(1))[0] < 0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isinf(fresh(Overflowing()).advance(0, 2)["z"]).all()
