"""A convolutional variational autoencoder of pictures, in Pyro.

    z ~ N(0, I),   x | z ~ Bernoulli(sigmoid(f(z))), N(f(z), sigma^2), or a logistic cut into levels
    guide:  q(z | x) = N(m(x), s(x)^2)

m and s halve the sides of a picture `halvings` times by convolutions, of `num_filters` and then twice as many filters each time;
f is their mirror image. Shapes, of a batch: x: (row, height, width), z: (row, num_latents).
Radford, Metz and Chintala 2016 (arXiv:1511.06434) for the layers; Kingma and Welling 2014 (arXiv:1312.6114).
"""

import pyro

from probgen.data import load
from probgen.data.scales import one_scale
from probgen.model import Model
from probgen.nets.pyro_modules import down, normal, observed, registered, shown, standard, up


def conv_vae(x, num_latents=8, num_filters=32, halvings=2, likelihood="bernoulli", centre=0.0, spread=1.0):
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", standard(len(x), num_latents))
        f = registered("decoder", up, num_latents, tuple(x.shape[1:]), halvings, num_filters)
        pyro.sample("x", observed(likelihood, f(z), centre, spread), obs=x)


def guide(x, num_latents=8, num_filters=32, halvings=2, likelihood="bernoulli", centre=0.0, spread=1.0):
    with pyro.plate("row", len(x)):
        encoder = registered("encoder", down, tuple(x.shape[1:]), 2 * num_latents, halvings, num_filters)
        pyro.sample("z", normal(encoder(shown(likelihood, x, centre, spread))))


def rows(x):
    if x.ndim != 3:
        raise ValueError(f"x has shape {x.shape}; expected pictures: (row, height, width).")
    return {"x": x}


model = Model(
    program=conv_vae, guide=guide, data=lambda: rows(load("digits")), rows=rows, derived=one_scale("x", "bernoulli")
)
