"""A score under the variance preserving SDE: noise comes in as the point shrinks.

    dz = -1/2 beta(t) z dt + sqrt(beta(t)) dw,   beta from `low` to `high`,   x = centre + spread z_0

The network says the noise; its score gives the reverse SDE, from which samples come, and the probability flow, whose density
is `fit.log_prob`. They are two models where the score is not exact.
Shapes: x: (dim,). Song et al. 2021 (arXiv:2011.13456).
"""

import numpyro

from probgen.data import load
from probgen.data.values.levels import reals_only
from probgen.model import Model
from probgen.nets.diffusion.denoiser import Network
from probgen.nets.diffusion.networks import perceptron
from probgen.nets.diffusion.schedules import Linear
from probgen.nets.diffusion.site import diffused


def score_vp(x=None, dim=2, width=256, depth=3, low=0.1, high=20.0, centre=0.0, spread=1.0):
    denoiser = Network(Linear(low, high), perceptron("net", dim, width, depth), "noise")
    numpyro.sample("x", diffused(denoiser, (dim,), centre, spread), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=score_vp, data=lambda: rows(load("two_moons")), rows=rows, derived=reals_only("x"))
