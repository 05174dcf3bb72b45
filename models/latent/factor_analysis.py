"""Factor analysis: a few normal causes, and noise of its own in every coordinate.

    z ~ N(0, I),   x | z ~ N(mu + W z, diag(sigma^2)),   so that   x ~ N(mu, W W' + diag(sigma^2))

em and mle integrate z out; W is known up to a rotation. Coordinates should vary: the likelihood of a constant one has no maximum.
Shapes: z: (latent,), x, mu, sigma: (dim,), W: (dim, latent). Spearman 1904; Rubin and Thayer 1982 (doi:10.1007/BF02293851).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from probgen.model import Model
from probgen.models.latent.ppca import digits, rows


def factor_analysis(x=None, dim=64, num_latents=10):
    W: Any = numpyro.param("W", lambda key: 0.1 * jax.random.normal(key, (dim, num_latents)))
    mu: Any = numpyro.param("mu", jnp.zeros(dim))
    sigma = numpyro.param("sigma", jnp.ones(dim), constraint=dist.constraints.positive)
    z = numpyro.sample("z", dist.Normal(0, 1).expand([num_latents]).to_event(1))
    numpyro.sample("x", dist.Normal(mu + W @ z, sigma).to_event(1), obs=x)


model = Model(program=factor_analysis, data=digits, rows=rows)
