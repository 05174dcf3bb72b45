"""Pictures of digits with a few words about each, such as "a thick slanted seven", computed from the picture itself.

    thin, thick        of the third of the pictures with the least, and the most, ink
    upright, slanted   of those whose ink leans, by its second moments, least and most to either side of the middle third

Words are dropped at random, so that a prompt may say less: "a seven", "a thin digit". Shapes: prompts: (row, token), -1 for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from probgen.data.inputs import first
from probgen.data.scales import numbers

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LOOKS = (("thin", "", "thick"), ("upright", "", "slanted"))
WORDS = ("a", "digit", "thin", "thick", "upright", "slanted", *NAMES)
LENGTH = 4  # tokens of a prompt: a, how thick, how slanted, which
SAID, NAMED = 0.75, 0.9  # shares of words about looks, and of digits' names, that are said


def ink(pictures: np.ndarray) -> np.ndarray:
    """The mean grey level: (row,)."""
    return pictures.reshape(len(pictures), -1).mean(1)


def slant(pictures: np.ndarray) -> np.ndarray:
    """How far ink leans to the right for every pixel up: minus cov(column, row) / var(row), of the ink's distribution, (row,)."""
    mass = pictures / np.maximum(pictures.sum((1, 2), keepdims=True), 1e-9)
    down, across = np.mgrid[: pictures.shape[1], : pictures.shape[2]]
    moment = lambda f: (mass * f).sum((1, 2))  # noqa: E731
    y, x = moment(down), moment(across)
    return -(moment(down * across) - x * y) / np.maximum(moment(down**2) - y**2, 1e-9)


def looks(pictures: np.ndarray) -> np.ndarray:
    """Of every picture -1, 0 or 1: thin to thick, and upright to slanted: (row, 2)."""
    lean = slant(pictures)
    lean = abs(lean - np.median(lean))
    return np.stack([np.searchsorted(np.quantile(v, [1 / 3, 2 / 3]), v) - 1 for v in (ink(pictures), lean)], 1)


def described(pictures: np.ndarray, digits: np.ndarray, seed: int = 0) -> np.ndarray:
    """A prompt for every picture (row, height, width) of a digit (row,), as tokens: (row, LENGTH)."""
    rng = np.random.default_rng(seed)
    said, named = rng.random((len(digits), 2)) < SAID, rng.random(len(digits)) < NAMED
    found = []
    for look, tell, digit, name in zip(looks(pictures), said, digits, named, strict=True):
        about = [words[1 + at] for words, at, told in zip(LOOKS, look, tell, strict=True) if told]
        found.append(" ".join(["a", *filter(None, about), NAMES[int(digit)] if name else "digit"]))
    return np.stack([tokens(prompt) for prompt in found])


def tokens(prompt: str) -> np.ndarray:
    """A prompt as whole numbers, -1 where there is no more: (LENGTH,). ValueError for a word that describes no picture."""
    words = ["a" if word == "an" else word for word in prompt.lower().split()]
    unknown = [word for word in words if word not in WORDS]
    if unknown:
        raise ValueError(f"The prompt says {unknown[0]!r}; known: {', '.join(WORDS)}.")
    if not 0 < len(words) <= LENGTH:
        raise ValueError(f"The prompt has {len(words)} words; expected 1 to {LENGTH}, such as 'a thick slanted seven'.")
    return np.array([WORDS.index(word) for word in words] + [-1] * (LENGTH - len(words)))


def vocabulary(keyword: str, data: Mapping[str, Any]) -> dict[str, int]:
    """What a model derives of prompts (row, token): `num_words`. ValueError for what is no prompt."""
    rows = numbers(data.get(keyword))
    if rows is None:
        return {}
    most = data.get("num_words", np.inf)
    bad = (rows < -1) | (rows != np.rint(rows)) | (rows >= most)
    if rows.ndim != 2 or bad.any():
        what = f"has shape {rows.shape}" if rows.ndim != 2 else f"holds {rows[bad][0]:g} at {keyword}{first(bad)}"
        raise ValueError(
            f"{keyword} {what}; expected tokens (row, token), whole numbers from 0{f' to {most - 1}' * bool(np.isfinite(most))}, "
            "and -1 where there is none."
        )
    return {} if "num_words" in data else {"num_words": max(1, int(rows.max()) + 1)}


def prompted_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits, (1797, 8, 8) from 0 to 1, each after its prompt, (1797, LENGTH)."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    pictures = found.images / 16
    return described(pictures, found.target), pictures
