"""Metrics: linear maps that whiten the target, learned from draws and gradients during warm-up.

A metric is a map L from whitened to unconstrained space, the covariance being L L'. Kernels work with whitened momenta
r ~ N(0, I): a position moves by L r and a gradient g arrives as L' g, so that U-turn tests need no matrix at all.

Each update minimises the Fisher divergence between the target and N(., L L') over the draws of a window (Seyboldt,
Carlson and Carpenter 2026, arXiv:2603.18845): with A and B the covariances of whitened draws and gradients, the new
covariance is the geometric mean A # B^-1. On a Gaussian that is exact as soon as there are more draws than dimensions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

SHRINKAGE = 5.0  # pseudo-draws in favour of the metric in use


class Diagonal(NamedTuple):
    """L = diag(scale); scale: (dim,)."""

    scale: Any

    def push(self, r: Any) -> Any:
        """L r."""
        return self.scale * r

    def pull(self, g: Any) -> Any:
        """L' g."""
        return self.scale * g

    def update(self, xp: Any, draws: Any, gradients: Any) -> Diagonal:
        """The metric learned from draws and gradients of the log density, each (window, dim)."""
        a = _shrink(_variance(xp, draws / self.scale), len(draws), 1.0)
        b = _shrink(_variance(xp, gradients * self.scale), len(draws), 1.0)
        return Diagonal(self.scale * (a / b) ** 0.25)


class Dense(NamedTuple):
    """L = factor, any square root of the covariance; factor: (dim, dim)."""

    factor: Any

    def push(self, r: Any) -> Any:
        """L r."""
        return self.factor @ r

    def pull(self, g: Any) -> Any:
        """L' g."""
        return g @ self.factor

    def update(self, xp: Any, draws: Any, gradients: Any) -> Dense:
        """The metric learned from draws and gradients of the log density, each (window, dim)."""
        centred = draws - draws.mean(0)
        white = xp.linalg.solve(self.factor, centred.T)
        pulled = (gradients - gradients.mean(0)) @ self.factor
        n, identity = len(draws), xp.eye(draws.shape[1], dtype=draws.dtype)
        a = _shrink(white @ white.T / n, n, identity)
        b = _shrink(pulled.T @ pulled / n, n, identity)
        return Dense(self.factor @ _root(xp, geometric_mean(xp, a, b)))


class LowRank(NamedTuple):
    """L = diag(scale) (I + vectors diag(stretch - 1) vectors'); scale: (dim,), vectors: (dim, rank), stretch: (rank,)."""

    scale: Any
    vectors: Any
    stretch: Any

    def _bend(self, x: Any) -> Any:
        return x + self.vectors @ ((self.stretch - 1) * (x @ self.vectors))

    def push(self, r: Any) -> Any:
        """L r."""
        return self.scale * self._bend(r)

    def pull(self, g: Any) -> Any:
        """L' g."""
        return self._bend(self.scale * g)

    def update(self, xp: Any, draws: Any, gradients: Any) -> LowRank:
        """A new diagonal, then the directions that it leaves badly scaled.

        The directions are the leading singular vectors of the scaled draws and of the scaled gradients; a stretch between
        1/sqrt(2) and sqrt(2) is left at 1, being noise. A window of few draws has fewer of them: directions in use fill up.
        """
        scale = Diagonal(self.scale).update(xp, draws, gradients).scale
        n, half = len(draws), self.vectors.shape[1] // 2
        white = (draws - draws.mean(0)) / scale
        pulled = (gradients - gradients.mean(0)) * scale
        leading = [xp.linalg.svd(m, full_matrices=False)[2][:half].T for m in (white, pulled)]
        kept = self.vectors[:, : 2 * half - sum(v.shape[1] for v in leading)]
        basis, _ = xp.linalg.qr(xp.concatenate([*leading, kept], axis=1))
        identity = xp.eye(basis.shape[1], dtype=draws.dtype)
        a = _shrink((white @ basis).T @ (white @ basis) / n, n, identity)
        b = _shrink((pulled @ basis).T @ (pulled @ basis) / n, n, identity)
        values, rotation = xp.linalg.eigh(geometric_mean(xp, a, b))
        noise = xp.logical_and(values > 0.5, values < 2.0)
        return LowRank(scale, basis @ rotation, xp.where(noise, 1.0, xp.sqrt(values)))


def geometric_mean(xp: Any, a: Any, b: Any) -> Any:
    """A # B^-1, the symmetric positive definite X with X B X = A."""
    values, vectors = xp.linalg.eigh(b)
    root, inverse = (vectors * xp.sqrt(values)) @ vectors.T, (vectors / xp.sqrt(values)) @ vectors.T
    return inverse @ _root(xp, root @ a @ root) @ inverse


def _root(xp: Any, matrix: Any) -> Any:
    values, vectors = xp.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * xp.sqrt(xp.maximum(values, 1e-12))) @ vectors.T


def _variance(xp: Any, x: Any) -> Any:
    return xp.mean((x - x.mean(0)) ** 2, axis=0)


def _shrink(estimate: Any, n: int, prior: Any) -> Any:
    return (n * estimate + SHRINKAGE * prior) / (n + SHRINKAGE)


def initial(xp: Any, kind: str, covariance: Any) -> Any:
    """A metric of one kind from a first guess of the covariance: (dim, dim), or (dim,) where it is diagonal."""
    dim = covariance.shape[0]
    diagonal = covariance if covariance.ndim == 1 else xp.diagonal(covariance)
    if kind == "diagonal":
        return Diagonal(xp.sqrt(diagonal))
    if kind == "dense":
        matrix = covariance if covariance.ndim == 2 else xp.diag(covariance)
        return Dense(_root(xp, matrix))
    rank = 2 * (min(dim, 40) // 2)
    return LowRank(xp.sqrt(diagonal), xp.eye(dim, rank, dtype=covariance.dtype), xp.ones(rank, covariance.dtype))


def choose(kind: str, dim: int) -> str:
    """ "auto" is dense up to 40 dimensions and low rank beyond."""
    return kind if kind != "auto" else "dense" if dim <= 40 else "low_rank"
