"""A score under the variance exploding SDE: noise is added, and the point stays as it is.

    z_t = z_0 + sigma(t) e,   sigma from `low` to `high` by even steps of its logarithm,   x = centre + spread z_0

The network says the noise; see `score_vp`.
Shapes: x: (dim,). Song and Ermon 2019 (arXiv:1907.05600); Song et al. 2021 (arXiv:2011.13456).
"""

import numpyro

from probgen.data import load
from probgen.data.values.levels import reals_only
from probgen.model import Model
from probgen.nets.diffusion.denoiser import Network
from probgen.nets.diffusion.networks import perceptron
from probgen.nets.diffusion.schedules import Exploding
from probgen.nets.diffusion.site import diffused


def score_ve(x=None, dim=2, width=256, depth=3, low=0.01, high=10.0, centre=0.0, spread=1.0):
    denoiser = Network(Exploding(low, high), perceptron("net", dim, width, depth), "noise")
    numpyro.sample("x", diffused(denoiser, (dim,), centre, spread), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=score_ve, data=lambda: rows(load("two_moons")), rows=rows, derived=reals_only("x"))
