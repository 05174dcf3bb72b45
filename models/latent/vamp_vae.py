"""A variational autoencoder with the VampPrior: the prior is the guide's mean over pseudo-inputs, which are learned.

    z ~ 1/K sum_k q(z | u_k),   x | z ~ Bernoulli(sigmoid(f(z)))
    guide:  q(z | x) = N(m(x), s(x)^2)

Program and guide share the network "encoder". Pseudo-inputs lie between 0 and 1, or 0 and 255 of levels.
Shapes: x: (dim,), u: (num_inputs, dim), z: (num_latents,). Tomczak and Welling 2018 (arXiv:1705.07120).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.model import Model
from probgen.nets.vae import mlp, normal, observed, shown


def vamp_vae(x=None, dim=64, num_latents=8, num_inputs=50, width=256, depth=1, likelihood="bernoulli"):
    logits: Any = numpyro.param("pseudo", lambda key: jax.random.normal(key, (num_inputs, dim)))
    u = jax.nn.sigmoid(logits) * (255 if likelihood == "levels" else 1)
    q = jax.vmap(mlp("encoder", dim, 2 * num_latents, width, depth))(shown(likelihood, u))
    even = dist.Categorical(logits=jnp.zeros(num_inputs))
    z = numpyro.sample("z", dist.MixtureSameFamily(even, normal(q)))
    numpyro.sample("x", observed(likelihood, mlp("decoder", num_latents, dim, width, depth)(z)), obs=x)


def guide(x, num_latents=8, width=256, depth=1, likelihood="bernoulli"):
    numpyro.sample("z", normal(mlp("encoder", x.size, 2 * num_latents, width, depth)(shown(likelihood, x))))


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=vamp_vae, guide=guide, data=lambda: rows(load("digits")), rows=rows)
