"""MAF: a flow of masked autoregressive layers.

    x_i = u_i exp(s_i(x_1 ... x_i-1)) + t_i(x_1 ... x_i-1),   in an order that changes from layer to layer

From x to u it is one pass of a masked perceptron, from u to x one pass a coordinate. |s| stays below `bound`.
Shapes: x: (dim,). Papamakarios, Pavlakou and Murray 2017 (arXiv:1705.07057).
"""

import numpyro

from probgen.data import load
from probgen.data.scales import standard
from probgen.model import Model
from probgen.nets.flows import BoundedAffine, autoregressive, measured, standardised


def maf(
    x=None, given=None, dim=2, num_layers=8, width=56, depth=2, bound=2.0,
    centre=0.0, spread=1.0, given_centre=0.0, given_spread=1.0,
):  # fmt: skip
    given = measured(given, given_centre, given_spread)
    flow = autoregressive("flow", dim, BoundedAffine(bound), num_layers, width, depth, given)
    numpyro.sample("x", standardised(flow, centre, spread), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=maf, data=lambda: rows(load("two_moons")), rows=rows, derived=standard("x", "given"))
