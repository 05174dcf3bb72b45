"""Pictures of diffusions between rows of two kinds: paths, and where they have come to by time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.data.whole_numbers import generator
from probgen.fitted import FittedBridge
from probgen.pictures.density import range_of
from probgen.pictures.style import BAD, COLOURS, figure, grid, picture_shape, tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PATHS, MOST = 30, 1000
LINES, STEPS = 4, 10  # of pictures, and times at which they are shown
TIMES = 0.0, 0.25, 0.5, 0.75, 1.0


def trajectories(fit: FittedBridge) -> Figure | None:
    """Of one number, paths by time; of the plane, paths on it; of pictures, a line each."""
    shape = fit.target.visible[0].shape
    size, pictured = int(np.prod(shape)), picture_shape(shape)
    if size > 2 and pictured is None:
        return None
    found = fit.trajectory(LINES if size > 2 else PATHS, seed=fit.seed + 13)
    times, z = found["times"], found["z"].reshape(*found["z"].shape[:2], -1)
    if size > 2:
        return tiles(z[:, _nearest(times, np.linspace(0, 1, STEPS))], pictured or (), STEPS)
    picture = figure(height=3.2 if size == 1 else 3.8, width=6.0 if size == 1 else 5.2)
    panel = picture.add_subplot(1, 1, 1)
    if size == 1:
        panel.plot(times, z[..., 0].T, "-", lw=0.7, color="#888888", alpha=0.8)
        for time, end, name, colour in _ends(fit, z):
            panel.plot(np.full(len(end), time), end[:, 0], ".", ms=5, color=colour, label=name)
        panel.set(xlabel="t")
    else:
        for _, rows, _, colour in _rows(fit):
            panel.plot(*rows.T, ".", ms=2, color=colour, alpha=0.25, mec="none", rasterized=True)
        for line in z:
            panel.plot(*line.T, "-", lw=0.6, color="#777777", alpha=0.8)
        for _, end, name, colour in _ends(fit, z):
            panel.plot(*end.T, ".", ms=6, color=colour, label=name)
        panel.set(aspect="equal")
    panel.legend()
    return picture


def marginals(fit: FittedBridge) -> Figure | None:
    """Of the plane: where rows of a have come to at five times, above; below, rows of b on the way back."""
    target: Any = fit.target
    if target.visible[0].size != 2:
        return None
    picture, panels = grid(2 * len(TIMES), len(TIMES), 1.7)
    rows = _rows(fit)
    (left, low), (right, high) = range_of(np.concatenate([x for _, x, _, _ in rows]))
    for line, (_, begin, name, colour) in enumerate(rows):
        given: dict[str, Any] = {name: begin.reshape(-1, *target.visible[0].shape)}
        found = fit.trajectory(seed=fit.seed + 14, **given)
        at = _nearest(found["times"], np.array(TIMES))
        for i, (panel, time) in enumerate(zip(panels[line * len(TIMES) :], at, strict=False)):
            points = found["z"][:, time].reshape(-1, 2)
            panel.plot(*points.T, ".", ms=1.5, color=colour, alpha=0.6, mec="none", rasterized=True)
            title = f"t = {TIMES[i]:g}" if line == 0 else ""
            panel.set(xlim=(left, right), ylim=(low, high), aspect="equal", title=title, xticks=[], yticks=[])
            if i == 0:
                panel.set(ylabel=f"from {name}")
    return picture


def _rows(fit: FittedBridge) -> list[tuple[float, np.ndarray, str, str]]:
    """Of both kinds the time, some rows (row, dim), the name and the colour."""
    target = fit.target
    rng, found = generator(fit.seed), []
    for time, name, colour in ((0.0, target.given, COLOURS[0]), (1.0, target.made, BAD)):
        rows = np.asarray(target.data[name], float)
        found.append((time, rows[rng.permutation(len(rows))[:MOST]].reshape(min(MOST, len(rows)), -1), name, colour))
    return found


def _ends(fit: FittedBridge, z: np.ndarray) -> list[tuple[float, np.ndarray, str, str]]:
    """Where paths (row, time, dim) begin and end."""
    target = fit.target
    return [(0.0, z[:, 0], target.given, COLOURS[0]), (1.0, z[:, -1], f"{target.made}, as drawn", BAD)]


def _nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return abs(np.asarray(times)[:, None] - wanted).argmin(0)


PICTURES = (
    (
        "Trajectories",
        "Paths of the diffusion from rows, on the left or in blue, to what becomes of them.",
        trajectories,
    ),
    (
        "On the way",
        "Where rows have come to, by time: above from the first kind, below those of the second on their way back.",
        marginals,
    ),
)
