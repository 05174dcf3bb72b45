"""A product of Student-t experts: each looks at a point along one direction and dislikes large values there.

    log p(x) = - sum_k alpha_k log(1 + (w_k' (x - b))^2 / 2) - log Z,   x in R^D, alpha_k > 1/2

Data that are sparse along some directions are likely under few active experts each. With as many experts as dimensions this
is independent component analysis, and Z = |det w|^-1 prod_k sqrt(2 pi) Gamma(alpha_k - 1/2) / Gamma(alpha_k); with more, Z
is not known. alpha = 1/2 + exp(log_alpha), so that Z is finite wherever the directions span the space.
Shapes: x: (dim,), w: (expert, dim), b: (dim,), log_alpha: (expert,).
Hinton 2002 (doi:10.1162/089976602760128018); Welling, Hinton and Osindero 2002 (NIPS 15).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from probgen.measures import reals
from probgen.model import Model


def product_of_experts(x=None, dim=2, num_experts=2):
    w: Any = numpyro.param("w", lambda key: jax.random.normal(key, (num_experts, dim)))
    b: Any = numpyro.param("b", jnp.zeros(dim))
    log_alpha: Any = numpyro.param("log_alpha", jnp.zeros(num_experts))
    x = numpyro.sample("x", reals(dim), obs=x)
    alpha = 0.5 + jnp.exp(log_alpha)
    numpyro.factor("energy", -jnp.sum(alpha * jnp.log1p((w @ (x - b)) ** 2 / 2)))


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


def mixed_sources():
    """Two independent Student-t sources with 4 degrees of freedom, mixed: x = A s, so that w is A^-1 up to order and scale."""
    s = np.random.default_rng(0).standard_t(4, (4000, 2))
    return rows(s @ np.array([[1.0, 0.0], [0.6, 1.0]]).T)


model = Model(program=product_of_experts, data=mixed_sources, rows=rows)
