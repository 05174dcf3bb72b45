"""A table of the data sets by name: how many rows, of what shape, with classes or held-out rows, from where, and licences."""

from __future__ import annotations

from typing import Any, NamedTuple

from probgen import datasets

DIGITS = "UCI's Optical Recognition of Handwritten Digits (Alpaydin, Kaynak 1998), CC BY 4.0, as scikit-learn ships it"
MNIST = "LeCun, Cortes and Burges's MNIST, from NIST's databases; its authors state no licence, copies say CC BY-SA 3.0"
MADE = "made here, MIT"
SHAPES = {
    "edges_to_digits": "(8, 8) and (8, 8)", "coloured_digits": "(8, 8) and (8, 8)",
    "prompted_digits": "(4,) and (8, 8)", "stacked_digits": "(8, 8, 3)",
    "bars_and_stripes": "(4, 4)", "mnist": "(28, 28)", "mnist_grey": "(28, 28)", "stacked_mnist": "(28, 28, 3)", "ising": "(8, 8)",
    "digit_rows": "(8,)", "grammar": "(32,)",
}  # fmt: skip
PAIRS = {"edges_to_digits": 1797, "coloured_digits": 1797, "prompted_digits": 1797}


class Named(NamedTuple):
    """One data set that `data=` and `--data` take by name."""

    name: str
    rows: int
    shape: str
    classes: bool
    held_out: bool
    told: str
    licence: str


def sets() -> list[Named]:
    """All of them; those of which nobody said the shape are loaded."""
    return [
        Named(
            name,
            *_size(name),
            name in datasets.CLASSES,
            name in datasets.HELD_OUT,
            datasets.TOLD.get(name, ""),
            DIGITS if "digit" in name else MNIST if "mnist" in name else MADE,
        )
        for name in datasets.SETS
    ]


def _size(name: str) -> tuple[int, str]:
    """How many rows, and the shape of one; of pairs, both shapes."""
    count, numbers = datasets.SIZES.get(name, (PAIRS.get(name, 0), 0))
    shape = SHAPES.get(name, "(2,)" if numbers == 2 else "(8, 8)" if numbers == 64 else "")
    if count and shape:
        return count, shape
    found = datasets.load(name)
    arrays = found if isinstance(found, tuple) else (found,)
    return len(arrays[0]), " and ".join(str(a.shape[1:]) for a in arrays)


def table() -> Any:
    """The data sets by name as a pandas table: rows, shape of one, classes, held-out rows, what they are, licence."""
    import pandas as pd

    return pd.DataFrame(sets()).set_index("name")
