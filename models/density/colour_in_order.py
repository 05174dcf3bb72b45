"""Colours of a grey picture, one pixel after the other: each sees the colours before it, and the whole grey picture.

    p(c | g) = prod_i p(c_i | c_<i, f(g)),   pixels in rows from the top, each row from the left

The gated PixelCNN on symbols of colours, with features f(g) of the grey picture, a network of convolutions, beside its inputs. Once
a pixel has a colour, those that belong to it can take the same. Shapes: grey g, colour c: (height, width).
Van den Oord et al. 2016 (arXiv:1606.05328); for colours Royer, Kolesnikov and Lampert 2017 (arXiv:1705.04258).
"""

from typing import Any

import numpyro

from probgen.data.values.colours import coloured_digits, derived
from probgen.model import Model
from probgen.nets.autoregressive import Autoregressive, check_sizes
from probgen.nets.pixel_heads import Symbols
from probgen.nets.pixel_networks import Around, Gated, at_random
from probgen.nets.pixels import Picture, check_kernels


def colour_in_order(
    grey, colour=None, height=8, width=8, levels=3, num_layers=3, num_filters=24, kernel=3, first=5
):  # fmt: skip
    check_sizes(height=height, width=width, levels=levels, num_layers=num_layers, num_filters=num_filters)
    check_kernels(kernel=kernel, first=first)

    def layout():
        inputs = levels + num_filters
        around = Around(num_filters, num_layers, num_filters, kernel)
        return around, Gated(inputs, levels, num_layers, num_filters, kernel, first)

    both: Any = numpyro.param("net", lambda key: at_random(key, layout()))
    around, net = both
    picture = Picture(net, Symbols(levels), (height, width), around(grey))
    numpyro.sample("colour", Autoregressive(picture), obs=colour)


def rows(grey, colour):
    return {"grey": grey, "colour": colour}


model = Model(program=colour_in_order, data=lambda: rows(*coloured_digits()), rows=rows, derived=derived)
