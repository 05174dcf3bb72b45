"""Colouring grey pictures: by pixel, which mixes colours within a picture, and in order, which does not; against closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

import probgen as pg
from probgen.data.values.colours import RED_AND_BLUE, coloured_digits, joined, palette_of, split, within
from probgen.nets.pixel_networks import Around, at_random

GREY, COLOUR = coloured_digits()
TEST = slice(1500, None)
SMALL = {"num_layers": 2, "num_filters": 8}
LEARN = {"inference": "mle", "num_steps": 400, "batch_size": 64, "learning_rate": 0.015, "progress": False}


@pytest.fixture(scope="module", params=["colour_by_pixel", "colour_in_order"])
def fit(request):
    return pg.fit(request.param, {"grey": GREY[:1500], "colour": COLOUR[:1500], **SMALL}, **LEARN)


def in_order(fit):
    return fit.model.program.__name__ == "colour_in_order"


def test_the_made_digits_are_what_they_say():
    inked = GREY >= 0.25
    assert np.array_equal(COLOUR > 0, inked)
    assert np.abs(within(COLOUR, without=0)).max() == 0
    first = COLOUR.reshape(len(COLOUR), -1).max(1)
    assert abs((first == 1).mean() - 0.5) < 3 * 0.5 / len(COLOUR) ** 0.5
    twice = coloured_digits()
    assert np.array_equal(twice[1], COLOUR)


def test_the_likelihood_comes_near_what_is_known_and_never_above(fit):
    """log 2 nats a picture in order; by pixel log 2 for each pixel with ink. The rows were not learned from."""
    found = fit.log_prob(grey=GREY[TEST], colour=COLOUR[TEST])
    loss, ink = -np.mean(found.value), (COLOUR[TEST] > 0).sum((1, 2))
    assert found.kind.startswith("exact")
    best = np.log(2) if in_order(fit) else np.log(2) * ink.mean()
    assert best - 0.02 < loss < 1.05 * best + 0.15


def test_the_model_by_pixel_mixes_colours_within_a_picture_and_the_one_in_order_does_not(fit):
    drawn = fit.simulate(60, seed=3)
    mixed = within(drawn["colour"], without=0)
    assert mixed.mean() < 0.05 if in_order(fit) else mixed.mean() > 0.6
    inked = drawn["grey"] >= 0.25
    assert ((drawn["colour"] > 0) == inked).mean() > 0.98
    main = np.array([np.bincount(c[c > 0].astype(int), minlength=3).argmax() for c in drawn["colour"]])
    if in_order(fit):  # both colours, of about as many pictures
        assert 0.2 < (main == 1).mean() < 0.8


def test_probabilities_of_a_small_picture_sum_to_one():
    """All 81 colourings of two by two pixels."""
    from probgen.nets.autoregressive import Autoregressive
    from probgen.nets.pixel_heads import Symbols
    from probgen.nets.pixel_networks import Gated
    from probgen.nets.pixels import Picture

    layout = Around(4, 2, 4, 3), Gated(3 + 4, 3, 2, 4, 3, 3)
    around, net = jax.tree.map(lambda v: 2 * v, at_random(jax.random.key(0), layout))
    picture = Picture(net, Symbols(3), (2, 2), around(jnp.array([[0.1, 0.9], [0.4, 0.0]])))
    every = jnp.stack(jnp.meshgrid(*[jnp.arange(3.0)] * 4, indexing="ij"), -1).reshape(-1, 2, 2)
    p = np.exp(np.asarray(Autoregressive(picture).log_prob(every)))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    drawn = np.asarray(Autoregressive(picture).sample(jax.random.key(1), (4000,)))
    counts = np.bincount((drawn.reshape(-1, 4) @ [27, 9, 3, 1]).astype(int), minlength=81)
    assert p.max() > 3 * p.min(), "not near even"
    assert chisquare(counts, len(drawn) * p / p.sum(), sum_check=False).pvalue > 1e-3


def test_a_colour_sees_the_grey_picture_on_every_side():
    net = at_random(jax.random.key(0), Around(2, 1, 4, 3))
    grey = jnp.zeros((5, 6))
    base = np.asarray(net(grey))
    for row, column in ((1, 2), (2, 1), (2, 3), (3, 2), (3, 3)):
        assert not np.allclose(np.asarray(net(grey.at[row, column].set(1.0)))[2, 2], base[2, 2])
    assert np.array_equal(np.asarray(net(grey.at[0, 5].set(1.0)))[2, 2], base[2, 2])


# ---- colours of photographs


def test_a_palette_gives_photographs_back():
    photograph = pg.data.load("flower")[::8, ::8]
    palette = palette_of(photograph, 16)
    grey, colour = split(photograph, palette)
    again = joined(grey, colour, palette)
    assert again.shape == photograph.shape
    assert np.abs(again - photograph).mean() < 0.03
    assert np.allclose(palette @ [0.299, 0.587, 0.114], 0, atol=1e-6), "no grey level of their own"
    assert np.abs(palette[0]).max() < np.abs(palette[-1]).max()
    assert len(np.unique(colour)) == 16


def test_the_colours_of_the_made_digits_are_red_and_blue():
    shown = joined(GREY[:1], COLOUR[:1], RED_AND_BLUE)
    paper = COLOUR[0] == 0
    assert np.allclose(shown[0][paper], GREY[0][paper][:, None])
    for colour, (up, down) in {1: (0, 2), 2: (2, 0)}.items():
        (one,) = joined(np.full((1,), 0.4), np.array([colour]), RED_AND_BLUE)
        assert one[up] > one[down] + 0.3


def test_entropy_within_a_picture_by_hand():
    colour = np.array([[[0, 1], [1, 2]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]])
    found = within(colour, without=0)
    assert found[0] == pytest.approx(np.log(3) - 2 / 3 * np.log(2))
    assert np.isnan(found[1])
    assert found[2] == 0
    assert within(colour)[0] == pytest.approx(1.5 * np.log(2))


@pytest.mark.parametrize("model", ["colour_by_pixel", "colour_in_order"])
def test_what_is_wrong_is_said(model):
    good = {"grey": GREY[:20], "colour": COLOUR[:20]}
    for bad, message in [
        ({"grey": GREY[:20] * 255}, r"Pass grey / 255"),
        ({"colour": COLOUR[:20] - 1}, r"whole numbers from 0, .* is -1"),
        ({"colour": COLOUR[:20] / 2}, r"whole numbers from 0, .* is 0\.5"),
        ({"colour": COLOUR[:19]}, r"expected a colour for every pixel"),
        ({"grey": GREY[:20].reshape(20, 64)}, r"expected pictures \(row, height, width\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            pg.fit(model, good | bad, "mle", progress=False)
    with pytest.raises(TypeError, match="gives 1 of 2 arrays"):
        pg.fit(model, GREY, "mle", progress=False)
