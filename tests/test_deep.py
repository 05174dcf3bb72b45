"""Stacks of layers: greedy training, learning that begins at a fit, and densities without the sites that come last."""

import dataclasses
import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.special import expit, logsumexp

import probgen as pg
from probgen import runtime
from probgen.cli import main
from probgen.datasets import bars_and_stripes
from probgen.inference.energy.greedy import Greedy
from probgen.measures import bits
from probgen.run import conditioned

QUIET = {"progress": False}


def states(n):
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def bars(**sizes):
    rows = bars_and_stripes(3).reshape(-1, 9)
    return {"v": rows, "num_visible": 9} | sizes


# ---- greedy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "twice"), [("dbm", 2.0), ("dbn", 1.0)])
@pytest.mark.parametrize("layer", [0, 1])
def test_weights_of_a_deep_boltzmann_machine_count_twice_between_neighbours(name, twice, layer):
    """The step of contrastive divergence of one layer, by NumPy, with the same uniform numbers."""
    rng = np.random.default_rng(0)
    with runtime.jax_scope("float32"):
        learner = Greedy(num_steps=100)
        target = learner.prepare(conditioned(name, bars(num_hidden1=4, num_hidden2=3), precision="float32")[1])
        shapes = jax.eval_shape(target.initial, jax.random.key(0))
        p = {k: rng.normal(size=v.shape).astype("float32") for k, v in shapes.items()}
        key, x = jax.random.key(5), np.asarray(target.all_rows()["v"], "float32")
        chains = {"step": jnp.int32(50 * layer), "biases": [p["c1"], p["c2"]]}
        gradient, _, _ = learner.gradient(key, target, p, {"v": x}, chains)
        (own,) = jax.random.split(key, 1)
        k_hidden, k_visible = jax.random.split(own)
        draw = lambda k, mean: (np.asarray(jax.random.uniform(k, mean.shape)) < mean).astype("float32")  # noqa: E731
        up, down = (twice, 1.0) if layer == 0 else (1.0, twice)
        W, a, c = (p["W1"], p["b"], p["c1"]) if layer == 0 else (p["W2"], p["c1"], p["c2"])
        x = x if layer == 0 else expit(twice * x @ p["W1"] + p["c1"])
        h = expit(up * x @ W + c)
        y = draw(k_visible, expit(down * draw(k_hidden, h) @ W.T + a))
        expected = (y.T @ expit(up * y @ W + c) - x.T @ h) / len(x)
    np.testing.assert_allclose(gradient[f"W{layer + 1}"], expected, atol=1e-5)
    assert not np.any(gradient[f"W{2 - layer}"])


def exact_dbm(p, v):
    """log p(v) of rows, summed over both hidden layers by brute force."""
    h1, every = states(len(p["c1"])), states(len(p["b"]))
    top = h1 @ p["c1"] + np.logaddexp(0, p["c2"] + h1 @ p["W2"]).sum(1)
    free = lambda v: logsumexp(v @ (p["W1"] @ h1.T) + (v @ p["b"])[:, None] + top, axis=1)  # noqa: E731
    return free(v) - logsumexp(free(every))


@pytest.mark.usefixtures("optimised")
def test_a_deep_boltzmann_machine_is_learned_from_where_greedy_training_ended():
    """Bars and stripes: 6.24 nats a row for fair coins, 2.60 at best. The bound by mean field is below enumeration."""
    data = bars(num_hidden1=8, num_hidden2=6)
    begun = pg.fit("dbm", data, "greedy", num_steps=4000, learning_rate=0.1, **QUIET)
    fit = pg.fit("dbm", data, "pcd", init=begun, num_steps=6000, learning_rate=0.05, **QUIET)
    before, after = (exact_dbm(f.parameters, data["v"]).mean() for f in (begun, fit))
    assert before < after
    assert after > -3.4
    found = fit.log_prob()
    assert "lower bound by mean field" in found.kind
    assert (found.value <= exact_dbm(fit.parameters, data["v"]) + 1e-4).all()
    assert found.value.mean() > after - 0.5


def test_a_centred_machine_is_the_plain_one_in_other_parameters():
    rng, sizes = np.random.default_rng(0), {"num_visible": 4, "num_hidden1": 3, "num_hidden2": 2}
    shapes = {"W1": (4, 3), "W2": (3, 2), "b": (4,), "c1": (3,), "c2": (2,)}
    p, m, h = {k: rng.normal(size=s) for k, s in shapes.items()}, rng.random(4), 0.3
    q = p | {
        "b": p["b"] - p["W1"] @ np.full(3, h),
        "c1": p["c1"] - m @ p["W1"] - p["W2"] @ np.full(2, h),
        "c2": p["c2"] - np.full(3, h) @ p["W2"],
    }
    v, h1, h2 = (rng.integers(0, 2, (20, n)).astype(float) for n in (4, 3, 2))
    program = importlib.import_module("probgen.models.energy.dbm").dbm

    def f(p, row, **centres):
        closed = numpyro.handlers.substitute(lambda: program(**sizes, **centres), data={**p, **row})
        return float(numpyro.infer.util.log_density(closed, (), {}, {})[0])

    rows = [dict(zip(("v", "h1", "h2"), row, strict=True)) for row in zip(v, h1, h2, strict=True)]
    with runtime.jax_scope("float64"):
        change = [f(p, row, centre=m, hidden_centre=h) - f(q, row) for row in rows]
    np.testing.assert_allclose(change, change[0], atol=1e-10)


@pytest.mark.usefixtures("optimised")
def test_a_centred_machine_learns_from_nothing_and_greedy_refuses_it():
    rows = bars_and_stripes(3).reshape(-1, 9)
    data = {
        "v": rows,
        "num_visible": 9,
        "num_hidden1": 8,
        "num_hidden2": 6,
        "centre": rows.mean(0),
        "hidden_centre": 0.5,
    }
    fit = pg.fit("dbm", data, "pcd", num_steps=6000, learning_rate=0.1, batch_size=16, **QUIET)
    p, h = fit.parameters, 0.5
    plain = {
        "W1": p["W1"], "W2": p["W2"], "b": p["b"] - h * p["W1"].sum(1), "c2": p["c2"] - h * p["W2"].sum(0),
        "c1": p["c1"] - rows.mean(0) @ p["W1"] - h * p["W2"].sum(1),
    }  # fmt: skip
    assert exact_dbm(plain, rows).mean() > -3.4
    with pytest.raises(ValueError, match="greedy needs b to be the log odds"):
        pg.fit("dbm", data, "greedy", num_steps=10)


# ---- init --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned():
    return pg.fit("rbm", bars(num_hidden=4), "cd", num_steps=300, **QUIET)


def test_learning_begins_at_a_fit(learned):
    still = {"num_steps": 2, "learning_rate": 1e-9, "average": 0.0}
    for inference in ("pcd", "pseudo_likelihood", "mle"):
        fit = pg.fit("rbm", bars(num_hidden=4), inference, init=learned, **still, **QUIET)
        assert all(np.allclose(fit.answer[k], learned.answer[k], atol=1e-6) for k in "Wbc"), inference


def test_a_guide_begins_there_too_and_new_parameters_as_ever():
    x = bars_and_stripes(3).reshape(-1, 9)
    data = {"x": x, "dim": 9, "num_latents": 2, "width": 5}
    one = pg.fit("vae", data, "svi", num_steps=50, batch_size=10, **QUIET)
    two = pg.fit("vae", data, "svi", init=one, num_steps=2, learning_rate=1e-9, batch_size=10, average=0.0, **QUIET)
    assert set(two.answer) == set(one.answer)
    assert all(np.allclose(two.answer[k], one.answer[k], atol=1e-6) for k in one.answer)
    some = dataclasses.replace(one, answer={k: v for k, v in one.answer.items() if k == min(one.answer)})
    fit = pg.fit("vae", data, "svi", init=some, num_steps=2, learning_rate=1e-9, batch_size=10, average=0.0, **QUIET)
    same = [k for k in one.answer if np.allclose(fit.answer[k], one.answer[k], atol=1e-6)]
    assert min(one.answer) in same
    assert len(same) < len(one.answer)


def test_em_goes_on_from_a_fit():
    x = np.random.default_rng(0).normal(size=(60, 2)) + 4 * np.random.default_rng(1).integers(0, 2, (60, 1))
    whole = pg.fit("gaussian_mixture", x, "em", **QUIET)
    more = pg.fit("gaussian_mixture", x, "em", init=whole, num_steps=3, **QUIET)
    assert more.records["loss"][0, 0] == pytest.approx(whole.records["loss"][0, -1], abs=1e-5)


def test_a_pyro_program_begins_at_a_fit():
    data = {"x": bars_and_stripes(3).reshape(-1, 9), "num_latents": 2, "width": 5}
    one = pg.fit("vae_pyro", data, "svi", num_steps=30, batch_size=10, **QUIET)
    two = pg.fit(
        "vae_pyro", data, "svi", init=one, num_steps=2, learning_rate=1e-9, batch_size=10, average=0.0, **QUIET
    )
    assert all(np.allclose(two.answer[k], one.answer[k], atol=1e-6) for k in one.answer)


def test_a_run_that_began_at_a_fit_resumes_bit_for_bit(learned, tmp_path, monkeypatch):
    from probgen.run import runner as run

    learned.save(tmp_path / "first")
    settings = {"num_steps": 200, "init": tmp_path / "first"}
    whole = pg.fit("rbm", bars(num_hidden=4), "pcd", **settings, **QUIET)

    class Enough(Exception):
        pass

    def stop(self, records, add=run.Run.add):
        raise Enough

    with monkeypatch.context() as patch:  # before anything but the data is written
        patch.setattr(run.Run, "add", stop)
        with pytest.raises(Enough):
            pg.fit("rbm", bars(num_hidden=4), "pcd", out=tmp_path / "a", **settings, **QUIET)
    resumed = pg.resume(tmp_path / "a")
    assert all((resumed.answer[k] == whole.answer[k]).all() for k in "Wbc")


def test_the_command_line_begins_at_a_run(learned, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learned.save("first")
    np.savez("data.npz", **bars(num_hidden=4))
    words = ["fit", "rbm", "-i", "cd", "--data", "data.npz", "--num-steps", "60", "--init", "first", "--out", "second"]
    assert main(words) == 0
    found = pg.load("second")
    assert np.abs(found.answer["W"] - learned.answer["W"]).max() < 0.5
    np.testing.assert_array_equal(found.target.starts["W"], learned.answer["W"])
    assert main([*words[:-1], "third", "--init", "nowhere"]) != 0
    assert "nowhere" in capsys.readouterr().err


def test_what_cannot_be_begun_at_is_told(learned):
    with pytest.raises(ValueError, match=r"Parameter 'W' of init has shape \(9, 4\); the program's has \(9, 5\)"):
        pg.fit("rbm", bars(num_hidden=5), "pcd", init=learned)
    with pytest.raises(ValueError, match="init has W, b, c; the program has"):
        pg.fit("bernoulli_mixture", bars_and_stripes(3).reshape(-1, 9), "mle", init=learned)
    with pytest.raises(TypeError, match="This init is for programs with parameters"):
        pg.fit("eight_schools", init=learned)
    posterior = pg.fit("eight_schools", num_samples=10, num_warmup=10, **QUIET)
    with pytest.raises(TypeError, match="expected a fit that learned parameters"):
        pg.fit("rbm", bars(num_hidden=4), "pcd", init=posterior)
    with pytest.raises(FileNotFoundError):
        pg.fit("rbm", bars(num_hidden=4), "pcd", init="no/such/run")


# ---- barren sites ------------------------------------------------------------------------------------------------


def chain(J, field):
    """Bits x with an energy, under which y depends on x, and z on y."""
    x = numpyro.sample("x", bits(4))
    numpyro.factor("energy", x @ J @ x + field @ x)
    y = numpyro.sample("y", dist.Bernoulli(logits=2 * x - 1).to_event(1))
    numpyro.sample("z", dist.Bernoulli(logits=3 * y - 2).to_event(1))


def looked_up(table):
    """y is an index: the factor depends on it, though no derivative says so."""
    y = numpyro.sample("y", dist.Bernoulli(0.5).expand([2]).to_event(1))
    numpyro.factor("energy", table[y.astype(int)[0], y.astype(int)[1]])
    numpyro.sample("z", dist.Bernoulli(jnp.where(y > 0.5, 0.9, 0.2)).to_event(1))


def compared(t):
    """y reaches the factor through a comparison alone, and z, last, is observed by no one."""
    y = numpyro.sample("y", dist.Bernoulli(0.3).expand([3]).to_event(1))
    numpyro.factor("energy", jnp.where(y > 0.5, t, -t).sum())


def both(W):
    """y depends on x and has an energy with it, z depends on y."""
    x = numpyro.sample("x", bits(2))
    y = numpyro.sample("y", dist.Bernoulli(logits=2 * x - 1).to_event(1))
    numpyro.factor("energy", x @ W @ y)
    numpyro.sample("z", dist.Bernoulli(logits=2 * y - 1).to_event(1))


def test_sites_on_which_nothing_depends_are_left_out():
    rng = np.random.default_rng(0)
    cases = [
        (chain, {"J": np.triu(rng.normal(size=(4, 4)), 1), "field": rng.normal(size=4)}, {"x"}),
        (looked_up, {"table": rng.normal(size=(2, 2))}, {"y"}),
        (compared, {"t": np.array(0.7)}, {"y"}),
        (both, {"W": rng.normal(size=(2, 2))}, {"x", "y"}),
    ]
    for program, data, left in cases:
        target = conditioned(program, data)[1]
        assert {v.name for v in target.pruned().variables} == left, program.__name__


def test_the_density_without_them_has_the_same_constant_and_draws():
    rng = np.random.default_rng(0)
    data = {"J": np.triu(rng.normal(size=(4, 4)), 1), "field": rng.normal(size=4)}
    target = conditioned(chain, data)[1]
    core = target.pruned()
    x = states(4)
    f = np.einsum("ni,ij,nj->n", x, data["J"], x) + x @ data["field"]
    with runtime.jax_scope("float64"):
        found = [float(core.joint({"x": jnp.asarray(row)})) for row in x]
    np.testing.assert_allclose(found, f, atol=1e-12)
    p = np.exp(f - logsumexp(f))
    picked = x[rng.choice(16, 20_000, p=p)]
    drawn = target.completed({"x": picked}, seed=1)
    assert set(drawn) == {"x", "y", "z"}
    assert (drawn["x"] == picked).all()
    for a in (0, 1):
        assert drawn["y"][picked == a].mean() == pytest.approx(expit(2 * a - 1), abs=0.01)
        assert drawn["z"][drawn["y"] == a].mean() == pytest.approx(expit(3 * a - 2), abs=0.01)


@pytest.mark.usefixtures("optimised")
def test_a_belief_network_is_drawn_and_measured_by_its_top_layer():
    """Against sums over all states: the constant by annealing, the means of v."""
    fit = pg.fit("dbn", bars(num_hidden1=5, num_hidden2=4), "greedy", num_steps=3000, learning_rate=0.2, **QUIET)
    p, h1 = fit.parameters, states(5)
    top = h1 @ p["c1"] + np.logaddexp(0, p["c2"] + h1 @ p["W2"]).sum(1)
    annealed = fit.log_z("ais", num_chains=400, num_temperatures=300)
    assert annealed.value == pytest.approx(logsumexp(top), abs=0.05)
    assert fit.log_z("enumeration").value == pytest.approx(logsumexp(top), abs=1e-4)
    means = np.exp(top - logsumexp(top)) @ expit(h1 @ p["W1"].T + p["b"])
    drawn = fit.sample(3000)
    assert {k: v.shape for k, v in drawn.items()} == {"v": (3000, 9), "h1": (3000, 5), "h2": (3000, 4)}
    np.testing.assert_allclose(drawn["v"].mean(0), means, atol=0.04)


def three_layers(v=None):
    """A belief network of three hidden layers: an RBM of h2 and h3, below which h1 and v are directed."""
    weight = lambda name, *shape: numpyro.param(name, lambda key: jax.random.normal(key, shape))  # noqa: E731
    b, c1, c2, c3 = (weight(k, n) for k, n in (("b", 4), ("c1", 3), ("c2", 3), ("c3", 2)))
    W1, W2, W3 = weight("W1", 4, 3), weight("W2", 3, 3), weight("W3", 3, 2)
    h3 = numpyro.sample("h3", bits(2))
    h2 = numpyro.sample("h2", bits(3))
    numpyro.factor("energy", h2 @ W3 @ h3 + h2 @ c2 + h3 @ c3)
    h1 = numpyro.sample("h1", dist.Bernoulli(logits=W2 @ h2 + c1).to_event(1))
    numpyro.sample("v", dist.Bernoulli(logits=W1 @ h1 + b).to_event(1), obs=v)


def test_hidden_sites_that_come_last_are_left_out_as_well():
    """Against the sum over all states of h2, h3; of v the means."""
    fit = pg.fit(three_layers, {"v": states(4)}, "greedy", num_steps=3, learning_rate=1e-9, **QUIET)
    assert {v.name for v in fit.condition().pruned().variables} == {"h2", "h3"}
    p, h2, h1 = fit.parameters, states(3), states(3)
    top = h2 @ p["c2"] + np.logaddexp(0, p["c3"] + h2 @ p["W3"]).sum(1)
    assert fit.log_z("ais", num_chains=300, num_temperatures=100).value == pytest.approx(logsumexp(top), abs=0.05)
    on = expit(h2 @ p["W2"].T + p["c1"])
    of_h1 = np.exp(h1 @ np.log(on).T + (1 - h1) @ np.log1p(-on).T) @ np.exp(top - logsumexp(top))
    drawn = fit.sample(3000)
    assert {k: v.shape for k, v in drawn.items()} == {"v": (3000, 4), "h1": (3000, 3), "h2": (3000, 3), "h3": (3000, 2)}
    np.testing.assert_allclose(drawn["v"].mean(0), of_h1 @ expit(h1 @ p["W1"].T + p["b"]), atol=0.04)


def test_a_learner_that_draws_says_what_an_energy_must_be():
    with pytest.raises(ValueError, match=r"not affine in the bit h1\[\d+\], site 'h1'.\nLearners .*'greedy'"):
        pg.fit("dbn", bars(), "cd", **QUIET)


# ---- large lattices ----------------------------------------------------------------------------------------------


def test_a_large_lattice_has_two_colours():
    """3600 units, more than are looked at together: neighbours differ, and the memory is not that of all pairs."""
    side = 60
    data = {"J": 0.4, "field": 0.0, "height": side, "width": side}
    (block,) = conditioned("ising", data, precision="float32")[1].blocked().structure.blocks
    colours = np.array(block.colours).reshape(side, side)
    assert set(block.colours) == {0, 1}
    assert (colours != np.roll(colours, 1, 0)).all()
    assert (colours != np.roll(colours, 1, 1)).all()
