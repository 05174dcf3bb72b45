"""What is asked of the wrong kind of fit, or of too little data, is answered in the words of the one who asks."""

import re

import numpy as np
import pytest
from PIL import Image

import probgen as pg
from probgen.algorithm import Incompatible
from probgen.data.values.levels import levels_or_scales, reals_only
from probgen.data.values.photographs import picture_of
from probgen.fits.diffusion import SAMPLERS
from probgen.nets.diffusion import samplers

RNG = np.random.default_rng(0)
QUIET = {"progress": False}
FEW = {"num_samples": 20, "num_warmup": 20, "num_chains": 1, **QUIET}


@pytest.fixture(scope="module")
def posterior():
    return pg.fit("eight_schools", inference="nuts", **FEW)


@pytest.fixture(scope="module")
def texture():
    return pg.fit("texture", data=RNG.random((8, 8)), inference="quilting", **QUIET)


@pytest.fixture(scope="module")
def bridge():
    ends = RNG.normal(size=(60, 2)), np.ones((50, 2))
    return pg.fit("schroedinger_bridge", data=ends, num_steps=4, num_pairs=64, num_fresh=32, **QUIET)


# ---- textures


@pytest.mark.parametrize("inference", ["efros_leung", "quilting"])
@pytest.mark.parametrize("shape", [(2, 2), (3, 40)])
def test_a_sample_that_is_too_small_to_judge_is_told(shape, inference):
    fit = pg.fit("texture", data=RNG.random(shape), inference=inference, **QUIET)
    found = {check.check: check for check in fit.diagnose().findings}
    assert found["responses"].status == "warn"
    assert f"{shape[0]} by {shape[1]} pixels" in found["responses"].message
    assert fit.plot("sources").axes


def test_a_size_is_whole_numbers_of_pixels():
    sample = RNG.random((12, 12))
    with pytest.raises(ValueError, match=r"height is 10\.5; expected a whole number"):
        pg.fit("texture", {"sample": sample, "height": 10.5, "width": 8}, "quilting", **QUIET)


def test_a_file_that_is_no_picture_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file 'nope\.png'.*expected the path of a PNG.*woven"):
        picture_of("nope.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.png' cannot be read as a picture"):
        picture_of(tmp_path / "text.png")
    Image.new("L", (3, 2), 255).save(tmp_path / "white.png")
    assert np.array_equal(picture_of(tmp_path / "white.png"), np.ones((2, 3)))


# ---- what a fit has not


def test_the_reason_why_there_is_no_picture(posterior, bridge):
    with pytest.raises(ValueError, match=r"no picture 'loss': nuts records no loss\.\nPictures of this fit: chains"):
        posterior.plot("loss")
    with pytest.raises(ValueError, match=r"no picture 'loss': the loss is finite at 4 steps; a picture takes 10\.\n"):
        bridge.plot("loss")


def test_attribute_says_which_fits_have_it(posterior, texture):
    with pytest.raises(
        Incompatible, match=r"by nuts has no latent space.*\nfit\.attribute is of models learned from rows"
    ):
        posterior.attribute("slant")
    with pytest.raises(Incompatible, match="by quilting has no latent space"):
        texture.attribute("slant")


# ---- bridges, samplers, numbers


def test_a_kind_of_one_point_has_no_correlation(bridge):
    names = [check.check for check in bridge.diagnose().findings]
    assert "way_back" in names
    assert not {"one_process", "pairs"} & set(names)


def test_samplers_that_are_not_known(bridge):
    assert set(SAMPLERS) == {"own", *samplers.SAMPLERS}
    rows = RNG.normal(size=(40, 2))
    jumping = pg.fit("mean_flow", data=rows, inference="mean_flow", num_steps=2, **QUIET)
    with pytest.raises(ValueError, match=r"Unknown sampler 'foo'\. Known: own\."):
        jumping.sample(2, sampler="foo")
    with pytest.raises(Incompatible, match="sampler='ddim' is of a denoiser"):
        jumping.sample(2, sampler="ddim")
    with pytest.raises(ValueError, match=re.escape("Unknown sampler 'foo'. Known: own, ancestral, ddim")):
        pg.fit("velocity", data=rows, inference="flow_matching", num_steps=2, **QUIET).sample(2, sampler="foo")


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_large_reals_are_no_whole_numbers(kind):
    rows = (np.random.default_rng(0).uniform(1, 2, (30, 2)) * 1e17).astype(kind)  # no half is left of such numbers
    assert (rows == np.rint(rows)).all()
    for derive in (reals_only("x"), levels_or_scales("x")):
        assert "centre" in derive({"x": rows})
        for whole in (np.arange(2000.0).reshape(-1, 2), np.arange(2**60, 2**60 + 60).reshape(-1, 2)):
            with pytest.raises(ValueError, match="x holds whole numbers"):
                derive({"x": whole})
