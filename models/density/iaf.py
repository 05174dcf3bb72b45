"""IAF: a flow of inverse autoregressive layers.

    x_i = u_i exp(s_i(u_1 ... u_i-1)) + t_i(u_1 ... u_i-1),   in an order that changes from layer to layer

Sampling is one pass of a masked perceptron; the density of x, and so every step of learning, takes one pass a coordinate: see
`maf` for the other way round. |s| stays below `bound`. Shapes: x: (dim,), dim >= 2.
Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling 2016 (arXiv:1606.04934).
"""

import numpyro

from probgen.data import load
from probgen.data.scales import standard
from probgen.model import Model
from probgen.nets.flows import BoundedAffine, autoregressive, measured, standardised


def iaf(
    x=None, given=None, dim=2, num_layers=8, width=56, depth=2, bound=2.0,
    centre=0.0, spread=1.0, given_centre=0.0, given_spread=1.0,
):  # fmt: skip
    given = measured(given, given_centre, given_spread)
    flow = autoregressive("flow", dim, BoundedAffine(bound), num_layers, width, depth, given, invert=False)
    numpyro.sample("x", standardised(flow, centre, spread), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=iaf, data=lambda: rows(load("two_moons")), rows=rows, derived=standard("x", "given"))
