"""The gated PixelCNN for pictures of bits: convolutions that see only the pixels before, and all of them.

    p(x) = prod_i p(x_i | x_<i),   pixels in rows from the top, each row from the left

    v' = gate(K_v * v),   h' = h + A gate(K_h * h + B (K_v * v)),   gate(a, b) = tanh(a) sigmoid(b)

The stack v sees the rows above in the shape of a funnel, the stack h the pixels to the left and v, so that there is no blind
spot. The logit comes from the sum of all layers' gates, through two linear maps. `first` is the side of the first kernel.
Shapes: x: (height, width), v, h: (height, width, filter).
Van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves and Kavukcuoglu 2016 (arXiv:1606.05328).
"""

import numpyro

from probgen.data import load
from probgen.model import Model
from probgen.nets.autoregressive import Autoregressive, check_sizes
from probgen.nets.pixel_heads import Bit
from probgen.nets.pixel_networks import Gated, at_random
from probgen.nets.pixels import Picture, check_kernels, check_pictures


def pixelcnn(x=None, height=8, width=8, num_layers=4, num_filters=24, kernel=3, first=5):
    check_sizes(height=height, width=width, num_layers=num_layers, num_filters=num_filters)
    check_kernels(kernel=kernel, first=first)
    net = numpyro.param("net", lambda key: at_random(key, Gated(1, 1, num_layers, num_filters, kernel, first)))
    numpyro.sample("x", Autoregressive(Picture(net, Bit(), (height, width))), obs=x)


def rows(x):
    check_pictures(x)
    return {"x": x, "height": x.shape[1], "width": x.shape[2]}


model = Model(program=pixelcnn, data=lambda: rows(load("digits")), rows=rows)
