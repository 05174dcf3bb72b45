"""Pictures of a learned program with hidden sites: reconstructions, new points, lines and planes of codes, what is in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.fitted import FittedLatents
from probgen.pictures.style import COLOURS, INK, grid, picture_shape, tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ACROSS = 12


def reconstructions(fit: FittedLatents) -> Figure | None:
    """Rows in order, and below each its reconstruction."""
    shape, target = _shape(fit), fit.target
    if shape is None:
        return None
    keys = [*target.keywords, *target.inputs]
    rows: dict[str, Any] = {k: np.asarray(target.data[k])[:ACROSS] for k in keys}
    site = _picture(fit).name
    keyword = next(k for k, s in target.keywords.items() if s == site)
    told = fit.reconstruct(**rows)[site]
    words = (("data", 1), ("rebuilt", 1))
    return tiles(np.concatenate([rows[keyword].astype(float), told]), shape, len(told), words)


def new_points(fit: FittedLatents) -> Figure | None:
    """Three lines of them."""
    shape = _shape(fit)
    if shape is None or fit.target.inputs or not fit.target.proper:
        return None
    drawn = fit.sample(3 * ACROSS)
    means = fit.decode(**{v.name: drawn[v.name] for v in fit.target.hidden}, **_beside(fit, drawn))
    return tiles(means[_picture(fit).name], shape, ACROSS)


def manifold(fit: FittedLatents) -> Figure | None:
    """Where the hidden sites are one vector of two numbers with a standard normal prior."""
    from scipy.stats import norm

    shape, hidden = _shape(fit), fit.target.hidden
    if shape is None or len(hidden) != 1 or hidden[0].shape != (2,) or fit.target.inputs or len(fit.target.visible) > 1:
        return None
    line = norm.ppf((np.arange(ACROSS) + 0.5) / ACROSS)
    plane = np.stack(np.meshgrid(line, -line), -1).reshape(-1, 2)
    return tiles(fit.decode(**{hidden[0].name: plane})[_picture(fit).name], shape, ACROSS)


def traversals(fit: FittedLatents) -> Figure | None:
    """The six most active coordinates of a code one after the other, from two sds below its row's to two above."""
    shape, target = _shape(fit), fit.target
    reals = [v for v in target.hidden if v.kind == "reals"]
    if shape is None or not reals or sum(v.size for v in reals) < 3:
        return None
    keys = [*target.keywords, *target.inputs]
    rows: dict[str, Any] = {k: np.asarray(target.data[k])[:500] for k in keys}
    codes = fit.encode(**rows)
    spread = {v.name: codes[v.name].reshape(len(codes[v.name]), -1).std(0) for v in reals}
    order = sorted(((sd, name, i) for name, sds in spread.items() for i, sd in enumerate(sds)), reverse=True)
    lines = []
    for sd, name, i in order[:6]:
        line = {k: np.repeat(v[:1], ACROSS, 0) for k, v in codes.items()}
        line[name].reshape(ACROSS, -1)[:, i] += np.linspace(-2, 2, ACROSS) * sd
        lines.append(line)
    joined = {k: np.concatenate([line[k] for line in lines]) for k in codes}
    known = {k: rows[k] for k in target.inputs} | _beside(fit, {s: rows[k] for k, s in target.keywords.items()})
    known = {k: np.repeat(v[:1], len(lines) * ACROSS, 0) for k, v in known.items()}
    return tiles(fit.decode(**joined, **known)[_picture(fit).name], shape, ACROSS)


def interpolations(fit: FittedLatents) -> Figure | None:
    """Straight lines between the codes of four pairs of rows."""
    shape, target = _shape(fit), fit.target
    if shape is None or target.inputs or len(target.keywords) > 1:
        return None
    (keyword,) = target.keywords
    rows = np.asarray(target.data[keyword])[:8]
    if len(rows) < 2:
        return None
    pairs = zip(rows[::2], rows[1::2], strict=False)
    lines = [fit.interpolate(a, b, ACROSS)[_picture(fit).name] for a, b in pairs]
    return tiles(np.concatenate(lines), shape, ACROSS)


def activity(fit: FittedLatents) -> Figure | None:
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


def _beside(fit: FittedLatents, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of values by site those of the other visible sites than the picture, by keyword: a picture depends on its class."""
    return {k: values[site] for k, site in fit.target.keywords.items() if site != _picture(fit).name}


def _picture(fit: FittedLatents) -> Any:
    """The largest visible site."""
    return max(fit.target.visible, key=lambda v: v.size)


def _shape(fit: FittedLatents) -> tuple[int, ...] | None:
    """The shape of the largest visible site as a picture; None where it is none."""
    return picture_shape(_picture(fit).shape)


PICTURES = (
    ("Reconstructions", "Rows of the data, and below each what is made of its code.", reconstructions),
    ("New points", "Means of the visible site given draws of the hidden ones.", new_points),
    ("Manifold", "Means over the plane of the two latents, at even quantiles.", manifold),
    ("Interpolation", "Means along straight lines between the codes of two rows each.", interpolations),
    (
        "Traversals",
        "Means where one coordinate of a row's code goes from two sds below to two above: the most active six.",
        traversals,
    ),
    ("Activity", "Variance over rows of the guide's middle, by coordinate.", activity),
)
