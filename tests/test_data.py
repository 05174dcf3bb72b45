"""Data sets against their definitions: counts, formats, exact Ising values, densities that integrate to one, entropies."""

import gzip
import itertools

import numpy as np
import pytest
import sklearn.datasets

from probgen import datasets as data
from probgen.data.toys import TOYS, Toy
from probgen.datasets import IDX, SETS, bars_and_stripes, binarised, digits, digits_grey, ising_samples, mnist

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)


@pytest.mark.parametrize("name", [name for name in SETS if "mnist" not in name])
def test_every_name_loads_rows_of_numbers(name):
    rows, again = (
        x[1] if isinstance(x, tuple) else x for x in (data.load(name), data.load(name))
    )  # of pairs the second
    assert rows.dtype == float
    assert rows.ndim in (2, 3, 4)
    assert len(rows) >= 32
    assert np.array_equal(rows, again), "the same rows every time"


def test_an_unknown_name_is_an_error_that_names_the_known():
    with pytest.raises(ValueError, match=r"Unknown data set 'two_moon'. Did you mean 'two_moons'\?\nKnown: digits"):
        data.load("two_moon")


def test_digits_are_scikit_learns():
    raw = sklearn.datasets.load_digits().images
    assert np.array_equal(digits(), raw >= 8)
    assert np.array_equal(digits_grey() * 16, raw)


@pytest.mark.parametrize("side", [2, 3, 4])
def test_bars_and_stripes(side):
    images = bars_and_stripes(side)
    assert images.shape == (2 ** (side + 1), side, side)
    every = np.array(list(itertools.product([0, 1], repeat=side * side))).reshape(-1, side, side)
    constant = (np.ptp(every, axis=1) == 0).all(1) | (np.ptp(every, axis=2) == 0).all(1)
    found, count = np.unique(images.reshape(len(images), -1), axis=0, return_counts=True)
    assert {tuple(x) for x in found} == {tuple(x) for x in every[constant].reshape(-1, side * side)}
    assert len(found) == 2 ** (side + 1) - 2
    p = count / len(images)
    assert -(p * np.log(p)).sum() == pytest.approx((side + 1 - 2.0 ** (1 - side)) * np.log(2))


# ---- MNIST


def idx_bytes(images):
    return b"\0\0\x08\x03" + np.array(images.shape, ">i4").tobytes() + images.tobytes()


def test_mnist_from_files(tmp_path, monkeypatch):
    (tmp_path / IDX["train"]).write_bytes(idx_bytes(IMAGES))
    (tmp_path / f"{IDX['test']}.gz").write_bytes(gzip.compress(idx_bytes(IMAGES[:2])))
    assert np.array_equal(mnist("train", tmp_path), IMAGES)
    assert np.array_equal(mnist("test", tmp_path), IMAGES[:2])
    np.savez(tmp_path / "mnist.npz", x_train=IMAGES[:3], x_test=IMAGES[3:])
    assert np.array_equal(mnist("train", tmp_path), IMAGES[:3])
    assert np.array_equal(mnist("test", tmp_path / "mnist.npz"), IMAGES[3:])
    monkeypatch.setenv("PROBGEN_DATA", str(tmp_path))
    assert np.array_equal(mnist("test"), IMAGES[3:])
    assert data.load("mnist").shape == (3, 28, 28)


def test_mnist_from_openml(tmp_path, monkeypatch):
    """The last 10,000 rows of what scikit-learn downloads are the test pictures."""
    rows = np.zeros((60002, 784), np.float32)
    rows[60000:] = IMAGES[:2].reshape(2, -1)

    def fetch(name, **settings):
        assert (name, settings["version"], settings["as_frame"]) == ("mnist_784", 1, False)
        return sklearn.utils.Bunch(data=rows)

    monkeypatch.setenv("PROBGEN_DATA", str(tmp_path))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    assert np.array_equal(mnist("test"), IMAGES[:2])
    assert mnist("train").shape == (60000, 28, 28)


def test_mnist_says_what_is_missing(tmp_path, monkeypatch):
    def fetch(name, **settings):
        raise OSError("no route to host")

    monkeypatch.delenv("PROBGEN_DATA", raising=False)
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    with pytest.raises(OSError, match=r"no route to host.*\n.*PROBGEN_DATA"):
        mnist()
    with pytest.raises(FileNotFoundError, match=r"no MNIST in .*; expected mnist.npz"):
        mnist("train", tmp_path)
    with pytest.raises(ValueError, match="split is 'valid'; known: train, test"):
        mnist("valid")
    (tmp_path / IDX["train"]).write_bytes(idx_bytes(IMAGES)[:-1])
    with pytest.raises(ValueError, match="cut short"):
        mnist("train", tmp_path)
    np.savez(tmp_path / "mnist.npz", images=IMAGES)
    with pytest.raises(ValueError, match="no array 'x_train'; it has images"):
        mnist("train", tmp_path)


def test_binarised():
    grey = np.repeat(np.array([0, 64, 127, 128, 255], np.uint8), 20000).reshape(5, -1)
    assert np.array_equal(binarised(grey)[:, 0], [0, 0, 0, 1, 1])
    drawn = binarised(grey, seed=0)
    assert set(np.unique(drawn)) == {0, 1}
    assert np.array_equal(drawn, binarised(grey, seed=0))
    np.testing.assert_allclose(drawn.mean(1), grey[:, 0] / 255, atol=0.018)  # 5 standard errors


# ---- the Ising model


@pytest.mark.parametrize(("beta", "magnetisation"), [(0.2, 0.34277), (0.4406868, 0.84386), (0.6, 0.97287)])
def test_ising_samples_have_the_enumerated_magnetisation(beta, magnetisation):
    """|m| and the energy of 4 x 4 periodic lattices, within 4.5 standard errors: false alarms below 1 in 10,000."""
    s = 2 * ising_samples(4, beta, 10_000, seed=1, num_updates=20) - 1
    every = 2 * (np.arange(2**16)[:, None] >> np.arange(16) & 1).reshape(-1, 4, 4) - 1
    bonds, exact = ((x * (np.roll(x, 1, 1) + np.roll(x, 1, 2))).sum((1, 2)) for x in (s, every))
    p = np.exp(beta * exact - (beta * exact).max())
    p /= p.sum()
    assert (p * np.abs(every.mean((1, 2)))).sum() == pytest.approx(magnetisation, abs=1e-5)
    for drawn, expected in ((np.abs(s.mean((1, 2))), magnetisation), (bonds, (p * exact).sum())):
        assert abs(drawn.mean() - expected) < 4.5 * drawn.std() / 100


# ---- two dimensions


@pytest.mark.parametrize("toy", TOYS.values(), ids=list(TOYS))
def test_density_integrates_to_one(toy):
    assert np.exp(toy.log_prob(toy.grid())).sum() * toy.step**2 == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("toy", TOYS.values(), ids=list(TOYS))
def test_draws_come_from_the_density(toy):
    """Counts in squares of side 1 against the integral of the density: chi-square within 4.5 sd."""
    n, edges = 20_000, np.arange(-6.0, 7.0)
    x = toy(n, seed=3)
    assert x.shape == (n, 2)
    assert np.array_equal(x[:9], toy(n, seed=3)[:9])
    grid = toy.grid()
    mass = np.histogram2d(*grid.T, [edges, edges], weights=np.exp(toy.log_prob(grid)) * toy.step**2)[0]
    seen, expected = np.histogram2d(*x.T, [edges, edges])[0], n * mass
    big = expected > 10
    assert seen[~big].sum() < expected[~big].sum() + 40
    chi2, freedom = ((seen - expected)[big] ** 2 / expected[big]).sum(), big.sum()
    assert chi2 < freedom + 4.5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("toy", TOYS.values(), ids=list(TOYS))
def test_entropy_is_the_mean_of_minus_log_density(toy):
    """50,000 draws, within 4.5 standard errors; and the closed forms against quadrature."""
    log_p = toy.log_prob(toy(50_000, seed=4))
    assert abs(-log_p.mean() - toy.entropy) < 4.5 * log_p.std() / np.sqrt(50_000) + 1e-9
    by_grid = Toy(toy.name, toy.draw, toy.density, None, toy.reach, toy.step).entropy
    assert by_grid == pytest.approx(toy.entropy, abs=1e-6)
    assert toy.kind == ("closed form" if toy.name in ("grid25", "grid_25", "ring_8", "checkerboard") else "quadrature")


def test_the_ring_and_the_grid_have_as_many_modes_as_their_names_say():
    """Eight angles from `linspace(0, 2 pi, 8)` are seven: both ends are the same point."""
    ring, grid = TOYS["ring_8"], TOYS["grid_25"]
    assert len(np.unique(ring.modes.round(6), axis=0)) == 8
    assert sorted({*grid.modes.ravel()}) == [-4, -2, 0, 2, 4]
    for toy in (ring, grid):
        x = toy(20_000, seed=5)
        apart = np.linalg.norm(x[:, None] - toy.modes, axis=-1)
        counts = np.bincount(apart.argmin(1), minlength=len(toy.modes)) * len(toy.modes) / 20_000
        assert abs(counts - 1).max() < 5 * np.sqrt(len(toy.modes) / 20_000)
        assert abs((apart.min(1) < 3 * toy.sd).mean() - (1 - np.exp(-4.5))) < 4.5 * np.sqrt(0.011 / 20_000)
