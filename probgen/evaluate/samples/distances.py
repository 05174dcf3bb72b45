"""Distances of laws and of samples in few dimensions, each by its full name: TV, KL, JS, W, and entropic transport.

Of densities by the midpoint rule on a grid; of normals in closed form; of samples in one dimension by sorting. Transport costs go
by several names, which differ by factors: here `wasserstein` is the root W_p, `transport_cost` the power W_p^p, `entropic_cost`
the cost <P, C> of the entropic plan, `entropic_objective` the same plus epsilon KL(P | a b'), and `sinkhorn_divergence` the
debiased objective. Tables, histograms and assignment in more dimensions are in `probgen.evaluate.two_sample`.
Villani 2009; Feydy et al. 2019 (arXiv:1810.08278).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp, ndtr, xlogy

from probgen.evaluate import two_sample
from probgen.evaluate.samples.rows import pair

MASS = 1e-3  # of a density, that may lie outside its grid


class Distance(NamedTuple):
    """A number and what it is: "W_2 (root)", "W_2^2 (power)", ..."""

    value: float
    kind: str


# ---- densities ---------------------------------------------------------------------------------------------------


def of_densities(
    log_p: Callable[[Any], Any], log_q: Callable[[Any], Any], low: Any, high: Any, num: int = 2000
) -> dict:
    """TV, KL(p | q), KL(q | p) and JS of two densities by the midpoint rule, and W_1 in one dimension; nats, by name.

    log_p, log_q: (point, dim) -> (point,), or (point,) -> (point,) where low and high are numbers. num: points of each side.
    ValueError where the mass of either in the box is not 1 within 0.001.
    """
    low, high = np.atleast_1d(np.asarray(low, float)), np.atleast_1d(np.asarray(high, float))
    if len(low) != len(high) or len(low) > 3 or not (low < high).all():
        raise ValueError(f"low is {low} and high {high}; expected one to three of each, low < high.")
    step = (high - low) / num
    sides = [a + h * (np.arange(num) + 0.5) for a, h in zip(low, step, strict=True)]
    grid = sides[0] if len(low) == 1 else np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, len(low))
    logs = [np.asarray(f(grid), float).reshape(-1) for f in (log_p, log_q)]
    for name, log in zip(("p", "q"), logs, strict=True):
        mass = np.exp(log).sum() * step.prod()
        if not abs(mass - 1) < MASS:
            raise ValueError(
                f"The mass of {name} in the box is {mass:.4f}; it must be 1. Try a wider box or more points."
            )
    masses = [np.exp(log - logsumexp(log)) for log in logs]
    kind = f"midpoint rule on {num}^{len(low)} points"
    found = {
        "tv": Distance(two_sample.total_variation(*masses), kind),
        "kl": Distance(_kl_of(*masses, *logs), kind),
        "kl_reversed": Distance(_kl_of(*masses[::-1], *logs[::-1]), kind),
        "js": Distance(two_sample.js(*masses), kind),
    }
    if len(low) == 1:
        found["w1"] = Distance(float(abs(np.cumsum(masses[0] - masses[1])).sum() * step[0]), f"W_1, {kind}")
    return found


def _kl_of(p: np.ndarray, q: np.ndarray, log_p: np.ndarray, log_q: np.ndarray) -> float:
    """KL from masses and log densities, which say more than masses where those are too small for floats."""
    on = p > 0
    if np.isneginf(log_q[on]).any():
        return np.inf
    return float(p[on] @ ((log_p - logsumexp(log_p)) - (log_q - logsumexp(log_q)))[on])


# ---- closed forms ------------------------------------------------------------------------------------------------


def of_normals(mean: float, sd: float, other_mean: float, other_sd: float) -> dict[str, Distance]:
    """TV, KL both ways, W_1 and W_2 (roots) of two normals on the line, in closed form; JS by quadrature: it has none."""
    from scipy.integrate import quad

    if not (sd > 0 and other_sd > 0):
        raise ValueError(f"sd is {sd} and other_sd {other_sd}; expected both above 0.")
    shift, exact = other_mean - mean, "closed form"
    kl = lambda a, b: np.log(b / a) + (a**2 + shift**2) / (2 * b**2) - 0.5  # noqa: E731
    log = lambda x, m, s: -0.5 * ((x - m) / s) ** 2 - np.log(s) - 0.5 * np.log(2 * np.pi)  # noqa: E731

    def js(x: float) -> float:
        p, q = np.exp(log(x, mean, sd)), np.exp(log(x, other_mean, other_sd))
        middle = (p + q) / 2
        return float(0.5 * (xlogy(p, p) + xlogy(q, q)) - xlogy(middle, middle))

    reach = 12 * max(sd, other_sd)
    low, high = min(mean, other_mean) - reach, max(mean, other_mean) + reach
    cuts = [c + k * s for c, s in ((mean, sd), (other_mean, other_sd)) for k in (-3, 0, 3)]
    return {
        "tv": Distance(_tv_of_normals(mean, sd, other_mean, other_sd), exact),
        "kl": Distance(float(kl(sd, other_sd)), exact),
        "kl_reversed": Distance(float(kl(other_sd, sd)), exact),
        "js": Distance(float(quad(js, low, high, points=cuts, limit=400)[0]), "quadrature"),
        "w1": Distance(_folded_mean(shift, other_sd - sd), f"W_1, {exact}"),
        "w2": Distance(float(np.hypot(shift, other_sd - sd)), f"W_2 (root), {exact}"),
    }


def _folded_mean(shift: float, spread: float) -> float:
    """E|shift + spread Z|, which is W_1: the quantile functions differ by shift + spread z."""
    spread = abs(spread)
    if spread == 0:
        return float(abs(shift))
    at = shift / spread
    return float(spread * np.sqrt(2 / np.pi) * np.exp(-(at**2) / 2) + shift * (2 * ndtr(at) - 1))


def _tv_of_normals(mean: float, sd: float, other_mean: float, other_sd: float) -> float:
    """By where the densities cross: once for equal sd, else twice."""
    if sd == other_sd:
        return float(2 * ndtr(abs(other_mean - mean) / (2 * sd)) - 1)
    a, b = 1 / sd**2 - 1 / other_sd**2, mean / sd**2 - other_mean / other_sd**2
    c = (mean / sd) ** 2 - (other_mean / other_sd) ** 2 + 2 * np.log(sd / other_sd)
    root = np.sqrt(b * b - a * c)
    first, second = sorted(((b - root) / a, (b + root) / a))
    within = lambda m, s: ndtr((second - m) / s) - ndtr((first - m) / s)  # noqa: E731
    return float(abs(within(mean, sd) - within(other_mean, other_sd)))


# ---- samples -----------------------------------------------------------------------------------------------------


def wasserstein(x: Any, y: Any, p: float = 1) -> Distance:
    """W_p (the root) of two samples: by sorting on the line, for any numbers of rows; by assignment in more dimensions."""
    x, y = pair(x, y, 1)
    return Distance(two_sample.wasserstein(x, y, p), f"W_{p:g} (root), exact")


def transport_cost(x: Any, y: Any, p: float = 2) -> Distance:
    """W_p^p (the power), the least mean |x - y|^p of a coupling."""
    return Distance(wasserstein(x, y, p).value ** p, f"W_{p:g}^{p:g} (power), exact")


def entropic_cost(x: Any, y: Any, epsilon: float, p: float = 2, tolerance: float = 1e-6) -> Distance:
    """<P, C>, C = |x - y|^p, of the plan that minimises <P, C> + epsilon KL(P | a b'): above the exact cost, not zero for x = y."""
    cost, plan, _ = _plan(*pair(x, y, 1), epsilon, p, tolerance)
    return Distance(float((plan * cost).sum()), f"<P, C> of the entropic plan, epsilon {epsilon:g}, cost |x - y|^{p:g}")


def entropic_objective(x: Any, y: Any, epsilon: float, p: float = 2, tolerance: float = 1e-6) -> Distance:
    """The least <P, C> + epsilon KL(P | a b'), C = |x - y|^p; not zero for x = y."""
    value = _plan(*pair(x, y, 1), epsilon, p, tolerance)[2]
    return Distance(value, f"<P, C> + epsilon KL(P | ab'), epsilon {epsilon:g}, cost |x - y|^{p:g}")


def sinkhorn_divergence(x: Any, y: Any, epsilon: float, p: float = 2, tolerance: float = 1e-6) -> Distance:
    """The objective of x, y less half those of x, x and y, y: zero for x = y, never below 0; W_p^p as epsilon goes to 0."""
    x, y = pair(x, y, 1)
    xy, xx, yy = (_plan(a, b, epsilon, p, tolerance)[2] for a, b in ((x, y), (x, x), (y, y)))
    return Distance(xy - 0.5 * (xx + yy), f"Sinkhorn divergence (debiased), epsilon {epsilon:g}, cost |x - y|^{p:g}")


def _plan(
    x: np.ndarray, y: np.ndarray, epsilon: float, p: float, tolerance: float, most: int = 5000
) -> tuple[np.ndarray, np.ndarray, float]:
    """Cost matrix, entropic plan and objective of samples of equal weights, by Sinkhorn's steps on logs, epsilon coming down.

    tolerance: of the plan's marginals, in total variation. ValueError where it is not reached in `most` steps.
    """
    from scipy.spatial.distance import cdist

    if not epsilon > 0 or len(x) * len(y) > 25_000_000:
        raise ValueError(
            f"epsilon is {epsilon}, rows {len(x)} and {len(y)}; expected epsilon > 0 and up to 5000 rows of each."
        )
    cost = cdist(x, y) ** p
    f, g, same = np.zeros(len(x)), np.zeros(len(y)), x.shape == y.shape and np.array_equal(x, y)
    now, off, steps = max(float(cost.max()), epsilon), np.inf, 0
    while now > epsilon or off > tolerance:
        now, steps = max(now / 1.5, epsilon), steps + 1
        g = _softly(cost.T, f, now)
        new = _softly(cost, g, now)
        off = 0.5 * abs(np.expm1((f - new) / now)).mean() if now == epsilon else np.inf
        f = (new + g) / 2 if same else new  # of a set and itself both are one potential, and half steps settle at once
        if steps > most:
            raise ValueError(
                f"Sinkhorn's steps have not settled after {most}: marginals are off by {off:.1e}, tolerance={tolerance:g}.\n"
                f"epsilon={epsilon:g} is small for costs up to {cost.max():.3g}: raise epsilon or tolerance."
            )
    plan = np.exp((f[:, None] + g - cost) / epsilon) / (len(x) * len(y))
    return cost, plan, float(f.mean() + g.mean() - epsilon * (plan.sum() - 1))


def _softly(cost: np.ndarray, other: np.ndarray, epsilon: float) -> np.ndarray:
    """The potential of one side given the other's, at which its marginal is right."""
    return -epsilon * (logsumexp((other - cost) / epsilon, axis=1) - np.log(len(other)))
