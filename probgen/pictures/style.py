"""How pictures look, and how they become part of a page: ink in the page's text colour, so that it suits light and dark themes."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PAPER = "#123456", "none"
COLOURS = ("#3d85c6", "#e08a2e", "#52a36b", "#c2557a", "#8c6bb1", "#9a7b4f", "#3fa7a3", "#a0a032")
BAD = "#d64541"
STYLE = {
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER, "savefig.edgecolor": PAPER,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "font.size": 9, "axes.titlesize": 9,
    "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8, "legend.frameon": False,
    "svg.fonttype": "path", "svg.hashsalt": "probgen", "text.parse_math": False, "text.usetex": False,
    "font.family": "DejaVu Sans", "axes.unicode_minus": True, "path.simplify": True, "figure.dpi": 100,
}  # fmt: skip


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's parameters for the pictures, for the time of the block."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def figure(width: float = 7.2, height: float = 3.0) -> Figure:
    """A figure of its own, in inches, unknown to pyplot; a notebook shows it."""
    from probgen.pictures.shown import Shown

    return Shown(figsize=(width, height), layout="constrained")


def steps(panel: Any, values: np.ndarray, **keywords: Any) -> None:
    """The distribution function of values (value,) as a line of steps."""
    values = np.sort(values.astype(float))
    panel.step(values, np.arange(1, len(values) + 1) / len(values), where="post", **keywords)


def svg(picture: Figure) -> str:
    """A figure as an SVG element that takes the page's text colour and its width."""
    buffer = io.StringIO()
    picture.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, dpi=110)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'(<svg[^>]*?) width="[\d.]+pt"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r"\1", text, count=1)
    return _unique(text)


def _unique(text: str) -> str:
    """The SVG with identifiers that no other picture on the page has."""
    mark = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:8]
    text = re.sub(r'\bid="', f'id="{mark}-', text)
    text = re.sub(r'href="#', f'href="#{mark}-', text)
    return re.sub(r"url\(#", f"url(#{mark}-", text)


def grid(count: int, columns: int, height: float) -> tuple[Figure, list[Any]]:
    """A figure of `count` panels, so many in a row, each `height` inches high."""
    rows = -(-count // columns)
    picture = figure(height=rows * height)
    panels = [picture.add_subplot(rows, columns, i + 1) for i in range(count)]
    return picture, panels


def picture_shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """(height, width), or (height, width, 3), of points of a shape, a flat square among them; None where they are no pictures."""
    if len(shape) == 3 and shape[2] == 3 and min(shape[:2]) > 1:
        return shape
    shape = tuple(n for n in shape if n > 1)
    side = round(shape[0] ** 0.5) if len(shape) == 1 else 0
    if len(shape) == 2:
        return shape
    return (side, side) if side > 3 and side * side == shape[0] else None


def tiles(pictures: Any, shape: tuple[int, ...], across: int, words: Sequence[tuple[str, int]] = ()) -> Figure:
    """Pictures (picture, *event) side by side, so many in a line, scaled from the least value to the largest; NaN is blank.

    words: what stands beside the lines from the top, each with the number of lines that it is said of.
    """
    joined = np.asarray(pictures, float).reshape(-1, across, *shape)
    if len(shape) == 3:
        low, high = np.nanmin(joined), np.nanmax(joined)
        joined = np.nan_to_num((joined - low) / max(high - low, 1e-9), nan=1.0)
    edge = ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0))[: joined.ndim]
    joined = np.pad(joined, edge, constant_values=1.0 if len(shape) == 3 else np.nan)
    canvas = joined.swapaxes(1, 2).reshape(len(joined) * (shape[0] + 1), -1, *shape[2:])
    drawn = figure(height=7.2 * canvas.shape[0] / canvas.shape[1])
    panel = drawn.add_subplot(1, 1, 1)
    panel.imshow(canvas, cmap="gray_r", interpolation="nearest")
    panel.axis("off")
    above = 0
    for word, lines in words:
        middle = (above + lines / 2) * (shape[0] + 1) - 1
        panel.text(-1.5, middle, word, rotation=90 if lines > 1 else 0, ha="right", va="center", fontsize=8)
        above += lines
    return drawn
