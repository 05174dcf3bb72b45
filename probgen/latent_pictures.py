"""Pictures of a learned program with hidden sites: reconstructions, new points, lines and planes of codes, what is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.report import COLOURS, INK, figure, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from probgen.latent import LatentFit

ACROSS = 12


def reconstructions(fit: LatentFit) -> Figure | None:
    """Rows in order, and below each its reconstruction."""
    shape, target = _shape(fit), fit.target
    if shape is None:
        return None
    keys = [*target.keywords, *target.inputs]  # type: ignore[attr-defined]
    rows = {k: np.asarray(target.data[k])[:ACROSS] for k in keys}
    site = _picture(fit).name
    keyword = next(k for k, s in target.keywords.items() if s == site)  # type: ignore[attr-defined]
    told = fit.reconstruct(**rows)[site]
    return _tiles(np.concatenate([rows[keyword].astype(float), told]), shape, across=len(told))


def new_points(fit: LatentFit) -> Figure | None:
    """Three lines of them."""
    shape = _shape(fit)
    if shape is None or fit.target.inputs or not fit.target.proper:  # type: ignore[attr-defined]
        return None
    drawn = fit.sample(3 * ACROSS)
    means = fit.decode(**{v.name: drawn[v.name] for v in fit.target.hidden})  # type: ignore[attr-defined]
    return _tiles(means[_picture(fit).name], shape)


def manifold(fit: LatentFit) -> Figure | None:
    """Where the hidden sites are one vector of two numbers with a standard normal prior."""
    from scipy.stats import norm

    shape, hidden = _shape(fit), fit.target.hidden  # type: ignore[attr-defined]
    if shape is None or len(hidden) != 1 or hidden[0].shape != (2,) or fit.target.inputs:  # type: ignore[attr-defined]
        return None
    line = norm.ppf((np.arange(ACROSS) + 0.5) / ACROSS)
    plane = np.stack(np.meshgrid(line, -line), -1).reshape(-1, 2)
    return _tiles(fit.decode(**{hidden[0].name: plane})[_picture(fit).name], shape)


def traversals(fit: LatentFit) -> Figure | None:
    """The six most active coordinates of a code one after the other, from two sds below its row's to two above."""
    shape, target = _shape(fit), fit.target
    reals = [v for v in target.hidden if v.kind == "reals"]  # type: ignore[attr-defined]
    if shape is None or not reals or sum(v.size for v in reals) < 3:
        return None
    keys = [*target.keywords, *target.inputs]  # type: ignore[attr-defined]
    rows = {k: np.asarray(target.data[k])[:500] for k in keys}
    codes = fit.encode(**rows)
    spread = {v.name: codes[v.name].reshape(len(codes[v.name]), -1).std(0) for v in reals}
    order = sorted(((sd, name, i) for name, sds in spread.items() for i, sd in enumerate(sds)), reverse=True)
    lines = []
    for sd, name, i in order[:6]:
        line = {k: np.repeat(v[:1], ACROSS, 0) for k, v in codes.items()}
        line[name].reshape(ACROSS, -1)[:, i] += np.linspace(-2, 2, ACROSS) * sd
        lines.append(line)
    joined = {k: np.concatenate([line[k] for line in lines]) for k in codes}
    inputs = {k: np.repeat(rows[k][:1], len(lines) * ACROSS, 0) for k in target.inputs}  # type: ignore[attr-defined]
    return _tiles(fit.decode(**joined, **inputs)[_picture(fit).name], shape)


def interpolations(fit: LatentFit) -> Figure | None:
    """Straight lines between the codes of four pairs of rows."""
    shape, target = _shape(fit), fit.target
    if shape is None or target.inputs or len(target.keywords) > 1:  # type: ignore[attr-defined]
        return None
    (keyword,) = target.keywords  # type: ignore[attr-defined]
    rows = np.asarray(target.data[keyword])[:8]
    if len(rows) < 2:
        return None
    pairs = zip(rows[::2], rows[1::2], strict=False)
    return _tiles(np.concatenate([fit.interpolate(a, b, ACROSS)[_picture(fit).name] for a, b in pairs]), shape)


def activity(fit: LatentFit) -> Figure | None:
    """The bar above which a coordinate is in use is drawn; None where no hidden site holds reals."""
    found = fit.activity()
    if not found:
        return None
    picture, panels = grid(len(found), len(found), 2.0)
    for i, (panel, (name, values)) in enumerate(zip(panels, found.items(), strict=True)):
        panel.bar(np.arange(values.size), np.sort(values.ravel())[::-1], color=COLOURS[i % len(COLOURS)])
        panel.axhline(0.01, color=INK, lw=0.5)
        panel.set(title=name, xlabel="coordinate, the most active first", ylabel="variance" if i == 0 else "")
    return picture


def _picture(fit: LatentFit) -> Any:
    """The largest visible site."""
    return max(fit.target.visible, key=lambda v: v.size)  # type: ignore[attr-defined]


def _shape(fit: LatentFit) -> tuple[int, int] | None:
    """Height and width of the largest visible site as a picture; None where it is none."""
    shape = tuple(n for n in _picture(fit).shape if n > 1)
    side = round(shape[0] ** 0.5) if len(shape) == 1 else 0
    if len(shape) == 2:
        return shape
    return (side, side) if side > 3 and side * side == shape[0] else None


def _tiles(pictures: Any, shape: tuple[int, int], across: int = ACROSS) -> Figure:
    """Pictures (picture, *event) side by side, so many in a line."""
    lines = len(pictures) // across
    joined = np.asarray(pictures, float).reshape(lines, across, *shape)
    joined = np.pad(joined, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    canvas = joined.transpose(0, 2, 1, 3).reshape(lines * (shape[0] + 1), -1)
    drawn = figure(height=7.2 * canvas.shape[0] / canvas.shape[1])
    panel = drawn.add_subplot(1, 1, 1)
    panel.imshow(canvas, cmap="gray_r", interpolation="nearest")
    panel.axis("off")
    return drawn
