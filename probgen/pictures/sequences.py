"""New rows of tokens: texts as they read, other tokens as coloured cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.data.values.text import read_back
from probgen.pictures.style import grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXTS, ROWS, FEW = 12, 32, 20


def is_tokens(fit: Any, key: str) -> bool:
    """Whether a visible site of a learned program has rows of tokens: values without order, one after the other."""
    kinds = {v.name: v.kind for v in getattr(fit.target, "visible", ()) if len(v.shape) == 1}
    told = {s.name: s.distribution for s in fit.target.sites}
    unordered = kinds.get(key) == "levels" or (key in kinds and bool(fit.target.data.get("alphabet")))
    return unordered and told.get(key) == "Autoregressive"


def tokens(fit: Any, rows: np.ndarray) -> Figure:
    """Rows of tokens (row, token) one below the other."""
    alphabet = fit.target.data.get("alphabet", "")
    return _texts(read_back(rows[:TEXTS], alphabet)) if alphabet else _cells(rows[:ROWS])


def _texts(texts: list[str]) -> Figure:
    picture, (panel,) = grid(1, 1, 0.24 * len(texts) + 0.2)
    panel.axis("off")
    for i, told in enumerate(texts):
        shown = told.replace("\n", "⏎").replace("$", r"\$")
        panel.text(0, 1 - (i + 0.5) / len(texts), shown, family="monospace", fontsize=7, transform=panel.transAxes)
    return picture


def _cells(rows: np.ndarray) -> Figure:
    """A colour a token; of few, which is which stands beside."""
    import matplotlib as mpl

    picture, (panel,) = grid(1, 1, 4.2)
    number = int(rows.max()) + 1
    shades = mpl.colormaps["turbo"].resampled(number)
    drawn = panel.imshow(rows, cmap=shades, vmin=-0.5, vmax=number - 0.5, interpolation="nearest", aspect="auto")
    panel.set(xlabel="place in the row", ylabel="drawn row")
    panel.grid(False)
    if number <= FEW:
        picture.colorbar(drawn, ticks=np.arange(number), label="token")
    return picture
