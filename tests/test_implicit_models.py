"""Models of pictures without a density: what they draw, what their networks are exactly, what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy import ndimage

import probgen as pg
from probgen import catalog, datasets, runtime
from probgen.algorithm import Incompatible
from probgen.data.pictures import progressive as staged
from probgen.engine.numpyro.targets import draws
from probgen.inference.adversarial.cycle_gan import CycleGAN, _sides, _ways
from probgen.model import Model
from probgen.nets.adversarial import conditional, layers, progressive
from probgen.nets.adversarial.unet import UNet
from probgen.run.fitting import asked

FEW = {"num_steps": 4, "batch_size": 8, "progress": False}
SMALL = {"num_filters": 4, "num_latents": 3}
ONCE = {"halvings": 1, **SMALL}


def pictures(n: int = 40, height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, height, width))


@functools.cache
def fit(word: str, **settings):
    """One short fit for all tests of a model."""
    x, labels = pictures(), np.arange(40) % 4
    data = {
        "dcgan": {"x": x, **ONCE},
        "conditional_gan": {"x": x, "label": labels, **ONCE},
        "pix2pix": {"a": x, "b": np.stack([x, 1 - x, x], -1), **ONCE},
        "cycle_gan": {"a": x, "b": 1 - x[:23], "num_filters": 4, "halvings": 1},
        "biggan": {"x": x, "label": labels, "size": 3, **ONCE},
        "progressive_gan": {"x": pictures(40, 4, 4), **SMALL},
    }
    return pg.fit(word, data[word], "cycle_gan" if word == "cycle_gan" else "gan", **FEW, **settings)


# ---- what is drawn -------------------------------------------------------------------------------------------------


def test_dcgan_draws_pictures_and_learns():
    found = fit("dcgan")
    drawn = found.sample(5)
    assert drawn["x"].shape == (5, 8, 8)
    assert drawn["z"].shape == (5, 3)
    assert (drawn["x"] > 0).all()
    assert (drawn["x"] < 1).all()
    assert drawn["x"].std(0).max() > 1e-4  # noise moves them


def test_conditional_gan_draws_a_class_that_is_asked_for():
    found = fit("conditional_gan")
    draws = [found.condition(label=k).sample(3, seed=1)["x"] for k in (0, 3)]
    assert draws[0].shape == (3, 8, 8)
    assert abs(draws[0] - draws[1]).max() > 1e-4  # of the same noise
    with pytest.raises(ValueError, match=r"label.*4 entries, 0 to 3"):
        found.condition(label=4)


def test_pix2pix_draws_a_picture_of_another_one():
    found = fit("pix2pix")
    draws = found.condition(a=pictures()[0]).sample(3)
    assert draws["b"].shape == (3, 8, 8, 3)  # from grey to colour
    other = found.condition(a=pictures()[1]).sample(3)
    assert abs(draws["b"] - other["b"]).max() > 1e-4
    assert draws["b"].std(0).max() > 1e-6  # noise moves them


def test_biggan_draws_a_class_that_is_asked_for():
    found = fit("biggan")
    draws = [found.condition(label=k).sample(3, seed=1)["x"] for k in (0, 3)]
    assert draws[0].shape == (3, 8, 8)
    assert abs(draws[0] - draws[1]).max() > 1e-4  # of the same noise


def test_a_stage_begins_where_the_last_one_ended():
    """At fade 0 the larger model draws the smaller one's pictures, pixels repeated, and its critic says the same."""
    small = fit("progressive_gan")
    large = pictures(20, 8, 8)
    one = {"x": large, "fade": 0.0, **SMALL}
    begun = pg.fit("progressive_gan", one, "gan", init=small, learning_rate=1e-30, ema=0.0, **FEW)
    own, draws = small.sample(4, seed=1), begun.sample(4, seed=1)
    assert draws["x"].shape == (4, 8, 8)
    np.testing.assert_array_equal(own["z"], draws["z"])
    np.testing.assert_allclose(own["x"].repeat(2, 1).repeat(2, 2), draws["x"], atol=1e-6)
    critic = [k for k in small.answer if k.endswith("(critic)")]
    assert len(critic) == 8
    assert all(np.allclose(begun.answer[k], small.answer[k], atol=1e-6) for k in critic)


# ---- cycle_gan -----------------------------------------------------------------------------------------------------


def test_cycle_gan_takes_rows_of_different_number():
    found = fit("cycle_gan")
    assert found.target.num_rows == 23
    assert found.target.num_given == 40
    assert found.condition(a=pictures()[0]).sample(2)["b"].shape == (2, 8, 8)
    sides = {k.split("$")[0] for k in found.answer if "critic" not in k}
    assert sides == {"a to b", "b to a"}
    assert sum(k.endswith("(critic of a)") for k in found.answer) == sum(
        k.endswith("(critic of b)") for k in found.answer
    )


def scaled(a, b=None):
    w = numpyro.param("w", jnp.array([2.0, 4.0]))
    numpyro.sample("b", dist.Delta(w * a, event_dim=1), obs=b)


def back(b):
    v = numpyro.param("v", jnp.array([0.5, 0.25]))
    numpyro.sample("a", dist.Delta(v * b, event_dim=1))


def halfway(b):
    v = numpyro.param("v", jnp.array([0.5, 0.5]))
    numpyro.sample("a", dist.Delta(v * b, event_dim=1))


def maps(guide, **settings):
    rng = np.random.default_rng(0)
    model = Model(scaled, guide=guide, rows=lambda a, b: {"a": a, "b": b})
    data = (rng.normal(size=(30, 2)), rng.normal(size=(17, 2)))
    return asked(model, data, "cycle_gan", **settings)


def _cycle(target, parameters, rows):
    return CycleGAN().around(_ways(target, parameters), *_sides(target, rows))


def test_the_cycle_loss_of_an_exact_inverse_is_zero():
    for guide, expected in (
        (back, lambda a, b: 0.0),
        (halfway, lambda a, b: abs(a[:, 1]).mean() / 2 + abs(b[:, 1]).mean() / 2),
    ):
        *_, target = maps(guide)
        with runtime.jax_scope(target.precision):
            rows = target.rows(np.arange(10))
            found = _cycle(target, target.initial(jax.random.key(0)), rows)
        a, b = (np.asarray(rows[k]) for k in "ab")
        np.testing.assert_allclose(found, expected(a, b), rtol=1e-5, atol=1e-7)


def test_rows_of_whole_numbers_come_back_as_reals():
    model = Model(scaled, guide=halfway, rows=lambda a, b: {"a": a, "b": b})
    a, b = np.array([[1, 1], [0, 1], [1, 0]]), np.ones((5, 2))
    *_, target = asked(model, (a, b), "cycle_gan")
    with runtime.jax_scope(target.precision):
        found = _cycle(target, target.initial(jax.random.key(0)), target.rows(np.arange(3)))
    # there and back the second coordinate doubles: |2 a_2 - a_2| / 2 on average, and |2 b_2 - b_2| / 2
    np.testing.assert_allclose(found, a[:, 1].mean() / 2 + 0.5, rtol=1e-6)


def test_a_cycle_is_learned_and_a_run_goes_on_bit_for_bit(tmp_path, killed):
    model = Model(scaled, guide=halfway, rows=lambda a, b: {"a": a, "b": b})
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 2)), rng.normal(size=(170, 2)) * [2, 4]
    settings = {"num_steps": 400, "batch_size": 16, "learning_rate": 0.01, "progress": False}
    whole = pg.fit(model, (a, b), "cycle_gan", **settings)
    v, w = whole.answer["v"], whole.answer["w"]
    np.testing.assert_allclose(v * w, 1, atol=0.1)  # the way back is that
    cycle = whole.records["cycle"].ravel()
    assert cycle[-1] < 0.2 * cycle[cycle > 0][0]
    killed(pg.fit, model, (a, b), "cycle_gan", out=tmp_path / "run", **settings)
    resumed = pg.resume(tmp_path / "run", program=model, progress=False)
    assert all(np.array_equal(v, resumed.answer[k]) for k, v in whole.answer.items())
    assert all(np.array_equal(v, resumed.state[k]) for k, v in whole.state.items())


@pytest.mark.parametrize(
    ("program", "guide", "error", "told"),
    [
        (scaled, None, Incompatible, "learns the way back as well: give a guide"),
        (scaled, lambda b: numpyro.sample("c", dist.Delta(numpyro.param("v", 1.0) * b)), ValueError, "The guide draws c"),
        (scaled, lambda b: numpyro.sample("a", dist.Delta(b[:1], event_dim=1)), ValueError, r"shape \(1,\); rows of it"),
    ],
)  # fmt: skip
def test_maps_that_have_no_way_back_are_refused(program, guide, error, told):
    with pytest.raises(error, match=told):
        maps(guide)


def test_a_map_is_gone_both_ways():
    found = fit("cycle_gan")
    a, b = np.random.default_rng(1).random((2, 3, 8, 8))
    there, home = found.translate(a=a)["b"], found.translate(b=b)["a"]
    np.testing.assert_allclose(there[1], found.sample(1, a=a[1])["b"][0], rtol=1e-5, atol=1e-6)
    with runtime.jax_scope(found.target.precision):
        parameters = {k: v for k, v in found.answer.items() if "critic" not in k}
        np.testing.assert_allclose(home, found.target.back(parameters, b.astype("float32")), rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match="translate takes rows of a, or of b for the way back; got c"):
        found.translate(c=a)
    with pytest.raises(ValueError, match=r"b has shape \(3, 4\); expected rows of shape \(8, 8\)"):
        found.translate(b=np.ones((3, 4)))
    for rows in ({"a": 255 * a}, {"b": 255 * b}):  # of another scale
        with pytest.raises(ValueError, match="another scale"):
            found.translate(**rows)


def test_a_map_of_one_way_is_gone_one_way():
    a, b = np.random.default_rng(1).random((2, 3, 8, 8))
    pairs = fit("pix2pix")
    assert pairs.translate(a=np.resize(a, (3, *pairs.target.data["a"].shape[1:])))["b"].shape[0] == 3
    with pytest.raises(Incompatible, match="No way back was learned"):
        pairs.translate(b=np.resize(b, (3, *pairs.target.visible[0].shape)))
    with pytest.raises(Incompatible, match="it has no inputs"):
        fit("dcgan").translate(x=a)


def test_black_and_white_pictures_are_told_to_be_so():
    x = np.random.default_rng(0).random((40, 8, 8))
    told = "x holds black and white alone"
    notes = [
        asked("dcgan", {"x": rows, **ONCE}, "gan", batch_size=8)[-1].notes for rows in (x, (x > 0.5).astype(float))
    ]
    assert [told in "".join(each) for each in notes] == [False, True]


def test_rows_of_a_map_are_no_pairs_for_others():
    model = Model(scaled, guide=back, rows=lambda a, b: {"a": a, "b": b})
    with pytest.raises(Incompatible, match="comes without any noise"):
        pg.fit(model, (np.ones((5, 2)), np.ones((6, 2))), "gan")
    with pytest.raises(Incompatible, match=r"without noise; this has noise \(z\)"):
        pg.fit("gan", inference="cycle_gan")


def test_an_average_is_over_at_most_a_tenth_of_the_steps_by_default():
    """Else the verdict warns of every fit by default."""
    words = {group: catalog.modules(f"probgen.{group}") for group in ("inference", "models")}
    learners = [catalog.algorithm(w)() for w, file in words["inference"].items() if ".adversarial." in file]
    games = [catalog.model(w).settings for w, file in words["models"].items() if ".implicit." in file]
    gan = catalog.algorithm("gan")().settings()
    found = [learner.settings() for learner in learners] + [gan | own for own in games]
    noise = [catalog.model(w).settings for w, file in words["models"].items() if ".diffusion." in file]
    found += [own for own in noise if "ema" in own]
    assert len(found) > 18
    assert all(1 / (1 - own["ema"]) <= own["num_steps"] / 10 for own in found)


# ---- what networks are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(3, 5), (5, 3)])  # from neighbours, to neighbours
def test_convolutions_are_the_sum_over_neighbours(sizes, monkeypatch):
    rng, (n, m), height, width = np.random.default_rng(0), sizes, 12, 14
    x = rng.normal(size=(height, width, n)).astype("float32")
    same, halve = layers.Same(n, m, key=jax.random.key(0)), layers.Halve(n, m, key=jax.random.key(1))
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    w = np.asarray(same.linear.weight).reshape(m, 3, 3, n)  # out, row, column, in
    by_hand = [[np.einsum("orci,rci->o", w, padded[i : i + 3, j : j + 3]) for j in range(width)] for i in range(height)]
    same_by_hand = np.array(by_hand) + same.linear.bias
    w = np.asarray(halve.linear.weight).reshape(m, 2, 2, 2, 2, n)  # out, square's row and column, pixel in it, in
    w = w.transpose(0, 1, 3, 2, 4, 5).reshape(m, 4, 4, n)
    places = [(range(0, height, 2)), range(0, width, 2)]
    by_hand = [[np.einsum("orci,rci->o", w, padded[i : i + 4, j : j + 4]) for j in places[1]] for i in places[0]]
    for accelerated in (False, True):
        monkeypatch.setattr(layers, "accelerator", lambda: accelerated)  # noqa: B023
        assert ("conv_general" in str(jax.make_jaxpr(same)(x))) == accelerated  # on a CPU slow backwards in a loop
        np.testing.assert_allclose(same(x), same_by_hand, atol=1e-5)
        np.testing.assert_allclose(halve(x), np.array(by_hand) + halve.linear.bias, atol=1e-5)


def test_gathering_undoes_spreading():
    x = jnp.arange(4 * 6 * 8.0).reshape(4, 6, 8)
    np.testing.assert_array_equal(layers.gathered(layers.spread(x)), x)


def test_a_unet_puts_beside_what_was_seen_at_the_same_scale():
    net = UNet(3, 2, halvings=2, num_filters=4, num_noise=5, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (12, 8, 3))
    assert [h.shape for h in net.seen(x)] == [(12, 8, 4), (6, 4, 8), (3, 2, 16)]
    assert net(x, jnp.ones(5)).shape == (12, 8, 2)
    assert net.up[0].same.linear.in_features == 9 * 16  # the smallest grid alone
    assert net.up[1].same.linear.in_features == 9 * 2 * 8  # with what was seen
    assert net.last.linear.in_features == 9 * 2 * 4
    moved = jax.jacobian(lambda z: net(x, z).ravel())(jnp.ones(5))
    assert (abs(moved).max(0) > 0).all()  # all of the noise is heard


def test_a_norm_of_a_class_scales_and_shifts():
    norm = conditional.Norm(3, 2, key=jax.random.key(0))
    x, c = np.random.default_rng(0).normal(2, 3, (4, 5, 3)), np.array([0.5, -1.0])
    plain = (x - x.mean()) / x.std()
    np.testing.assert_allclose(norm(x, np.zeros(2)), plain, atol=1e-5)
    factor, shift = np.asarray(norm.factor.weight), np.asarray(norm.shift.weight)
    np.testing.assert_allclose(norm(x, c), plain * (1 + factor @ c) + shift @ c, atol=1e-5)


def test_a_projection_is_linear_in_features_and_in_those_of_the_class():
    net, h = conditional.Projection(4, 3, key=jax.random.key(0)), np.array([1.0, -2.0, 0.5, 3.0])
    w, v = np.asarray(net.linear.weight).ravel(), float(net.linear.bias.ravel()[0])
    for label in range(3):
        np.testing.assert_allclose(net(h, label), w @ h + v + np.asarray(net.table.rows)[label] @ h, rtol=1e-5)


def test_the_spread_of_a_batch_is_numpys():
    h = np.random.default_rng(0).normal(1, 2, (6, 3, 4, 2)).astype("float32")
    found = jax.vmap(progressive.batch_spread, axis_name=draws.ROWS)(h)
    np.testing.assert_allclose(found, np.full(6, h.std(0).mean()), rtol=1e-5)
    assert progressive.batch_spread(h[0]) == 0  # of one row


@pytest.mark.parametrize("stage", [1, 2])
def test_a_fade_is_exactly_the_smaller_network_at_0_and_the_larger_one_at_1(stage):
    def picture(stage, fade, given=None):
        f = lambda **say: progressive.grown("net", z, num_outputs=2, num_filters=4, end=jax.nn.sigmoid, **say)  # noqa: E731
        return kept(lambda: f(stage=stage, fade=fade), given)

    def logit(x, stage, fade, given=None):
        return kept(lambda: progressive.judged("net", x, stage, 4, fade), given)

    def kept(f, given):
        with handlers.trace() as trace, handlers.seed(rng_seed=0), handlers.substitute(data=given or {}):
            value = f()
        return np.asarray(value), {k: s["value"] for k, s in trace.items()}

    z, side = jax.random.normal(jax.random.key(0), (3,)), 4 * 2**stage
    half, nets = picture(stage, 0.5)
    assert half.shape == (side, side, 2)
    small, large = picture(stage - 1, 1.0, nets)[0], picture(stage, 1.0, nets)[0]
    np.testing.assert_array_equal(picture(stage, 0.0, nets)[0], small.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(picture(stage, jnp.array(1.0), nets)[0], large)
    np.testing.assert_allclose(half, (small.repeat(2, 0).repeat(2, 1) + large) / 2, atol=1e-6)
    x = jax.random.normal(jax.random.key(1), (side, side, 2))
    _, nets = logit(x, stage, 0.5)
    np.testing.assert_allclose(
        logit(x, stage, 0.0, nets)[0], logit(progressive.halved(x), stage - 1, 1.0, nets)[0], atol=1e-6
    )
    np.testing.assert_array_equal(logit(x, stage, jnp.array(1.0), nets)[0], logit(x, stage, 1.0, nets)[0])


# ---- data ----------------------------------------------------------------------------------------------------------


def test_edges_are_paired_with_their_pictures():
    edges, x = datasets.load("edges_to_digits")
    assert edges.shape == x.shape == (1797, 8, 8)
    assert edges.min() == 0
    assert edges.max() == 1
    flat = np.zeros((1, 6, 6))
    step = flat + (np.arange(6) >= 3)
    assert (datasets.with_edges(flat)[0] == 0).all()  # nothing to see, no division by zero
    np.testing.assert_allclose(datasets.with_edges(step)[0][0], np.tile([0.0, 0, 1, 1, 0, 0], (6, 1)))
    several = np.random.default_rng(0).integers(0, 255, (3, 6, 8)).astype("uint8")
    for found, picture in zip(datasets.with_edges(several)[0], several.astype(float), strict=True):  # each its own
        steep = np.hypot(*(ndimage.sobel(picture, axis, mode="nearest") for axis in (0, 1)))
        np.testing.assert_allclose(found, steep / steep.max(), rtol=1e-5)


def test_classes_come_with_the_data_set():
    model = catalog.model("conditional_gan")
    assert model.named_data("digits")["label"].shape == (1797,)
    with pytest.raises(ValueError, match="'two_moons' has no classes"):
        pg.fit("conditional_gan", "two_moons", "gan")


def test_stages_are_means_of_squares():
    x = pictures(2, 16, 16)
    assert staged(x)["x"] is not None
    np.testing.assert_allclose(staged(x, stage=0)["x"][1, 0, 1], x[1, :4, 4:8].mean())
    assert staged(np.stack([x] * 3, -1), stage=1)["x"].shape == (2, 8, 8, 3)
    with pytest.raises(ValueError, match="have stages 0 to 2"):
        staged(x, stage=3)


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "data", "told"),
    [
        ("dcgan", pictures(8, 7, 8), "7 by 8, which cannot be halved: both sides must be even"),
        ("dcgan", (pictures() * 255).astype(np.uint8), "x goes from 0 to 25[0-9].*\n?.*from 0 to 1.\nPass x / 255"),
        ("dcgan", pictures() * 2 - 1, r"Pass \(x - -0.9.*or the settings low and high"),
        ("dcgan", np.ones((9, 64)), r"shape \(9, 64\); expected pictures"),
        ("conditional_gan", (pictures(), np.arange(40) % 4 * 2), "Class 1 of 7 has no rows, nor have 2 more"),
        ("conditional_gan", (pictures(), np.arange(39)), "39 entries for 40 rows"),
        ("conditional_gan", (pictures(), np.linspace(0, 1, 40)), "whole numbers from 0"),
        (
            "conditional_gan",
            {"x": pictures(), "label": np.arange(40) % 3, "num_classes": 4},
            "Class 3 of 4 has no rows",
        ),
    ],
)
def test_bad_pictures_and_classes_are_refused(word, data, told):
    with pytest.raises(ValueError, match=told):
        pg.fit(word, data, "gan", **FEW)


def test_the_number_of_arrays_is_told():
    with pytest.raises(TypeError, match=r"rows of x and label; an array gives 1 of 2 arrays.\nPass data=\(x, label\)"):
        pg.fit("conditional_gan", pictures(), "gan")
    with pytest.raises(TypeError, match="rows of x; the data set 'edges_to_digits' gives 2 of 1 arrays"):
        pg.fit("dcgan", "edges_to_digits", "gan")
