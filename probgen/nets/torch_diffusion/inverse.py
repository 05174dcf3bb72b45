"""Linear inverse problems in torch: the twin of `probgen.nets.diffusion.inverse`, which says what is computed, and why.

Of rows z (row, *event), each given the same y. Parts of them are done one after the other, as every one keeps a graph.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from probgen.nets.torch_diffusion.denoiser import Denoiser, Posterior
from probgen.nets.torch_diffusion.schedules import Schedule, over
from probgen.programs.completable import DENSE  # numbers in y up to which S is a matrix

WARY = 1.5  # how much larger the largest error of a derivative is than that along one direction, or so
AT_ONCE = 200_000  # numbers of rows
COVARIANCES = ("jacobian", "variance")


@dataclass(frozen=True, eq=False)
class Seen(ABC):
    """What was seen of a point: y (seen,), the standard deviation of its noise, (seen,), above zero, and A."""

    y: Tensor
    noise: Tensor

    def of(self, x: Tensor) -> Tensor:
        """A x: (row, *event) -> (row, seen)."""
        return self.among(x.flatten(1))

    @abstractmethod
    def among(self, points: Tensor) -> Tensor:
        """The same of flattened points: (..., size) -> (..., seen)."""

    @abstractmethod
    def lift(self, v: Tensor, like: Tensor) -> Tensor:
        """A' v: (row, seen) -> (row, *event), in the shape of rows."""

    @abstractmethod
    def spread(self, variance: Tensor) -> Tensor:
        """A diag(variance) A', of (row, *event), or (row, 1, ...) for one of all coordinates.

        Its diagonal where it has no more, else a matrix: (row, seen) or (row, seen, seen).
        """

    def diagonal(self, variance: Tensor) -> Tensor:
        """The diagonal of the same: (row, seen)."""
        return self.spread(variance)


@dataclass(frozen=True, eq=False)
class Gathered(Seen):
    """Weighted sums of some of the flattened point's numbers, of which none is in two: indices, weights (seen, most)."""

    indices: Tensor
    weights: Tensor

    def among(self, points: Tensor) -> Tensor:
        return (self.weights * points[..., self.indices]).sum(-1)

    def lift(self, v: Tensor, like: Tensor) -> Tensor:
        flat = torch.zeros_like(like).flatten(1)
        return flat.index_add(1, self.indices.flatten(), (self.weights * v[..., None]).flatten(1)).reshape(like.shape)

    def spread(self, variance: Tensor) -> Tensor:
        flat = variance.flatten(1)
        each = flat[..., None] if flat.shape[1] == 1 else flat[:, self.indices]
        return (self.weights**2 * each).sum(-1)


@dataclass(frozen=True, eq=False)
class Overlapping(Gathered):
    """The same where a number may be in several: blur. size: of the point."""

    size: int

    def spread(self, variance: Tensor) -> Tensor:
        matrix = torch.zeros(len(self.y), self.size).to(self.weights)
        matrix.scatter_add_(1, self.indices, self.weights)
        return (matrix * variance.flatten(1)[:, None]) @ matrix.mT

    def diagonal(self, variance: Tensor) -> Tensor:
        return super().spread(variance)


@dataclass(frozen=True, eq=False)
class Combinations(Seen):
    """Linear combinations of the flattened point by a matrix: (seen, size)."""

    matrix: Tensor

    def among(self, points: Tensor) -> Tensor:
        return points @ self.matrix.mT

    def lift(self, v: Tensor, like: Tensor) -> Tensor:
        return (v @ self.matrix).reshape(like.shape)

    def spread(self, variance: Tensor) -> Tensor:
        return (self.matrix * variance.flatten(1)[:, None]) @ self.matrix.mT

    def diagonal(self, variance: Tensor) -> Tensor:
        flat = variance.flatten(1)
        return flat.expand(-1, self.matrix.shape[1]) @ (self.matrix**2).mT


@dataclass(frozen=True, eq=False)
class Rotated(Combinations):
    """Combinations by a matrix whose rows are orthonormal, as those of any become by its singular vectors."""

    def spread(self, variance: Tensor) -> Tensor:
        flat = variance.flatten(1)
        return flat.expand(-1, len(self.y)) if flat.shape[1] == 1 else super().spread(variance)


class Likelihood(NamedTuple):
    """Of what was seen, given rows z_t: what is believed of x with and without it, and the log density of y, in nats: (row,).

    away: y less what is believed of A x: (row, seen).
    """

    posterior: Posterior
    mean: Tensor
    log_prob: Tensor
    away: Tensor


def of_rows(posterior: Posterior) -> Posterior:
    """The same, its variance with an axis of rows: (row, *event), or (row, 1, ...) where it is one for all coordinates."""
    mean, variance = posterior
    if variance.dim() == 0:
        return Posterior(mean, variance.expand(len(mean), *(1,) * (mean.dim() - 1)))
    return Posterior(mean, variance.expand_as(mean))


@dataclass(frozen=True, eq=False)
class Informed(Denoiser):
    """A denoiser of rows x given what was seen: for any sampler, exact for normal data; see the twin for what is said.

    rounds: of conjugate gradients, above DENSE numbers.
    """

    denoiser: Denoiser
    seen: Seen
    covariance: Literal["jacobian", "variance"] = "jacobian"
    wary: bool = False
    rounds: int = 8

    def __post_init__(self) -> None:
        if self.covariance not in COVARIANCES:
            raise ValueError(f"Unknown covariance {self.covariance!r}. Known: {', '.join(COVARIANCES)}.")

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def __call__(self, z: Tensor, t: Tensor) -> Posterior:
        return self.likelihood(z, t).posterior

    def likelihood(self, z: Tensor, t: Tensor) -> Likelihood:
        """What is believed of x given rows z_t and y, and log p(y | z_t), which is NaN where S is no matrix; t: ()."""
        parts = [self._likelihood(part, t) for part in z.split(max(1, AT_ONCE // z[0].numel()))]
        if len(parts) == 1:
            return parts[0]
        beliefs, *rest = zip(*parts, strict=True)
        return Likelihood(Posterior(*map(torch.cat, zip(*beliefs, strict=True))), *map(torch.cat, rest))

    def _likelihood(self, z: Tensor, t: Tensor) -> Likelihood:
        alpha, _ = self.schedule.scales(t)
        t = torch.where(alpha > 1e-4, t, t - 1e-3)  # where nothing is left of x, z does not tell how it varies
        alpha, sigma = self.schedule.scales(t)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
            at = z.detach().requires_grad_()
            believed = of_rows(self.denoiser(at, t))
            wrong = self._wrong(believed.mean, at) * sigma**2 / alpha if self.wary else z.new_zeros(len(z))
        mean, variance = believed.mean.detach(), believed.variance.detach()
        trusted = wrong < 0.5 * variance.flatten(1).mean(1) if self.wary else torch.ones_like(wrong, dtype=torch.bool)

        def carried(v: Tensor) -> Tensor:
            """C A' v: (row, seen) -> (row, *event)."""
            lifted = self.seen.lift(v, z)
            by_slope = sigma**2 / alpha * _back(believed.mean, at, lifted)
            return torch.where(over(trusted, z), by_slope, variance * lifted)

        away = self.seen.y - self.seen.of(mean)
        extra = WARY * torch.where(trusted, wrong, 0.0)
        solved, log_det = self._solve(carried, variance, away, extra)
        log_prob = -0.5 * ((away * solved).sum(1) + log_det + away.shape[1] * math.log(2 * math.pi))
        return Likelihood(Posterior(mean + carried(solved), variance), mean, log_prob, away)

    def _wrong(self, mean: Tensor, at: Tensor) -> Tensor:
        """How much of the derivative is not symmetric, by its size along one direction in general position: (row,)."""
        if not mean.requires_grad:
            return mean.new_zeros(len(mean))
        draw = torch.Generator().manual_seed(0)
        v = (2.0 * torch.randint(0, 2, at.shape[1:], generator=draw) - 1).to(at).expand(at.shape)
        u = torch.zeros_like(mean).requires_grad_()
        (pulled,) = torch.autograd.grad(mean, at, u, create_graph=True)  # linear in u: its derivative is J v
        along = _back(pulled, u, v)
        return 0.5 * (along - _back(mean, at, v)).square().flatten(1).mean(1).sqrt()

    def _solve(
        self, carried: Callable[[Tensor], Tensor], variance: Tensor, away: Tensor, extra: Tensor
    ) -> tuple[Tensor, Tensor]:
        """S^-1 (y - A m), (row, seen), and log det S, (row,); extra: what is added to the diagonal of S, (row,)."""
        noise = torch.sqrt(self.seen.noise**2 + extra[:, None])
        if self.covariance == "variance":
            return solve(self.seen.spread(variance), noise, away)
        count = away.shape[1]
        if count <= DENSE:
            units = torch.eye(count).to(away)
            spread = torch.stack([self.seen.of(carried(unit.expand_as(away))) for unit in units], 1)
            return solve(spread, noise, away)
        moved = lambda v: noise**2 * v + self.seen.of(carried(v))  # noqa: E731
        return conjugate_gradients(moved, away, self.rounds), torch.full_like(extra, torch.nan)


def _back(said: Tensor, at: Tensor, v: Tensor) -> Tensor:
    """v' J, of rows by themselves; zero where `said` does not depend on `at`."""
    if not said.requires_grad:
        return torch.zeros_like(at)
    (found,) = torch.autograd.grad(said, at, v, retain_graph=True, allow_unused=True)
    return torch.zeros_like(at) if found is None else found.detach()


def solve(spread: Tensor, noise: Tensor, away: Tensor) -> tuple[Tensor, Tensor]:
    """S^-1 away (row, seen) and log det S (row,), S = spread + diag(noise^2), what is negative in the spread taken for zero.

    spread: (row, seen) or (row, seen, seen), of one row for all; noise: (seen,) or (row, seen).
    """
    if spread.dim() < 3:
        total = spread.clamp(min=0.0) + noise**2
        return away / total, total.log().sum(1)
    noise = noise.expand(spread.shape[:2])
    scaled = 0.5 * (spread + spread.mT) / (noise[:, :, None] * noise[:, None, :])
    values, vectors = eigh(scaled)
    values = values.clamp(min=0.0) + 1.0
    turned = (vectors.mT @ (away / noise)[..., None]) / values[..., None]
    return (vectors @ turned)[..., 0] / noise, values.log().sum(1) + 2 * noise.log().sum(1)


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and -vectors of matrices (row, n, n); NaN, which torch refuses, of those that are not finite."""
    fine = matrices.isfinite().all(-1).all(-1)
    unit = torch.eye(matrices.shape[-1]).to(matrices)
    values, vectors = torch.linalg.eigh(torch.where(fine[:, None, None], matrices, unit))
    return torch.where(fine[:, None], values, torch.nan), vectors


def conjugate_gradients(product: Callable[[Tensor], Tensor], wanted: Tensor, rounds: int) -> Tensor:
    """S^-1 wanted (row, seen) in so many rounds, which end where S curves down, as that of a network may."""
    x, left, way = torch.zeros_like(wanted), wanted, wanted
    size = first = (wanted * wanted).sum(1, keepdim=True)
    for _ in range(rounds):
        turned = product(way)
        curve = (way * turned).sum(1, keepdim=True)
        going = (curve > 0) & (size > 1e-12 * first)
        step = torch.where(going, size / torch.where(going, curve, 1.0), 0.0)
        x, left = x + step * way, left - step * turned
        new = (left * left).sum(1, keepdim=True)
        way = left + torch.where(going, new / torch.where(going, size, 1.0), 0.0) * way
        size = torch.where(going, new, 0.0)
    return x
