"""What is derived from an energy: conditionals, blocks, sums, chains, learners; against enumeration and autodiff."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probgen as pg
from probgen.engine.numpyro.sums import energy
from probgen.engine.numpyro.sums.exact import TooLarge
from probgen.evaluate.energy import log_z
from probgen.measures import bits, levels, reals
from probgen.run import conditioned


def rbm(v=None, *, W, b, c):
    v = numpyro.sample("v", bits(W.shape[0]), obs=v)
    h = numpyro.sample("h", bits(W.shape[1]))
    numpyro.factor("energy", v @ W @ h + v @ b + h @ c)


def weights(visible=5, hidden=4, seed=0):
    rng = np.random.default_rng(seed)
    return {"W": rng.normal(size=(visible, hidden)), "b": rng.normal(size=visible), "c": rng.normal(size=hidden)}


def bernoulli_rbm(v=None, *, W, b, c):
    """The same with NumPyro's own base measure: its constant differs by log 2 a unit."""
    v = numpyro.sample("v", dist.Bernoulli(0.5).expand([W.shape[0]]).to_event(1), obs=v)
    h = numpyro.sample("h", dist.Bernoulli(0.5).expand([W.shape[1]]).to_event(1))
    numpyro.factor("energy", v @ W @ h + v @ b + h @ c)


def ising(coupling, side=4):
    s = 2 * numpyro.sample("s", bits(side, side)) - 1
    numpyro.factor("energy", coupling * sum(jnp.sum(s * jnp.roll(s, 1, axis)) for axis in (0, 1)))


def higher_order():
    a, x = numpyro.sample("a", bits(5)), numpyro.sample("x", bits())
    numpyro.factor("energy", 1.5 * a[0] * a[1] * a[2] - 2 * a[3] * a[4] * x + a.sum() - x)


def potts():
    s, b = numpyro.sample("s", levels(3, 4)), numpyro.sample("b", bits(2))
    same = (s[:, None] == s[None, :]).sum()
    numpyro.factor("energy", 0.3 * same + b[0] * b[1] - 0.5 * b.sum() + b[0] * (s[0] == 2))


def deep(W1, W2):
    v, h1, h2 = (numpyro.sample(k, bits(n)) for k, n in (("v", 4), ("h1", 4), ("h2", 4)))
    numpyro.factor("energy", v @ W1 @ h1 + h1 @ W2 @ h2)


RNG = np.random.default_rng(3)
PROGRAMS = {
    "rbm": (rbm, weights()),
    "bernoulli_rbm": (bernoulli_rbm, weights()),
    "higher_order": (higher_order, {}),
    "potts": (potts, {}),
    "deep": (deep, {"W1": RNG.normal(size=(4, 4)), "W2": RNG.normal(size=(4, 4))}),
    "ising": (ising, {"coupling": 0.3, "side": 3}),
}


def states(target):
    """Every state of a finite target, {site: (state, *shape)}, by brute force."""
    axes = [range(v.levels) for v in target.variables for _ in range(v.size)]
    flat = np.array(list(itertools.product(*axes)), float)
    return target.constrain(flat[None])


def enumerated(target):
    with jax.enable_x64(True):
        values = {k: jnp.asarray(v[0]) for k, v in states(target).items()}
        return np.asarray(jax.vmap(target.joint)(values))


def prepared(name, blocked=True):
    program, data = PROGRAMS[name]
    target = conditioned(program, data)[1]
    return target.blocked() if blocked else target


@pytest.mark.parametrize("name", PROGRAMS)
def test_gibbs_is_the_enumerated_distribution(name):
    """Total variation within 1.3 times what as many independent draws have on average."""
    program, data = PROGRAMS[name]
    fit = pg.fit(program, data, "gibbs", num_chains=200, num_samples=500, num_warmup=100, thin=4, seed=1)
    log_p = enumerated(fit.target)
    p = np.exp(log_p - np.logaddexp.reduce(log_p))
    base = np.array([v.levels for v in fit.target.variables for _ in range(v.size)])
    place = np.append(np.cumprod(base[::-1])[::-1][1:], 1)
    drawn = np.bincount((fit.z.reshape(-1, len(base)) * place).sum(1).astype(int), minlength=len(p)) / 100_000
    noise = 0.5 * np.sqrt(2 / np.pi * p * (1 - p) / 100_000).sum()
    assert 0.5 * abs(drawn - p).sum() < 1.3 * noise
    assert fit.diagnose()["r_hat"].status == "pass"


@pytest.mark.parametrize("name", PROGRAMS)
def test_log_z_is_the_sum_over_all_states(name):
    target = prepared(name)
    found = log_z(target)
    assert found.value == pytest.approx(np.logaddexp.reduce(enumerated(target)), abs=1e-9)
    assert found.stderr == 0
    assert "exact" in found.kind


@pytest.mark.parametrize(("coupling", "exact"), [(0.2, 11.771470), (0.4406868, 15.521916), (0.6, 20.056533)])
def test_log_z_of_the_periodic_ising_model(coupling, exact):
    target = conditioned(ising, {"coupling": coupling})[1].blocked()
    assert log_z(target).value == pytest.approx(exact, abs=1e-6)


def test_blocks_are_the_sides_the_colours_and_the_odd_layers():
    assert prepared("rbm").structure.blocks == (energy.Block(("v",)), energy.Block(("h",)))
    assert prepared("deep").structure.blocks == (energy.Block(("v", "h2")), energy.Block(("h1",)))
    (board,) = conditioned(ising, {"coupling": 0.3})[1].blocked().structure.blocks
    assert max(board.colours) == 1
    assert board.colours[:5] == (0, 1, 0, 1, 1)


def test_blocks_that_interact_are_refused():
    program, data = PROGRAMS["rbm"]
    with pytest.raises(ValueError, match="'v' and 'h' of one block interact"):
        pg.fit(program, data, "gibbs", blocks=(("v", "h"),))


def square():
    numpyro.factor("energy", -(numpyro.sample("a", bits(4)).sum() ** 2))


def rounded():
    a = numpyro.sample("a", bits(4))
    numpyro.factor("energy", jnp.where(a[1] > 0.5, 2.0, 0.0) + a[0])


@pytest.mark.parametrize("program", [square, rounded])
def test_an_energy_that_is_not_affine_names_its_bit_and_the_way_out(program):
    with pytest.raises(ValueError, match=r"not affine in the bit a\[\d\], site 'a'.\nUse conditionals='evaluation'"):
        pg.fit(program, {}, "gibbs")
    fit = pg.fit(program, {}, "gibbs", conditionals="evaluation", num_chains=100, num_samples=400)
    log_p = enumerated(fit.target)
    exact = np.exp(log_p - np.logaddexp.reduce(log_p)) @ states(fit.target)["a"][0]
    assert fit.draws["a"].mean((0, 1)) == pytest.approx(exact, abs=0.015)


def test_a_bounded_real_beside_bits_is_named_by_gradients_and_drawn_in_turn():
    def program():
        s = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.factor("energy", s * (numpyro.sample("b", bits(2)).sum() - 1.0))

    with pytest.raises(ValueError, match="'scale' is neither bits, levels nor unbounded reals"):
        pg.fit(program, {}, "gibbs", conditionals="gradient")
    fit = pg.fit(program, {}, "gibbs", num_chains=50, num_samples=400, progress=False)
    s = np.linspace(0, 12, 20_001)
    weights = np.exp(-(s**2) / 2 + s * np.array([[-1.0], [0.0], [1.0]])).sum(1) * [1, 2, 1]  # of 0, 1 and 2 bits
    share = [(fit.draws["b"].sum(-1) == count).mean() for count in range(3)]
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.02)


def gaussian(W, precision=2.0):
    v, h = numpyro.sample("v", reals(3)), numpyro.sample("h", bits(4))
    numpyro.factor("energy", v @ W @ h - 0.5 * precision * (v - 0.3) @ (v - 0.3))


def test_reals_are_drawn_and_summed_out_as_normals():
    """Against the exact sum over h: v given h is normal with mean .3 + W h / precision."""
    W, precision = np.random.default_rng(1).normal(size=(3, 4)), 2.0
    h = np.array(list(itertools.product([0, 1], repeat=4)), float)
    mean = 0.3 + h @ W.T / precision
    log_p = 0.5 * precision * ((mean**2).sum(1) - 3 * 0.09) + 1.5 * np.log(2 * np.pi / precision)
    target = conditioned(gaussian, {"W": W})[1].blocked()
    assert log_z(target).value == pytest.approx(np.logaddexp.reduce(log_p), abs=1e-9)
    fit = pg.fit(gaussian, {"W": W}, "gibbs", num_chains=100, num_samples=1000)
    p = np.exp(log_p - np.logaddexp.reduce(log_p))
    assert fit.draws["v"].mean((0, 1)) == pytest.approx(p @ mean, abs=0.02)
    second = p @ mean**2 + 1 / precision
    assert (fit.draws["v"] ** 2).mean((0, 1)) == pytest.approx(second, abs=0.06)


def test_nuts_takes_the_reals_with_the_bits_summed_out():
    W = np.random.default_rng(1).normal(size=(3, 4))
    one, two = pg.fit(gaussian, {"W": W}, "nuts"), pg.fit(gaussian, {"W": W}, "gibbs", num_chains=100)
    assert one.draws["v"].mean((0, 1)) == pytest.approx(two.draws["v"].mean((0, 1)), abs=0.1)
    assert one.draws["v"].std((0, 1)) == pytest.approx(two.draws["v"].std((0, 1)), abs=0.1)


def test_enumeration_says_its_cost():
    with pytest.raises(TooLarge, match=r"Enumeration needs 2\^40 states; at most 2\^25"):
        log_z(conditioned(rbm, weights(50, 40))[1].blocked())


# ---- learning ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned():
    rows = (np.random.default_rng(0).random((300, 2, 1)) < 0.5).repeat(3, 2).reshape(300, 6).astype(float)
    return pg.fit("rbm", {"v": rows, "num_visible": 6, "num_hidden": 4}, "pcd", num_steps=3000, learning_rate=0.3)


def test_settings_of_another_method_are_refused_by_enumeration(learned):
    with pytest.raises(TypeError, match="'num_chains' is a setting of other methods"):
        learned.log_z("enumeration", num_chains=7)


def test_a_learned_model_is_a_model_again(learned):
    """Two independent triples of equal bits: log 4 nats a row at best."""
    found = learned.log_prob()
    assert found.value.mean() == pytest.approx(-np.log(4), abs=0.25)
    every = np.array(list(itertools.product([0, 1], repeat=6)), float)
    assert np.logaddexp.reduce(learned.log_prob(v=every).value) == pytest.approx(0, abs=1e-4)
    assert learned.energy(v=every) == pytest.approx(-learned.log_prob(v=every).value - learned.log_z().value, abs=1e-3)
    assert learned.sample(50)["v"].shape == (50, 6)
    assert learned.diagnose()["rollbacks"].status == "pass"
    table = learned.summary()  # few parameters: a row for each entry
    assert len(table) == 6 * 4 + 6 + 4
    assert table.loc["W[5, 3]", "value"] == learned.parameters["W"][5, 3]
    assert list(learned.summary(var_names="c").index) == ["c[0]", "c[1]", "c[2]", "c[3]"]
    with pytest.raises(KeyError, match="Unknown parameter 'd'"):
        learned.summary(var_names="d")


def test_completion_has_the_conditional_distribution(learned):
    part = np.array([1, np.nan, np.nan, 0, np.nan, np.nan])
    fit = pg.fit(learned.condition(v=part), inference="gibbs", num_chains=100, num_samples=300)
    assert (fit.draws["v"][..., [0, 3]] == [1, 0]).all()
    every = np.array(list(itertools.product([0, 1], repeat=6)), float)
    every = every[(every[:, 0] == 1) & (every[:, 3] == 0)]
    log_p = learned.log_prob(v=every).value
    exact = np.exp(log_p - np.logaddexp.reduce(log_p)) @ every
    assert fit.draws["v"].mean((0, 1)) == pytest.approx(exact, abs=0.03)


def test_learning_is_saved_loaded_and_conditioned_again(learned, tmp_path):
    learned.save(tmp_path / "a")
    again = pg.load(tmp_path / "a")
    assert type(again) is type(learned)
    assert all((again.parameters[k] == learned.parameters[k]).all() for k in "Wbc")
    part = np.array([1, np.nan, np.nan, 0, np.nan, np.nan])
    first = pg.fit(learned.condition(v=part), inference="gibbs", num_samples=50, out=tmp_path / "b")
    assert (pg.load(tmp_path / "b").z == first.z).all()
    second = pg.fit(again.condition(v=part), inference="gibbs", num_samples=50)
    assert (second.z == first.z).all()


def test_a_learner_resumes_bit_for_bit(tmp_path):
    from probgen.run import runner as run

    rows = (np.random.default_rng(0).random((70, 6)) < 0.5).astype(float)
    settings = {
        "data": {"v": rows, "num_visible": 6, "num_hidden": 3},
        "inference": "pcd",
        "num_steps": 200,
        "batch_size": 20,
    }
    whole = pg.fit("rbm", **settings)

    class Enough(Exception):
        pass

    def stop(self, records, add=run.Run.add):
        add(self, records)
        if self.step >= 60:
            raise Enough

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run.Run, "add", stop)
        with pytest.raises(Enough):
            pg.fit("rbm", **settings, out=tmp_path / "a")
    resumed = pg.resume(tmp_path / "a")
    assert all((resumed.parameters[k] == whole.parameters[k]).all() for k in "Wbc")
    assert (resumed.records["loss"] == whole.records["loss"]).all()


def test_training_that_runs_away_goes_back_and_says_so():
    fit = pg.fit("rbm", "digits", "pcd", learning_rate=50.0, num_steps=1500)
    finding = fit.diagnose()["rollbacks"]
    assert finding.status in ("warn", "fail")
    assert "went back" in finding.message
    assert fit.records["loss"][0, -200:].mean() < 40


BAD = {
    "unknown data set": (lambda: pg.fit("rbm", "digit", "pcd"), ValueError, "Did you mean 'digits'"),
    "data that are not bits": (
        lambda: pg.fit("rbm", {"v": np.full((9, 64), 1.4)}, "pcd"),
        ValueError,
        r"v\[0, 0\] is 1.4",
    ),
    "a sampler on rows": (lambda: pg.fit("rbm", "digits", "gibbs"), pg.Incompatible, "offers Learnable"),
    "a learner without rows": (lambda: pg.fit(rbm, weights(), "pcd"), pg.Incompatible, "pcd needs a Learnable"),
    "nuts on bits": (lambda: pg.fit(rbm, weights(), "nuts"), pg.Incompatible, "gibbs"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_before_anything_compiles(case):
    call, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        call()


def test_bad_rows_of_a_learned_model_are_told(learned):
    with pytest.raises(ValueError, match=r"expected rows of shape \(6,\)"):
        learned.energy(v=np.zeros((3, 5)))
    with pytest.raises(TypeError, match="Unknown 'x'; this model was learned from rows of v"):
        learned.energy(x=np.zeros((3, 6)))
    with pytest.raises(ValueError, match="expected one point, of shape"):
        learned.condition(v=np.zeros((2, 6)))


# ---- programs near the edge of what derivatives describe ---------------------------------------------------------


def blocks_of(program, precision):
    return conditioned(program, {}, precision=precision)[1].blocked().structure.blocks


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_weak_interaction_among_strong_ones_is_found(precision):
    def program():
        x = numpyro.sample("x", bits(6))
        numpyro.factor("energy", 10 * x[0] * x[1] + 3e-4 * x[4] * x[5] + 5 * x.sum())

    (block,) = blocks_of(program, precision)
    colours = block.colours
    assert colours[0] != colours[1]
    assert colours[4] != colours[5]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    "bend", [lambda x: 0.002 * x**2, lambda x: 0.05 * jnp.abs(x - 0.3), lambda x: 0.01 * jnp.exp(x)]
)
def test_a_small_bend_beside_steep_slopes_is_told(bend, precision):
    def program():
        x = numpyro.sample("x", bits(6))
        numpyro.factor("energy", 5 * x @ jnp.linspace(-1, 1, 6) + bend(x[2]))

    with pytest.raises(energy.NotConditional, match=r"not affine in the bit x\[2\]"):
        blocks_of(program, precision)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_large_energies_are_not_taken_for_bent(precision):
    """Rounding of f grows with f."""
    W = np.random.default_rng(0).normal(size=(784, 200))

    def program():
        v, h = numpyro.sample("v", bits(784)), numpyro.sample("h", bits(200))
        x = numpyro.sample("x", reals(30))
        numpyro.factor("energy", 3 * v @ jnp.asarray(W) @ h - 50 * x @ x + 100 * jnp.sum(x) * h[0])

    assert {frozenset(block.sites) for block in blocks_of(program, precision)} == {
        frozenset({"v", "x"}), frozenset({"h"})
    }  # fmt: skip


SCALES = np.random.default_rng(0).uniform(0.5, 1.5, 4)


def outside_arrays():
    """NumPy arrays that are no arguments, as operands of JAX's words."""
    x, h = numpyro.sample("x", reals(4)), numpyro.sample("h", bits(4))
    numpyro.factor("energy", jnp.sum(-0.5 * SCALES * x**2) + jnp.sum(SCALES * h * x))


@pytest.mark.parametrize("order", [("nuts", "gibbs"), ("gibbs", "nuts")])
def test_a_program_on_arrays_from_outside_runs_in_either_precision(order):
    for inference in order:  # float64, float32
        fit = pg.fit(outside_arrays, {}, inference, num_samples=100, num_chains=2, progress=False)
        assert np.isfinite(fit.draws["x"]).all()
