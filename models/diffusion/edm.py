"""A denoiser in EDM's units: what the network sees and says has variance one at every level of noise.

    z = y + sigma e,   E[y | z] = c_skip z + c_out F(c_in z, log sigma),   x = centre + spread y

Levels of noise are learned at log sigma ~ N(-0.5, 1.2^2), in units of the data; Heun's sampler takes two evaluations a step.
Shapes: x: (dim,). Karras et al. 2022 (arXiv:2206.00364).
"""

import numpyro

from probgen.data import load
from probgen.data.values.levels import reals_only
from probgen.model import Model
from probgen.nets.diffusion.denoiser import Network
from probgen.nets.diffusion.networks import perceptron
from probgen.nets.diffusion.schedules import Elucidated
from probgen.nets.diffusion.site import diffused


def edm(x=None, dim=2, width=256, depth=3, low=0.002, high=80.0, centre=0.0, spread=1.0):
    denoiser = Network(Elucidated(low, high), perceptron("net", dim, width, depth), "edm")
    numpyro.sample("x", diffused(denoiser, (dim,), centre, spread), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(
    program=edm, data=lambda: rows(load("two_moons")), rows=rows, derived=reals_only("x"), settings={"times": "normal"}
)
