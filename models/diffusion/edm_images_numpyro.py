"""A denoiser of pictures in EDM's units, in NumPyro: the U-Net of `edm_images`, in JAX.

    z = y + sigma e,   E[y | z] = c_skip z + c_out F(c_in z, log sigma),   x = centre + spread y

Levels of noise are learned at log sigma ~ N(-0.5, 1.2^2), in units of the data; Heun's sampler takes two evaluations a step. With
labels a picture is drawn given its class. Shapes: x: (height, width) or (height, width, channel), label: ().
Karras et al. 2022 (arXiv:2206.00364).
"""

import numpyro

from probgen.data import load
from probgen.data.dequantise import dequantised
from probgen.data.pictures import with_classes, with_sides
from probgen.data.values.levels import reals_only
from probgen.model import Model
from probgen.nets.diffusion.denoiser import Network
from probgen.nets.diffusion.schedules import Elucidated
from probgen.nets.diffusion.site import diffused
from probgen.nets.pictures.unet import pictured


def edm_images_numpyro(
    x=None, label=None, height=8, width=8, channels=0, num_filters=16, halvings=2, num_blocks=2, attention=False, num_classes=0,
    low=0.002, high=80.0, centre=0.0, spread=1.0,
):  # fmt: skip
    net = pictured("net", channels, label, num_filters, halvings, num_blocks, num_classes, attention)
    shape = (height, width, channels) if channels else (height, width)
    numpyro.sample("x", diffused(Network(Elucidated(low, high), net, "edm"), shape, centre, spread), obs=x)


def rows(x, label=None):
    return {"x": x} | ({} if label is None else {"label": label})


model = Model(
    program=edm_images_numpyro,
    data=lambda: rows(dequantised(16 * load("digits_grey"), levels=17)),
    rows=rows,
    derived=with_sides(with_classes(reals_only("x", one=True))),
    settings={"times": "normal", "batch_size": 64, "learning_rate": 0.002},
)
