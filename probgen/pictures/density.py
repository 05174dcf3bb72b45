"""Pictures of a learned density: its curve, its contours, new points beside data, completions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.engine.drawable import weighed
from probgen.fitted import FittedParameters
from probgen.pictures.sequences import ROWS, is_tokens, tokens
from probgen.pictures.style import BAD, COLOURS, figure, grid, picture_shape, tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ACROSS = 12
MOST = 1000  # rows shown in the plane


def curve(fit: FittedParameters) -> Figure | None:
    """Of one real number, over a histogram of the data."""
    site = _only(fit, 1)
    if site is None:
        return None
    rows = fit.target.all_rows()[site.name]
    low, high = range_of(rows.reshape(-1, 1))[:, 0]
    points = np.linspace(low, high, 400)
    picture, (panel,) = grid(1, 1, 2.6)
    panel.hist(rows.ravel(), bins=60, density=True, color=COLOURS[0], alpha=0.35, label="data")
    panel.plot(points, np.exp(fit.log_prob(points.reshape(-1, *site.shape)).value), color=BAD, lw=1.4, label="density")
    panel.set(xlabel=site.name, ylim=(0, None))
    panel.legend()
    return picture


def contours(fit: FittedParameters) -> Figure | None:
    """Of two real numbers, over the data; a colour is a factor of e. Of an energy up to its constant."""
    site = _only(fit, 2, up_to_a_constant=True)
    if site is None:
        return None
    rows = fit.target.all_rows()[site.name].reshape(-1, 2)
    x, y = (np.linspace(low, high, 120) for low, high in range_of(rows).T)
    plane = np.stack(np.meshgrid(x, y), -1).reshape(-1, *site.shape)
    target: Any = fit.target
    log_p = (fit.log_prob(plane).value if target.normalised else -fit.energy(plane)).reshape(120, 120)
    picture = figure(height=3.6, width=5.2)
    panel = picture.add_subplot(1, 1, 1)
    top = log_p.max()
    drawn = panel.contourf(x, y, log_p, levels=np.linspace(top - 8, top, 9), cmap="Blues", extend="min")
    picture.colorbar(drawn, label="log density, nats" if target.normalised else "log density up to a constant, nats")
    panel.plot(*rows[:MOST].T, ".", ms=3, color=BAD, mec="none", alpha=0.7, rasterized=True)
    panel.set(aspect="equal")
    return picture


def new_points(fit: FittedParameters) -> Figure | None:
    """Two lines of rows of the data, and two of draws."""
    site = _pictured(fit)
    if site is None:
        return None
    rows = np.resize(fit.target.all_rows()[site.name][: 2 * ACROSS], (2 * ACROSS, *site.shape))
    drawn = _drawn(fit, 2 * ACROSS, fit.seed)
    if drawn is None:
        return None
    return _tiles(np.concatenate([rows, drawn[site.name]]), site, words=(("data", 2), ("draws", 2)))


def new_rows(fit: FittedParameters) -> Figure | None:
    """Rows of tokens drawn from the model, of a text as they read."""
    target: Any = fit.target
    names = [v.name for v in target.visible if is_tokens(fit, v.name)]
    if len(names) != 1 or not target.proper or target.inputs:
        return None
    drawn = _drawn(fit, ROWS, fit.seed)
    return None if drawn is None else tokens(fit, drawn[names[0]])


def completions(fit: FittedParameters) -> Figure | None:
    """A row, its upper half, and four draws of the lower one; three rows in a line."""
    site = _pictured(fit)
    if site is None or site.kind not in ("bits", "levels"):
        return None
    shape = picture_shape(site.shape)
    rows, lines = fit.target.all_rows()[site.name][:9], []
    for i, row in enumerate(rows):
        half = row.reshape(shape).copy()
        half[len(half) // 2 :] = np.nan
        known = half.reshape(site.shape)
        drawn = _drawn(fit, 4, fit.seed + i, known)
        if drawn is None:
            return None
        lines.append(np.stack([row, known, *drawn[site.name]]))
    return _tiles(np.concatenate(lines), site, 18) if len(lines) == 9 else None


def interpolations(fit: FittedParameters) -> Figure | None:
    """Straight lines in a flow's latent space between four pairs of rows."""
    site = _pictured(fit)
    if site is None or site.kind != "reals":
        return None
    rows = fit.target.all_rows()[site.name][:8]
    try:
        lines = [fit.interpolate(a, b, ACROSS)[site.name] for a, b in zip(rows[::2], rows[1::2], strict=False)]
    except Incompatible:
        return None
    return _tiles(np.concatenate(lines), site) if lines else None


def range_of(rows: np.ndarray) -> np.ndarray:
    """The least and the largest value of every column, and a tenth more: (2, column)."""
    low, high = rows.min(0), rows.max(0)
    return np.stack([low - 0.1 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9])


def _only(fit: FittedParameters, size: int, up_to_a_constant: bool = False) -> Any:
    """The only site of a density in closed form, or of one up to its constant, where it holds so many reals."""
    target: Any = fit.target
    if not (target.normalised or (up_to_a_constant and not target.proper)) or target.inputs or len(target.visible) != 1:
        return None
    if target.proper and weighed(target):
        return None
    (site,) = target.visible
    return site if site.kind == "reals" and site.size == size else None


def _pictured(fit: FittedParameters) -> Any:
    """The only visible site, where it is a picture and the program can be run forward."""
    target: Any = fit.target
    if not target.proper or target.inputs or len(target.visible) != 1:
        return None
    (site,) = target.visible
    return site if picture_shape(site.shape) and not is_tokens(fit, site.name) else None


def _drawn(fit: FittedParameters, count: int, seed: int, *known: np.ndarray) -> dict[str, np.ndarray] | None:
    """Draws given what is known of a point, where there is a way to draw forward; approximate ones go without their warning."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fit.condition(*known).sample(count, seed)
    except Incompatible:
        return None


def _tiles(pictures: np.ndarray, site: Any, across: int = ACROSS, words: Sequence[tuple[str, int]] = ()) -> Figure:
    shape = picture_shape(site.shape)
    assert shape is not None
    return tiles(pictures, shape, across, words)


PICTURES = (
    ("Density", "The density over a histogram of the data.", curve),
    ("Density", "Contours of the log density, down to 8 nats below its top; the data in red.", contours),
    ("New rows", "Rows of tokens drawn from the model, of a text as they read.", new_rows),
    ("New points", "Two lines of rows of the data, then two of points drawn from the model.", new_points),
    (
        "Interpolation",
        "Straight lines in the latent space between two rows each, which stand at the ends.",
        interpolations,
    ),
    ("Completions", "A row, its upper half, and four draws of what follows; three rows in a line.", completions),
)
