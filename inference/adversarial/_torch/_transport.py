"""The Sinkhorn divergence in torch: the steps, the rule for their end and the slope of ott-jax's `sinkhorn_divergence`.

    f = -eps log mean_j exp((g_j - C_ij) / eps),  g the same of f;  of points with themselves half a step, f = g (Feydy et al. 2019)
    OT = mean f + mean g - eps (sum P - 1),  P_ij = exp((f_i + g_j - C_ij) / eps) / (n m)

At rest the potentials are at the maximum of OT, so that its slope in the points is that at fixed potentials.
"""

from __future__ import annotations

import math

import torch

THRESHOLD, LOOK = 1e-3, 10  # of the marginals' error, summed over points; steps between two looks at it


def divergence(x: torch.Tensor, y: torch.Tensor, epsilon: torch.Tensor, most: int) -> torch.Tensor:
    """The Sinkhorn divergence of points (row, coordinate): (); epsilon: weight of the entropy; most: steps of one transport."""
    cost = lambda a, b: (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T  # noqa: E731
    between, within = _transport(cost(x, y), epsilon, most, False), 0.0
    for points in (x, y):
        within = within + _transport(cost(points, points), epsilon, most, True)
    return between - 0.5 * within


def _transport(cost: torch.Tensor, epsilon: torch.Tensor, most: int, itself: bool) -> torch.Tensor:
    """The entropic cost, by fixed potentials; itself: of points with themselves."""
    with torch.no_grad():
        f, g = _potentials(cost, epsilon, most, itself)
    plan = ((f[:, None] + g - cost) / epsilon).exp().sum() / cost.numel()
    return f.mean() + g.mean() - epsilon * (plan - 1)


def _potentials(
    cost: torch.Tensor, epsilon: torch.Tensor, most: int, itself: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    f, g = cost.new_zeros(cost.shape[0]), cost.new_zeros(cost.shape[1])
    for i in range(1, most + 1):
        if itself:
            f = g = 0.5 * (f + _softly(cost, f, epsilon))
        else:
            g = _softly(cost.T, f, epsilon)
            f = _softly(cost, g, epsilon)
        if i % LOOK == 0:
            off = ((g - _softly(cost.T, f, epsilon)) / epsilon).expm1().abs().mean()
            if not (2 * off if itself else off) >= THRESHOLD:  # NaN as well
                break
    return f, g


def _softly(cost: torch.Tensor, other: torch.Tensor, epsilon: torch.Tensor) -> torch.Tensor:
    """The potential of one side given the other's, at which its marginal is right: (row,)."""
    return -epsilon * (((other - cost) / epsilon).logsumexp(1) - math.log(len(other)))
