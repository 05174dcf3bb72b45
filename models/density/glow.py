"""Glow: a flow of pictures in several scales.

    scale: squeeze 2 x 2 pixels into channels, `num_steps` steps, half of the channels leave as latent variables z_i
    step:  y = (x - m) / r a channel;  y = P L (U + diag(s)) x in every pixel;  x_b = t(x_a) + x_b exp(s(x_a)), half a channel each

s and t are convolutional networks, and |s| stays below `bound`. With `knots` a rational-quadratic spline of so many knots on
[-interval, interval] takes the place of t + x exp(s), its parameters the network's: slower steps, but far fewer of them where most
pixels are of one grey level (Durkan et al. 2019, arXiv:1906.04032). z_i is normal given what goes on to the next scale, its mean
and scale a convolution of that. Every level is open: `flow = probgen.nets.flows.learned(fit)`, `z = flow.encode(x)`,
`flow.decode(z)`. The means and scales m, r (ActNorm) begin with zero means and unit variances on the
pictures `start`, which `rows` takes from the data. Pixels are real numbers with a density: take integers through
`probgen.data.dequantise` first.
Shapes: x: (height, width, channels), sides multiples of 2^num_levels; z_i: (height / 2^i, width / 2^i, 2^i channels), twice the
channels for the last. Kingma and Dhariwal 2018 (arXiv:1807.03039).
"""

import numpyro

from probgen.data import load
from probgen.data.dequantise import dequantised
from probgen.data.scales import pictures
from probgen.model import Model
from probgen.nets.flows import measured, standardised
from probgen.nets.glow import glow_flow, transformer


def glow(
    x=None, start=(), height=8, width=8, channels=1, num_levels=2, num_steps=4, hidden=32, bound=2.0, knots=0, interval=4.0,
    centre=0.0, spread=1.0,
):  # fmt: skip
    coupling = transformer(bound, knots, interval)
    flow = glow_flow(
        "flow", (height, width, channels), num_levels, num_steps, hidden, coupling, measured(start, centre, spread)
    )
    numpyro.sample("x", standardised(flow, centre, spread), obs=x)


def rows(x):
    x = x.reshape(*x.shape[:3], -1)
    return {"x": x, "start": x[:256], "height": x.shape[1], "width": x.shape[2], "channels": x.shape[3]}


data = lambda: rows(dequantised(16 * load("digits_grey"), levels=17))  # noqa: E731
model = Model(program=glow, data=data, rows=rows, derived=pictures)
