"""What was seen of a point, in the units of its denoiser: orthogonal combinations of length one, each with its noise.

Combinations that share numbers become such by singular vectors: with A = W U s V', W the noise's standard deviations,
U' W^-1 y is s V' x and a noise of one. What of y is noise alone, as where it has more numbers than x, has its density in `volume`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from probgen.data.whole_numbers import generator
from probgen.engine.combined import Told

EQUAL = 0.01  # the noise that stands for none, in the denoiser's units
ROUNDED = 12**-0.5  # the standard deviation of what rounding to whole numbers takes away
ROTATED = 2000  # combinations that share numbers are made orthogonal up to so many
LEAST = 1e-6  # of the largest singular value
Y, WIDTH, ROWS, GATHERED, VOLUME = OWN = tuple(f" own {w} value" for w in ("y", "width", "rows", "gathered", "volume"))
CALIBRATED = " calibrated {} value"
FULL, CROSSED = 8_000_000, 4_000_000  # numbers of covariances at all levels, up to which they are kept
SHRUNK, FLOOR = 0.1, 1e-5  # of covariances by rows: the share of their diagonal, at least, and the least variance
LEVELS, ASKED = 32, 500  # of noise, and rows
CELLS = 16_000_000  # numbers of rows at all levels
RIDGE = 1e-3  # of the variance of what is regressed on
CLEAN = 2.0, 5.0  # log SNR from which, and above which alone, a denoiser's own means count, by which the chain ends
FIELDS = ("log_snr", "gain", "slope", "offset", "missed")
OVERLAP = (
    "twisted_smc needs the directions of A, which are found for at most {} combinations that share numbers; got {}.\n"
    "Use inference='guided', or give fewer."
)


def measured(told: Told, low: np.ndarray, span: np.ndarray, whole: bool) -> dict[str, np.ndarray]:
    """By ending; low, span: what zero, and a step of one, are in the program's units: (size,)."""
    at = None if told.at is None else np.asarray(told.at)
    raw, y = (np.asarray(v, float) for v in (told.weights, told.y))
    weights = raw * (span if at is None else span[at])
    length = np.linalg.norm(weights, axis=1)
    y = (y - (raw * (low if at is None else low[at])).sum(-1)) / length
    if told.noise is not None:
        width = np.asarray(told.noise, float) / length
    else:
        width = ROUNDED * np.linalg.norm(raw, axis=1) / length if whole else np.full_like(y, EQUAL)
    rows, volume = weights / length[:, None], -np.log(length).sum()
    if at is not None and (told.apart or len(y) > ROTATED):
        return {Y: y, WIDTH: width, ROWS: rows, GATHERED: at, VOLUME: volume}
    if at is not None:
        rows = _whole(rows, at, len(span))
    return _rotated(y, width, rows, volume)


def _whole(rows: np.ndarray, at: np.ndarray, size: int) -> np.ndarray:
    found = np.zeros((len(rows), size))
    np.add.at(found, (np.arange(len(rows))[:, None], at), rows)
    return found


def _rotated(y: np.ndarray, width: np.ndarray, rows: np.ndarray, volume: Any) -> dict[str, np.ndarray]:
    turn, sizes, rows = np.linalg.svd(rows / width[:, None], full_matrices=False)
    sizes = np.maximum(sizes, LEAST * sizes[0])
    seen = turn.T @ (y / width)
    noise = np.sum((y / width) ** 2) - np.sum(seen**2) + (len(y) - len(seen)) * np.log(2 * np.pi)
    volume = volume - np.log(width).sum() - np.log(sizes).sum() - 0.5 * noise
    return {Y: seen / sizes, WIDTH: 1 / sizes, ROWS: rows, VOLUME: np.asarray(volume)}


# ---- what rows say of the denoiser, level by level of noise, and along what was seen: see `Calibration`


def picked(target: Any, seed: int) -> np.ndarray:
    """Indices of rows that are asked: (row,)."""
    (site,) = target.visible
    count = max(20, min(ASKED, CELLS // (LEVELS * site.size)))
    return generator(seed).integers(target.num_rows, size=count)


def regressed(log_snr: Any, x: Any, m: Any, z: Any) -> Any:
    """Gain, slope, offset of x on m and z by least squares, a share of them m's own, and what is left; arrays of any library.

    x, m, z: (row, *event); the first three: (*event).
    """
    share = ((log_snr - CLEAN[0]) / (CLEAN[1] - CLEAN[0])).clip(0.0, 1.0)
    a, b, c = (v - v.mean(0) for v in (x, m, z))
    over = lambda u, v: (u * v).mean(0)  # noqa: E731
    mm, zz, mz = over(b, b) * (1 + RIDGE) + 1e-12, over(c, c) * (1 + RIDGE) + 1e-12, over(b, c)
    xm, xz = over(a, b), over(a, c)
    full = (mm * zz - mz**2).clip(1e-6 * mm * zz)
    gain, slope = (xm * zz - xz * mz) / full, (xz * mm - xm * mz) / full
    offset = x.mean(0) - gain * m.mean(0) - slope * z.mean(0)
    gain, slope, offset = share + (1 - share) * gain, (1 - share) * slope, (1 - share) * offset
    return gain, slope, offset, x - gain * m - slope * z - offset


def calibrated(found: Mapping[str, np.ndarray], along: np.ndarray) -> dict[str, np.ndarray]:
    """By ending, of what `regressed` found at all levels; along: what is seen of what is left, (level, row, seen)."""
    missed = np.asarray(found["missed"], float)
    missed = missed.reshape(*missed.shape[:2], -1)
    kept = {k: found[k] for k in ("log_snr", "gain", "slope", "offset")}
    levels, count, size = missed.shape
    many = along.shape[2]
    if levels * many**2 > FULL:
        kept["spread"] = np.mean(along**2, 1) + FLOOR
    else:
        share = np.clip(many / (2 * count), SHRUNK, 0.9)
        spread = along.transpose(0, 2, 1) @ along / count
        own = np.eye(many) * (share * np.einsum("lii->li", spread)[..., None] + FLOOR)
        kept["spread"] = (1 - share) * spread + own
        if levels * many * size <= CROSSED:
            kept["cross"] = missed.transpose(0, 2, 1) @ along / count
    return {CALIBRATED.format(k): v for k, v in kept.items()}
