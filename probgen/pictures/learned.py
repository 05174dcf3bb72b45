"""Pictures of learning: the loss, the gap between data and model, filters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probgen.fitted import Fitted, FittedParameters
from probgen.pictures.style import BAD, COLOURS, INK, figure, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss(fit: Fitted) -> Figure | None:
    """The loss, and its running mean."""
    if "loss" not in fit.records:
        return None
    values = fit.records["loss"].mean(axis=0).astype(float)
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite) < 10:
        return None
    picture, (panel,) = grid(1, 1, 2.6)
    width = max(1, len(finite) // 100)
    blocks = values[finite][: len(finite) // width * width].reshape(-1, width).mean(axis=1)
    panel.plot(finite, values[finite], lw=0.3, alpha=0.5, color=COLOURS[0], rasterized=True, label="every step")
    panel.plot(finite[: len(blocks) * width : width] + width / 2, blocks, color=BAD, lw=1.4, label=f"mean of {width}")
    low, high = np.quantile(values[finite][len(finite) // 20 :], [0.001, 0.999])
    panel.set(xlabel="step", ylabel="loss, nats", ylim=(low - 0.1 * (high - low), high + 0.3 * (high - low)))
    panel.legend()
    return picture


def gap(fit: Fitted) -> Figure | None:
    """The gap at every step, but for the rarest."""
    if "gap" not in fit.records:
        return None
    values = fit.records["gap"][0].astype(float)
    picture, (panel,) = grid(1, 1, 2.2)
    panel.plot(values, lw=0.3, color=COLOURS[0], rasterized=True)
    low, high = np.nanquantile(values, [0.005, 0.995])
    panel.axhline(0, color=INK, lw=0.5)
    panel.set(xlabel="step", ylabel="nats", ylim=(low - 0.1 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9))
    return picture


def filters(fit: FittedParameters) -> Figure | None:
    """Up to 32 columns of the first matrix whose rows are the pixels of a square, of a visible site or of an input.

    The largest first; those of an input, such as one a class, in their order and with their numbers.
    """
    sizes = {v.size for v in fit.target.visible}
    inputs = {int(np.prod(np.shape(fit.target.data[k])[1:])) for k in fit.target.inputs}
    for value in fit.answer.values():
        side = round(len(value) ** 0.5) if value.ndim == 2 and len(value) in sizes | inputs else 0
        if side > 3 and side * side == len(value):
            break
    else:
        return None
    numbered = len(value) not in sizes
    order = (np.arange(value.shape[1]) if numbered else np.argsort(-np.linalg.norm(value, axis=0)))[:32]
    rows = -(-len(order) // 8)
    picture = figure(height=(1.1 if numbered else 0.9) * rows)
    limit = float(np.quantile(abs(value[:, order]), 0.99))
    for i, column in enumerate(order):
        panel = picture.add_subplot(rows, 8, i + 1)
        panel.imshow(value[:, column].reshape(side, side), cmap="RdBu_r", vmin=-limit, vmax=limit)
        panel.axis("off")
        if numbered:
            panel.set_title(str(column))
    return picture


PICTURES = (
    ("Loss", "What the learner watches, in nats a row; see its documentation.", loss),
    ("Gap", "Mean log weight of the data minus that of the model's own points, in nats: near zero at rest.", gap),
    ("Filters", "Columns of the largest weights, in the shape of a point; red is positive, blue negative.", filters),
)
