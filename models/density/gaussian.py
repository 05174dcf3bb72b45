"""The normal distribution with a full covariance.

    x ~ N(loc, L L'),   L lower triangular with a positive diagonal

The maximum of the likelihood is known: loc is the mean of the rows, L L' their covariance with divisor n.
Shapes: x: (dim,), loc: (dim,), scale_tril: (dim, dim).
"""

import jax.numpy as jnp
import numpyro
from numpyro.distributions import constraints

from probgen.data import load
from probgen.distributions.normal import MultivariateNormal
from probgen.model import Model


def gaussian(x=None, dim=2):
    loc = numpyro.param("loc", jnp.zeros(dim))
    scale_tril = numpyro.param("scale_tril", jnp.eye(dim), constraint=constraints.lower_cholesky)
    numpyro.sample("x", MultivariateNormal(loc, scale_tril=scale_tril), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=gaussian, data=lambda: rows(load("two_moons")), rows=rows)
