"""A variational autoencoder whose guide is an inverse autoregressive flow: no independent normals.

    z ~ N(0, I),   x | z ~ Bernoulli(sigmoid(f(z)))
    guide:  z = T_h(u),   u ~ N(0, I),   h = g(x),   T a stack of autoregressive layers that see h

Shapes: x: (dim,), z: (num_latents,). Kingma et al. 2016 (arXiv:1606.04934).
"""

import jax
import numpyro

from probgen.data import load
from probgen.data.scales import one_scale
from probgen.model import Model
from probgen.nets.flows import BoundedAffine, autoregressive
from probgen.nets.vae import mlp, observed, shown, standard


def iaf_vae(
    x=None,
    dim=64,
    num_latents=8,
    width=256,
    depth=1,
    likelihood="bernoulli",
    num_layers=2,
    flow_width=64,
    centre=0.0,
    spread=1.0,
):  # num_layers, flow_width: of the guide
    z = numpyro.sample("z", standard(num_latents))
    numpyro.sample("x", observed(likelihood, mlp("decoder", num_latents, dim, width, depth)(z), centre, spread), obs=x)


def guide(
    x, num_latents=8, width=256, depth=1, likelihood="bernoulli", num_layers=2, flow_width=64, centre=0.0, spread=1.0
):
    h = jax.nn.relu(mlp("encoder", x.size, flow_width, width, depth)(shown(likelihood, x, centre, spread)))
    flow = autoregressive("posterior", num_latents, BoundedAffine(4.0), num_layers, flow_width, 1, h, invert=False)
    numpyro.sample("z", flow)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(
    program=iaf_vae, guide=guide, data=lambda: rows(load("digits")), rows=rows, derived=one_scale("x", "bernoulli")
)
