"""pg.evaluate on arrays and on fits: what goes in on one scale, what comes out, what is refused."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen import datasets
from probgen.cli import main
from probgen.data.toys import TOYS
from probgen.evaluate import two_sample
from probgen.evaluate.features import classifier as classifiers
from probgen.evaluate.features.classifier import by_channel, classifier
from probgen.evaluate.features.net import Net
from probgen.evaluate.features.pictures import resized, scaled
from probgen.evaluate.samples import frechet

GRID = TOYS["grid_25"]


def pictures(seed, n, side=8):
    """Three kinds of square, noisy: (n, side, side) and classes (n,)."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(3, size=n)
    base = np.zeros((3, side, side))
    base[0, :, : side // 2], base[1, : side // 2], base[2, 2:-2, 2:-2] = 0.8, 0.8, 0.8
    return np.clip(base[classes] + 0.15 * rng.random((n, side, side)), 0, 1), classes


@pytest.fixture(scope="module")
def net():
    x, labels = pictures(0, 300)
    return classifier(x, labels, name="squares", steps=60, cache=False)


ROWS = np.random.default_rng(0).normal(size=(500, 2)) @ np.array([[1.0, 0.4], [0.0, 0.6]]) + 1


@pytest.fixture(scope="module")
def gaussian():
    return pg.fit("gaussian", ROWS, inference="mle", progress=False)


# ---- the word


def test_the_module_is_the_word_and_stays_a_module():
    import probgen.evaluate

    assert probgen.evaluate is pg.evaluate
    assert pg.evaluate.two_sample is two_sample
    assert {"fid", "kid", "precision"} <= set(pg.evaluate(GRID(60, 1), data=GRID(60, 2)))


def test_a_perfect_sampler_of_a_named_set_is_near_what_is_told_of_one():
    found = pg.evaluate(GRID(1500, seed=8), data="grid_25", measures=("kid", "modes", "memorisation"))
    for word in ("kid", "high_quality", "memorisation"):
        m = found[word]
        assert abs(m.value - m.perfect) < 4.5 * m.error + 0.01, word
    assert found["modes_kept"].value == 25
    assert found["memorisation"].more["p_value"] > 1e-4
    copied = pg.evaluate(datasets.load("grid_25")[:1500], data="grid_25", measures="memorisation")
    assert copied["copies"].value == 1
    assert copied["memorisation"].value > 0.9
    assert set(copied) == {"memorisation", "nearness", "very_close", "copies"}
    x, y, train = (GRID(n, seed=i) for n, i in ((300, 1), (400, 2), (350, 3)))
    beside = pg.evaluate(x, data=y, train=train)
    for word in ("precision", "recall", "density", "coverage"):
        assert abs(beside[word].value - beside[word].perfect) < 0.1
    assert beside["fid"].value < 6 * beside["fid"].perfect
    same = pg.evaluate(train[:300], data=y, train=train[:300], measures="fid")
    assert same["fid"].more["training_rows"] == pytest.approx(same["fid"].value)
    assert f"FID of as many training rows: {same['fid'].value:.4g}" in same.notes


def test_the_result_is_a_table_a_dictionary_and_readable():
    found = pg.evaluate(GRID(100, 1), data=GRID(120, 2), train=GRID(150, 3))
    assert json.loads(json.dumps(found.to_dict()))["measures"]["fid"]["num_reference"] == 120
    assert found.to_dict()["net_hash"] == found.net_hash
    assert list(found.table().index) == list(found)
    assert "standard error over rows, delta method" in repr(found)
    assert f"sha256 {found.net_hash[:12]}" in repr(found)
    assert float(found["fid"]) == found["fid"].value
    with pytest.raises(KeyError, match="no measure 'fud' here; there are fid"):
        found["fud"]


# ---- pictures on one scale


def test_bytes_and_floats_give_the_same_numbers(net):
    x, y = (np.round(255 * pictures(seed, 200)[0]).astype(np.uint8) for seed in (1, 2))
    every = [
        pg.evaluate(x, data=y, net=net, train=y),
        pg.evaluate(x / 255, data=y, net=net, train=y / 255),
        pg.evaluate(2 * (x / 255) - 1, data=2 * (y / 255) - 1, net=net, train=2 * (y / 255) - 1, value_range=(-1, 1)),
        pg.evaluate(x[:, None] / 255, data=y.reshape(200, 8, 8, 1), net=net, train=y.reshape(200, 64)),
    ]
    assert set(every[0]) > {"fid", "kid", "inception_score", "precision", "modes_kl", "memorisation"}
    for other in every[1:]:
        for word, m in every[0].items():
            assert other[word].value == pytest.approx(m.value, rel=1e-9, abs=1e-9), word


def test_what_is_clipped_is_told_and_another_scale_is_refused(net):
    (x, _), (y, _) = pictures(1, 100), pictures(2, 100)
    over = x.copy()
    over[:, 0, 0] = 1.4
    found = pg.evaluate(over, data=y, net=net, measures="fid")
    assert "1.56% of the values of samples were outside (0.0, 1.0) and are clipped" in "".join(found.notes)
    with pytest.raises(ValueError, match=r"on another scale.*\nDivide them by 255"):
        pg.evaluate(255 * x, data=y, net=net)
    with pytest.raises(ValueError, match=r"data has values from .* to .*; value_range is \(-0.1, 0.5\)"):
        pg.evaluate(x, data=y, net=net, value_range=(-0.1, 0.5))
    with pytest.raises(ValueError, match="black if 255 is white"):
        scaled((x > 0.5).astype(np.uint8), (0, 1), "samples", False)
    black = pg.evaluate((x > 0.5).astype(float), data=y, net=net, measures="fid")
    assert "samples are black and white, data grey" in "".join(black.notes)


def test_samples_on_another_usual_scale_are_refused(net):
    """From -1 to 1 beside 0 to 1, as pictures, flat, or without value_range; not noise beyond the ends, nor a poor generator."""
    (x, _), (y, _) = pictures(1, 100), pictures(2, 100)
    ask = lambda a, b, **how: pg.evaluate(a, data=b, measures="fid", **how)  # noqa: E731
    same = ask(x, y)["fid"].value
    for a, b, how, remedy in [
        (2 * x - 1, y, {"net": net}, r"Pass \(samples \+ 1\) / 2"),
        (2 * x - 1, y.reshape(100, 64), {}, r"Pass \(samples \+ 1\) / 2"),
        (x, 2 * y - 1, {}, r"Pass 2 \* samples - 1"),
        (x, 2 * y - 1, {"value_range": (-1, 1)}, r"Pass 2 \* samples - 1"),
        (np.round(255 * x).astype(np.uint8), 2 * y - 1, {}, r"Pass samples / 127.5 - 1"),
        (x, np.round(255 * y), {}, r"Pass 255 \* samples"),
        (np.round(255 * x).reshape(100, 64), y.reshape(100, 64), {}, r"Pass samples / 255"),
    ]:
        with pytest.raises(ValueError, match=rf"that of the data is .*\n{remedy}"):
            ask(a, b, **how)
    with pytest.raises(ValueError, match=r"train have values .*\nPass 2 \* train - 1"):
        ask(2 * x - 1, 2 * y - 1, train=x)
    assert ask(2 * x - 1, 2 * y - 1)["fid"].value == pytest.approx(4 * same)
    assert ask(2 * x - 1, 2 * y - 1, value_range=(-1, 1))["fid"].value == pytest.approx(same)
    rng = np.random.default_rng(0)
    for poor in (x - 0.2, x + 0.3 * rng.normal(size=x.shape), x + 2 * rng.normal(size=x.shape), 0.1 * (x - 1)):
        assert "are clipped" in "".join(ask(poor, y).notes)
    flat = ask(2 * x[:, 0] - 1, y[:, 0])
    assert "samples have values from -1 to" in "".join(flat.notes)
    assert not ask(x[:, 0], y[:, 0]).notes


@pytest.mark.parametrize("size", [(5, 9), (40, 31), (16, 16)])
def test_the_filter_is_pillows(size):
    image = pytest.importorskip("PIL.Image")
    x = np.random.default_rng(0).random((16, 23, 1))
    theirs = np.asarray(image.fromarray(np.float32(x[..., 0]), mode="F").resize(size[::-1], image.BICUBIC))
    assert resized(x[None], *size)[0, ..., 0] == pytest.approx(theirs, abs=1e-5)


# ---- nets


def test_a_classifier_is_deterministic_kept_and_hashed(tmp_path, monkeypatch):
    monkeypatch.setenv("PROBGEN_CACHE", str(tmp_path))
    x, labels = pictures(0, 200)
    first = classifier(x, labels, steps=30)
    assert first.hash == classifier(x, labels, steps=30, cache=False).hash
    assert first.hash != classifier(x, labels, steps=30, seed=1, cache=False).hash
    (file,) = (tmp_path / "nets").iterdir()
    classifiers._memory().clear()
    monkeypatch.setattr(classifiers, "_train", lambda *_: pytest.fail("it is kept"))
    assert classifier(x, labels, steps=30).hash == first.hash
    classifiers._memory().clear()
    monkeypatch.undo()
    monkeypatch.setenv("PROBGEN_CACHE", str(tmp_path))
    file.write_bytes(file.read_bytes()[:-200])
    assert classifier(x, labels, steps=30).hash == first.hash, "a damaged file is no net"


def test_features_are_float64_and_do_not_depend_on_the_batch(net):
    x = pictures(3, 600)[0][..., None]
    features, p = net(x)
    assert features.dtype == p.dtype == np.float64
    assert np.array_equal(net(x[:7])[0], features[:7])
    assert np.array_equal(net(x[300:301])[1], p[300:301])
    assert (p.argmax(1) == pictures(3, 600)[1]).mean() > 0.95


def test_the_class_of_stacked_pictures_is_that_of_all_channels(net):
    (a, i), (b, j), (c, k) = (pictures(seed, 50) for seed in (4, 5, 6))
    features, p = by_channel(net)(np.stack([a, b, c], -1))
    assert features.shape == (50, 3 * 128)
    assert p.sum(1) == pytest.approx(np.ones(50))
    assert (p.argmax(1) == 9 * i + 3 * j + k).mean() > 0.9


def test_a_net_of_your_own():
    x, y = GRID(80, 1), GRID(90, 2)
    found = pg.evaluate(x, data=y, net=lambda rows: jnp.asarray(rows) ** 2, measures=("fid", "kid"))
    assert found["fid"].value == pytest.approx(frechet.fid(x**2, y**2).value, rel=1e-4)
    other = pg.evaluate(x, data=y, net=lambda rows: rows**3, measures="fid")
    assert found.net_hash != other.net_hash
    p = lambda rows: (rows, np.tile([0.5, 0.5], (len(rows), 1)))  # noqa: E731
    assert pg.evaluate(x, data=y, net=p, measures="inception_score")["inception_score"].value == pytest.approx(1)
    rng = np.random.default_rng(0)
    for bad, said in (
        (lambda rows: rows + rng.normal(size=rows.shape), "other features for the same rows"),
        (lambda rows: rows - rows.mean(0), "depend on the rows beside it"),
        (lambda rows: rows[:1], r"shape \(1, 2\) for 16 rows"),
        (lambda rows: rows * np.nan, "NaN or infinite for row 0"),
        (lambda rows: 0 * rows, "same features"),
    ):
        with pytest.raises(ValueError, match=said):
            pg.evaluate(x, data=y, net=bad)


# ---- what is refused, before a net is trained or run


def fails(*_):
    pytest.fail("the net was run")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 1000}, "subsets have size=1000 rows, but there are 50 samples"),
        ({"splits": 60}, "splits is 60 and there are 50 rows"),
        ({"k": 50}, "k is 50, and there are 50 samples"),
        ({"measures": "fud"}, "Unknown measure 'fud'. Did you mean 'fid'"),
        ({"samples": np.zeros((50, 3))}, r"Rows of samples have shape \(3,\), those of data \(2,\)"),
        (
            {"samples": np.where(np.arange(100).reshape(50, 2) == 43, np.nan, 1.0)},
            "1 of 50 rows of samples have NaN.*row 21",
        ),
        ({"data": np.full((40, 2), np.inf)}, "40 of 40 rows of data have NaN or infinite values, the first row 0"),
        ({"data": np.zeros((1, 2))}, "data has 1 row; expected at least 2"),
        ({"data": "mnits"}, "Unknown data set 'mnits'"),
        ({"centres": np.zeros((3, 2))}, "centres and sd belong together"),
        ({"measures": "modes", "net": None}, "No modes: neither centres and sd nor a net with classes"),
        ({"measures": "memorisation", "net": None}, "No memorisation: the rows that were learned from are not known"),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, str) else next(iter(value)),
)
def test_bad_input_is_refused_before_anything_runs(settings, said):
    known = {"samples": GRID(50, 1), "data": GRID(60, 2), "net": Net("fails", "0", fails, num_classes=2)} | settings
    with pytest.raises(ValueError, match=said):
        pg.evaluate(known.pop("samples"), **known)


def test_samples_alone_are_compared_with_nothing():
    with pytest.raises(TypeError, match="What are the samples compared with"):
        pg.evaluate(GRID(50, 1))


def test_a_class_without_rows_is_refused():
    x, labels = pictures(0, 60)
    with pytest.raises(ValueError, match=r"Class 1 has no rows \(of 3\)"):
        classifier(x[labels != 1], labels[labels != 1])
    with pytest.raises(ValueError, match="labels are from 0 to 2; expected 0 to 1"):
        classifier(x, labels, num_classes=2)


# ---- fits


def test_a_learned_fit_draws_its_visible_site(gaussian):
    held = np.random.default_rng(1).normal(size=(400, 2)) @ np.array([[1.0, 0.4], [0.0, 0.6]]) + 1
    found = pg.evaluate(gaussian, data=held, num_samples=600)
    assert found["fid"].num_samples == 600
    assert found["nearness"].num_reference == 400
    assert found["fid"].value < 0.3
    own = pg.evaluate(gaussian, num_samples=200, measures="fid")
    assert "none were held out" in "".join(own.notes)
    alone = pg.evaluate(gaussian, num_samples=200, measures="memorisation")
    assert alone["memorisation"].kind.startswith("rough")
    assert abs(alone["memorisation"].value) < 4 * alone["memorisation"].error + 0.01
    again = pg.evaluate(gaussian, data=held, num_samples=600)
    assert again["kid"].value == found["kid"].value, "the same seed"
    with pytest.raises(ValueError, match="subsets have size=5000"):
        pg.evaluate(gaussian, data=held, num_samples=600, size=5000)
    with pytest.raises(ValueError, match="site is 'z'; visible sites: x"):
        pg.evaluate(gaussian, data=held, site="z")


def test_rows_that_a_game_held_out_are_what_its_draws_are_compared_with():
    settings = {"num_steps": 200, "batch_size": 64, "progress": False}
    fit = pg.fit("gan", {"x": GRID(600, 4), "num_dims": 2, "width": 8, "depth": 1}, inference="r3gan", **settings)
    found = pg.evaluate(fit, num_samples=500, measures=("kid", "memorisation"))
    assert found["kid"].num_reference == 60
    assert "the 60 rows that the fit held out" in "".join(found.notes)
    held = fit.inference.held(fit.state, 600)
    given = pg.evaluate(fit, data=fit.target.all_rows()["x"][held], num_samples=500, measures=("kid", "memorisation"))
    assert {k: m.value for k, m in given.items()} == {k: m.value for k, m in found.items()}


def test_a_data_set_that_was_learned_from_is_known_again_with_its_modes():
    fit = pg.fit("gaussian", "grid_25", inference="mle", progress=False)
    found = pg.evaluate(fit, num_samples=500, measures=("modes", "memorisation"))
    assert found["modes_kept"].num_samples == 500
    assert "data are held-out rows of 'grid_25'" in "".join(found.notes)
    assert found["memorisation"].num_reference == 10_000


@pytest.mark.parametrize("name", ["digits", "digits_grey", "ring_8", "bars_and_stripes"])
def test_a_data_set_is_known_by_its_rows(name):
    rows = datasets.load(name)
    shuffled = np.random.default_rng(0).permutation(rows).astype("float32")
    assert datasets.name_of(shuffled) == name
    assert datasets.name_of(shuffled[: len(rows) // 3], shuffled[len(rows) // 3 :]) == name
    assert datasets.name_of(shuffled[1:]) is None
    shuffled[3] += 0.01
    assert datasets.name_of(shuffled) is None


@pytest.mark.parametrize("name", ["digits", "stacked_digits", "bars_and_stripes", "ising", "grid_25", "two_moons"])
def test_sizes_of_data_sets_are_told_right(name):
    rows = datasets.load(name)
    assert datasets.SIZES[name] == (len(rows), rows[0].size)


def test_a_posterior_pools_the_rows_of_predicted_data_sets():
    fit = pg.fit("eight_schools", num_samples=100, num_chains=2, progress=False)
    found = pg.evaluate(fit, num_samples=400, measures=("fid", "kid"))
    assert found["fid"].num_samples == 400
    assert found["fid"].num_reference == 8
    assert "data sets of 8 rows, pooled" in found.notes[0]


@needs_pyro
def test_a_pyro_fit_is_evaluated_too():
    x = (pictures(0, 60)[0] > 0.5).astype(float)
    fit = pg.fit("vae_pyro", x, num_steps=5, progress=False)
    found = pg.evaluate(fit, data=x[:30], num_samples=40, measures=("kid", "memorisation"))
    assert found["kid"].num_samples == 40
    assert found["copies"].value == 0


def test_the_shell_says_it_too(gaussian, tmp_path, capsys):
    gaussian.save(tmp_path / "run")
    np.save(tmp_path / "held.npy", np.random.default_rng(1).normal(size=(100, 2)))
    words = [
        "evaluate",
        str(tmp_path / "run"),
        "--data",
        str(tmp_path / "held.npy"),
        "-n",
        "150",
        "--measures",
        "fid",
        "kid",
    ]
    code = main([*words, "-o", str(tmp_path / "out.json")])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "standard error over rows, jackknife" in told.out
    assert set(json.loads((tmp_path / "out.json").read_text())["measures"]) == {"fid", "kid"}
    assert main([*words, "--size", "101"]) == 2
    assert "subsets have size=101 rows" in capsys.readouterr().err
