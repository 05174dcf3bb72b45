"""Fits of programs without a density: draws, truncation, paths of noise, the critic's judgements, and what is refused."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy import stats

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.engine.numpyro.running.executor import _check_shapes
from probgen.fits.seal import ChangedRun

LABELS = np.arange(200) % 10


def generator(x=None, label=None):
    z = numpyro.sample("z", dist.Normal(0, 1).expand([3]).to_event(1))
    kind = numpyro.sample("kind", dist.Categorical(jnp.ones(4) / 4))
    u = numpyro.sample("u", dist.Uniform(0, 1))
    W = numpyro.param("W", jnp.array([[1.0, 0.5], [0.0, 1.0], [0.2, 0.0]]))
    middles = numpyro.param("middles", jnp.arange(8.0).reshape(4, 2))
    shifts = numpyro.param("shifts", 10 * jnp.ones((10, 1)) * jnp.arange(10.0)[:, None])
    numpyro.sample("x", dist.Delta(z @ W + middles[kind] + u + shifts[label], event_dim=1), obs=x)


def linear_critic(x, label):
    return x @ numpyro.param("slope", jnp.ones(2)) + numpyro.param("of_label", jnp.zeros(10))[label]


def by_hand(fit, found):
    """The program's point of its noise, by NumPy."""
    p = fit.parameters
    return found["z"] @ p["W"] + p["middles"][found["kind"]] + found["u"][:, None] + p["shifts"][found["label"]]


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    rows = np.random.default_rng(0).normal(size=(200, 2)) + LABELS[:, None]
    model = pg.Model(generator, critic=linear_critic)
    return pg.fit(
        model, {"x": rows, "label": LABELS}, inference="gan", num_steps=3, batch_size=20, progress=False,
        out=tmp_path_factory.mktemp("implicit") / "run",
    )  # fmt: skip


def test_draws_are_the_programs_function_of_their_noise(fit):
    assert type(fit).__name__ == "ImplicitFit"
    for found in (fit.simulate(50), {**fit.sample(50, label=7), "label": np.full(50, 7)}):
        np.testing.assert_allclose(found["x"], by_hand(fit, found), rtol=1e-4, atol=1e-4)
    each = fit.sample(10, label=np.arange(10))
    np.testing.assert_allclose(each["x"], by_hand(fit, {**each, "label": np.arange(10)}), rtol=1e-4, atol=1e-4)


def test_predictions_are_of_a_posterior(fit):
    with pytest.raises(
        ValueError, match=r"this fit learned parameters.*\n.*fit.sample\(n, label=...\).*fit.simulate\(n\)"
    ):
        fit.predict()


def test_draws_follow_the_seed_and_the_laws_of_noise(fit):
    one, same, other = fit.sample(500, label=1), fit.sample(500, label=1), fit.sample(500, seed=8, label=1)
    np.testing.assert_array_equal(one["x"], same["x"])
    assert abs(one["z"] - other["z"]).min() > 0
    assert stats.kstest(one["z"].ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(one["u"], "uniform").pvalue > 1e-3
    assert stats.chisquare(np.bincount(one["kind"], minlength=4)).pvalue > 1e-3


def test_inputs_of_simulated_points_are_of_random_rows(fit):
    found = fit.simulate(2000, seed=3)["label"]
    assert stats.chisquare(np.bincount(found, minlength=10)).pvalue > 1e-3
    assert set(np.unique(found)) == set(range(10))


def test_truncated_noise_is_normal_noise_given_its_bound(fit):
    found = fit.sample(3000, truncation=0.5, label=2)
    assert abs(found["z"]).max() <= 0.5
    assert stats.kstest(found["z"].ravel(), stats.truncnorm(-0.5, 0.5).cdf).pvalue > 1e-3
    assert abs(found["z"].std() - 0.284) < 0.005  # 0.440 by 0.5 times a normal cut at 2
    assert stats.kstest(found["u"], "uniform").pvalue > 1e-3  # what is not normal is left alone


def test_decoding_gives_back_what_was_drawn(fit):
    drawn = fit.sample(6, label=4)
    noise = {k: drawn[k] for k in ("z", "kind", "u")}
    np.testing.assert_array_equal(fit.decode(**noise, label=4)["x"], drawn["x"])
    part = fit.decode(z=drawn["z"], label=4, seed=1)
    np.testing.assert_array_equal(part["z"], drawn["z"])
    assert abs(part["u"] - drawn["u"]).min() > 0


def test_decoding_is_numpyros_own_substitution(fit):
    target, drawn = fit.target, fit.sample(1, label=4)
    given = {k: jnp.asarray(drawn[k][0]) for k in ("z", "kind", "u")}
    run = handlers.substitute(handlers.seed(generator, 0), data={**given, **fit.parameters})
    value = handlers.trace(run).get_trace(label=jnp.int32(4))["x"]["value"]
    np.testing.assert_allclose(value, drawn["x"][0], rtol=1e-5)
    assert target.offers == "Implicit"


def test_paths_of_noise(fit):
    a, b = np.array([2.0, 0.0, 0.0]), np.array([0.0, 2.0, 0.0])
    arc = fit.interpolate({"z": a}, {"z": b}, 5, label=1)
    np.testing.assert_allclose(np.linalg.norm(arc["z"], axis=1), 2.0, rtol=1e-6)
    np.testing.assert_allclose(arc["z"][2], [2**0.5, 2**0.5, 0.0], atol=1e-6)
    line = fit.interpolate({"z": a}, {"z": b}, 5, path="line", label=1)
    np.testing.assert_allclose(line["z"][2], [1.0, 1.0, 0.0], atol=1e-6)
    for found in (arc, line):
        np.testing.assert_allclose(found["z"][[0, -1]], [a, b], atol=1e-6)
        assert np.ptp(found["u"]) == 0
        assert np.ptp(found["kind"]) == 0  # drawn once
        np.testing.assert_allclose(found["x"], by_hand(fit, {**found, "label": np.ones(5, int)}), rtol=1e-4, atol=1e-4)


def test_ends_of_other_lengths_and_other_noise(fit):
    grown = fit.interpolate({"z": np.ones(3)}, {"z": 2 * np.ones(3)}, 3, label=1)["z"]
    np.testing.assert_allclose(grown, np.outer([1, 1.5, 2], np.ones(3)), rtol=1e-6)
    with pytest.raises(ValueError, match="'u' is Uniform: say path='line'"):
        fit.interpolate({"u": 0.1}, {"u": 0.9}, label=1)
    np.testing.assert_allclose(fit.interpolate({"u": 0.1}, {"u": 0.9}, 3, path="line", label=1)["u"], [0.1, 0.5, 0.9])


def test_the_critic_judges_points(fit):
    slope, of_label = fit.answer["slope (critic)"], fit.answer["of_label (critic)"]
    points, labels = np.random.default_rng(1).normal(size=(5, 2)), np.arange(5)
    np.testing.assert_allclose(
        fit.judge(x=points, label=labels), points @ slope + of_label[labels], rtol=1e-4, atol=1e-5
    )
    assert fit.judge().shape == (200,)


def test_its_noise_can_be_asked_for_by_any_sampler(fit):
    target = fit.condition(label=3)
    assert target.offers == "Mixed"
    assert set(target.named("latent")) == {"z", "kind", "u"}


REFUSED = {
    "label=..., or draw with the inputs of random rows by fit.simulate": lambda f: f.sample(3),
    "Unknown 'class'; its inputs are label": lambda f: f.sample(3, **{"class": 1}),
    r"expected \(\), or \(3, ": lambda f: f.sample(3, label=[1, 2]),
    "0 to 9": lambda f: f.sample(3, label=10),
    r"label is from 0 to 9 where it was learned from; label\[1\] is -1": lambda f: f.sample(2, label=[3, -1]),
    "label.* is -1": lambda f: f.condition(label=-1),
    "truncation is True": lambda f: f.sample(3, truncation=True, label=1),
    "truncation is 0": lambda f: f.sample(3, truncation=0, label=1),
    "num_samples is 0": lambda f: f.sample(0, label=1),
    "the noise of this program is": lambda f: f.decode(x=np.zeros((2, 2)), label=1),
    "decode takes noise": lambda f: f.decode(label=1),
    "z has shape": lambda f: f.decode(z=np.zeros(3), label=1),
    r"kind of row 1 is 9.0, outside the support": lambda f: f.decode(kind=[0, 9], label=1),
    r"kind of row 1 is 0.5": lambda f: f.interpolate({"kind": 0}, {"kind": 1}, 3, path="line", label=1),
    "u of row 0 is -1.0": lambda f: f.decode(u=[-1.0], label=1),
    "Different numbers of rows": lambda f: f.decode(z=np.zeros((3, 3)), u=np.zeros(2), label=1),
    "give z0 as": lambda f: f.interpolate(np.ones(3), np.ones(3), label=1),
    "opposite": lambda f: f.interpolate({"z": np.ones(3)}, {"z": -np.ones(3)}, label=1),
    "no direction": lambda f: f.interpolate({"z": np.zeros(3)}, {"z": np.ones(3)}, label=1),
    "known: sphere, line": lambda f: f.interpolate({"z": np.ones(3)}, {"z": np.ones(3)}, path="arc", label=1),
    "Missing rows of label": lambda f: f.judge(np.zeros((2, 2))),
    "no noise can be drawn": lambda f: f.condition(x=np.zeros(2), label=1),
    "no log probability": lambda f: f.log_prob(np.zeros((2, 2))),
    "no energy": lambda f: f.energy(),
    "no constant": lambda f: f.log_z(),
}  # fmt: skip


@pytest.mark.parametrize("match", REFUSED)
def test_what_is_refused_says_what_works(fit, match):
    with pytest.raises((TypeError, ValueError, IndexError), match=f"(?i){match}"):
        REFUSED[match](fit)


def test_without_a_density_other_ways_are_named(fit):
    with pytest.raises(
        Incompatible, match=r"'x' is Delta\(f\(noise\)\).*\n.*pg.evaluate.*kernel_density.*\n.*method='ais'"
    ):
        fit.log_prob()


def test_a_loaded_run_draws_and_judges_alike(fit):
    again = pg.load(fit.directory)
    np.testing.assert_array_equal(again.sample(5, label=1)["x"], fit.sample(5, label=1)["x"])
    np.testing.assert_array_equal(again.judge(), fit.judge())


def line(y=None, x=None):
    slope, sd = numpyro.param("slope", jnp.array(1.0)), numpyro.param("sd", jnp.array(0.5))
    numpyro.sample("y", dist.Normal(slope * x, sd), obs=y)


def test_programs_with_a_density_have_these_words_too():
    x = np.linspace(-1, 1, 100)
    fit = pg.fit(line, {"y": 3 * x, "x": x}, inference="gan", num_steps=2, batch_size=20, progress=False)
    assert type(fit).__name__ == "LearnedFit"
    found = fit.simulate(1000)
    assert set(found["x"]) <= set(fit.target.data["x"].tolist())
    assert abs(np.polyfit(found["x"], found["y"], 1)[0] - 1.0) < 0.1
    given = fit.sample(1000, x=2.0)["y"]
    assert abs(given.mean() - 2.0) < 0.1
    assert fit.judge(y=[0.0, 1.0], x=[0.0, 1.0]).shape == (2,)
    assert fit.log_prob(y=[0.0], x=[0.0]).kind.startswith("exact")
    learned = pg.fit(line, {"y": 3 * x, "x": x}, inference="mle", num_steps=5, progress=False)
    with pytest.raises(Incompatible, match="mle has no critic"):
        learned.judge()


# ---- runs of other programs


def bent(by):
    """A generator, its critic, a map and its way back, of functions of the same shapes; by: which of them is another one."""
    of = {k: jnp.sin if k == by else jnp.tanh for k in ("program", "critic", "there", "back")}

    def program(x=None):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("x", dist.Delta(of["program"](z) * numpyro.param("a", jnp.ones(2)), event_dim=1), obs=x)

    def there(a, b=None):
        numpyro.sample("b", dist.Delta(of["there"](a) * numpyro.param("v", jnp.ones(2)), event_dim=1), obs=b)

    def back(b):
        numpyro.sample("a", dist.Delta(of["back"](b) * numpyro.param("w", jnp.ones(2)), event_dim=1))

    game = pg.Model(program, critic=lambda x: of["critic"](x) @ numpyro.param("c", jnp.ones(2)), by_row=True)
    return {"gan": game, "mmd": game, "cycle_gan": pg.Model(there, guide=back, by_row=True)}


@pytest.mark.parametrize(
    ("inference", "by", "told"),
    [
        ("gan", "program", "'draws x'"),
        ("gan", "critic", "'the critic of draws', 'the critic of rows'"),
        ("mmd", "program", "'draws x'"),
        ("cycle_gan", "there", "'draws b'"),
        ("cycle_gan", "back", "'draws a'"),
    ],
)
def test_a_run_of_another_program_of_the_same_shapes_does_not_go_on(tmp_path, inference, by, told):
    rows = np.random.default_rng(0).normal(size=(40, 2))
    data = {"a": rows, "b": rows[:30]} if inference == "cycle_gan" else {"x": rows}
    model, other = bent(None)[inference], bent(by)[inference]
    out = tmp_path / "run"
    pg.fit(model, data, inference=inference, num_steps=2, batch_size=8, out=out, progress=False)
    assert pg.resume(out, model, progress=False).complete
    with pytest.raises(ChangedRun, match=rf"changed since it was begun: the program \(its density differs at.*{told}"):
        pg.resume(out, other, progress=False)
    with pytest.warns(UserWarning, match="mixes two programs"):
        pg.load(out, other)


def test_a_state_of_other_shapes_says_which_arrays():
    class State(NamedTuple):
        step: np.ndarray
        rival: dict

    state = State(np.zeros(()), {"c": np.zeros((2, 4)), "d": np.zeros(4)})
    arrays = {"0000": np.zeros(()), "0001": np.zeros((2, 3)), "0002": np.zeros(4)}
    with pytest.raises(ValueError, match=r": rival\['c'\] is \(2, 4\), in the checkpoint \(2, 3\)\.\n"):
        _check_shapes([state], arrays)
    with pytest.raises(ValueError, match="The checkpoint has 2 arrays; this program and these settings have 3"):
        _check_shapes(state, {k: arrays[k] for k in ("0000", "0001")})
    _check_shapes(state, {**arrays, "0001": np.zeros((2, 4))})
