"""Learners of energies against enumeration, closed forms and known optima."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy.special import logsumexp

import probgen as pg
from probgen import runtime
from probgen.datasets import bars_and_stripes, digits_grey
from probgen.measures import bits, levels, reals
from probgen.models.energy import neural_ebm
from probgen.run import conditioned
from probgen.toys import eight_gaussians, two_moons


def states(n):
    """All states of n bits: (2^n, n)."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def bars(side):
    rows = bars_and_stripes(side).reshape(-1, side * side)
    return {"v": rows, "num_visible": side * side}


def learned_exactly(fit):
    """The mean log likelihood of the rows of a learned RBM, log Z by brute force in float64."""
    W, b, c = (np.asarray(fit.parameters[k], float) for k in "Wbc")
    v, h = np.asarray(fit.target.data["v"], float), states(len(c))
    log_z = logsumexp(h @ c + np.logaddexp(0, b + h @ W.T).sum(1))
    return (v @ b + np.logaddexp(0, c + v @ W).sum(1)).mean() - log_z


# ---- exact gradients ---------------------------------------------------------------------------------------------


def rbm(v=None, num_visible=5, num_hidden=3):
    W = numpyro.param("W", jnp.zeros((num_visible, num_hidden)))
    b = numpyro.param("b", jnp.zeros(num_visible))
    v, h = numpyro.sample("v", bits(num_visible), obs=v), numpyro.sample("h", bits(num_hidden))
    numpyro.factor("energy", v @ W @ h + v @ b)


def deep(v=None):
    W, U = numpyro.param("W", jnp.zeros((5, 3))), numpyro.param("U", jnp.zeros((3, 2)))
    v, h, g = numpyro.sample("v", bits(5), obs=v), numpyro.sample("h", bits(3)), numpyro.sample("g", bits(2))
    numpyro.factor("energy", v @ W @ h + h @ U @ g)


def potts(v=None):
    W = numpyro.param("W", jnp.zeros((3, 3)))
    v = numpyro.sample("v", levels(3, 4), obs=v)
    numpyro.factor("energy", sum(W[v[i].astype(int), v[i + 1].astype(int)] for i in range(3)))


def joint_table(target, parameters):
    """f at every state: (visible state, hidden state), and the visible states' values."""
    variables = {v.name: v for v in target.variables.values()}

    def every(sites):
        grids = [np.array(list(itertools.product(range(v.levels), repeat=v.size)), float) for v in sites]
        points = list(itertools.product(*grids))
        return {v.name: jnp.asarray(np.array([p[i] for p in points])) for i, v in enumerate(sites)}

    visible, hidden = every(target.visible), every(target.hidden)
    f = lambda v, h: target.joint(parameters, {**v, **h})  # noqa: E731
    over_hidden = jax.vmap(f, in_axes=(None, 0)) if hidden else lambda v, h: f(v, h)[None]
    assert set(visible) | set(hidden) == set(variables)
    return jax.vmap(over_hidden, in_axes=(0, None))(visible, hidden), np.asarray(visible["v"])


CASES = {"rbm": (rbm, 2), "deep": (deep, 2), "potts": (potts, 3)}


def case(name, inference, seed=0):
    """A target in float64 with parameters at random, and rows as indices of visible states."""
    program, count = CASES[name]
    size = 4 if name == "potts" else 5
    index = np.random.default_rng(seed).integers(0, count**size, 7)
    rows = np.array(list(itertools.product(range(count), repeat=size)), float)[index]
    target = inference.prepare(conditioned(program, {"v": rows}, None, "float64")[1])
    rng = np.random.default_rng(1)
    parameters = {k: jnp.asarray(rng.normal(size=v.shape)) for k, v in target.initial(jax.random.key(0)).items()}
    return target, parameters, index


@pytest.mark.parametrize("name", CASES)
def test_exact_gradient_is_that_of_the_brute_force_likelihood(name):
    inference = pg.inference.MaximumLikelihood()
    with runtime.jax_scope("float64"):
        target, parameters, index = case(name, inference)

        def brute(parameters):
            table = joint_table(target, parameters)[0]
            return jax.nn.logsumexp(table) - jnp.mean(jax.nn.logsumexp(table[index], axis=1))

        loss, gradient = jax.value_and_grad(brute)(parameters)
        found, gap, _ = inference.gradient(jax.random.key(0), target, parameters, target.rows(jnp.arange(7)), ())
        assert -float(gap) == pytest.approx(float(loss), abs=1e-10)
        for k in gradient:
            np.testing.assert_allclose(found[k], gradient[k], atol=1e-6)


@pytest.mark.parametrize("name", ["rbm", "potts"])
def test_pseudo_likelihood_is_that_of_the_enumerated_conditionals(name):
    inference = pg.inference.PseudoLikelihood()
    with runtime.jax_scope("float64"):
        target, parameters, index = case(name, inference)
        table, points = joint_table(target, parameters)
        F, want = np.asarray(jax.nn.logsumexp(table, axis=1)), 0.0
        for row in points[index]:
            for unit in range(points.shape[1]):
                same = (np.delete(points, unit, 1) == np.delete(row, unit)).all(1)
                want -= (F[(points == row).all(1)] - logsumexp(F[same])).item() / len(index)
        rows = target.rows(jnp.arange(7))
        assert float(inference.loss(jax.random.key(0), target, parameters, rows)) == pytest.approx(want, abs=1e-9)
        some = pg.inference.PseudoLikelihood(num_units=2)
        keys = jax.random.split(jax.random.key(1), 400)
        estimates = jax.vmap(lambda k: some.loss(k, target, parameters, rows))(keys)
        error = float(estimates.std()) / 20
        assert abs(float(estimates.mean()) - want) < 4 * error  # false alarms: 6e-5


def test_pseudo_likelihood_recovers_couplings():
    """20,000 exact draws of a fully visible machine of 6 units; 5 asymptotic standard errors, about 0.03 each."""

    def machine(v=None):
        W, b = numpyro.param("W", jnp.zeros((6, 6))), numpyro.param("b", jnp.zeros(6))
        v = numpyro.sample("v", bits(6), obs=v)
        numpyro.factor("energy", v @ jnp.triu(W, 1) @ v + v @ b)

    rng = np.random.default_rng(0)
    W, b, x = np.triu(rng.normal(size=(6, 6)), 1), 0.5 * rng.normal(size=6), states(6)
    f = np.einsum("ni,ij,nj->n", x, W, x) + x @ b
    rows = x[rng.choice(64, 20_000, p=np.exp(f - logsumexp(f)))]
    fit = pg.fit(machine, {"v": rows}, "pseudo_likelihood", batch_size=1000, num_steps=1500)
    assert abs(np.triu(fit.parameters["W"], 1) - W).max() < 0.2
    assert abs(fit.parameters["b"] - b).max() < 0.2


def test_pseudo_likelihood_refuses_what_it_cannot_sum():
    with pytest.raises(ValueError, match="interact"):
        pg.fit(deep, {"v": states(5)}, "pseudo_likelihood")
    with pytest.raises(ValueError, match="real"):
        pg.fit(quadratic, {"x": np.zeros((3, 2))}, "pseudo_likelihood")


def test_too_many_units_are_refused():
    from probgen.evaluate.energy import TooLarge

    with pytest.raises(TooLarge, match=r"2\^21"):
        pg.fit("rbm", {"v": np.zeros((3, 30)), "num_visible": 30, "num_hidden": 21}, "maximum_likelihood")


# ---- the model's points ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rbm", "deep"])
def test_tempered_chains_give_the_gradient_of_the_model(name):
    """The mean over 400 gradients of 100 ladders against enumeration: within 6 standard errors, some 0.01."""
    inference = pg.inference.PCDTempered(num_chains=100, num_temperatures=4, hottest=0.2)
    with runtime.jax_scope("float64"):
        target, parameters, _ = case(name, inference)
        table = joint_table(target, parameters)[0]
        p = jax.nn.softmax(table.ravel()).reshape(table.shape).sum(1)
        visible = np.asarray(joint_table(target, parameters)[1])
        want = p @ visible
        chains = inference.first_chains(jax.random.key(0), target, parameters, target.rows(jnp.arange(7)))
        rows = target.rows(jnp.arange(7))

        def step(chains, key):
            chains = inference.gradient(key, target, parameters, rows, chains)[2]
            return chains, chains["v"].mean(0)

        means = jax.jit(lambda c: jax.lax.scan(step, c, jax.random.split(jax.random.key(1), 500)))(chains)[1][100:]
        assert means.shape == (400, 4, 5)
        np.testing.assert_allclose(means.mean(0)[0], want, atol=0.02)
        hottest = joint_table(target, {k: v * 0.2 for k, v in parameters.items()})[0]
        p = jax.nn.softmax(hottest.ravel()).reshape(table.shape).sum(1)
        np.testing.assert_allclose(means.mean(0)[3], p @ visible, atol=0.02)


# ---- bars and stripes --------------------------------------------------------------------------------------------


def test_bars_and_stripes_by_exact_maximum_likelihood():
    """The optimum of 3 x 3 is -2.5993 nats a row, minus the entropy of the rows."""
    fit = pg.fit("rbm", bars(3) | {"num_hidden": 8}, "maximum_likelihood", num_steps=1000, seed=1)
    assert learned_exactly(fit) > -2.63
    assert fit.records["loss"][0, -1] == pytest.approx(-learned_exactly(fit), abs=0.02)


SETTINGS = {"num_steps": 20_000, "learning_rate": 0.1}


@pytest.mark.parametrize("inference", ["pcd", "pcd_tempered"])
def test_bars_and_stripes_by_persistent_chains(inference):
    fit = pg.fit("rbm", bars(3) | {"num_hidden": 8}, inference, **SETTINGS)
    assert learned_exactly(fit) > -2.75
    fit = pg.fit("rbm", bars(4) | {"num_hidden": 16}, inference, **SETTINGS)
    assert learned_exactly(fit) > -3.9
    assert fit.records["rollbacks"][0, -1] == 0
