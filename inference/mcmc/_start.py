"""Where chains start: a draw from the best normal approximation along short quasi-Newton paths.

Pathfinder (Zhang, Carpenter, Gelman and Vehtari 2022, JMLR 23(306)): climb log p by BFGS from a dispersed point; every
iterate gives an approximation N(z + H g, H) with H the inverse-Hessian estimate; keep the one with the largest ELBO. Each
chain follows several paths and picks one in proportion to exp(ELBO), so that a far mode that holds no mass is left
and one that holds mass is kept. H is also the first metric.
"""

from __future__ import annotations

from typing import Any, NamedTuple

NUM_PATHS, NUM_CANDIDATES, NUM_ELBO, LARGEST = 3, 16, 5, 200
SHIFT = 8  # units in the last place


class Start(NamedTuple):
    """A position z: (dim,), a covariance (dim, dim) or (dim,), and the best normal approximation of every path.

    ends: their centres (path, dim); elbos: (path,), in nats.
    """

    z: Any
    covariance: Any
    ends: Any
    elbos: Any


class _Path(NamedTuple):
    step: Any
    z: Any
    value: Any
    gradient: Any
    inverse: Any  # of the negative Hessian
    newton: Any  # whether the next step uses the true curvature
    done: Any
    elbo: Any
    draw: Any
    covariance: Any
    end: Any


def find(key: Any, target: Any, method: str) -> Start:
    """A start for one chain.

    method: "pathfinder", or "uniform" (the best of sixteen draws from U(-2, 2) in unconstrained space).
    """
    if target.begin_at is not None:
        return _given(target, method)
    ops, xp = target.ops, target.ops.xp
    k_candidates, k_paths, k_pick = ops.split(key, 3)
    points = 4 * ops.uniform(k_candidates, (NUM_PATHS, NUM_CANDIDATES, target.dim)) - 2
    values = target.log_density_batch(points.reshape(-1, target.dim)).reshape(NUM_PATHS, NUM_CANDIDATES)
    best = xp.argmax(xp.where(xp.isnan(values), -xp.inf, values), axis=1)
    origins = points[xp.arange(NUM_PATHS), best]
    if method == "uniform" or target.dim > LARGEST:
        pick = xp.argmax(values[xp.arange(NUM_PATHS), best])
        return Start(origins[pick], xp.ones(target.dim, origins.dtype), origins[:0], values[:0, 0])
    keys = ops.split(k_paths, NUM_PATHS)
    paths = ops.map(lambda pair: _climb(pair[0], target, pair[1]), (keys, origins))
    gumbel = -xp.log(ops.exponential(k_pick, (NUM_PATHS,)))
    pick = xp.argmax(paths.elbo + gumbel)
    return Start(paths.draw[pick], paths.covariance[pick], paths.end, paths.elbo)


def _given(target: Any, method: str) -> Start:
    """The start at a given point: no path is followed."""
    xp, z = target.ops.xp, target.begin_at
    if method == "uniform" or target.dim > LARGEST:
        return Start(z, xp.ones(target.dim, z.dtype), xp.zeros((0, target.dim), z.dtype), xp.zeros(0, z.dtype))
    gradient = target.value_and_grad(z)[1]
    covariance = xp.eye(target.dim, dtype=z.dtype) / (1 + xp.sqrt(gradient @ gradient))
    return Start(z, covariance, xp.stack([z] * NUM_PATHS), xp.zeros(NUM_PATHS, z.dtype) - xp.inf)


def _climb(key: Any, target: Any, z: Any) -> _Path:
    """BFGS until its own estimate says that it has arrived, then Newton steps with the true curvature."""
    ops, xp = target.ops, target.ops.xp
    value, gradient = target.value_and_grad(z)
    identity = xp.eye(target.dim, dtype=z.dtype)
    no = xp.bool_(False)
    path = _Path(
        xp.int32(0), z, value, gradient, identity / (1 + xp.sqrt(gradient @ gradient)), no, no,
        value * 0 - xp.inf, z, identity, z,
    )  # fmt: skip
    limit = 40 + 2 * target.dim

    def iterate(old: _Path) -> _Path:
        z, value, gradient, moved = _search(target, old)
        newton = xp.logical_or(old.newton, xp.logical_or(old.step >= limit, xp.logical_not(moved)))
        inverse = ops.cond(newton, lambda: _inverse_curvature(target, z), lambda: _bfgs(xp, old, z, gradient))
        centre = z + inverse @ gradient
        elbo, draw = _elbo(ops.fold_in(key, old.step), target, centre, inverse)
        arrived = gradient @ inverse @ gradient < 1e-3
        done = xp.logical_and(old.newton, xp.logical_or(arrived, xp.logical_not(moved)))
        keep = lambda a, b: ops.where(elbo > old.elbo, a, b)  # noqa: E731
        return _Path(
            old.step + 1, z, value, gradient, inverse, xp.logical_or(newton, arrived), done,
            keep(elbo, old.elbo), keep(draw, old.draw), keep(inverse, old.covariance), keep(centre, old.end),
        )  # fmt: skip

    return ops.while_loop(lambda p: xp.logical_and(p.step < limit + 15, xp.logical_not(p.done)), iterate, path)


def _inverse_curvature(target: Any, z: Any) -> Any:
    """The inverse of |Hessian| by central differences of the gradient: scaled to a unit diagonal, eigenvalues made positive."""
    xp = target.ops.xp
    width = 1e-5 * xp.maximum(1.0, xp.abs(z)) if z.dtype == xp.float64 else 1e-2 * xp.maximum(1.0, xp.abs(z))
    points = xp.concatenate([z + xp.diag(width), z - xp.diag(width)])
    gradients = target.gradient_batch(points)
    hessian = (gradients[target.dim :] - gradients[: target.dim]) / (2 * width[:, None])
    scale = 1 / xp.sqrt(xp.maximum(xp.abs(xp.diagonal(hessian)), 1e-12))
    scaled = hessian * scale[:, None] * scale
    scaled = xp.where(xp.all(xp.isfinite(scaled)), (scaled + scaled.T) / 2, xp.eye(target.dim, dtype=z.dtype))
    values, vectors = xp.linalg.eigh(scaled)
    root = vectors / xp.sqrt(xp.maximum(xp.abs(values), 1e-6)) * scale[:, None]
    return root @ root.T


def _search(target: Any, path: _Path) -> tuple[Any, Any, Any, Any]:
    """Backtracking line search with Armijo's condition; z, value, gradient, and whether a step was found."""
    ops, xp = target.ops, target.ops.xp
    direction = path.inverse @ path.gradient
    slope = direction @ path.gradient

    def failed(trial: Any) -> Any:
        i, t, _, value, gradient = trial
        good = xp.logical_and(value >= path.value + 1e-4 * t * slope, xp.all(xp.isfinite(gradient)))
        return xp.logical_and(i < 30, xp.logical_not(good))

    def shorten(trial: Any) -> Any:
        i, t = trial[0] + 1, 0.5 * trial[1]
        z = path.z + t * direction
        return (i, t, z, *target.value_and_grad(z))

    nothing = (xp.int32(0), slope * 0 + 2.0, path.z, path.value - xp.inf, path.gradient)
    i, _, z, value, gradient = ops.while_loop(failed, shorten, nothing)
    moved = xp.logical_and(i < 30, slope > 0)
    keep = lambda new, old: ops.where(moved, new, old)  # noqa: E731
    return keep(z, path.z), keep(value, path.value), keep(gradient, path.gradient), moved


def _bfgs(xp: Any, path: _Path, z: Any, gradient: Any) -> Any:
    s, y = z - path.z, path.gradient - gradient
    sy, hy = s @ y, path.inverse @ y
    first = path.step == 0
    h = xp.where(first, xp.eye(len(z), dtype=z.dtype) * (sy / (y @ y)), path.inverse)
    hy = xp.where(first, y * (sy / (y @ y)), hy)
    new = h + (1 + y @ hy / sy) * xp.outer(s, s) / sy - (xp.outer(hy, s) + xp.outer(s, hy)) / sy
    curved = sy > 1e-10 * xp.sqrt((s @ s) * (y @ y))
    return xp.where(curved, new, path.inverse)


def _told(xp: Any, values: Any) -> Any:
    """Whether densities tell anything: they do not where the last bits of a point change them, values (2 * NUM_ELBO,).

    Where terms of 1e20 cancel, as in a Beta of huge parameters, a density is their rounding errors, hundreds of nats high.
    """
    one, other = values[:NUM_ELBO], values[NUM_ELBO:]
    return xp.abs(other - one) < 0.5 + 64 * xp.finfo(one.dtype).eps * xp.abs(one)


def _elbo(key: Any, target: Any, mean: Any, covariance: Any) -> tuple[Any, Any]:
    """ELBO of N(mean, covariance) from a few draws, and one of them, picked by importance."""
    ops, xp = target.ops, target.ops.xp
    root = ops.cholesky((covariance + covariance.T) / 2)
    k_noise, k_pick = ops.split(key, 2)
    noise = ops.normal(k_noise, (NUM_ELBO, target.dim))
    points = mean + noise @ root.T
    log_det = 2 * xp.sum(xp.log(xp.diagonal(root)))
    log_q = -0.5 * (xp.sum(noise**2, axis=1) + log_det + target.dim * xp.log(2 * xp.pi))
    values = target.log_density_batch(xp.concatenate([points, points * (1 + SHIFT * xp.finfo(points.dtype).eps)]))
    ratios = values[:NUM_ELBO] - log_q
    ratios = xp.where(_told(xp, values) & xp.isfinite(ratios), ratios, -xp.inf)
    pick = xp.argmax(ratios - xp.log(ops.exponential(k_pick, (NUM_ELBO,))))
    return xp.mean(ratios), points[pick]
