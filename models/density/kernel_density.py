"""Kernel density: a little density around every row of data.

    p(x) = 1/n sum_i h^-d k(|x - c_i| / h),   k(r) proportional to

    gaussian exp(-r^2 / 2), tophat 1, epanechnikov 1 - r^2, exponential exp(-r), linear 1 - r, cosine cos(pi r / 2),

and zero beyond r = 1 but for the gaussian and the exponential one. All integrate to one; scikit-learn's KernelDensity is the
same but for its cosine in even dimensions, which does not. inference="cross_validation" takes the rows as centres and chooses h;
"mle" fits `num_centres` free centres.
Shapes: x: (dim,), centres: (centre, dim), bandwidth h: (). Rosenblatt 1956 (doi:10.1214/aoms/1177728190); Parzen 1962.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import Distribution, constraints

from probgen.data import load
from probgen.model import Model

BLOCK = 512  # centres at a time, so that memory is that of so many distances a point
KERNELS = ("gaussian", "tophat", "epanechnikov", "exponential", "linear", "cosine")


def kernel_density(x=None, dim=2, num_centres=100, kernel="gaussian"):
    centres = numpyro.param("centres", lambda key: jax.random.normal(key, (num_centres, dim)))
    bandwidth = numpyro.param("bandwidth", jnp.ones(()), constraint=constraints.positive)
    numpyro.sample("x", KernelDensity(centres, bandwidth, kernel), obs=x)


class KernelDensity(Distribution):
    """An equal mixture of kernels of one bandwidth (), around centres (n, d)."""

    arg_constraints = {"centres": constraints.real_matrix, "bandwidth": constraints.positive}  # noqa: RUF012
    support: Any = constraints.real_vector
    pytree_data_fields = ("centres", "bandwidth")
    pytree_aux_fields = ("kernel",)

    def __init__(self, centres, bandwidth, kernel="gaussian", *, validate_args=None):
        if kernel not in KERNELS:
            raise ValueError(f"kernel is {kernel!r}; known: {', '.join(KERNELS)}")
        self.centres, self.bandwidth, self.kernel = centres, bandwidth, kernel
        super().__init__((), jnp.shape(centres)[-1:], validate_args=validate_args)

    def log_prob(self, value):
        """log p of points (..., d), in nats: (...)."""
        n, d = self.centres.shape
        blocks = math.ceil(n / BLOCK)
        size = math.ceil(n / blocks)
        padded = jnp.pad(self.centres, ((0, blocks * size - n), (0, 0))).reshape(blocks, size, d)
        real = (jnp.arange(blocks * size) < n).reshape(blocks, size)

        middle = jnp.mean(self.centres, axis=0)

        def add(total, block):
            centres, real = block
            squares = distances(value - middle, centres - middle, by_product=self.kernel == "gaussian")
            terms = jnp.where(real, log_kernel(self.kernel, squares / self.bandwidth**2), -jnp.inf)
            return jnp.logaddexp(total, jax.nn.logsumexp(terms, axis=-1)), None

        nothing = jnp.full(jnp.shape(value)[:-1], -jnp.inf, jnp.result_type(value, self.centres))
        total, _ = jax.lax.scan(add, nothing, (padded, real))
        return total - jnp.log(n) - d * jnp.log(self.bandwidth) - log_constant(self.kernel, d)

    def sample(self, key: Any, sample_shape=()):
        k_centre, k_offset = jax.random.split(key)
        centres = self.centres[jax.random.randint(k_centre, sample_shape, 0, len(self.centres))]
        return centres + self.bandwidth * offsets(k_offset, self.kernel, centres.shape, centres.dtype)


def distances(x, centres, by_product):
    """Squared distances of points (..., d) and centres (n, d): (..., n).

    by_product: |x|^2 - 2 x . c + |c|^2, four times as fast, with an absolute error of rounding |x|^2, too large for a root at zero.
    """
    if not by_product:
        return jnp.sum((x[..., None, :] - centres) ** 2, axis=-1)
    products = jnp.matmul(x, centres.T, precision="highest")
    return jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True) - 2 * products + jnp.sum(centres**2, axis=-1), 0.0)


def log_kernel(kernel, squares):
    """log k at squared distances."""
    if kernel == "gaussian":
        return -0.5 * squares
    inside = squares < 1
    within = jnp.where(inside, squares, 0.0)
    if kernel == "epanechnikov":
        return jnp.where(inside, jnp.log1p(-within), -jnp.inf)
    if kernel == "tophat":
        return jnp.where(inside, 0.0, -jnp.inf)
    apart = squares > 0  # the root has no derivative at zero
    r = jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)
    if kernel == "exponential":
        return -r
    r = jnp.where(inside, r, 0.0)
    return jnp.where(inside, jnp.log1p(-r) if kernel == "linear" else jnp.log(jnp.cos(0.5 * jnp.pi * r)), -jnp.inf)


def log_constant(kernel, d):
    """log of the integral of k(|u|) over R^d."""
    ball = 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d + 1.0)
    match kernel:
        case "gaussian":
            return 0.5 * d * math.log(2 * math.pi)
        case "tophat":
            return ball
        case "epanechnikov":
            return ball + math.log(2 / (d + 2))
        case "exponential":
            return ball + math.lgamma(d + 1.0)
        case "linear":
            return ball - math.log(d + 1)
    return ball + math.log(d * cosine_moment(d))


def cosine_moment(d):
    """The integral of r^(d-1) cos(pi r / 2) from 0 to 1, by Gauss and Legendre; partial integration would cancel."""
    nodes, weights = np.polynomial.legendre.leggauss(32 + d)
    r = 0.5 * (nodes + 1)
    return float(0.5 * weights @ (r ** (d - 1) * np.cos(0.5 * np.pi * r)))


def offsets(key, kernel, shape, dtype):
    """Draws (..., d) of the density proportional to k(|u|)."""
    d = shape[-1]
    k_direction, k_radius = jax.random.split(key)
    normal = jax.random.normal(k_direction, shape, dtype)
    if kernel == "gaussian":
        return normal
    direction = normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)
    return direction * radii(k_radius, kernel, d, shape[:-1], dtype)[..., None]


def radii(key, kernel, d, shape, dtype):
    """Draws of |u|, whose density is proportional to r^(d-1) k(r)."""
    match kernel:
        case "exponential":
            return jax.random.gamma(key, float(d), shape, dtype)
        case "tophat":
            return jax.random.uniform(key, shape, dtype) ** (1 / d)
        case "epanechnikov":
            return jnp.sqrt(jax.random.beta(key, 0.5 * d, 2.0, shape, dtype))
        case "linear":
            return jax.random.beta(key, float(d), 2.0, shape, dtype)
    k_try, k_accept = jax.random.split(
        key
    )  # cosine: the linear kernel's, kept where 1 - r is to cos(pi r / 2) as it may be
    tries = jax.random.beta(k_try, float(d), 2.0, (32, *shape), dtype)
    ratio = jnp.cos(0.5 * jnp.pi * tries) / (0.5 * jnp.pi * (1 - tries))
    kept = jax.random.uniform(k_accept, tries.shape, dtype) < ratio  # two in three or more: one of 32 nearly always
    return jnp.take_along_axis(tries, jnp.argmax(kept, axis=0)[None], axis=0)[0]


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=kernel_density, data=lambda: rows(load("two_moons")), rows=rows)
