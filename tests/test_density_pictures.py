"""What the page of a learned density shows: its curve or contours, new points, completions."""

import numpy as np
import pytest
from test_report import read

import probgen as pg
from probgen.data import load
from probgen.pictures import density
from probgen.pictures.style import picture_shape, tiles


@pytest.fixture(scope="module")
def made():
    return pg.fit("made", "digits", "mle", num_steps=20, progress=False)


def test_the_page_of_a_density_of_pictures(made, tmp_path):
    parsed, _ = read(made.report(tmp_path / "fit.html"))
    assert [h for h in parsed.headings if h in ("Loss", "New points", "Completions", "Filters", "Density")] == [
        "Loss", "New points", "Completions", "Filters",
    ]  # fmt: skip


def test_completions_keep_the_upper_half_and_draw_the_lower_one(made):
    """Of every line: three rows of the data, each whole, its upper half alone, and with four lower halves that differ."""
    canvas = density.completions(made).axes[0].images[0].get_array().filled(np.nan)
    assert canvas.shape == (3 * 9, 18 * 9)
    shown = canvas.reshape(3, 9, 18, 9)[:, :8, :, :8].swapaxes(1, 2).reshape(9, 6, 8, 8)
    rows = load("digits")[:9].reshape(9, 8, 8)
    np.testing.assert_array_equal(shown[:, 0], rows)
    np.testing.assert_array_equal(shown[:, 1, :4], rows[:, :4])
    assert np.isnan(shown[:, 1, 4:]).all()
    np.testing.assert_array_equal(shown[:, 2:, :4], np.repeat(rows[:, None, :4], 4, 1))
    assert set(np.unique(shown[:, 2:])) == {0.0, 1.0}
    assert (shown[:, 2, 4:] != shown[:, 3, 4:]).any((1, 2)).all()


def test_contours_are_those_of_the_density():
    rng = np.random.default_rng(0)
    fit = pg.fit("gaussian", rng.normal([3, -1], [0.5, 2], (400, 2)), "em", progress=False)
    picture = density.contours(fit)
    panel = picture.axes[0]
    assert [name for name, _, draw in density.PICTURES if draw(fit) is not None] == ["Density"]
    assert panel.get_xlim()[0] < 2.5 < 3.5 < panel.get_xlim()[1]
    top, low = panel.collections[0].levels[-1], panel.collections[0].levels[0]
    assert top - low == pytest.approx(8)
    assert top <= fit.log_prob(fit.parameters["loc"][None]).value[0] + 1e-5
    assert top == pytest.approx(fit.log_prob(fit.parameters["loc"][None]).value[0], abs=0.05)


def test_a_curve_integrates_to_one():
    rows = np.random.default_rng(0).normal(2, 3, (500, 1))
    fit = pg.fit("gaussian", rows, "em", progress=False)
    x, y = density.curve(fit).axes[0].lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(1, abs=0.01)
    assert x[np.argmax(y)] == pytest.approx(rows.mean(), abs=0.05)


def test_what_cannot_be_drawn_is_left_out():
    """An energy is not drawn forward."""
    energy = pg.fit("rbm", "digits", "cd", num_steps=5, progress=False)
    assert all(draw(energy) is None for _, _, draw in density.PICTURES)


def test_which_points_are_pictures():
    known = {(64,): (8, 8), (8, 8): (8, 8), (8, 8, 1): (8, 8), (6, 5, 3): (6, 5, 3)}
    known |= dict.fromkeys([(9,), (2,), (), (3, 4, 5)])
    assert {shape: picture_shape(shape) for shape in known} == known


def test_words_stand_beside_their_lines():
    """Of pictures 4 pixels high, and a gap: the first line's rows are 0 to 3, the others' 5 to 13."""
    drawn = tiles(np.zeros((6, 4, 5)), (4, 5), 2, (("data", 1), ("draws", 2)))
    data, draws = drawn.axes[0].texts
    assert (data.get_text(), draws.get_text()) == ("data", "draws")
    assert 0 < data.get_position()[1] < 3 < 5 < draws.get_position()[1] < 13
    assert draws.get_position()[1] == (5 + 13) / 2
    assert data.get_position()[0] < 0


def test_colours_are_scaled_to_what_matplotlib_takes():
    canvas = tiles(np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3)), (4, 5, 3), 3).axes[0].images[0].get_array()
    assert canvas.shape == (2 * 5, 3 * 6, 3)
    assert canvas.min() == 0
    assert canvas.max() == 1
