"""NumPyro's multivariate normal with a density for many points: one inverse a covariance in place of one solve a point."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from numpyro.distributions.util import validate_sample

from probgen.distributions import matrices


class MultivariateNormal(dist.MultivariateNormal):
    """The same distribution. On a CPU, XLA solves small triangular systems one by one, at ten microseconds each.

    log p(x) = -|L^-1 (x - loc)|^2 / 2 - log det L - dim log(2 pi) / 2,   in nats
    """

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        root: Any = self.scale_tril
        inverse = solve_triangular(
            root, jnp.broadcast_to(jnp.eye(root.shape[-1], dtype=root.dtype), root.shape), lower=True
        )
        white = jnp.einsum("...ij,...j->...i", inverse, value - self.loc)
        log_det = jnp.sum(jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)), -1)
        return -0.5 * jnp.sum(white**2, -1) - log_det - 0.5 * root.shape[-1] * math.log(2 * math.pi)


class OfMatrix(dist.MultivariateNormal):
    """The same distribution, the derivative of its density in closed form; see `matrices`.

    One matrix for all vectors, or one for each; what has other shapes or types is NumPyro's own, and so are roots and precisions in
    single precision, whose inverse loses more digits than a solve: .08 nats for .0003 where the condition is 1e7.
    """

    @validate_sample
    def log_prob(self, value: Any) -> Any:
        name = next(k for k in vars(self) if k in _DENSITIES)  # the first is what it was made of
        deviation: Any = value - self.loc
        matrix, batch = vars(self)[name], jnp.shape(deviation)[:-1]
        if set(matrix.shape[:-2]) <= {1} and matrix.ndim - 2 <= len(batch):
            matrix = matrix.reshape(matrix.shape[-2:])
        plain = matrix.shape[:-2] not in ((), batch) or matrix.dtype != deviation.dtype
        plain = plain or (name != "covariance_matrix" and matrix.dtype == jnp.float32)
        if plain or (name == "scale_tril" and (matrix.ndim > 2 or not batch)):
            return super().log_prob(value)
        return _DENSITIES[name](matrix, deviation)


OfMatrix.__name__ = "MultivariateNormal"
_DENSITIES = {
    "covariance_matrix": matrices.log_density,
    "precision_matrix": matrices.log_density_of_precision,
    "scale_tril": matrices.log_density_of_root,
}
