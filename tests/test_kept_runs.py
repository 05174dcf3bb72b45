"""Runs that an earlier version wrote are read, judged, and go on."""

import shutil
from pathlib import Path

import numpy as np

import probgen as pg

RUNS = Path(__file__).parent / "kept"


def test_a_samplers_run_is_read_and_goes_on(tmp_path):
    shutil.copytree(RUNS / "nuts", tmp_path / "nuts")
    kept = pg.load(tmp_path / "nuts")
    assert kept.draws["theta"].shape == (1, 20, 8)
    np.testing.assert_allclose(
        kept.draws["theta"], kept.draws["mu"][..., None] + kept.draws["tau"][..., None] * kept.draws["z"]
    )
    assert kept.diagnose().status in ("warn", "fail")  # of 20 draws
    longer = pg.extend(tmp_path / "nuts", num_samples=5, progress=False)
    np.testing.assert_array_equal(longer.z[:, :20], kept.z)
    assert longer.z.shape == (1, 25, kept.z.shape[2])
    assert np.isfinite(longer.z).all()


def test_a_learners_run_is_read():
    kept = pg.load(RUNS / "mle")
    rows = np.random.default_rng(0).normal(size=(30, 2)).round(2)
    np.testing.assert_allclose(kept.target.all_rows()["x"], rows, atol=1e-6)
    assert set(kept.parameters) == set(kept.answer)
    assert np.isfinite(kept.log_prob().value).all()


def test_public_words_are_where_they_were():
    from probgen.inference.mcmc.nuts import NUTS

    assert pg.inference.NUTS is NUTS
    assert {"fit", "load", "resume", "extend", "compare", "sbc", "matrix", "Model", "product"} <= set(dir(pg))
    assert pg.inference.MLE().name == "mle"
