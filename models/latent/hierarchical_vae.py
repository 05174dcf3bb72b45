"""A ladder variational autoencoder: two levels of causes, and a guide that corrects the program's own prediction of the lower one.

    z2 ~ N(0, I),   z1 | z2 ~ N(m(z2), s(z2)^2),   x | z1 ~ Bernoulli(sigmoid(f(z1)))
    guide:  q(z2 | x) = N(m2(x), s2(x)^2),   q(z1 | x, z2) normal with precision s(z2)^-2 + s1(x)^-2 and the mean so weighted

m and s are the program's own network, which the guide calls by the same name. The KL comes in slowly, or z2 is
never used. Shapes: x: (dim,), z1: (num_latents,), z2: (num_top,).
Sonderby et al. 2016 (arXiv:1602.02282).
"""

from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.data.scales import one_scale
from probgen.model import Model
from probgen.nets.vae import mlp, normal, observed, shown, standard


def hierarchical_vae(
    x=None, dim=64, num_latents=8, num_top=4, width=256, depth=1, likelihood="bernoulli", centre=0.0, spread=1.0
):
    z2 = numpyro.sample("z2", standard(num_top))
    z1 = numpyro.sample("z1", normal(mlp("prior", num_top, 2 * num_latents, width, depth)(z2)))
    numpyro.sample("x", observed(likelihood, mlp("decoder", num_latents, dim, width, depth)(z1), centre, spread), obs=x)


def guide(x, num_latents=8, num_top=4, width=256, depth=1, likelihood="bernoulli", centre=0.0, spread=1.0):
    seen = mlp("encoder", x.size, width, width, depth)(shown(likelihood, x, centre, spread))
    z2 = numpyro.sample("z2", normal(mlp("encoder 2", width, 2 * num_top, width, depth)(jnp.maximum(seen, 0))))
    guided: Any = normal(mlp("encoder 1", width, 2 * num_latents, width, 0)(jnp.maximum(seen, 0)))
    told: Any = normal(mlp("prior", num_top, 2 * num_latents, width, depth)(z2))
    below, above = guided.base_dist, told.base_dist
    precision = below.scale**-2 + above.scale**-2
    mean = (below.loc * below.scale**-2 + above.loc * above.scale**-2) / precision
    numpyro.sample("z1", dist.Normal(mean, precision**-0.5).to_event(1))


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(
    program=hierarchical_vae,
    guide=guide,
    settings={"kl_warmup": 2000},
    data=lambda: rows(load("digits")),
    rows=rows,
    derived=one_scale("x", "bernoulli"),
)
