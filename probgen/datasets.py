"""Data sets by name: pictures, spins and points in the plane, as arrays (row, ...).

`load("digits")` gives what a model learns from by `pg.fit("rbm", data="digits")`. Nothing is downloaded but MNIST, and that
only where no local file is found.
"""

from __future__ import annotations

import functools
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from probgen.data.pictures import with_edges
from probgen.data.toys import TOYS
from probgen.data.values.colours import coloured_digits
from probgen.data.values.grammar import sentences
from probgen.data.values.photographs import PICTURES, is_picture, picture
from probgen.data.values.prompts import prompted_digits
from probgen.data.values.sounds import is_sound, sound_of
from probgen.data.values.text import is_text, text_of

CRITICAL = np.log(1 + np.sqrt(2)) / 2  # the inverse temperature at which the square lattice orders


def digits(threshold: float = 8.0) -> np.ndarray:
    """scikit-learn's 1797 digits of 8 x 8 pixels, binarised: 1 where a pixel is at least `threshold` of 16: (1797, 8, 8)."""
    return (digits_grey() * 16 >= threshold).astype(float)


def digits_grey() -> np.ndarray:
    """scikit-learn's 1797 digits of 8 x 8 pixels, from 0 to 1 in steps of 1/16: (1797, 8, 8)."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    return found.images / 16


def inverted_digits() -> np.ndarray:
    """Every second picture of `digits`, zeros and ones the other way round: (898, 8, 8). No partner of any row of them."""
    return 1 - digits()[1::2]


def bars_and_stripes(side: int = 4) -> np.ndarray:
    """Every choice of full rows, then of full columns: (2^(side + 1), side, side).

    All black and all white are in both halves, so that 2^(side + 1) - 2 pictures differ, and the entropy of a random row is
    (side + 1 - 2^(1 - side)) log 2 nats. Source: MacKay 2003, Information Theory, Inference and Learning Algorithms, ch. 43.
    """
    choices = np.arange(2**side)[:, None] >> np.arange(side) & 1
    rows = np.repeat(choices[:, :, None], side, axis=2)
    return np.concatenate([rows, rows.transpose(0, 2, 1)]).astype(float)


def binarised(images: np.ndarray, seed: int | None = None) -> np.ndarray:
    """Grey pictures (0 to 255, or 0 to 1) as zeros and ones.

    seed: each pixel is drawn once with its grey level as probability ("fixed" binarisation); None: 1 from half grey on. The
    two differ by about 2 nats on MNIST.
    """
    grey = images / 255 if images.dtype == np.uint8 else images
    cut = 0.5 if seed is None else np.random.default_rng(seed).random(images.shape, np.float32)
    return (grey >= cut).astype(float) if seed is None else (cut < grey).astype(float)


# ---- MNIST -------------------------------------------------------------------------------------------------------

IDX = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
LABELS = {"train": "train-labels-idx1-ubyte", "test": "t10k-labels-idx1-ubyte"}


def mnist(split: str = "train", path: str | Path | None = None) -> np.ndarray:
    """MNIST's pictures, 0 to 255, in their original order: uint8 (60000, 28, 28) for "train", (10000, 28, 28) for "test".

    path: a folder, or a file, with `mnist.npz` (keys x_train, x_test) or idx files, packed by gzip or not; by default the
    folder $PROBGEN_DATA, and where that has none, OpenML's copy, kept by scikit-learn in its cache.
    """
    found = _mnist_file(IDX, split, path)
    if found is not None:
        return _npz(found, f"x_{split}") if found.suffix == ".npz" else _idx(found)
    return _openml().data[_rows(split)].astype(np.uint8).reshape(-1, 28, 28)


def mnist_labels(split: str = "train", path: str | Path | None = None) -> np.ndarray:
    """The digits that `mnist` shows, in the same order: uint8 (60000,) or (10000,); found in the same places."""
    found = _mnist_file(LABELS, split, path)
    if found is None:
        return np.asarray(_openml().target)[_rows(split)].astype(np.uint8)
    labels = _npz(found, f"y_{split}") if found.suffix == ".npz" else _idx(found)
    if labels.ndim != 1:
        raise ValueError(
            f"{found} has an array of shape {labels.shape}; expected labels (row,), as in {LABELS[split]}."
        )
    return labels


def _mnist_file(names: dict[str, str], split: str, path: str | Path | None) -> Path | None:
    """The file of a split in a folder, or the file itself; None where nobody named one, and the folder of PROBGEN_DATA has none."""
    if split not in names:
        raise ValueError(f"split is {split!r}; known: train, test")
    folder = path or os.environ.get("PROBGEN_DATA")
    known = ["mnist.npz", names[split], names[split] + ".gz"]
    where = [Path(folder)] if folder and Path(folder).is_file() else [Path(folder) / n for n in known] if folder else []
    found = next((file for file in where if file.is_file()), None)
    if found is None and path is not None:
        raise FileNotFoundError(f"There is no MNIST in {path}; expected {', '.join(known[:-1])} or {known[-1]}.")
    return found


def _npz(file: Path, name: str) -> np.ndarray:
    with np.load(file) as arrays:
        if name not in arrays:
            raise ValueError(f"{file} has no array {name!r}; it has {', '.join(arrays.files)}.")
        return arrays[name]


def _idx(file: Path) -> np.ndarray:
    """An idx file of bytes: two zeros, the type 8, the number of axes, their lengths (big endian), the values."""
    raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    axes = raw[3] if raw[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(raw, ">i4", axes, 4) if axes and len(raw) >= 4 + 4 * axes else np.array([0])
    if not axes or len(raw) != 4 + 4 * axes + shape.prod():
        raise ValueError(f"{file} is not an idx file of bytes, or it is cut short.")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _openml() -> Any:
    from sklearn.datasets import fetch_openml

    try:
        found: Any = fetch_openml("mnist_784", version=1, as_frame=False, parser="liac-arff")
        return found
    except OSError as error:
        raise OSError(
            f"MNIST could not be downloaded from OpenML ({error}).\n"
            "Put mnist.npz or the idx files in a folder and set PROBGEN_DATA to it."
        ) from error


def _rows(split: str) -> slice:
    """Of OpenML's 70,000 rows, training rows first."""
    return slice(60000) if split == "train" else slice(60000, None)


# ---- the Ising model ---------------------------------------------------------------------------------------------


def ising_samples(side: int, beta: float, n: int, seed: int = 0, num_updates: int = 50) -> np.ndarray:
    """Independent samples of the Ising model on a periodic square lattice, as bits (n, side, side); spins are 2 bits - 1.

        log p(s) = beta * sum over neighbours s_i s_j - log Z,   beta >= 0

    n Markov chains of `num_updates` cluster updates each: bonds between equal neighbours with probability
    1 - exp(-2 beta), then a fair coin for every cluster, which does not slow down at the critical point.
    Source: Swendsen and Wang 1987 (doi:10.1103/PhysRevLett.58.86).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(seed)
    spins, sites = rng.random((n, side, side)) < 0.5, np.arange(n * side * side).reshape(n, side, side)
    here = np.stack([sites, sites])
    there = np.stack([np.roll(sites, -1, axis) for axis in (1, 2)])
    for _ in range(num_updates):
        equal = spins.ravel()[here] == spins.ravel()[there]
        bond = equal & (rng.random(here.shape) < -np.expm1(-2 * beta))
        graph = coo_array((np.ones(bond.sum(), np.int8), (here[bond], there[bond])), (sites.size, sites.size))
        count, cluster = connected_components(graph, directed=False)
        spins = (rng.random(count) < 0.5)[cluster].reshape(spins.shape)
    return spins.astype(float)


# ---- three digits in one picture ---------------------------------------------------------------------------------


def stacked(images: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Pictures of three channels, each a random one of the images (row, h, w): (n, h, w, 3). With ten digits, 1000 modes."""
    pick = np.random.default_rng(seed).integers(len(images), size=(n, 3))
    return np.moveaxis(images[pick], 1, -1)


# ---- tokens ------------------------------------------------------------------------------------------------------

SENTENCES = 5000


def digit_rows() -> np.ndarray:
    """`digits`, each row of a picture one token, the number that its 8 bits are, the left pixel the largest: (1797, 8)."""
    return digits() @ 2.0 ** np.arange(7, -1, -1)


# ---- by name -----------------------------------------------------------------------------------------------------

ROWS = {"grid_25": 20_000, "ring_8": 20_000}  # of toys with many small modes
TRIPLES = 25_600


def _grey(split: str) -> np.ndarray:
    return mnist(split).astype(np.float32) / 255


SETS: dict[str, Callable[[], Any]] = {
    "digits": digits,
    "digits_grey": digits_grey,
    "inverted_digits": inverted_digits,
    "edges_to_digits": lambda: with_edges(digits_grey()),
    "prompted_digits": prompted_digits,
    "coloured_digits": coloured_digits,
    "stacked_digits": lambda: stacked(digits_grey(), TRIPLES),
    "bars_and_stripes": bars_and_stripes,
    "digit_rows": digit_rows,
    "grammar": lambda: sentences(SENTENCES),
    "mnist": lambda: binarised(mnist("train"), seed=0),
    "mnist_grey": lambda: _grey("train"),
    "stacked_mnist": lambda: stacked(_grey("train"), TRIPLES),
    "ising": lambda: ising_samples(8, CRITICAL, 2000),
    **{name: functools.partial(toy, ROWS.get(name, 5000)) for name, toy in TOYS.items()},
}

HELD_OUT: dict[str, Callable[[], np.ndarray]] = {  # rows of the same law that are not among those of SETS
    "mnist": lambda: binarised(mnist("test"), seed=1),
    "mnist_grey": lambda: _grey("test"),
    "stacked_digits": lambda: stacked(digits_grey(), 10_000, seed=1),
    "stacked_mnist": lambda: stacked(_grey("test"), 10_000, seed=1),
    "ising": lambda: ising_samples(8, CRITICAL, 2000, seed=1),
    "grammar": lambda: sentences(SENTENCES, seed=1),
    **{name: functools.partial(toy, 10_000, 1) for name, toy in TOYS.items()},
}


TOLD = {
    "digits": "scikit-learn's digits, 8 x 8, black and white",
    "digits_grey": "the same with their grey levels, from 0 to 1",
    "inverted_digits": "every second digit, black for white: no partners of those of digits",
    "edges_to_digits": "edges of the grey digits, and the digits",
    "prompted_digits": "the grey digits, each after a prompt in tokens",
    "coloured_digits": "the grey digits, and a colour for every pixel with ink, red or blue, one a picture",
    "stacked_digits": "three grey digits as the channels of a picture: up to 1000 classes",
    "bars_and_stripes": "all pictures of full rows, or of full columns, 4 x 4",
    "digit_rows": "the same digits, each of the 8 rows a token of 256",
    "grammar": "sentences of Reber's grammar, 32 of 7 words, whose entropy rate is known",
    "mnist": "MNIST, 28 x 28, black and white, each pixel drawn once by its grey level",
    "mnist_grey": "MNIST with its grey levels, from 0 to 1",
    "stacked_mnist": "three grey digits of MNIST as the channels of a picture: 1000 classes",
    "ising": "spins of an 8 x 8 lattice at the critical temperature",
    "eight_gaussians": "eight round modes on a circle, sd 0.35",
    "grid25": "25 round modes on a square grid, sd 0.05",
    "grid_25": "25 round modes on a square grid, sd 0.05, as PacGAN has them",
    "ring_8": "eight round modes on the unit circle, sd 0.01",
    "rings": "points of circles around each other",
    "two_moons": "two half circles, each round the other's end",
    "pinwheel": "five arms of a pinwheel",
    "checkerboard": "the dark squares of a checkerboard",
}


def load(name: str) -> Any:
    """The rows of a named data set (`SETS`), of pairs a tuple of two arrays; ValueError, with the known names, for another.

    Of a name in `PICTURES`, and of a PNG or JPEG file, that one picture: (height, width), or (height, width, 3).
    Of a WAV file its waveform, channels mixed, and its rate: (time,), and a number.
    Of a text file its characters, (character,).
    """
    from probgen.algorithm import closest

    if is_sound(name):
        return sound_of(name)
    if is_picture(name):
        return picture(name)
    if name not in SETS:
        if is_text(name):
            return text_of(name)
        known = (*SETS, *PICTURES)
        raise ValueError(f"Unknown data set {name!r}.{closest(name, known)}\nKnown: {', '.join(known)}.")
    return SETS[name]()


CLASSES = ("digits", "digits_grey", "mnist", "mnist_grey")


def labels(name: str) -> np.ndarray:
    """The class of every row of a named data set, whole numbers from 0: (row,); ValueError where it has none."""
    found = labelled(name) if name in CLASSES else None
    if found is None:
        raise ValueError(f"The data set {name!r} has no classes; {', '.join(CLASSES)} have.\nPass data=(rows, labels).")
    return np.asarray(found[1])


def held_out(name: str) -> np.ndarray | None:
    """Rows of the law of a named data set that `load` does not give: a test set, or fresh draws; None where there are none.

    Those of "stacked_digits" are new triples of the same digits.
    """
    return HELD_OUT[name]() if name in HELD_OUT else None


SIZES = {  # rows, and numbers of a row, by which data sets are told without loading them
    "digits": (1797, 64), "digits_grey": (1797, 64), "stacked_digits": (TRIPLES, 192), "bars_and_stripes": (32, 16),
    "inverted_digits": (898, 64), "digit_rows": (1797, 8), "grammar": (SENTENCES, 32),
    "mnist": (60_000, 784), "mnist_grey": (60_000, 784), "stacked_mnist": (TRIPLES, 2352), "ising": (2000, 64),
    **{name: (ROWS.get(name, 5000), 2) for name in TOYS},
}  # fmt: skip


def name_of(*parts: np.ndarray) -> str | None:
    """The data set whose rows these are, in whatever order, but for rounding to single precision; None where it is none."""
    rows = np.concatenate([np.asarray(part, float).reshape(len(part), -1) for part in parts if len(part)])
    ranked = _ranked(rows)
    for name in (k for k, size in SIZES.items() if size == rows.shape):
        found = load(name)
        if np.allclose(_ranked(np.asarray(found, float).reshape(rows.shape)), ranked, rtol=1e-6, atol=1e-6):
            return name
    return None


def _ranked(rows: np.ndarray) -> np.ndarray:
    """Sums of squares of rows about their mean, and weighed sums, each in order: the same for the same rows in any order."""
    weights = np.random.default_rng(0).normal(size=(rows.shape[1], 2)) / np.sqrt(rows.shape[1])
    return np.sort(np.concatenate([rows @ weights, (rows**2).mean(1)[:, None]], 1), axis=0)


Labelled = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]


def labelled(name: str) -> Labelled | None:
    """Pictures of one channel and their classes, of which a classifier for a named data set learns, and those it is tested on.

    None where nothing is labelled. Of stacked digits: single digits, which its channels are.
    """
    if name in ("mnist", "mnist_grey", "stacked_mnist"):
        images = {s: (_grey(s) if name != "mnist" else binarised(mnist(s), 0 if s == "train" else 1)) for s in IDX}
        return images["train"], mnist_labels("train"), (images["test"], mnist_labels("test"))
    if name in ("digits", "digits_grey", "stacked_digits"):
        from sklearn.datasets import load_digits

        return (digits() if name == "digits" else digits_grey()), np.asarray(load_digits(return_X_y=True)[1]), None
    return None
