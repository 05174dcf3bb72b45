"""Models of pictures without a density: what they draw, what their networks are exactly, what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probgen as pg
from probgen import catalog, datasets
from probgen.nets.adversarial import layers

FEW = {"num_steps": 4, "batch_size": 8, "progress": False}
SMALL = {"num_filters": 4, "num_latents": 3}


def pictures(n: int = 40, height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, height, width))


@functools.cache
def fit(word: str, **settings):
    """One short fit for all tests of a model."""
    x, labels = pictures(), np.arange(40) % 4
    data = {
        "dcgan": {"x": x, **SMALL},
        "conditional_gan": {"x": x, "label": labels, **SMALL},
    }
    return pg.fit(word, data[word], "gan", **FEW, **settings)


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
    with pytest.raises(TypeError, match=r"condition\(label=...\)"):
        found.sample(3)


# ---- what networks are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [(4, 6), (12, 14)])  # by a product of matrices, by a convolution
def test_convolutions_are_the_sum_over_neighbours(sides):
    rng, (height, width) = np.random.default_rng(0), sides
    x = rng.normal(size=(height, width, 3)).astype("float32")
    same, halve = layers.Same(3, 5, key=jax.random.key(0)), layers.Halve(3, 5, key=jax.random.key(1))
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    w = np.asarray(same.linear.weight).reshape(5, 3, 3, 3)  # out, row, column, in
    by_hand = [[np.einsum("orci,rci->o", w, padded[i : i + 3, j : j + 3]) for j in range(width)] for i in range(height)]
    np.testing.assert_allclose(same(x), np.array(by_hand) + same.linear.bias, atol=1e-5)
    w = np.asarray(halve.linear.weight).reshape(5, 2, 2, 2, 2, 3)  # out, square's row and column, pixel in it, in
    w = w.transpose(0, 1, 3, 2, 4, 5).reshape(5, 4, 4, 3)
    places = [(range(0, height, 2)), range(0, width, 2)]
    by_hand = [[np.einsum("orci,rci->o", w, padded[i : i + 4, j : j + 4]) for j in places[1]] for i in places[0]]
    np.testing.assert_allclose(halve(x), np.array(by_hand) + halve.linear.bias, atol=1e-5)


def test_gathering_undoes_spreading():
    x = jnp.arange(4 * 6 * 8.0).reshape(4, 6, 8)
    np.testing.assert_array_equal(layers.gathered(layers.spread(x)), x)


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


def test_classes_come_with_the_data_set():
    model = catalog.model("conditional_gan")
    assert model.named_data("digits")["label"].shape == (1797,)
    with pytest.raises(ValueError, match="'two_moons' has no classes"):
        pg.fit("conditional_gan", "two_moons", "gan")


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
