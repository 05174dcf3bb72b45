"""The variational autoencoder: a few normal causes, and a network that makes an observation of them.

    z ~ N(0, I),   x | z ~ Bernoulli(sigmoid(f(z))), N(f(z), sigma^2), sigma learned, or a logistic cut into 256 levels
    guide:  q(z | x) = N(m(x), s(x)^2)

f, m and s are perceptrons with `depth` hidden layers of `width` units. likelihood: "bernoulli" for bits, "normal" for reals,
"levels" for integers 0 ... 255. Shapes: x: (dim,), z: (num_latents,).
Kingma and Welling 2014 (arXiv:1312.6114); Rezende, Mohamed and Wierstra 2014 (arXiv:1401.4082).
"""

import numpyro

from probgen.data import load
from probgen.data.scales import one_scale
from probgen.model import Model
from probgen.nets.vae import mlp, normal, observed, shown, standard


def vae(x=None, dim=64, num_latents=8, width=256, depth=1, likelihood="bernoulli", centre=0.0, spread=1.0):
    z = numpyro.sample("z", standard(num_latents))
    numpyro.sample("x", observed(likelihood, mlp("decoder", num_latents, dim, width, depth)(z), centre, spread), obs=x)


def guide(x, num_latents=8, width=256, depth=1, likelihood="bernoulli", centre=0.0, spread=1.0):
    numpyro.sample(
        "z", normal(mlp("encoder", x.size, 2 * num_latents, width, depth)(shown(likelihood, x, centre, spread)))
    )


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(
    program=vae, guide=guide, data=lambda: rows(load("digits")), rows=rows, derived=one_scale("x", "bernoulli")
)
