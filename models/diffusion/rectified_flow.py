"""A flow on straight paths, straightened again: flow matching, then one reflow, in one run. Few steps of Euler's draw from it.

    y_1 ~ N(0, I),   dy / dt = v(y, t) from t = 1 to 0,   x = centre + spread y_0
    first       v learns E[e - y_0 | y_t] of any pairs of noise and points: straight paths that cross, so that the flow is curved
    then        of pairs of noise e and the point to which that flow takes e: paths that do not cross, so that v is constant on them

It is `velocity`, learned by "flow_matching" for three fifths of the steps and by "reflow" for the rest; the same law with the first
part's errors, and a density by its ODE. More reflows: inference="reflow", init=fit, first=0. Shapes: x: (dim,).
Liu et al. 2023 (arXiv:2209.03003).
"""

import numpyro

from probgen.data import load
from probgen.data.values.levels import reals_only
from probgen.model import Model
from probgen.nets.diffusion.denoiser import Network
from probgen.nets.diffusion.networks import perceptron
from probgen.nets.diffusion.schedules import Straight
from probgen.nets.diffusion.site import diffused


def rectified_flow(x=None, dim=2, width=128, depth=3, centre=0.0, spread=1.0):
    denoiser = Network(Straight(), perceptron("net", dim, width, depth), "velocity")
    numpyro.sample("x", diffused(denoiser, (dim,), centre, spread), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(
    program=rectified_flow,
    data=lambda: rows(load("two_moons")),
    rows=rows,
    derived=reals_only("x"),
    inference="reflow",
    settings={"first": 0.6, "num_steps": 5000, "learning_rate": 0.002, "ema": 0.99, "ode_steps": 10},
)
