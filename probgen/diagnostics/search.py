"""A search for modes of a posterior after the fit: many climbs of the log density from far apart.

Climbs are by L-BFGS (Nocedal and Wright 2006, chapter 7), all paths of a search in step, on either engine. They begin at
uniform points in unconstrained space, near and far, and at draws of the prior: a mode that no uniform point of (-2, 2) falls
to is often one that the prior speaks of.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from probgen.data.points import climbed
from probgen.fitted import Fitted
from probgen.target import Continuous

WIDTHS = (2.0,) * 12 + (10.0,) * 5 + (50.0,) * 5  # half the side of the box of each uniform origin
NUM_PRIOR, BATCH = 10, 32  # draws of the prior to begin at; points evaluated at once, so that one shape is compiled
NUM_STEPS, MEMORY = 150, 10  # evaluations of a path at most; pairs that L-BFGS remembers
LARGEST = 300  # dimensions up to which a search is made: masses need a Hessian
SECONDS = 5.0  # after which a search ends where the density is slow; the verdict says so

Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Ends(NamedTuple):
    """Where climbs ended: points (path, dim), their log densities (path,), in nats, and whether time ended the climbs."""

    z: np.ndarray
    value: np.ndarray
    cut: bool = False

    @property
    def told(self) -> str:
        """What was done, in words."""
        return f"{len(self.z)} climbs from far apart" + (f", cut short after {SECONDS:.0f} s" if self.cut else "")


def found(fit: Fitted) -> Ends:
    """The ends of a fit's search, which is made once and kept with the fit; none where no search can be made."""
    kept = vars(fit)
    if "_ends" not in kept:
        searched = isinstance(fit.target, Continuous) and 0 < fit.target.dim <= LARGEST
        kept["_ends"] = (
            _search(climbed(fit.inference, fit.target), fit.seed) if searched else Ends(np.zeros((0, 1)), np.zeros(0))
        )
    return kept["_ends"]


def evaluator(target: Any) -> Evaluate:
    """Log densities and gradients at points (point, dim), in batches of one shape where shapes are compiled."""
    if target.engine == "pyro":  # a loop over points
        return target.gradients

    def evaluate(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = -(-max(len(points), 1) // BATCH) * BATCH
        padded = np.concatenate([points, np.zeros((size - len(points), points.shape[1]))])
        parts = [target.gradients(part) for part in np.split(padded, size // BATCH)]
        values, gradients = (np.concatenate(part)[: len(points)].astype(float) for part in zip(*parts, strict=True))
        return values, gradients

    return evaluate


def _search(target: Any, seed: int) -> Ends:
    evaluate = evaluator(target)
    with np.errstate(all="ignore"):
        z, value, cut = climb(evaluate, origins(target, seed))
    usable = np.isfinite(value) & np.isfinite(z).all(axis=1)
    return Ends(z[usable], value[usable], cut)


def origins(target: Any, seed: int) -> np.ndarray:
    """Where climbs begin: (path, dim)."""
    rng = np.random.default_rng((seed, 7))
    uniform = rng.uniform(-1, 1, (len(WIDTHS), target.dim)) * np.array(WIDTHS)[:, None]
    drawn = []
    with contextlib.suppress(Exception):  # an improper prior, a program that cannot run forward: uniform points alone
        values = target.prior(seed, NUM_PRIOR, target.named("latent"))
        latent = [name for name in target.named("latent") if name in values]
        for i in range(NUM_PRIOR):
            drawn.append(np.asarray(target.unconstrain({k: values[k][i] for k in latent}), float))
    return np.concatenate([uniform, *(z[None] for z in drawn if z.shape == (target.dim,) and np.isfinite(z).all())])


class _Paths:
    """Climbs in step, and what L-BFGS remembers of each."""

    def __init__(self, z: np.ndarray, value: np.ndarray, gradient: np.ndarray):
        self.z, self.value, self.gradient = z, value, gradient
        self.alive = np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        self.steps, self.changes = (np.zeros((MEMORY, *z.shape)) for _ in range(2))  # the newest last
        self.length = np.ones(len(z))
        self.direction = self.upwards()

    def upwards(self) -> np.ndarray:
        """The gradient by L-BFGS's inverse Hessian; shortened to a unit step where nothing is remembered."""
        curvature = (self.steps * self.changes).sum(axis=2)
        weight = np.where(curvature > 0, 1 / np.where(curvature > 0, curvature, 1.0), 0.0)
        q, alphas = self.gradient.copy(), []
        for s, y, w in zip(self.steps[::-1], self.changes[::-1], weight[::-1], strict=True):
            alphas.append(w * (s * q).sum(axis=1))
            q = q - alphas[-1][:, None] * y
        first = 1 / (1 + np.linalg.norm(self.gradient, axis=1))
        size = (self.changes[-1] ** 2).sum(axis=1)
        q = q * np.where(size > 0, curvature[-1] / np.where(size > 0, size, 1.0), first)[:, None]
        for s, y, w, alpha in zip(self.steps, self.changes, weight, alphas[::-1], strict=True):
            q = q + (alpha - w * (y * q).sum(axis=1))[:, None] * s
        rises = (q * self.gradient).sum(axis=1) > 0
        return np.where(rises[:, None], q, self.gradient * first[:, None])

    def advance(self, evaluate: Evaluate) -> None:
        """One evaluation of every path under way: a step that rises enough is taken, any other is shortened."""
        rows = np.flatnonzero(self.alive)
        trial, value, gradient = self.z.copy(), self.value.copy(), self.gradient.copy()
        trial[rows] += self.length[rows, None] * self.direction[rows]
        value[rows], gradient[rows] = evaluate(trial[rows])
        slope = (self.gradient * self.direction).sum(axis=1)
        good = self.alive & np.isfinite(gradient).all(axis=1) & (value >= self.value + 1e-4 * self.length * slope)
        self._remember(good, trial - self.z, self.gradient - gradient)
        self.z, self.value = np.where(good[:, None], trial, self.z), np.where(good, value, self.value)
        self.gradient = np.where(good[:, None], gradient, self.gradient)
        self.direction = np.where(good[:, None], self.upwards(), self.direction)
        self.length = np.where(good, 1.0, 0.3 * self.length)
        decrement = (self.gradient * self.direction).sum(axis=1)
        self.alive &= ~((good & (decrement < 1e-10)) | (self.length < 1e-12))

    def _remember(self, good: np.ndarray, step: np.ndarray, change: np.ndarray) -> None:
        inner = (step * change).sum(axis=1)
        curved = good & (inner > 1e-10 * np.linalg.norm(step, axis=1) * np.linalg.norm(change, axis=1))
        for kept, new in ((self.steps, step), (self.changes, change)):
            kept[:, curved] = np.concatenate([kept[1:, curved], new[None, curved]])


def climb(evaluate: Evaluate, z: np.ndarray, seconds: float = SECONDS) -> Ends:
    """The ends of climbs from z (path, dim)."""
    begun = time.perf_counter()
    paths, late = _Paths(z, *evaluate(z)), False
    for _ in range(NUM_STEPS):
        late = time.perf_counter() - begun > seconds
        if late or not paths.alive.any():
            break
        paths.advance(evaluate)
    return Ends(paths.z, paths.value, late and bool(paths.alive.any()))


def curvature_root(evaluate: Evaluate, z: np.ndarray) -> np.ndarray:
    """A root (dim, dim) of the inverse of |Hessian| at a point (dim,), by central differences of the gradient."""
    dim = len(z)
    width = 1e-4 * np.maximum(1.0, abs(z))
    _, gradients = evaluate(np.concatenate([z + np.diag(width), z - np.diag(width)]))
    hessian = (gradients[dim:] - gradients[:dim]) / (2 * width[:, None])
    scale = 1 / np.sqrt(np.maximum(abs(np.diagonal(hessian)), 1e-12))
    scaled = hessian * scale[:, None] * scale
    if not np.isfinite(scaled).all():
        return np.diag(scale)
    values, vectors = np.linalg.eigh((scaled + scaled.T) / 2)
    return scale[:, None] * vectors / np.sqrt(np.maximum(abs(values), 1e-6))
