"""A velocity, and its mean between two times, which takes noise to points in one step.

    y_1 ~ N(0, I),   dy / dt = v(y, t) from t = 1 to 0,   x = centre + spread y_0
    u(y_t, s, t) = 1 / (t - s) int_s^t v(y_r, r) dr,   y_s = y_t - (t - s) u(y_t, s, t)

v is the network of "velocity", and the density is of its flow. u is another, which sees both times; inference="mean_flow" learns
it, of v, where a fit of "velocity" is given by init=, or of rows with v beside it. `fit.sample` then draws y_1 - u(y_1, 0, 1).
Shapes: x: (dim,). Geng et al. 2025 (arXiv:2505.13447).
"""

import numpyro

from probgen.data import load
from probgen.data.values.levels import reals_only
from probgen.model import Model
from probgen.nets.diffusion.denoiser import Network
from probgen.nets.diffusion.networks import between_times, perceptron
from probgen.nets.diffusion.schedules import Straight
from probgen.nets.diffusion.site import diffused


def mean_flow(x=None, dim=2, width=256, depth=3, centre=0.0, spread=1.0):
    v, u = perceptron("net", dim, width, depth), between_times("mean", dim, width, depth)
    numpyro.sample("x", diffused(Network(Straight(), v, "velocity", mean=u), (dim,), centre, spread), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(
    program=mean_flow, data=lambda: rows(load("two_moons")), rows=rows, derived=reals_only("x"), inference="mean_flow"
)
