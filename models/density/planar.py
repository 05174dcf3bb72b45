"""The planar flow: each layer bends the density along one direction.

    u = f_K(... f_1(A x + c)),   f(x) = x + a tanh(w' x + b),   log|det df/dx| = log(1 + (1 - tanh(w' x + b)^2) w' a)

A is diagonal, and w' a > -1 by construction, so that every layer is invertible whatever is learned. The layers go from data to
noise, which gives the likelihood in closed form; sampling inverts them by bisection along w (the published flow, a guide, goes
from noise to data). Layers begin as the identity with w and b drawn from N(0, 1): x is taken from its `centre` in units of its
`spread`, (1, dim), those of the data.
Shapes: x: (dim,), w and a: (dim,), b: (). Rezende and Mohamed 2015 (arXiv:1505.05770).
"""

import numpyro

from probgen.data import load
from probgen.data.scales import standard
from probgen.model import Model
from probgen.nets.flows import Planar, stacked, standardised


def planar(x=None, dim=2, num_layers=32, centre=0.0, spread=1.0):
    flow = stacked("flow", dim, Planar, num_layers)
    numpyro.sample("x", standardised(flow, centre, spread), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=planar, data=lambda: rows(load("two_moons")), rows=rows, derived=standard("x"))
