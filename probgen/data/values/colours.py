"""Colours of pictures as symbols beside their grey levels: made digits with a known conditional, palettes of photographs.

picture = grey + palette[colour],   palette: colours of grey level 0, which only move red, green and blue against each other
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from probgen.data.inputs import first
from probgen.data.pictures import check_range
from probgen.data.scales import numbers
from probgen.data.values.photographs import grey as grey_of

INK = 0.25  # the grey level from which a pixel of a digit has a colour
RED_AND_BLUE = np.array(
    [[0.0, 0.0, 0.0], [0.55, -0.28, 0.0], [-0.25, -0.08, 1.1]]
)  # of the made digits: no colour, red, blue


def coloured_digits(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's grey digits, and a colour for every pixel: 0 where there is no ink, else 1 or 2, one of them for a picture.

    p(colour | grey) is 1/2 for either, so that -log p is log 2 nats a picture; a model of independent pixels has at best log 2 nats
    for every pixel with ink. Shapes: grey, colour: (1797, 8, 8).
    """
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    grey = found.images / 16
    one = np.random.default_rng(seed).integers(1, 3, len(grey))
    return grey, (grey >= INK) * one[:, None, None].astype(float)


def palette_of(pictures: np.ndarray, num_colours: int = 8, seed: int = 0) -> np.ndarray:
    """The colours that pictures (..., 3) have apart from their grey levels, by k-means, the greyest first: (colour, 3)."""
    from sklearn.cluster import KMeans

    chroma = (pictures - grey_of(pictures)[..., None]).reshape(-1, 3)
    means = KMeans(num_colours, n_init=cast(Any, 2), random_state=seed)  # scikit-learn's own types know a word alone
    found = means.fit(chroma).cluster_centers_
    found = found - grey_of(found)[:, None]
    return found[np.argsort((found**2).sum(1))]


def split(pictures: np.ndarray, palette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels of pictures (..., 3), and the nearest colour of a palette: (...) each."""
    grey = grey_of(pictures)
    chroma = pictures - grey[..., None]
    far = sum((chroma[..., None, c] - palette[:, c]) ** 2 for c in range(3))
    return grey, np.argmin(far, -1)


def joined(grey: np.ndarray, colour: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Pictures of grey levels and colours, within 0 and 1: (..., 3)."""
    return np.clip(grey[..., None] + palette[colour.astype(int)], 0, 1)


def within(colour: np.ndarray, without: int | None = None) -> np.ndarray:
    """The entropy of the colours that one picture has, in nats: (picture,).

    colour: (picture, height, width); without: a symbol that is no colour. NaN for a picture that has no others.
    """
    found = []
    for one in colour.reshape(len(colour), -1).astype(int):
        counts = np.bincount(one[one != without] if without is not None else one)
        share = counts[counts > 0] / counts.sum() if counts.sum() else np.array([np.nan])
        found.append(-(share * np.log(share)).sum())
    return np.abs(found)


def derived(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a colouring model derives of its rows: `height`, `width`, `levels`; ValueError for what is no colour, no grey level."""
    grey, colour = (numbers(data.get(k)) for k in ("grey", "colour"))
    found: dict[str, Any] = {}
    if grey is not None:
        if grey.ndim != 3:
            raise ValueError(f"grey has shape {grey.shape}; expected pictures (row, height, width).")
        check_range("grey", grey, 0.0, 1.0)
        found = {"height": grey.shape[1], "width": grey.shape[2]}
    if colour is not None:
        if grey is not None and colour.shape != grey.shape:
            raise ValueError(f"colour has shape {colour.shape}, grey {grey.shape}; expected a colour for every pixel.")
        if (bad := (colour != np.rint(colour)) | (colour < 0)).any():
            raise ValueError(
                f"colour holds whole numbers from 0, one for each colour; colour{first(bad)} is {colour[bad][0]:g}.\n"
                "probgen.data.values.colours.split makes them of pictures (row, height, width, 3)."
            )
        found["levels"] = max(2, int(colour.max()) + 1)
    return found
