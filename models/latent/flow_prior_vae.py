"""A variational autoencoder with a learned prior: a RealNVP flow of the latents.

    z = T(u),   u ~ N(0, I),   x | z ~ Bernoulli(sigmoid(f(z)))
    guide:  q(z | x) = N(m(x), s(x)^2)

Shapes: x: (dim,), z: (num_latents,), two or more. Chen et al. 2017 (arXiv:1611.02731).
"""

import numpyro

from probgen.data import load
from probgen.data.scales import one_scale
from probgen.model import Model
from probgen.nets.flows import BoundedAffine, coupling
from probgen.nets.vae import mlp, normal, observed, shown


def flow_prior_vae(
    x=None, dim=64, num_latents=8, width=256, depth=1, num_layers=4, likelihood="bernoulli", centre=0.0, spread=1.0
):
    z = numpyro.sample("z", coupling("prior", num_latents, BoundedAffine(2.0), num_layers, 64, 1))
    numpyro.sample("x", observed(likelihood, mlp("decoder", num_latents, dim, width, depth)(z), centre, spread), obs=x)


def guide(x, num_latents=8, width=256, depth=1, likelihood="bernoulli", centre=0.0, spread=1.0):
    numpyro.sample(
        "z", normal(mlp("encoder", x.size, 2 * num_latents, width, depth)(shown(likelihood, x, centre, spread)))
    )


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(
    program=flow_prior_vae,
    guide=guide,
    data=lambda: rows(load("digits")),
    rows=rows,
    derived=one_scale("x", "bernoulli"),
)
