"""PixelRNN with row LSTMs, for pictures of bits: recurrent layers that run down the rows.

    p(x) = prod_i p(x_i | x_<i),   pixels in rows from the top, each row from the left

    o, f, i, g = sigma(K_is * x_r + K_ss * h_{r-1}),   c_r = f c_{r-1} + i g,   h_r = o tanh(c_r),   x' = x + A h

for a whole row r at once: K_is is masked, so that a pixel sees its left, K_ss sees the states above on both sides. A layer so
sees the triangle above a pixel up to the top row. Before the first layer comes a masked convolution of side `first`.
Shapes: x: (height, width), h, c: (height, width, filter).
Van den Oord, Kalchbrenner and Kavukcuoglu 2016 (arXiv:1601.06759).
"""

import numpyro

from probgen.data import load
from probgen.model import Model
from probgen.nets.autoregressive import Autoregressive, check_sizes
from probgen.nets.pixel_heads import Bit
from probgen.nets.pixel_networks import Recurrent, at_random
from probgen.nets.pixels import Picture, check_kernels, check_pictures


def pixelrnn(x=None, height=8, width=8, num_layers=2, num_filters=24, kernel=3, first=7):
    check_sizes(height=height, width=width, num_layers=num_layers, num_filters=num_filters)
    check_kernels(kernel=kernel, first=first)
    net = numpyro.param("net", lambda key: at_random(key, Recurrent(1, 1, num_layers, num_filters, kernel, first)))
    numpyro.sample("x", Autoregressive(Picture(net, Bit(), (height, width))), obs=x)


def rows(x):
    check_pictures(x)
    return {"x": x, "height": x.shape[1], "width": x.shape[2]}


model = Model(program=pixelrnn, data=lambda: rows(load("digits")), rows=rows)
