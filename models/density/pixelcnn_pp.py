"""PixelCNN++ for pictures of levels: a mixture of logistics cut into levels, over two streams of residual blocks.

    p(x) = prod_i sum_k w_ik prod_c [F((x_ic + 1/2 - m_ikc) / s_ikc) - F((x_ic - 1/2 - m_ikc) / s_ikc)],
    m_ikc = mu_ikc + sum_{j < c} a_ikcj x_ij,   F the logistic function, the lowest and highest level with their tails

w, mu, s and a are the network's outputs for pixel i given all pixels before it (rows from the top, each from the left). A block
adds a convolution's gated product, of elu(x) and elu(-x); one stream sees the rows above, the other those, the left, and the
first stream. Left out: changes of resolution with their short cuts, dropout, and weight normalisation.
Shapes: x: (height, width), or (height, width, channel) where num_channels is 2 or more; whole numbers from 0 to levels - 1.
Salimans, Karpathy, Chen and Kingma 2017 (arXiv:1701.05517).
"""

import functools

import numpy as np
import numpyro

from probgen.data import load
from probgen.model import Model
from probgen.nets.autoregressive import Autoregressive, check_sizes
from probgen.nets.pixel_heads import Logistics
from probgen.nets.pixel_networks import Residual, at_random
from probgen.nets.pixels import Picture, check_pictures


def pixelcnn_pp(
    x=None, height=8, width=8, num_channels=1, levels=17, num_blocks=3, num_filters=16, num_components=5
):  # fmt: skip
    check_sizes(height=height, width=width, num_channels=num_channels, num_blocks=num_blocks)
    check_sizes(num_filters=num_filters, num_components=num_components)
    if levels < 2:
        raise ValueError(f"levels is {levels}; expected 2 or more: values are whole numbers from 0 to levels - 1.")
    head = Logistics(levels, num_channels, num_components)
    layout = functools.partial(Residual, num_channels, head.num_outputs, num_blocks, num_filters)
    net = numpyro.param("net", lambda key: at_random(key, layout()))
    shape = (height, width) if num_channels == 1 else (height, width, num_channels)
    numpyro.sample("x", Autoregressive(Picture(net, head, shape)), obs=x)


def rows(x):
    """Pictures of whole numbers, one channel or more, or grey from 0 to 1, which is cut into 17 levels."""
    check_pictures(x, channels=True)
    x = x[..., 0] if x.ndim == 4 and x.shape[3] == 1 else x
    x = x if (x == np.round(x)).all() else np.round(16 * x)
    sizes = {"height": x.shape[1], "width": x.shape[2], "num_channels": x.shape[3] if x.ndim == 4 else 1}
    return {"x": x.astype(float), **sizes, "levels": max(2, int(x.max()) + 1)}


model = Model(program=pixelcnn_pp, data=lambda: rows(load("digits_grey")), rows=rows)
