"""The neural spline flow: coupling layers whose transformers are monotone rational-quadratic splines.

    x_a = u_a,   x_b = S(u_b; theta(u_a)),   S with `knots` bins on [-interval, interval], the identity outside

theta, the bins' widths, heights and slopes, is a perceptron's output. Shapes: x: (dim,), dim >= 2; the data should lie
within the interval. Durkan, Bekasov, Murray and Papamakarios 2019 (arXiv:1906.04032).
"""

import numpyro

from probgen.data import load
from probgen.data.scales import standard
from probgen.model import Model
from probgen.nets.flows import coupling, measured, smooth_spline, standardised


def neural_spline(
    x=None, given=None, dim=2, num_layers=6, width=56, depth=2, knots=8, interval=5,
    centre=0.0, spread=1.0, given_centre=0.0, given_spread=1.0,
):  # fmt: skip
    given = measured(given, given_centre, given_spread)
    flow = coupling("flow", dim, smooth_spline(knots, interval), num_layers, width, depth, given)
    numpyro.sample("x", standardised(flow, centre, spread), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=neural_spline, data=lambda: rows(load("two_moons")), rows=rows, derived=standard("x", "given"))
