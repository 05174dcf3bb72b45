"""PixelCNN of pictures of bits, in Pyro: the gated net in two stacks, in torch's convolutions.

    log p(x) = sum over pixels, row by row, of log Bernoulli(x_ij; sigmoid(f_ij(the rows above, the pixels to the left)))

`pixelcnn` is the model in NumPyro, which also completes pictures; this one learns faster on a CPU and on large pictures.
Shapes, of a batch: x: (row, height, width). Van den Oord et al. 2016 (arXiv:1606.05328).
"""

import pyro

from probgen.data import load
from probgen.model import Model
from probgen.nets.pyro_modules import registered
from probgen.nets.pyro_pixels import Pixels, Stacks


def pixelcnn_pyro(x, num_layers=7, num_filters=32):
    net = registered("net", Stacks, num_layers, num_filters)
    with pyro.plate("row", len(x)):
        pyro.sample("x", Pixels(net, tuple(x.shape[1:]), reach=num_layers + 1), obs=x)


def rows(x):
    if x.ndim != 3:
        raise ValueError(f"x has shape {x.shape}; expected pictures: (row, height, width).")
    return {"x": x}


settings = {"num_steps": 3000, "batch_size": 64, "learning_rate": 0.001}
model = Model(program=pixelcnn_pyro, data=lambda: rows(load("digits")), rows=rows, settings=settings)
