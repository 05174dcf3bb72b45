"""Pictures of completions: what was seen of a point, points that go with it, and the truth where it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.pictures.style import BAD, COLOURS, INK, figure, picture_shape
from probgen.programs.completable import PartlyKnown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS = 6  # that are shown
MOST = 100  # numbers of a point that is no picture


def completion(fit: Any, shown: Any) -> Figure | None:
    """Of pictures tiles, of other points the middle nine tenths of the draws, number by number."""
    del shown
    if not isinstance(fit.target, PartlyKnown):
        return None
    (name, draws), told = next(iter(fit.draws.items())), fit.target.told()
    points = np.asarray(draws, float).reshape(-1, *draws.shape[2:])
    if not len(points) or not np.isfinite(points).all():
        return None
    shape = picture_shape(points.shape[1:])
    if shape is None:
        return _numbers(name, points, told)
    return _tiles(points, shape, told)


def _tiles(points: np.ndarray, shape: tuple[int, ...], told: Any) -> Figure:
    at = np.linspace(0, len(points) - 1, DRAWS).round().astype(int)
    named = [("seen", told.value), ("mean", points.mean(0)), *(("draw", points[i]) for i in at)]
    named += [("truth", told.truth)] if told.truth is not None else []
    low, high = points.min(), points.max()
    picture = figure(height=7.2 / len(named) * shape[0] / shape[1] + 0.25)
    for i, (title, value) in enumerate(named):
        panel = picture.add_subplot(1, len(named), i + 1)
        panel.set_title(title)
        panel.axis("off")
        own = picture_shape(np.shape(value)) or (1, np.size(value))
        value = np.asarray(value, float).reshape(own)
        inside = np.nanmin(value) >= low - 1e-6 and np.nanmax(value) <= high + 1e-6
        ends = (low, high) if inside else (np.nanmin(value), np.nanmax(value))  # of combinations, in their own units
        if len(own) == 3:
            value = np.nan_to_num(np.clip((value - ends[0]) / max(ends[1] - ends[0], 1e-9), 0, 1), nan=0.5)
        panel.imshow(np.ma.masked_invalid(value), cmap=_grey(), vmin=ends[0], vmax=ends[1], interpolation="nearest")
    return picture


def _grey() -> Any:
    """Black on white; what was not seen in a colour that no picture has."""
    import matplotlib as mpl

    return mpl.colormaps["gray_r"].with_extremes(bad="#b8d4ee")


def _numbers(name: str, points: np.ndarray, told: Any) -> Figure | None:
    points = points.reshape(len(points), -1)
    if points.shape[1] > MOST:
        return None
    picture = figure(height=2.6)
    panel, at = picture.add_subplot(1, 1, 1), np.arange(points.shape[1])
    low, middle, high = np.quantile(points, (0.05, 0.5, 0.95), axis=0)
    panel.vlines(at, low, high, color=COLOURS[0], lw=2, alpha=0.5, label="middle nine tenths of draws")
    panel.plot(at, middle, "_", color=COLOURS[0], ms=8, mew=1.5)
    if np.size(told.value) == points.shape[1] and told.itself:
        panel.plot(at, np.ravel(told.value), "o", ms=4, mfc="none", color=INK, label="seen")
    if told.truth is not None:
        panel.plot(at, np.ravel(told.truth), "x", ms=5, color=BAD, label="truth")
    panel.set(xlabel=f"number of {name}")
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return picture


PICTURES = (("Completion", "What was seen, and points that go with it.", completion),)
