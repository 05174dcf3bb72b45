"""RealNVP: a flow of affine coupling layers.

    x_a = u_a,   x_b = u_b exp(s(u_a)) + t(u_a),   a and b the halves of the coordinates, permuted after every layer

s and t are perceptrons, and |s| stays below `bound`, so that no layer overflows. Shapes: x: (dim,), dim >= 2.
Dinh, Sohl-Dickstein and Bengio 2017 (arXiv:1605.08803).
"""

import numpyro

from probgen.data import load
from probgen.data.scales import standard
from probgen.model import Model
from probgen.nets.flows import BoundedAffine, coupling, measured, standardised


def realnvp(
    x=None, given=None, dim=2, num_layers=8, width=56, depth=2, bound=2.0,
    centre=0.0, spread=1.0, given_centre=0.0, given_spread=1.0,
):  # fmt: skip
    given = measured(given, given_centre, given_spread)
    flow = coupling("flow", dim, BoundedAffine(bound), num_layers, width, depth, given)
    numpyro.sample("x", standardised(flow, centre, spread), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=realnvp, data=lambda: rows(load("two_moons")), rows=rows, derived=standard("x", "given"))
