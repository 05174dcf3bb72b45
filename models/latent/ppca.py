"""Probabilistic principal component analysis: a few normal causes and the same noise in every coordinate.

    z ~ N(0, I),   x | z ~ N(mu + W z, sigma^2 I),   so that   x ~ N(mu, W W' + sigma^2 I)

mle and em integrate z out, pca is the closed form. At the maximum mu is the mean, W's columns span the leading eigenvectors of the
covariance, and sigma^2 is the mean of the other eigenvalues; W itself is known up to a rotation. Shapes: z: (latent,), x, mu:
(dim,), W: (dim, latent), sigma: (). Tipping and Bishop 1999 (doi:10.1111/1467-9868.00196).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.data.dequantise import dequantised
from probgen.model import Model


def ppca(x=None, dim=64, num_latents=10):
    W: Any = numpyro.param("W", lambda key: 0.1 * jax.random.normal(key, (dim, num_latents)))
    mu: Any = numpyro.param("mu", jnp.zeros(dim))
    sigma = numpyro.param("sigma", jnp.ones(()), constraint=dist.constraints.positive)
    z = numpyro.sample("z", dist.Normal(0, 1).expand([num_latents]).to_event(1))
    numpyro.sample("x", dist.Normal(mu + W @ z, sigma).to_event(1), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


def digits():
    """Grey digits with uniform noise, so that no pixel is constant."""
    return rows(dequantised(16 * load("digits_grey"), levels=17))


model = Model(program=ppca, data=digits, rows=rows)
