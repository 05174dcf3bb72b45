"""The autoencoder: a code of few numbers from which a network makes the point again. It has no density.

    x | z ~ N(f(z), sigma^2),   z = g(x)

f and g are perceptrons; with depth=0 they are linear, and the codes span the leading principal components. As a program z has
Lebesgue measure in place of a prior and the guide has no noise, so that the bound is the reconstruction's log likelihood alone.
Shapes: x: (dim,), z: (num_latents,). Hinton and Salakhutdinov 2006 (doi:10.1126/science.1127647).
"""

import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.data.scales import one_scale
from probgen.measures import reals
from probgen.model import Model
from probgen.nets.vae import mlp, observed, shown


def autoencoder(x=None, dim=64, num_latents=8, width=256, depth=1, centre=0.0, spread=1.0):
    z = numpyro.sample("z", reals(num_latents))
    numpyro.sample("x", observed("normal", mlp("decoder", num_latents, dim, width, depth)(z), centre, spread), obs=x)


def guide(x, num_latents=8, width=256, depth=1, centre=0.0, spread=1.0):
    numpyro.sample(
        "z",
        dist.Delta(mlp("encoder", x.size, num_latents, width, depth)(shown("normal", x, centre, spread)), event_dim=1),
    )


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(
    program=autoencoder, guide=guide, data=lambda: rows(load("digits_grey")), rows=rows, derived=one_scale("x")
)
