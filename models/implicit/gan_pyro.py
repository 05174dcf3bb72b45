"""A generator of points in Pyro: the twin of `gan`.

    z ~ N(0, I),   x = f(z)

No density: x lies on the image of f. Learned from draws alone, against a critic ("gan", "wgan", "wgan_gp", "r3gan") or by a
distance of samples ("mmd", "sliced_wasserstein", "sinkhorn"). Shapes, of a batch: x: (row, dim), z: (row, num_latents). Goodfellow
et al. 2014 (arXiv:1406.2661).
"""

import pyro
import pyro.distributions as dist

from probgen.data import load
from probgen.model import Model
from probgen.nets.adversarial.pyro_critic import leaky_perceptron
from probgen.nets.pyro_modules import registered, standard


def gan_pyro(x, num_latents=2, width=128, depth=3):
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", standard(len(x), num_latents))
        f = registered("generator", leaky_perceptron, num_latents, x.shape[1], width, depth)
        pyro.sample("x", dist.Delta(f(z)).to_event(1), obs=x)


def rows(x):
    return {"x": x.reshape(len(x), -1)}


model = Model(program=gan_pyro, data=lambda: rows(load("grid_25")), rows=rows)
