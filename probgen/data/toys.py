"""Densities in two dimensions to learn: exact draws, exact log densities, and their entropies.

    x = two_moons(1000, seed=0)          # (1000, 2)
    two_moons.log_prob(x).mean()         # -two_moons.entropy, within Monte Carlo error: what the best model reaches

All but a few points of each lie within [-4, 4]. Units: nats.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logsumexp


@dataclass(frozen=True)
class Toy:
    """A distribution on the plane: a function (n, seed) -> (n, 2), with its density.

    draw: `(rng, n) -> (n, 2)`. density: `(n, 2) -> (n,)`, the log density.
    closed: the entropy where it has a closed form (parts that do not overlap); None to have it by quadrature.
    reach, step: half the width, and the spacing, of the grid of that quadrature.
    modes, sd: of an equal mixture of round Gaussians, their centres (mode, 2) and the standard deviation of each.
    """

    name: str
    draw: Callable[[np.random.Generator, int], np.ndarray]
    density: Callable[[np.ndarray], np.ndarray]
    closed: float | None = None
    reach: float = 4.0
    step: float = 0.05
    modes: np.ndarray | None = field(default=None, compare=False)
    sd: float | None = None

    def __call__(self, n: int, seed: int = 0) -> np.ndarray:
        return self.draw(np.random.default_rng(seed), n)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """The log density at points x (n, 2), in nats: (n,)."""
        parts = np.array_split(np.asarray(x, float), max(1, len(x) // 4096))
        return np.concatenate([self.density(part) for part in parts])

    def grid(self) -> np.ndarray:
        """Midpoints of squares that cover the distribution: (point, 2)."""
        side = np.arange(-self.reach, self.reach, self.step) + self.step / 2
        return np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)

    @property
    def kind(self) -> str:
        """Where the entropy comes from."""
        return "quadrature" if self.closed is None else "closed form"

    @functools.cached_property
    def entropy(self) -> float:
        """-E[log p(x)], in nats."""
        if self.closed is not None:
            return self.closed
        log_p = self.log_prob(self.grid())
        return float(-np.sum(np.exp(log_p) * np.maximum(log_p, -700.0)) * self.step**2)

    def __repr__(self) -> str:
        return f"Toy({self.name})"


def _gaussians(
    name: str, centres: np.ndarray, sd: float, closed: float | None = None, reach: float = 6.0, step: float = 0.05
) -> Toy:
    """An equal mixture of round Gaussians: centres (part, 2)."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return centres[rng.integers(len(centres), size=n)] + sd * rng.normal(size=(n, 2))

    def density(x: np.ndarray) -> np.ndarray:
        square = ((x[:, None] - centres) ** 2).sum(-1)
        return logsumexp(-square / (2 * sd**2), axis=1) - np.log(2 * np.pi * sd**2 * len(centres))

    return Toy(name, draw, density, closed, reach=reach, step=step, modes=centres, sd=sd)


def _rotated(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * x[..., 0] - sin * x[..., 1], sin * x[..., 0] + cos * x[..., 1]], -1)


# ---- rings: a uniform angle, and a radius from four narrow Gaussians; p(x) = p(r) / (2 pi r)

RADII, RING_SD = np.array([0.75, 1.5, 2.25, 3.0]), 0.08


def _draw_rings(rng: np.random.Generator, n: int) -> np.ndarray:
    radius = RADII[rng.integers(4, size=n)] + RING_SD * rng.normal(size=n)
    return _rotated(np.stack([radius, np.zeros(n)], -1), rng.uniform(0, 2 * np.pi, n))


def _density_rings(x: np.ndarray) -> np.ndarray:
    r = np.maximum(np.linalg.norm(x, axis=1), 1e-12)
    parts = -((r[:, None] - RADII) ** 2) / (2 * RING_SD**2) - 0.5 * np.log(2 * np.pi * RING_SD**2)
    return logsumexp(parts, axis=1) - np.log(4 * 2 * np.pi * r)


# ---- two moons: a uniform angle on one of two half circles, and Gaussian noise; the density by Gauss-Legendre in the angle

MOON_SD = 0.1


def _moons(angle: np.ndarray) -> np.ndarray:
    """Points of both half circles: (2, angle, 2)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, sin], -1), np.stack([1 - cos, 0.5 - sin], -1)])


def _draw_moons(rng: np.random.Generator, n: int) -> np.ndarray:
    arcs = _moons(rng.uniform(0, np.pi, n))
    return arcs[rng.integers(2, size=n), np.arange(n)] + MOON_SD * rng.normal(size=(n, 2))


def _density_moons(x: np.ndarray) -> np.ndarray:
    nodes, weights = np.polynomial.legendre.leggauss(100)
    centres = _moons(np.pi * (nodes + 1) / 2).reshape(-1, 2)
    square = ((x[:, None] - centres) ** 2).sum(-1)
    terms = logsumexp(-square / (2 * MOON_SD**2), axis=1, b=np.tile(weights / 4, 2))
    return terms - np.log(2 * np.pi * MOON_SD**2)


# ---- pinwheel: five Gaussian arms, turned by an angle that grows with the radius, which leaves areas as they are

ARMS, ARM_CENTRE, ARM_SD = 2 * np.pi * np.arange(5) / 5, np.array([2.0, 0.0]), np.array([0.6, 0.2])


def _twist(x: np.ndarray) -> np.ndarray:
    return 0.25 * np.exp(np.linalg.norm(x, axis=-1) / 2)


def _draw_pinwheel(rng: np.random.Generator, n: int) -> np.ndarray:
    arm = ARM_CENTRE + ARM_SD * rng.normal(size=(n, 2))
    return _rotated(arm, ARMS[rng.integers(5, size=n)] + _twist(arm))


def _density_pinwheel(x: np.ndarray) -> np.ndarray:
    arms = _rotated(x[:, None], -(ARMS + _twist(x)[:, None]))
    square = (((arms - ARM_CENTRE) / ARM_SD) ** 2).sum(-1)
    return logsumexp(-square / 2, axis=1) - np.log(5 * 2 * np.pi * ARM_SD.prod())


# ---- checkerboard: uniform on eight of the sixteen squares of side 2


def _draw_checkerboard(rng: np.random.Generator, n: int) -> np.ndarray:
    column = rng.integers(4, size=n)
    row = 2 * rng.integers(2, size=n) + column % 2
    return -4 + 2 * (np.stack([column, row], -1) + rng.random((n, 2)))


def _density_checkerboard(x: np.ndarray) -> np.ndarray:
    square = np.floor((x + 4) / 2)
    inside = (np.abs(x) < 4).all(-1) & (square.sum(-1) % 2 == 0)
    return np.where(inside, -np.log(32), -np.inf)


def _apart(count: int, sd: float) -> float:
    """The entropy of an equal mixture of round Gaussians that do not overlap."""
    return float(np.log(count * 2 * np.pi * np.e * sd**2))


_corners = np.arange(8) * np.pi / 4
_lattice = np.stack(np.meshgrid(*[np.arange(-4.0, 5.0, 2.0)] * 2), -1).reshape(-1, 2)

eight_gaussians = _gaussians("eight_gaussians", 2.8 * np.stack([np.cos(_corners), np.sin(_corners)], -1), 0.35)
grid25 = _gaussians("grid25", _lattice, 0.05, closed=_apart(25, 0.05), step=0.02)
grid_25 = dataclasses.replace(grid25, name="grid_25")  # the same: PacGAN's grid, {-4, -2, 0, 2, 4} squared
_ring = np.stack([np.cos(_corners), np.sin(_corners)], -1)  # eight angles, the end left out
ring_8 = _gaussians("ring_8", _ring, 0.01, closed=_apart(8, 0.01), reach=1.2, step=0.004)
rings = Toy("rings", _draw_rings, _density_rings, step=0.02)
two_moons = Toy("two_moons", _draw_moons, _density_moons, reach=2.6)
pinwheel = Toy("pinwheel", _draw_pinwheel, _density_pinwheel, reach=5.0, step=0.03)
checkerboard = Toy("checkerboard", _draw_checkerboard, _density_checkerboard, closed=float(np.log(32)))

TOYS = {toy.name: toy for toy in (eight_gaussians, grid25, grid_25, ring_8, rings, two_moons, pinwheel, checkerboard)}
