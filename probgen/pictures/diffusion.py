"""Pictures of diffusion models: errors by level of noise, how points come out of noise, the density of the flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.fitted import FittedDenoiser
from probgen.pictures import implicit
from probgen.pictures.density import range_of
from probgen.pictures.style import BAD, COLOURS, INK, figure, grid, picture_shape, tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PATHS = 40  # of points in the plane
LINES, STEPS = 4, 10  # of pictures, and times at which they are shown
SIDE = 60  # points of a grid, along each axis


def levels(fit: FittedDenoiser) -> Figure | None:
    """The network's error, and what a level adds to -log p(x), by log sigma / alpha."""
    try:
        found = fit.losses(20)
    except Incompatible:
        return None
    picture, (left, right) = grid(2, 2, 2.6)
    ratio = found["log_ratio"]
    left.errorbar(ratio, found["error"], 2 * found["stderr"], fmt=".-", color=COLOURS[0], lw=1.2, capsize=2)
    left.axhline(1, color=INK, lw=0.6)
    top = float(np.nanmax(np.clip(found["error"], 0, 2)))
    left.set(xlabel="log sigma / alpha", ylabel="error, linear denoiser = 1", ylim=(0, 1.1 * max(top, 1.0)))
    right.bar(ratio, found["nats"], width=0.8 * float(np.median(np.diff(ratio))), color=COLOURS[0])
    right.set(xlabel="log sigma / alpha", ylabel="nats a coordinate", yscale="log")
    right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.yaxis.set_minor_formatter(lambda value, _: "")
    return picture


def schedule(fit: FittedDenoiser) -> Figure | None:
    """What is left of a point, and the noise, by time."""
    try:
        found = fit.schedule()
    except Incompatible:
        return None
    picture, (panel,) = grid(1, 1, 2.4)
    panel.plot(found["times"], found["alpha"], color=COLOURS[0], label="alpha")
    panel.plot(found["times"], found["sigma"], color=BAD, label="sigma")
    panel.set(xlabel="t")
    if found["sigma"].max() > 20 * found["alpha"].max():
        panel.set(yscale="log")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.yaxis.set_minor_formatter(lambda value, _: "")
    panel.legend()
    return picture


def trajectories(fit: FittedDenoiser) -> Figure | None:
    """Of the plane, paths from noise to points; of pictures, a line each, from noise on the left."""
    if fit.target.inputs or len(fit.target.visible) != 1:
        return None
    site: Any = fit.target.visible[0]
    shape = picture_shape(site.shape)
    if site.size != 2 and shape is None:
        return None
    try:
        path = fit.trajectory(LINES if shape else PATHS, num_steps=50)
    except Incompatible:
        return None
    z = np.asarray(path["z"], float)
    if shape:
        at = np.linspace(0, z.shape[1] - 1, STEPS).round().astype(int)
        shown = np.clip(z[:, at].reshape(LINES * STEPS, -1), -3, 3)
        return tiles(shown, shape, STEPS)
    picture = figure(height=3.6, width=4.6)
    panel = picture.add_subplot(1, 1, 1)
    z = z.reshape(*z.shape[:2], 2)
    for line in z:
        panel.plot(*line.T, "-", lw=0.6, color="#888888", alpha=0.7)
    panel.plot(*z[:, 0].T, ".", ms=4, color=COLOURS[0], label="noise")
    panel.plot(*z[:, -1].T, ".", ms=4, color=BAD, label="points")
    panel.legend()
    panel.set(aspect="equal")
    return picture


def contours(fit: FittedDenoiser) -> Figure | None:
    """Contours of the flow's log density over the plane."""
    target: Any = fit.target
    if target.inputs or len(target.visible) != 1 or target.visible[0].size != 2 or target.visible[0].kind != "reals":
        return None
    site = target.visible[0]
    rows = target.all_rows()[site.name].reshape(-1, 2)
    x, y = (np.linspace(low, high, SIDE) for low, high in range_of(rows).T)
    plane = np.stack(np.meshgrid(x, y), -1).reshape(-1, *site.shape)
    try:
        log_p = np.asarray(fit.log_prob(plane, method="ode").value).reshape(SIDE, SIDE)
    except Incompatible:  # of jumps
        return None
    picture = figure(height=3.6, width=5.2)
    panel = picture.add_subplot(1, 1, 1)
    top = np.nanmax(log_p)
    drawn = panel.contourf(x, y, log_p, levels=np.linspace(top - 8, top, 9), cmap="Blues", extend="min")
    picture.colorbar(drawn, label="log density, nats")
    panel.plot(*rows[:500].T, ".", ms=2, color=BAD, mec="none", alpha=0.6, rasterized=True)
    panel.set(aspect="equal")
    return picture


PICTURES = (
    *implicit.PICTURES[:2],
    ("Trajectories", "From noise to points, as the denoiser sees them, by DDIM in 50 evaluations.", trajectories),
    (
        "Levels of noise",
        "The mean square error of x beside that of the best linear denoiser of independent coordinates, and what a level adds to "
        "-log p(x), on held-out rows.",
        levels,
    ),
    ("Density", "Contours of the flow's log density, down to 8 nats below its top; the data in red.", contours),
    ("Schedule", "What is left of a point, alpha, and the noise, sigma, by time.", schedule),
)
