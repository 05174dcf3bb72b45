"""Pictures of programs learned from their draws: draws beside rows, the critic's landscape, paths of noise, truncation, looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.fitted import FittedDenoiser, FittedImplicit, FittedParameters
from probgen.pictures.density import range_of
from probgen.pictures.style import BAD, COLOURS, figure, grid, picture_shape, tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ACROSS = 12
MOST = 1500  # points shown
CUTS = (0.3, 0.7, 1.2, None)  # truncation


def losses(fit: FittedParameters) -> Figure | None:
    """Of both players, means over a hundredth of the steps."""
    found = {k: fit.records[k][0].astype(float) for k in ("loss", "critic_loss") if k in fit.records}
    found = {k: v for k, v in found.items() if np.any(v) and len(v) >= 10}
    if not found:
        return None
    picture, panels = grid(len(found), len(found), 2.2)
    names = {"loss": "the program's", "critic_loss": "the critic's"}
    for panel, (name, values), colour in zip(panels, found.items(), COLOURS, strict=False):
        width = max(1, len(values) // 100)
        blocks = values[: len(values) // width * width].reshape(-1, width).mean(axis=1)
        panel.plot(width * (np.arange(len(blocks)) + 0.5), blocks, color=colour, lw=1.2)
        panel.set(xlabel="step", title=names[name])
    return picture


def looks(fit: FittedParameters) -> Figure | None:
    """The draws' distance from held-out rows, and what the critic tells right."""
    period = fit.inference.period
    if "distance" not in fit.records or not period or fit.num_steps < 2 * period:
        return None
    found = {k: fit.records[k][0, period - 1 :: period].astype(float) for k in ("distance", "last", "right", "slope")}
    steps = period * np.arange(1, len(found["distance"]) + 1)
    judged = bool(np.any(found["right"]))
    picture, panels = grid(3 if judged else 1, 3 if judged else 1, 2.3)
    panels[0].plot(steps, found["last"], color=COLOURS[0], lw=0.7, alpha=0.6, label="last parameters")
    panels[0].plot(steps, found["distance"], color=BAD, lw=1.3, label="their average")
    panels[0].set(xlabel="step", title="distance from the data", ylim=(0, None))
    panels[0].legend()
    if judged:
        panels[1].plot(steps, found["right"], color=COLOURS[0], lw=1)
        panels[1].axhline(0.5, color=BAD, lw=0.6)
        panels[1].set(xlabel="step", title="told right by the critic", ylim=(0.35, 1.02))
        panels[2].plot(steps, found["slope"], color=COLOURS[0], lw=1)
        panels[2].set(xlabel="step", title="its slope at rows", ylim=(0, None))
    return picture


def beside(fit: FittedParameters) -> Figure | None:
    """Of one number or two: rows, and as many draws, in the same axes."""
    site = _only(fit)
    if site is None or site.size > 2:
        return None
    rows, drawn = _rows(fit, site)[:MOST], fit.simulate(MOST)[site.name].reshape(MOST, -1)
    if site.size == 1:
        picture, (panel,) = grid(1, 1, 2.6)
        low, high = range_of(rows)[:, 0]
        edges = np.linspace(low, high, 61)
        panel.hist(rows[:, 0], edges, density=True, color=COLOURS[0], alpha=0.35, label="data")
        panel.hist(drawn[:, 0], edges, density=True, histtype="step", color=BAD, lw=1.4, label="draws")
        panel.set(xlabel=site.name)
        panel.legend()
        return picture
    picture, panels = grid(2, 2, 3.4)
    for panel, points, title, colour in zip(panels, (rows, drawn), ("data", "draws"), (COLOURS[0], BAD), strict=True):
        _dots(panel, points, colour)
        _limits(panel, rows, title)
    return picture


def landscape(fit: FittedParameters) -> Figure | None:
    """The critic's logits over the plane, less their median, with draws on them."""
    site = _only(fit)
    if site is None or site.size != 2 or fit.target.inputs:
        return None
    rows = _rows(fit, site)
    x, y = (np.linspace(low, high, 100) for low, high in range_of(rows).T)
    plane = np.stack(np.meshgrid(x, y), -1).reshape(-1, *site.shape)
    try:
        logits = fit.judge(plane)
    except Incompatible:
        return None
    if len(logits) != len(plane):  # of a critic of packs
        return None
    levels = (logits - np.median(logits)).reshape(100, 100)
    limit = max(float(np.quantile(abs(levels), 0.99)), 1e-6)
    picture = figure(height=3.6, width=5.2)
    panel = picture.add_subplot(1, 1, 1)
    shown = panel.contourf(x, y, levels, levels=np.linspace(-limit, limit, 21), cmap="RdBu", extend="both")
    ticks = np.linspace(-limit, limit, 5)
    picture.colorbar(shown, label="logit, less its median: high for data", ticks=ticks, format="%.2g")
    _dots(panel, fit.simulate(500)[site.name].reshape(500, 2), "#222222")
    _limits(panel, rows, "")
    return picture


def new_points(fit: FittedParameters) -> Figure | None:
    """Two lines of rows and four of draws; or a line of draws for every class."""
    site, shape = _pictured(fit)
    if site is None:
        return None
    kinds = _kinds(fit)
    if kinds is not None:
        given: dict[str, Any] = {kinds[0]: np.repeat(kinds[1], ACROSS)}
        drawn = fit.sample(ACROSS * len(kinds[1]), **given)
        return tiles(drawn[site.name], shape, ACROSS, [(str(kind), 1) for kind in kinds[1]])
    rows = np.resize(_rows(fit, site)[: 2 * ACROSS], (2 * ACROSS, site.size))
    drawn = fit.simulate(4 * ACROSS)[site.name].reshape(-1, site.size)
    return tiles(np.concatenate([rows, drawn]), shape, ACROSS, (("data", 2), ("draws", 4)))


def interpolations(fit: FittedImplicit) -> Figure | None:
    """Along great circles between two draws of noise: four lines of pictures, or curves in the plane."""
    site, shape = _pictured(fit)
    if not _free(fit) or (site is None and (_only(fit) is None or _only(fit).size != 2)):
        return None
    noise = _normal(fit)
    if not noise:
        return None
    drawn, count = fit.sample(8, seed=fit.seed + 11), ACROSS if site is not None else 200
    ends = [{k: drawn[k][i] for k in noise} for i in range(8)]
    lines = [fit.interpolate(a, b, count) for a, b in zip(ends[::2], ends[1::2], strict=True)]
    if site is not None:
        return tiles(np.concatenate([line[site.name].reshape(count, -1) for line in lines]), shape, ACROSS)
    only = _only(fit)
    picture = figure(height=3.6, width=4.6)
    panel = picture.add_subplot(1, 1, 1)
    rows = _rows(fit, only)
    _dots(panel, rows[:MOST], "#bbbbbb")
    for line, colour in zip(lines, COLOURS, strict=False):
        points = line[only.name].reshape(count, 2)
        panel.plot(*points.T, "-", lw=1.2, color=colour)
        panel.plot(*points[[0, -1]].T, "o", ms=4, color=colour)
    _limits(panel, rows, "")
    return picture


def truncations(fit: FittedImplicit) -> Figure | None:
    """Draws of noise within .3, .7, 1.2 and anywhere: a line of pictures each, or a panel each."""
    site, shape = _pictured(fit)
    if not _free(fit) or not _normal(fit) or (site is None and (_only(fit) is None or _only(fit).size != 2)):
        return None
    if site is not None:
        lines = [fit.sample(ACROSS, seed=fit.seed + 12, truncation=cut)[site.name] for cut in CUTS]
        words = [("all" if cut is None else f"|z| ≤ {cut:g}", 1) for cut in CUTS]
        return tiles(np.concatenate(lines), shape, ACROSS, words)
    only = _only(fit)
    rows = _rows(fit, only)
    picture, panels = grid(len(CUTS), len(CUTS), 2.0)
    for panel, cut in zip(panels, CUTS, strict=True):
        _dots(panel, fit.sample(700, seed=fit.seed + 12, truncation=cut)[only.name].reshape(700, 2), BAD)
        _limits(panel, rows, "all" if cut is None else f"|z| ≤ {cut:g}")
        panel.set(xticks=[], yticks=[])
    return picture


# ---- parts -------------------------------------------------------------------------------------------------------


def _only(fit: FittedParameters) -> Any:
    """The only visible site, where it holds numbers."""
    target: Any = fit.target
    return target.visible[0] if len(target.visible) == 1 and target.proper else None


def _pictured(fit: FittedParameters) -> tuple[Any, Any]:
    """The only visible site and its shape as a picture; None where it is none."""
    site = _only(fit)
    shape = None if site is None else picture_shape(site.shape)
    return (site, shape) if shape else (None, None)


def _free(fit: FittedParameters) -> bool:
    """Whether points are drawn without inputs."""
    return not fit.target.inputs


def _rows(fit: FittedParameters, site: Any) -> np.ndarray:
    return fit.target.all_rows()[site.name].reshape(-1, site.size)


def _kinds(fit: FittedParameters) -> tuple[str, np.ndarray] | None:
    """The only input and its values, where it is a class of at most twelve."""
    target: Any = fit.target
    if len(target.inputs) != 1 or not isinstance(fit, FittedImplicit | FittedDenoiser):
        return None
    values = np.asarray(target.data[target.inputs[0]])
    kinds = np.unique(values) if values.ndim == 1 and values.dtype.kind in "iub" else np.zeros(0)
    return (target.inputs[0], kinds) if 1 < len(kinds) <= ACROSS else None


def _normal(fit: FittedImplicit) -> list[str]:
    """The sites of standard normal noise."""
    return [k for k, (_, kind) in fit.noise.items() if kind == "standard normal"]


def _dots(panel: Any, points: np.ndarray, colour: str) -> None:
    panel.plot(*points.T, ".", ms=2, color=colour, mec="none", alpha=0.6, rasterized=True)


def _limits(panel: Any, rows: np.ndarray, title: str) -> None:
    (left, low), (right, high) = range_of(rows)
    panel.set(xlim=(left, right), ylim=(low, high), aspect="equal", title=title)


LEARNING = (
    ("Losses", "What each player minimises; neither says how near the draws are.", losses),
    (
        "Looks",
        "As learning went: the sliced Wasserstein distance of draws from held-out rows, in the data's unit; the share of rows and "
        "draws that the critic tells right, 0.5 where it cannot; the root mean square of its slope at rows.",
        looks,
    ),
)
PICTURES = (
    ("Draws", "Rows of the data and draws of the program.", beside),
    (
        "New points",
        "Two lines of rows, then draws; of a program of classes, a line of draws for each class.",
        new_points,
    ),
    ("Critic", "What the critic says over the plane, and draws: it pulls them from red to blue.", landscape),
    ("Interpolation", "Along great circles between two draws of noise.", interpolations),
    ("Truncation", "Noise drawn again until it lies within 0.3, 0.7 and 1.2, and all of it.", truncations),
)
