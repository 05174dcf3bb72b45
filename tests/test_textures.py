"""Textures: exact growth of periodic samples, the conditional by hand, what the verdict flags, how they are asked for."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import chisquare

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.data.values.photographs import woven
from probgen.distributions.patches import Patches
from probgen.evaluate.textures import pieces

QUIET = {"progress": False}
CELL = np.random.default_rng(0).random((5, 7))
PERIODIC = np.tile(CELL, (4, 3))


def grown(sample, inference="efros_leung", height=32, width=30, window=7, seed=0, **settings):
    data = {"sample": sample, "height": height, "width": width, "window": window}
    return pg.fit("texture", data, inference, seed=seed, **QUIET, **settings)


@pytest.fixture(scope="module", params=["efros_leung", "quilting"])
def periodic(request):
    return grown(PERIODIC, request.param)


# ---- exact


def test_a_periodic_texture_grows_periodic(periodic):
    x = periodic.draws["x"][0, 0]
    assert x.shape == (32, 30)
    assert np.array_equal(x[5:], x[:-5])
    assert np.array_equal(x[:, 7:], x[:, :-7])
    assert set(x.ravel()) == set(CELL.ravel())
    assert periodic.diagnose().status == "pass", periodic.diagnose()


def test_a_periodic_texture_grows_periodic_in_single_precision():
    """As on an accelerator, where the distance of equal windows is nothing but rounding."""
    x = grown(255 * PERIODIC + 1000, precision="float32", height=20, width=20).draws["x"][0, 0]
    assert np.array_equal(x[5:], x[:-5])
    assert np.array_equal(x[:, 7:], x[:, :-7])


def test_more_pictures_of_any_size(periodic):
    x = periodic.sample(2, size=(17, 40))["x"]
    assert x.shape == (2, 17, 40)
    assert np.array_equal(x[:, :, 7:], x[:, :, :-7])
    assert not np.array_equal(x[0], x[1]), "another phase"
    assert np.array_equal(x, periodic.sample(2, size=(17, 40))["x"])
    assert not np.array_equal(x, periodic.sample(2, seed=5, size=(17, 40))["x"])


@pytest.mark.parametrize("inference", ["efros_leung", "quilting"])
def test_colours_and_units_are_the_samples(inference):
    sample = 255 * np.random.default_rng(1).random((4, 3, 3)).repeat(1, 0)
    sample = np.tile(np.rint(sample), (5, 6, 1))
    fit = grown(sample, inference, 15, 14, window=5)
    x = fit.draws["x"][0, 0]
    assert x.shape == (15, 14, 3)
    assert np.array_equal(x[4:], x[:-4])
    assert {tuple(p) for p in x.reshape(-1, 3)} <= {tuple(p) for p in sample.reshape(-1, 3)}


def test_pixels_are_those_of_their_sources(periodic):
    x = PERIODIC.ravel()[periodic.sources[0]]
    assert np.array_equal(x, periodic.draws["x"][0, 0])


def test_the_conditional_is_that_of_the_definition():
    """By loops, from the paper's formula, with a window that is known in part."""
    rng = np.random.default_rng(3)
    sample, side = rng.normal(3.0, 2.0, (12, 9)), 5
    law = Patches(jnp.asarray(sample, jnp.float32), 8, 8, side, 0.4)
    standard = (sample - sample.mean()) / sample.std()
    around, known = rng.normal(size=(side, side)), rng.random((side, side)) < 0.6
    away = np.arange(side) - 2
    weights = np.exp(-(away[:, None] ** 2 + away**2) / (2 * (side / 6.4) ** 2)) * known
    distances = np.array([
        (weights * (standard[i : i + side, j : j + side] - around) ** 2).sum() / weights.sum() for i in range(8) for j in range(5)
    ])  # fmt: skip
    places = distances <= 1.4 * distances.min()
    assert places.sum() > 1
    log_p = np.asarray(law.log_conditional(jnp.asarray(around)[..., None], jnp.asarray(known)))
    assert np.array_equal(np.isfinite(log_p), places)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, rtol=1e-5)


def test_places_are_drawn_alike():
    from probgen.distributions.patches import drawn

    admitted = jnp.array([False, True, False, True, True])
    found = np.asarray(jax.vmap(lambda k: drawn(k, admitted))(jax.random.split(jax.random.key(0), 3000)))
    counts = np.bincount(found, minlength=5)
    assert counts[[0, 2]].sum() == 0
    assert chisquare(counts[[1, 3, 4]]).pvalue > 1e-3


def test_the_cut_is_the_cheapest_path():
    """Beside all paths, enumerated."""
    from probgen.inference.texture.quilting import _beyond

    side, overlap = 5, 3
    differ = np.random.default_rng(0).random((side, side))
    paths = [p for p in itertools.product(range(overlap), repeat=side) if (abs(np.diff(p)) <= 1).all()]
    best = min(paths, key=lambda path: differ[np.arange(side), path].sum())
    assert np.array_equal(np.asarray(_beyond(jnp.asarray(differ), overlap)), np.arange(side) >= np.array(best)[:, None])


def test_the_window_counts_in_a_second_fit():
    """Settings of the program are part of what compiled code is kept under."""
    sample = np.random.default_rng(0).random((16, 16))
    x = [grown(sample, window=window, height=12, width=12).draws["x"] for window in (3, 7)]
    assert not np.array_equal(*x)


# ---- the verdict


SAMPLE = woven(48)
RNG = np.random.default_rng(1)
ANYWHERE = RNG.integers(0, SAMPLE.size, SAMPLE.shape)


@pytest.fixture(scope="module")
def honest():
    return grown(SAMPLE, "quilting", 72, 72, block=18)


def judged(honest, x, sources=ANYWHERE):
    """The verdict on a picture as if it had been grown of SAMPLE."""
    data = {"sample": SAMPLE, "height": x.shape[0], "width": x.shape[1]}
    target = pg.run.conditioned("texture", data)[1]
    answer = {"z": x.reshape(1, 1, -1), "sources": sources[None, None]}
    return dataclasses.replace(honest, target=target, answer=answer).diagnose()


def test_what_grew_well_passes(honest):
    verdict = honest.diagnose()
    assert verdict.status == "pass", verdict
    assert verdict.notes == ("Blocks of the sample are copied whole: nothing within one is new.",)
    assert {f.check for f in verdict.findings} == {"finite", "copied", "used", "garbage", "responses", "complete"}


GARBAGE = {
    "noise": RNG.permutation(SAMPLE.ravel()).reshape(SAMPLE.shape),
    "a flat picture": np.full(SAMPLE.shape, np.median(SAMPLE)),
    "a blurred one": gaussian_filter(SAMPLE, 1.5),
    "another scale": SAMPLE[::2, ::2].repeat(4, 0).repeat(4, 1)[:48, :48],
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_flagged(honest, what):
    verdict = judged(honest, GARBAGE[what])
    assert verdict.status == "fail", verdict
    assert {f.check for f in verdict.findings if f.status == "fail"} <= {"garbage", "responses"}


def test_a_verbatim_copy_is_flagged(honest):
    verdict = judged(honest, SAMPLE, np.arange(SAMPLE.size).reshape(SAMPLE.shape))
    assert verdict["copied"].status == "fail"
    assert verdict["copied"].value == 1
    assert verdict["garbage"].value < 1e-6


def test_a_copy_grows_where_one_place_matches_exactly():
    """Noise, of which no two places are alike: Efros and Leung's sampler copies on from its start, up to the sample's edge."""
    sample = np.random.default_rng(0).random((24, 24))
    verdict = grown(sample, height=14, width=14, window=5).diagnose()
    assert verdict["copied"].status != "pass"
    assert grown(sample, height=14, width=14, window=5, neighbours=3).diagnose()["copied"].status == "pass"


def test_stuck_in_a_corner_is_flagged(honest):
    tile, index = SAMPLE[:9, :9], np.arange(SAMPLE.size).reshape(SAMPLE.shape)[:9, :9]
    verdict = judged(honest, np.tile(tile, (6, 6)), np.tile(index, (6, 6)))
    assert verdict["used"].status == "fail"
    assert verdict["used"].value == pytest.approx(81 / SAMPLE.size)


def test_pieces_by_hand():
    sources = np.array([[0, 1, 7], [10, 11, 8], [-1, 0, 9]])  # of a sample 10 wide
    assert pieces(sources, 10).tolist() == [4, 1, 1, 1, 1]
    assert pieces(np.array([[9, 10]]), 10).tolist() == [1, 1]


def test_a_run_stopped_early_says_so():
    fit = grown(SAMPLE, height=20, width=20, num_steps=2)
    verdict = fit.diagnose()
    assert verdict["finite"].status == "fail"
    assert np.isnan(fit.draws["x"]).sum() == 400 - 9 - 2 * 64
    assert (fit.sources >= 0).sum() == 9 + 2 * 64
    whole = pg.extend(fit, num_steps=100, progress=False)
    assert whole.complete
    assert np.array_equal(whole.draws["x"], grown(SAMPLE, height=20, width=20).draws["x"])


# ---- asking for it


def test_names_arrays_and_files(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (12, 10), np.uint8)
    Image.fromarray(levels).save(tmp_path / "grey.png")
    assert np.array_equal(pg.data.load(str(tmp_path / "grey.png")), levels / 255)
    colours = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    target = pg.run.conditioned("texture", str(tmp_path / "colours.png"))[1]
    assert np.allclose(target.picture, colours / 255)
    assert target.shape == (24, 20, 3), "twice the sample"
    assert target.window == 5
    alpha = np.dstack([colours, np.full((12, 10), 9, np.uint8)])
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    with pytest.raises(ValueError, match="transparent at 120 pixels"):
        pg.data.load(str(tmp_path / "alpha.png"))
    assert pg.data.load("china").shape == (427, 640, 3)


@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="scikit-image: its brick, grass and gravel")
@pytest.mark.parametrize("name", ["brick", "grass", "gravel"])
def test_textures_of_scikit_image(name):
    x = pg.data.load(name)
    assert x.shape == (128, 128)
    assert 0 <= x.min() < x.max() <= 1


def test_what_is_wrong_is_said_in_the_users_words():
    with pytest.raises(ValueError, match=r"shape \(1797, 8, 8\); expected one picture"):
        pg.fit("texture", "digits", "quilting", **QUIET)
    with pytest.raises(TypeError, match="'china' is one picture, and gaussian learns from rows of x"):
        pg.fit("gaussian", "china", "mle", **QUIET)
    with pytest.raises(FileNotFoundError, match=r"no\.png"):
        pg.fit("texture", "no.png", "quilting", **QUIET)
    with pytest.raises(ValueError, match="window is 4; it must be odd"):
        grown(SAMPLE, window=4)
    with pytest.raises(ValueError, match="window is 9; the sample of 6 by 20 pixels has none so large"):
        grown(np.ones((6, 20)), window=9)
    with pytest.raises(ValueError, match="block is 60; the sample has no more than 48"):
        grown(SAMPLE, "quilting", block=60)
    with pytest.raises(ValueError, match="overlap is 9; it must be below block, 9"):
        grown(SAMPLE, "quilting", block=9, overlap=9)
    with pytest.raises(ValueError, match="NaN or infinite"):
        pg.fit("texture", np.full((20, 20), np.nan), "quilting", **QUIET)
    with pytest.raises(ValueError, match=r"take .* GiB; at most 2"):
        grown(np.zeros((512, 512)), window=31)
    with pytest.raises(
        Incompatible, match=r"needs a Continuous target; this program offers Field\.\nTry inference='efros_leung'"
    ):
        pg.fit("texture", SAMPLE, "nuts", **QUIET)


def test_what_a_texture_has_not(periodic):
    with pytest.raises(Incompatible, match="no log probability"):
        periodic.log_prob(x=np.zeros((32, 30)))
    with pytest.raises(Incompatible, match="no observed site"):
        periodic.predict()
    with pytest.raises(ValueError, match="num_samples is 0; it must be at least 1"):
        periodic.sample(0)
    with pytest.raises(ValueError, match=r"size is 7; expected \(height, width\)"):
        periodic.sample(size=7)


def with_another(sample):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("x", Patches(scale * sample, 8, 8, 3))


def of_ones_own(picture):
    numpyro.sample("stone", Patches(picture[:20], 9, 11, 3))


def test_programs_of_ones_own():
    with pytest.raises(ValueError, match="'scale' beside it could not be learned"):
        pg.fit(with_another, {"sample": SAMPLE}, "quilting", **QUIET)
    fit = pg.fit(of_ones_own, {"picture": SAMPLE}, progress=False)
    assert fit.inference.name == "efros_leung", "what takes it, where nothing is named"
    assert fit.draws["stone"].shape == (1, 1, 9, 11)
    assert fit.target.picture.shape == (20, 48)
    with pytest.raises(TypeError, match="no setting 'height'"):
        fit.sample(size=(5, 5))


def test_kept_resumed_and_reported(periodic, tmp_path):
    periodic.save(tmp_path / "run")
    again = pg.load(tmp_path / "run")
    assert np.array_equal(again.draws["x"], periodic.draws["x"])
    assert np.array_equal(again.sample(size=(9, 9))["x"], periodic.sample(size=(9, 9))["x"])
    page = periodic.report(tmp_path / "page.html").read_text()
    assert all(f">{title}<" in page for title in ("Pictures", "Sources"))
    table = periodic.summary()
    assert list(table.index) == ["sample", "picture 0"]
    assert table["mean"]["sample"] == pytest.approx(PERIODIC.mean())


def test_its_pictures_go_by_name(periodic):
    titles = [panel.get_title() for panel in periodic.plot().axes]
    assert titles == ["sample", "grown"]
    assert [panel.get_title() for panel in periodic.plot("sources").axes] == [
        "places of the sample",
        "where each pixel is from",
    ]
    with pytest.raises(ValueError, match="Unknown picture 'chains'"):
        periodic.plot("chains")


def test_in_the_shell(tmp_path, capsys, monkeypatch):
    from probgen.cli import main

    monkeypatch.chdir(tmp_path)
    Image.fromarray((255 * PERIODIC).astype(np.uint8)).save("sample.png")
    words = ["--set", "height=15", "width=15", "--out", "run", "--no-progress"]
    assert main(["fit", "texture", "-i", "quilting", "--data", "sample.png", *words]) == 0
    assert "largest piece" in capsys.readouterr().out
    assert main(["sample", "run", "-n", "2", "-o", "x.npz"]) == 0
    x = np.load("x.npz")["x"]
    assert x.shape == (2, 15, 15)
    assert np.array_equal(x[:, 5:], x[:, :-5])
