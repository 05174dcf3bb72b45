"""A velocity that takes noise to points on straight paths: flow matching, and a density by its ODE.

    y_1 ~ N(0, I),   dy / dt = v(y, t) from t = 1 to 0,   x = centre + spread y_0
    v learns to be E[e - y_0 | y_t],   y_t = (1 - t) y_0 + t e

inference="flow_matching" needs no ODE; "mle" learns through it. Time runs from the point, 0, to noise, 1.
Shapes: x: (dim,). Lipman et al. 2023 (arXiv:2210.02747).
"""

import numpyro

from probgen.data import load
from probgen.data.values.levels import reals_only
from probgen.model import Model
from probgen.nets.diffusion.denoiser import Network
from probgen.nets.diffusion.networks import perceptron
from probgen.nets.diffusion.schedules import Straight
from probgen.nets.diffusion.site import diffused


def velocity(x=None, dim=2, width=256, depth=3, centre=0.0, spread=1.0):
    denoiser = Network(Straight(), perceptron("net", dim, width, depth), "velocity")
    numpyro.sample("x", diffused(denoiser, (dim,), centre, spread), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(
    program=velocity,
    data=lambda: rows(load("two_moons")),
    rows=rows,
    derived=reals_only("x"),
    inference="flow_matching",
)
