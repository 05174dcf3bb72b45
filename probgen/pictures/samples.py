"""New data as one picture: pictures side by side, points of the plane, numbers, or whole data sets behind the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from probgen.algorithm import Incompatible, Learner
from probgen.fitted import Fitted, FittedParameters
from probgen.pictures import sequences
from probgen.pictures.density import range_of
from probgen.pictures.style import BAD, COLOURS, grid, picture_shape, steps, tiles
from probgen.programs.completable import PartlyKnown
from probgen.target import Conditional

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SQUARE, MANY, MOST = 64, 1500, 16  # pictures, points, lines across
SETS = 60  # data sets behind the data


def drawn(fit: Fitted) -> Figure | str | None:
    """New data, as many as a picture of them shows."""
    try:
        if not isinstance(fit, FittedParameters):
            return of(fit, fit.sample(SQUARE))
        few = fit.simulate(SQUARE) if fit.target.inputs else fit.sample(SQUARE)
        if fit.target.proper and _site(fit, few) is None:
            few = fit.simulate(MANY)
    except (Incompatible, TypeError) as error:
        return str(error)
    return of(fit, few)


def of(fit: Fitted, new: Mapping[str, np.ndarray]) -> Figure | str:
    """New data of a fit, {site: (sample, *event)}, as a figure; or why there is none."""
    if not (isinstance(fit, FittedParameters) or _is_point(fit)) and fit.target.named("observed"):
        return _sets(fit, new)
    site = _site(fit, new)
    if site is not None:
        return side_by_side(new[site])
    for key in _shown(fit, new):
        if sequences.is_tokens(fit, key):
            return sequences.tokens(fit, new[key])
        size = new[key][0].size
        if size == 2:
            return _plane(fit, key, new[key].reshape(-1, 2))
        if size == 1:
            return _numbers(fit, key, new[key].ravel())
    told = ", ".join(f"{k} {v.shape[1:]}" for k, v in new.items())
    return f"a sample has {told}: neither a picture nor one or two numbers."


def _is_point(fit: Fitted) -> bool:
    """Whether the unknowns that were drawn are themselves data."""
    return isinstance(fit.target, Conditional | PartlyKnown)


def _shown(fit: Fitted, new: Mapping[str, np.ndarray]) -> list[str]:
    """The visible sites among what was drawn, the largest first; all where a point's unknowns were drawn."""
    visible = [v.name for v in fit.target.visible if v.name in new] if isinstance(fit, FittedParameters) else list(new)
    return sorted(visible, key=lambda k: -new[k][0].size)


def _site(fit: Fitted, new: Mapping[str, np.ndarray]) -> str | None:
    """The largest site whose values are pictures."""
    shown = (k for k in _shown(fit, new) if not sequences.is_tokens(fit, k))
    return next((k for k in shown if picture_shape(new[k].shape[1:])), None)


def side_by_side(pictures: np.ndarray) -> Figure:
    """Pictures (picture, *event) as a square, or in lines of sixteen."""
    shape = picture_shape(pictures.shape[1:])
    assert shape is not None
    across = min(MOST, int(np.ceil(len(pictures) ** 0.5)))
    empty = np.full((-len(pictures) % across, *pictures.shape[1:]), np.nan)
    return tiles(np.concatenate([pictures.astype(float), empty]), shape, across)


def _rows(fit: Fitted, key: str) -> np.ndarray | None:
    return fit.target.all_rows()[key] if isinstance(fit, FittedParameters) else None


def _plane(fit: Fitted, key: str, points: np.ndarray) -> Figure:
    rows = _rows(fit, key)
    picture, (panel,) = grid(1, 1, 4.2)
    if rows is not None:
        panel.plot(*rows.reshape(-1, 2)[:MANY].T, ".", ms=2, color=COLOURS[0], mec="none", alpha=0.4, label="data")
    panel.plot(*points.T, ".", ms=2.5, color=BAD, mec="none", alpha=0.7, label="samples")
    panel.set(aspect="equal", xlabel=f"{key}[0]", ylabel=f"{key}[1]")
    panel.legend(markerscale=3)
    return picture


def _numbers(fit: Fitted, key: str, values: np.ndarray) -> Figure:
    rows = _rows(fit, key)
    picture, (panel,) = grid(1, 1, 2.8)
    both = values if rows is None else np.concatenate([values, rows.ravel()])
    low, high = range_of(both.reshape(-1, 1).astype(float))[:, 0]
    edges = np.linspace(low, high, 41)
    if rows is not None:
        panel.hist(rows.ravel(), edges, density=True, color=COLOURS[0], alpha=0.35, label="data")
    panel.hist(values, edges, density=True, histtype="step", color=BAD, lw=1.4, label="samples")
    panel.set(xlabel=key)
    panel.legend()
    return picture


def _sets(fit: Fitted, new: Mapping[str, np.ndarray]) -> Figure | str:
    """Distribution functions of whole data sets, behind that of the data."""
    observed = fit.target.observed_values()
    return behind(new, observed, fit) or "the observed sites hold nothing to draw."


def behind(new: Mapping[str, np.ndarray], observed: Mapping[str, np.ndarray], fit: Fitted) -> Figure | None:
    """Distribution functions of a fit's new data sets, {site: (set, *event)}, behind those of the data; of at most four sites."""
    sites = [name for name in observed if name in new and np.size(observed[name])][:4]
    if not sites:
        return None
    picture, panels = grid(len(sites), min(2, len(sites)), 2.6)
    for name, panel in zip(sites, panels, strict=True):
        rows = np.asarray(new[name]).reshape(-1, np.size(observed[name]))[:SETS]
        for row in rows:
            steps(panel, row, color=COLOURS[0], lw=0.5, alpha=0.35, rasterized=True)
        steps(panel, np.ravel(observed[name]), color=BAD, lw=1.8, label="data")
        panel.set(xlabel=name, ylim=(0, 1), ylabel="share at or below")
        panel.plot(
            [],
            [],
            color=COLOURS[0],
            lw=0.8,
            label=f"{len(rows)} data {'set' if len(rows) == 1 else 'sets'} drawn {whence(fit)}",
        )
    panels[0].legend(loc="upper left")
    return picture


def whence(fit: Fitted) -> str:
    """Where data sets are drawn: only chains have draws of the posterior itself."""
    if not isinstance(fit.inference, Learner):
        return "from the posterior"
    return "from the guide" if "log_q" in fit.answer else "at the point"
