"""The radial flow: each layer draws the density towards a centre, or away from it.

    u = f_K(... f_1(A x + b)),   f(x) = x + beta h(r) (x - c),   h(r) = 1 / (alpha + r),   r = |x - c|
    log|det df/dx| = (d - 1) log(1 + beta h) + log(1 + alpha beta h^2)

A is diagonal; alpha > 0 and beta > -alpha by construction, so that every layer is invertible whatever is learned. The layers go
from data to noise; for sampling, r is the root of a quadratic equation. Layers begin as the identity with centres drawn from
N(0, 1): x is taken from its `centre` in units of its
`spread`, (1, dim), those of the data. Shapes: x: (dim,), c: (dim,), alpha and beta: ().
Rezende and Mohamed 2015 (arXiv:1505.05770).
"""

import numpyro

from probgen.data import load
from probgen.data.scales import standard
from probgen.model import Model
from probgen.nets.flows import Radial, stacked, standardised


def radial(x=None, dim=2, num_layers=32, centre=0.0, spread=1.0):
    flow = stacked("flow", dim, Radial, num_layers)
    numpyro.sample("x", standardised(flow, centre, spread), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=radial, data=lambda: rows(load("two_moons")), rows=rows, derived=standard("x"))
