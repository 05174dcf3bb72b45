"""Pictures of grown textures: beside their sample, and where in it their pixels are from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.pictures.learned import loss
from probgen.pictures.style import figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 3  # pictures shown


def grown(fit: Any) -> Figure | None:
    """The sample, and pictures at the same scale."""
    sample, pictures = np.asarray(fit.target.picture), next(iter(fit.draws.values()))[0][:MOST]
    drawn, panels = _panels([sample, *pictures])
    low, high = float(sample.min()), float(sample.max())
    for i, (panel, x) in enumerate(zip(panels, [sample, *pictures], strict=True)):
        shown = (x - low) / ((high - low) or 1.0) if x.ndim == 3 else x
        ends = {} if x.ndim == 3 else {"vmin": low, "vmax": high}
        panel.imshow(
            np.nan_to_num(np.clip(shown, 0, 1)) if x.ndim == 3 else shown, cmap="gray", interpolation="nearest", **ends
        )
        panel.set_title("sample" if i == 0 else "grown")
    return drawn


def sources(fit: Any) -> Figure | None:
    """Where pixels are from: a colour a place, on the sample and on the pictures."""
    height, width = fit.target.picture.shape[:2]
    maps = [np.arange(height * width).reshape(height, width), *fit.answer["sources"][0][:MOST]]
    drawn, panels = _panels(maps)
    for i, (panel, at) in enumerate(zip(panels, maps, strict=True)):
        row, column = np.divmod(at, width)
        colours = np.stack([row / max(height - 1, 1), column / max(width - 1, 1), np.full(at.shape, 0.5)], -1)
        panel.imshow(np.where(at[..., None] < 0, 1.0, colours), interpolation="nearest")
        panel.set_title("places of the sample" if i == 0 else "where each pixel is from")
    return drawn


def _panels(pictures: list[np.ndarray]) -> tuple[Figure, list[Any]]:
    """A panel for each picture, pixels of one size."""
    widths = [x.shape[1] for x in pictures]
    tallest = max(x.shape[0] for x in pictures)
    drawn = figure(height=min(7.2 * tallest / sum(widths) + 0.4, 9.0))
    spec = drawn.add_gridspec(1, len(pictures), width_ratios=widths)
    panels = [drawn.add_subplot(spec[0, i]) for i in range(len(pictures))]
    for panel in panels:
        panel.axis("off")
        panel.set_anchor("N")
    return drawn, panels


PICTURES = (
    ("Pictures", "The sample, and what was grown from it.", grown),
    ("Sources", "Each place of the sample has a colour: an even slope is a piece that was copied whole.", sources),
    ("Distances", "How far the drawn places are from what they continue, in variances of the sample.", loss),
)
