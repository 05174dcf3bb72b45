"""A generator of points: noise through a perceptron.

    z ~ N(0, I),   x = f(z)

No density: x lies on the image of f. Learned from draws alone, against a critic ("gan", "wgan_gp", "r3gan") or by a distance of
samples ("mmd", "sliced_wasserstein", "sinkhorn"). Shapes: x: (num_dims,); z: (num_latents,). Goodfellow et al. 2014
(arXiv:1406.2661).
"""

import equinox as eqx
import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.model import Model
from probgen.nets.convolutions import leaky
from probgen.nets.flows import registered
from probgen.nets.vae import standard


def gan(x=None, num_dims=2, num_latents=2, width=128, depth=3):
    z = numpyro.sample("z", standard(num_latents))
    f = registered("generator", lambda key: eqx.nn.MLP(num_latents, num_dims, width, depth, leaky, key=key))
    numpyro.sample("x", dist.Delta(f(z), event_dim=1), obs=x)


def rows(x):
    return {"x": x.reshape(len(x), -1), "num_dims": x[0].size}


model = Model(program=gan, data=lambda: rows(load("grid_25")), rows=rows)
