"""Colours of a grey picture, every pixel by itself: a classification.

    p(c | g) = prod_i softmax(f(g)_i)[c_i],   c_i a symbol for the colour of pixel i

f is a network of convolutions, which sees the grey picture around the pixel. Where a picture may have one colour or another, each
pixel takes one by itself: draws mix both, and the most probable colours are the same for all pictures. Held beside
"colour_in_order", which sees the colours before. Shapes: grey g, colour c: (height, width).
Zhang, Isola and Efros 2016 (arXiv:1603.08511), without their weights of rare colours.
"""

from typing import Any

import numpyro
import numpyro.distributions as dist

from probgen.data.values.colours import coloured_digits, derived
from probgen.model import Model
from probgen.nets.autoregressive import check_sizes
from probgen.nets.pixel_networks import Around, at_random
from probgen.nets.pixels import check_kernels


def colour_by_pixel(grey, colour=None, height=8, width=8, levels=3, num_layers=3, num_filters=24, kernel=3):
    check_sizes(height=height, width=width, levels=levels, num_layers=num_layers, num_filters=num_filters)
    check_kernels(kernel=kernel)
    net: Any = numpyro.param("net", lambda key: at_random(key, Around(levels, num_layers, num_filters, kernel)))
    numpyro.sample("colour", dist.CategoricalLogits(logits=net(grey)).to_event(2), obs=colour)


def rows(grey, colour):
    return {"grey": grey, "colour": colour}


model = Model(program=colour_by_pixel, data=lambda: rows(*coloured_digits()), rows=rows, derived=derived)
