"""Sparse coding: every point is a sum of few atoms out of many.

    z_k ~ Laplace(0, scale),   x | z ~ N(D z, sigma^2 I),   the columns of D of length one

"svi" learns the dictionary with a network as guide; the code of a point is then its mode:
`pg.fit(fit.condition(x=row), inference="map")`.
Shapes: x: (dim,), z: (num_atoms,), D: (dim, num_atoms). Olshausen and Field 1996 (doi:10.1038/381607a0).
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.model import Model


def sparse_coding(x=None, dim=64, num_atoms=100, scale=1.0):
    atoms = numpyro.param("atoms", lambda key: jax.random.normal(key, (dim, num_atoms)))
    sigma = numpyro.param("sigma", jnp.ones(()), constraint=dist.constraints.positive)
    z = numpyro.sample("z", dist.Laplace(0, scale).expand([num_atoms]).to_event(1))
    numpyro.sample("x", dist.Normal(atoms / jnp.linalg.norm(atoms, axis=0) @ z, sigma).to_event(1), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": 8 * (x - x.mean(0)), "dim": x.shape[1]}


model = Model(program=sparse_coding, data=lambda: rows(load("digits_grey")), rows=rows)
