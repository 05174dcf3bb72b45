"""RealNVP of pictures: checkerboard and channel couplings in several scales.

    scale:    couplings with checkerboards, squeeze 2 x 2 pixels into channels, couplings with halves of the channels,
              half of the channels leave as latent variables z_i; the last scale has checkerboards alone
    coupling: x_b = t(x_a) + x_b exp(s(x_a)), after y = (x - m) / r a channel

s and t are convolutional networks, and |s| stays below `bound`; `knots` and `interval` as for `glow`. Batch normalisation and
residual networks of the paper are Glow's ActNorm and networks here; see `glow` for m, r, `start`, for every level's latent
variables, and for integers.
Shapes: x: (height, width, channels), sides multiples of 2^num_levels; z_i as for `glow`, the last (height / 2^(L-1),
width / 2^(L-1), 2^(L-1) channels). Dinh, Sohl-Dickstein and Bengio 2017 (arXiv:1605.08803).
"""

import numpyro

from probgen.data import load
from probgen.data.dequantise import dequantised
from probgen.data.scales import pictures
from probgen.model import Model
from probgen.nets.flows import measured, standardised
from probgen.nets.glow import realnvp_flow, transformer


def realnvp_images(
    x=None, start=(), height=8, width=8, channels=1, num_levels=2, num_steps=3, hidden=32, bound=2.0, knots=0, interval=4.0,
    centre=0.0, spread=1.0,
):  # fmt: skip
    coupling = transformer(bound, knots, interval)
    flow = realnvp_flow(
        "flow", (height, width, channels), num_levels, num_steps, hidden, coupling, measured(start, centre, spread)
    )
    numpyro.sample("x", standardised(flow, centre, spread), obs=x)


def rows(x):
    x = x.reshape(*x.shape[:3], -1)
    return {"x": x, "start": x[:256], "height": x.shape[1], "width": x.shape[2], "channels": x.shape[3]}


data = lambda: rows(dequantised(16 * load("digits_grey"), levels=17))  # noqa: E731
model = Model(program=realnvp_images, data=data, rows=rows, derived=pictures)
