"""Densities against data: the probability integral transform, and log densities as bits a dimension.

    u = F(x):   uniform on [0, 1] where x comes from the density with distribution function F

Kolmogorov 1933; Rosenblatt 1952 (doi:10.1214/aoms/1177729394); Theis, van den Oord and Bethge 2016 (arXiv:1511.01844).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Transform(NamedTuple):
    """The transform u (row,) of rows, its largest distance from uniform (Kolmogorov and Smirnov's statistic), and the p-value."""

    u: np.ndarray
    statistic: float
    p_value: float
    kind: str


class Bits(NamedTuple):
    """Bits a dimension, their standard error over rows, and what they are of."""

    value: float
    stderr: float
    kind: str


def transform(x: Any, log_prob: Callable[[Any], Any], low: float, high: float, num: int = 4001) -> Transform:
    """The probability integral transform of numbers x (row,), F by quadrature of the density over [low, high].

    log_prob: (point,) -> (point,), in nats. Raises ValueError where x leaves the interval, or the density's mass in it is not 1
    within 0.001: the interval is too small, the grid too coarse, or the density not normalised.
    """
    from scipy.integrate import cumulative_simpson
    from scipy.interpolate import CubicHermiteSpline
    from scipy.stats import kstest

    x = _numbers("x", x)
    if x.min() < low or x.max() > high:
        raise ValueError(f"x lies in [{x.min():g}, {x.max():g}]; low={low:g} and high={high:g} leave some of it out.")
    grid = np.linspace(low, high, num)
    density = np.exp(np.asarray(log_prob(grid), float))
    mass = cumulative_simpson(density, x=grid, initial=0.0)
    if not abs(mass[-1] - 1) < 1e-3:
        raise ValueError(
            f"The density's mass in [{low:g}, {high:g}] is {mass[-1]:.4f} by quadrature; it must be 1.\n"
            f"Try wider limits, more points than num={num}, or a density that is normalised."
        )
    u = np.clip(CubicHermiteSpline(grid, mass, density)(x), 0, 1)
    found = kstest(u, "uniform")
    return Transform(u, float(found.statistic), float(found.pvalue), f"quadrature on {num} points")


def transform_by_draws(x: Any, draws: Any) -> Transform:
    """The same with F from independent draws of the density: u the share of the draws below x, ties counted half.

    The statistic and its p-value are of the two-sample test, which allows for the noise of the draws.
    """
    from scipy.stats import ks_2samp

    x, draws = _numbers("x", x), np.sort(_numbers("draws", draws))
    u = 0.5 * (np.searchsorted(draws, x, "left") + np.searchsorted(draws, x, "right")) / len(draws)
    found: Any = ks_2samp(x, draws)
    return Transform(u, float(found.statistic), float(found.pvalue), f"{len(draws)} draws")


def bits_per_dim(nats: Any, dim: int, levels: int = 0) -> Bits:
    """Minus log p of rows as bits a dimension, -log p / (dim log 2) + log2 levels; smaller is better.

    nats: log p of each row (row,), or their mean.
    levels: 0 for the probability of discrete data. Else log p is a density of points (level + u) / levels in [0, 1]^dim, with u
        uniform on [0, 1): on average an upper bound of the bits a dimension of the discrete data.
    """
    if dim < 1 or levels < 0:
        raise ValueError(f"dim is {dim} and levels {levels}; expected dim of 1 or more, and levels of 0 or more.")
    nats = np.asarray(nats, float).ravel()
    bits = -nats / (dim * np.log(2)) + (np.log2(levels) if levels else 0.0)
    error = bits.std(ddof=1) / np.sqrt(len(bits)) if len(bits) > 1 else np.nan
    kind = (
        f"upper bound, by uniform dequantisation of {levels} levels" if levels else "discrete data, no dequantisation"
    )
    return Bits(float(bits.mean()), float(error), kind)


def _numbers(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values, float)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{name} has shape {array.shape}; expected finite numbers in one dimension: (row,).")
    return array
