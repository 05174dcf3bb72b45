"""Linear inverse problems: x given y = A x + N(0, noise^2 I), by any denoiser and any sampler.

What is believed of x given z_t has mean m(z) = E[x | z] and covariance C = sigma^2 / alpha dm / dz, whence

    p(y | z) ~ N(A m, S),  S = noise^2 I + A C A',      E[x | z, y] ~ m + sigma^2 / alpha (dm / dz)' A' S^-1 (y - A m)

which are exact where x given z is normal. The unit steps of DPS, for S = noise^2 I, are wrong there: 1.278 for .8 in one dimension.
Song et al. 2023 (PiGDM); Rozet et al. 2024 (arXiv:2405.13712, MMPS).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from probgen.nets.diffusion.denoiser import Denoiser, Posterior
from probgen.nets.diffusion.schedules import Schedule
from probgen.programs.completable import DENSE  # numbers in y up to which S is a matrix

WARY = 1.5  # how much larger the largest error of a derivative is than that along one direction, or so
COVARIANCES = ("jacobian", "variance")


class Seen(eqx.Module):
    """What was seen of a point: y (seen,), the standard deviation of its noise, () or (seen,), above zero, and A."""

    y: eqx.AbstractVar[Any]
    noise: eqx.AbstractVar[Any]

    def of(self, x: Any) -> Any:
        """A x: (*event) -> (seen,)."""
        return self.among(jnp.ravel(x))

    @abstractmethod
    def among(self, points: Any) -> Any:
        """The same of flattened points: (..., size) -> (..., seen)."""

    @abstractmethod
    def spread(self, variance: Any) -> Any:
        """A diag(variance) A', of () or (*event): its diagonal where it has no more, else a matrix: (seen,) or (seen, seen)."""

    def diagonal(self, variance: Any) -> Any:
        """The diagonal of the same: (seen,)."""
        found = self.spread(variance)
        return found if jnp.ndim(found) < 2 else jnp.diagonal(found)


class Coordinates(Seen):
    """Coordinates of the flattened point: inpainting. indices: (seen,)."""

    y: Any
    noise: Any
    indices: Any

    def among(self, points: Any) -> Any:
        return points[..., self.indices]

    def spread(self, variance: Any) -> Any:
        return self.of(variance) if jnp.ndim(variance) else variance + jnp.zeros_like(self.y)


class Gathered(Seen):
    """Weighted sums of some of the flattened point's numbers, of which none is in two: averages of squares, grey, a point in noise.

    indices, weights: (seen, most).
    """

    y: Any
    noise: Any
    indices: Any
    weights: Any

    def among(self, points: Any) -> Any:
        return jnp.sum(self.weights * points[..., self.indices], -1)

    def spread(self, variance: Any) -> Any:
        of_each = jnp.ravel(variance)[self.indices] if jnp.ndim(variance) else variance
        return jnp.sum(self.weights**2 * of_each, -1)


class Overlapping(Gathered):
    """The same where a number may be in several: blur. size: of the point."""

    size: int = eqx.field(static=True)

    def spread(self, variance: Any) -> Any:
        matrix = jnp.zeros((len(self.y), self.size), self.weights.dtype)
        matrix = matrix.at[jnp.arange(len(self.y))[:, None], self.indices].add(self.weights)
        return (matrix * jnp.ravel(variance)) @ matrix.T

    def diagonal(self, variance: Any) -> Any:
        return super().spread(variance)


class Combinations(Seen):
    """Linear combinations of the flattened point by a matrix: (seen, size)."""

    y: Any
    noise: Any
    matrix: Any

    def among(self, points: Any) -> Any:
        return points @ self.matrix.T

    def spread(self, variance: Any) -> Any:
        return (self.matrix * jnp.ravel(variance)) @ self.matrix.T


class Rotated(Combinations):
    """Combinations by a matrix whose rows are orthonormal, as those of any become by its singular vectors."""

    def spread(self, variance: Any) -> Any:
        return super().spread(variance) if jnp.ndim(variance) else variance + jnp.zeros_like(self.y)

    def diagonal(self, variance: Any) -> Any:
        return (self.matrix**2) @ jnp.ravel(variance) if jnp.ndim(variance) else self.spread(variance)


def inpainted(known: Any, noise: Any = 0.01) -> Coordinates:
    """The coordinates of a picture that are not NaN. A small noise stands for none: it is the width of what passes for equal."""
    known = np.asarray(known)
    indices = np.flatnonzero(~np.isnan(known))
    if not len(indices):
        raise ValueError("Nothing of the point is known: every coordinate is NaN. Sample from the model itself.")
    return Coordinates(jnp.asarray(known.ravel()[indices], jnp.result_type(float)), noise, jnp.asarray(indices))


class Likelihood(NamedTuple):
    """Of what was seen, given z_t: what is believed of x with and without it, and the log density of y, in nats.

    away: y less what is believed of A x: (seen,).
    """

    posterior: Posterior
    mean: Any
    log_prob: Any
    away: Any


class Informed(Denoiser):
    """A denoiser of x given what was seen: for any sampler, exact for normal data.

    covariance: "jacobian" for C above, at one derivative a number in y (above DENSE, a few by conjugate gradients, and no density);
    "variance" for the denoiser's own variance of every coordinate, at one derivative in all.
    wary: for networks, whose derivative is none of a mean's: C is symmetric, and what is not of it tells how wrong it is. As
    much is added to S, and where it is half of the denoiser's own variance, that stands for C. Exact denoisers stay so.
    """

    schedule: Schedule
    denoiser: Denoiser
    seen: Seen
    covariance: Literal["jacobian", "variance"] = eqx.field(static=True)
    wary: bool = eqx.field(static=True)
    rounds: int = eqx.field(static=True)

    def __init__(
        self,
        denoiser: Denoiser,
        seen: Seen,
        covariance: Literal["jacobian", "variance"] = "jacobian",
        wary: bool = False,
        rounds: int = 8,
    ):
        if covariance not in COVARIANCES:
            raise ValueError(f"Unknown covariance {covariance!r}. Known: {', '.join(COVARIANCES)}.")
        self.schedule, self.denoiser, self.seen = denoiser.schedule, denoiser, seen
        self.covariance, self.wary, self.rounds = covariance, wary, rounds

    def __call__(self, z: Any, t: Any) -> Posterior:
        return self.likelihood(z, t).posterior

    def likelihood(self, z: Any, t: Any) -> Likelihood:
        """What is believed of x given z_t and y, and log p(y | z_t), which is NaN where S is no matrix."""
        alpha, _ = self.schedule.scales(t)
        t = jnp.where(alpha > 1e-4, t, t - 1e-3)  # where nothing is left of x, z does not tell how it varies
        alpha, sigma = self.schedule.scales(t)
        believe = lambda z: (lambda p: (p.mean, p.variance))(self.denoiser(z, t))  # noqa: E731
        mean, back, variance = jax.vjp(believe, z, has_aux=True)
        lift = jax.linear_transpose(self.seen.of, z)
        wrong = self._wrong(z, t, back) * sigma**2 / alpha if self.wary else jnp.zeros((), z.dtype)
        trusted = wrong < 0.5 * jnp.mean(variance) if self.wary else True

        def carried(v: Any) -> Any:
            """C A' v: (seen,) -> (*event)."""
            (lifted,) = lift(v)
            return jnp.where(trusted, sigma**2 / alpha * back(lifted)[0], variance * lifted)

        away = self.seen.y - self.seen.of(mean)
        extra = WARY * jnp.where(trusted, wrong, 0.0) if self.wary else 0.0
        solved, log_det = self._solve(carried, variance, away, extra)
        log_prob = -0.5 * (away @ solved + log_det + len(away) * math.log(2 * math.pi))
        return Likelihood(Posterior(mean + carried(solved), variance), mean, log_prob, away)

    def _wrong(self, z: Any, t: Any, back: Any) -> Any:
        """How much of the derivative is not symmetric, by its size along one direction in general position: ()."""
        v = jax.random.rademacher(jax.random.key(0), z.shape, z.dtype)
        along = jax.jvp(lambda z: self.denoiser(z, t).mean, (z,), (v,))[1]
        return 0.5 * jnp.sqrt(jnp.mean((along - back(v)[0]) ** 2))

    def _solve(self, carried: Callable[[Any], Any], variance: Any, away: Any, extra: Any) -> tuple[Any, Any]:
        """S^-1 (y - A m) and log det S; extra: what is added to the diagonal of S."""
        noise = jnp.sqrt(self.seen.noise**2 + extra)
        if self.covariance == "variance":
            return solve(self.seen.spread(variance), noise, away)
        if len(away) <= DENSE:
            spread = jax.vmap(lambda v: self.seen.of(carried(v)))(jnp.eye(len(away), dtype=away.dtype))
            return solve(spread, noise, away)
        moved = lambda v: noise**2 * v + self.seen.of(carried(v))  # noqa: E731
        return conjugate_gradients(moved, away, self.rounds), jnp.nan


def solve(spread: Any, noise: Any, away: Any) -> tuple[Any, Any]:
    """S^-1 away (seen,) and log det S, S = spread + diag(noise^2), what is negative in the spread being taken for zero.

    noise: () or (seen,). A network's Jacobian is not quite symmetric, nor quite a covariance.
    """
    if jnp.ndim(spread) < 2:
        total = jnp.maximum(spread, 0.0) + noise**2 + jnp.zeros_like(away)
        return away / total, jnp.log(total).sum()
    noise = noise + jnp.zeros_like(away)
    values, vectors = jnp.linalg.eigh(0.5 * (spread + spread.T) / jnp.outer(noise, noise))
    values = jnp.maximum(values, 0.0) + 1.0
    solved = vectors @ (vectors.T @ (away / noise) / values) / noise
    return solved, jnp.log(values).sum() + 2 * jnp.log(noise).sum()


def conjugate_gradients(product: Callable[[Any], Any], wanted: Any, rounds: int) -> Any:
    """S^-1 wanted (seen,) in so many rounds, which end where S curves down, as that of a network may."""

    def one(_: Any, state: Any) -> Any:
        x, left, way, size = state
        turned = product(way)
        curve = way @ turned
        going = (curve > 0) & (size > 1e-12 * (wanted @ wanted))
        step = jnp.where(going, size / jnp.where(going, curve, 1.0), 0.0)
        x, left = x + step * way, left - step * turned
        new = left @ left
        return (
            x,
            left,
            left + jnp.where(going, new / jnp.where(going, size, 1.0), 0.0) * way,
            jnp.where(going, new, 0.0),
        )

    return jax.lax.fori_loop(0, rounds, one, (jnp.zeros_like(wanted), wanted, wanted, wanted @ wanted))[0]
