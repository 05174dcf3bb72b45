"""The conditional variational autoencoder: what a picture shows is given, the rest is latent.

    y uniform,   z ~ N(0, I),   x | z, y ~ Bernoulli(sigmoid(f(z, y)))
    guide:  q(z | x, y) = N(m(x, y), s(x, y)^2)

f, m and s are perceptrons. log p(x | y) is log p(x, y) + log(num_classes). New threes: `fit.condition(y=3).sample(64)`; and
`pg.fit(fit.condition(x=row), inference="gibbs")` would ask which class a picture shows, were z not in the way: use
`fit.log_prob(x=row, y=...)` for every class. Shapes: x: (dim,), y: (), z: (num_latents,).
Sohn, Lee and Yan 2015 (NeurIPS 28); Kingma et al. 2014 (arXiv:1406.5298).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from probgen.data.scales import one_scale
from probgen.model import Model
from probgen.nets.vae import mlp, normal, observed, shown, standard


def conditional_vae(
    x=None,
    y=None,
    dim=64,
    num_classes=10,
    num_latents=8,
    width=256,
    depth=1,
    likelihood="bernoulli",
    centre=0.0,
    spread=1.0,
):
    y = numpyro.sample("y", dist.CategoricalLogits(logits=jnp.zeros(num_classes)), obs=y)
    z = numpyro.sample("z", standard(num_latents))
    both = jnp.concatenate([z, jax.nn.one_hot(y, num_classes)])
    numpyro.sample("x", observed(likelihood, mlp("decoder", both.size, dim, width, depth)(both), centre, spread), obs=x)


def guide(x, y, num_classes=10, num_latents=8, width=256, depth=1, likelihood="bernoulli", centre=0.0, spread=1.0):
    both = jnp.concatenate([shown(likelihood, x, centre, spread), jax.nn.one_hot(y, num_classes)])
    numpyro.sample("z", normal(mlp("encoder", both.size, 2 * num_latents, width, depth)(both)))


def digits():
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    return {"x": (found.data >= 8).astype(float), "y": np.asarray(found.target)}


model = Model(program=conditional_vae, guide=guide, data=digits, derived=one_scale("x", "bernoulli"), by_row=True)
