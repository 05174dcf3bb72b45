"""The variational autoencoder in Pyro: the twin of `vae`.

    z ~ N(0, I),   x | z ~ Bernoulli(sigmoid(f(z))), N(f(z), sigma^2), or a logistic cut into levels
    guide:  q(z | x) = N(m(x), s(x)^2)

f, m and s are perceptrons with `depth` hidden layers of `width` units. Shapes, of a batch: x: (row, dim), z: (row, num_latents).
Kingma and Welling 2014 (arXiv:1312.6114); Rezende, Mohamed and Wierstra 2014 (arXiv:1401.4082).
"""

import pyro

from probgen.data import load
from probgen.data.scales import one_scale
from probgen.model import Model
from probgen.nets.pyro_modules import normal, observed, perceptron, registered, shown, standard


def vae_pyro(x, num_latents=8, width=256, depth=1, likelihood="bernoulli", centre=0.0, spread=1.0):
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", standard(len(x), num_latents))
        f = registered("decoder", perceptron, num_latents, x.shape[1], width, depth)
        pyro.sample("x", observed(likelihood, f(z), centre, spread), obs=x)


def guide(x, num_latents=8, width=256, depth=1, likelihood="bernoulli", centre=0.0, spread=1.0):
    with pyro.plate("row", len(x)):
        encoder = registered("encoder", perceptron, x.shape[1], 2 * num_latents, width, depth)
        pyro.sample("z", normal(encoder(shown(likelihood, x, centre, spread))))


def rows(x):
    return {"x": x.reshape(len(x), -1)}


model = Model(
    program=vae_pyro, guide=guide, data=lambda: rows(load("digits")), rows=rows, derived=one_scale("x", "bernoulli")
)
