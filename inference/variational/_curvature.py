"""An estimate of the inverse of the negative Hessian, from the steps of a climb: a matrix, or the last steps of many unknowns.

    H <- H + (1 + y' H y / s'y) s s' / s'y - (H y s' + s y' H) / s'y,   s: step, y: change of the negative gradient

A matrix is (dim, dim). Beyond LARGEST unknowns the last MEMORY pairs (s, y) stand for it, (2, MEMORY, dim), zeros where there is
none yet. Nocedal and Wright 2006, "Numerical Optimization", (6.17) and algorithm 7.4.
"""

from __future__ import annotations

from typing import Any

LARGEST, MEMORY = 1000, 20


def begun(xp: Any, diagonal: Any, whole: bool) -> Any:
    """The estimate with this diagonal, (dim,); of many unknowns one that has seen no step, unless the whole matrix is wanted."""
    dim = len(diagonal)
    return xp.diag(diagonal) if whole or dim <= LARGEST else xp.zeros((2, MEMORY, dim), diagonal.dtype)


def steepest(xp: Any, gradient: Any, whole: bool) -> Any:
    """The estimate that makes the first step one of length below 1 along the gradient."""
    return begun(xp, xp.ones(len(gradient), gradient.dtype) / (1 + xp.sqrt(gradient @ gradient)), whole)


def times(ops: Any, inverse: Any, gradient: Any) -> Any:
    """The estimate times a vector: (dim,) -> (dim,)."""
    return inverse @ gradient if inverse.ndim == 2 else _two_loops(ops.xp, inverse, gradient)


def _two_loops(xp: Any, pairs: Any, g: Any) -> Any:
    sy = (pairs[0] * pairs[1]).sum(1)
    rho = xp.where(sy > 0, 1 / xp.where(sy > 0, sy, 1.0), 0.0)
    shares: list[Any] = []
    q = g
    for i in reversed(range(MEMORY)):
        shares.append(rho[i] * (pairs[0, i] @ q))
        q = q - shares[-1] * pairs[1, i]
    last = pairs[1, -1] @ pairs[1, -1]
    q = q * xp.where(last > 0, sy[-1] / xp.where(last > 0, last, 1.0), 1 / (1 + xp.sqrt(g @ g)))
    for i, share in enumerate(reversed(shares)):
        q = q + (share - rho[i] * (pairs[1, i] @ q)) * pairs[0, i]
    return q


def updated(ops: Any, inverse: Any, s: Any, y: Any) -> Any:
    """The estimate that maps y to s; the same where the density is not concave along s."""
    xp = ops.xp
    sy = s @ y
    curved = sy > 1e-10 * xp.sqrt((s @ s) * (y @ y))
    if inverse.ndim == 3:
        new = xp.concatenate([inverse[:, 1:], xp.stack([s, y])[:, None]], 1)
        return ops.where(curved, new, inverse)
    hy, safe = inverse @ y, ops.where(curved, sy, sy * 0 + 1.0)
    new = inverse + (1 + y @ hy / safe) * xp.outer(s, s) / safe - (xp.outer(hy, s) + xp.outer(s, hy)) / safe
    return ops.where(curved, new, inverse)
