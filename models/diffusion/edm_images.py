"""A denoiser of pictures in EDM's units, in Pyro: `edm` by a U-Net.

    z = y + sigma e,   E[y | z] = c_skip z + c_out F(c_in z, log sigma),   x = centre + spread y

Levels of noise are learned at log sigma ~ N(-0.5, 1.2^2), in units of the data; Heun's sampler takes two evaluations a step. With
labels a picture is drawn given its class. Shapes, of a batch: x: (row, height, width) or (row, height, width, channel), label:
(row,). Karras et al. 2022 (arXiv:2206.00364).
"""

import pyro

from probgen.data import load
from probgen.data.dequantise import dequantised
from probgen.data.pictures import with_classes
from probgen.data.values.levels import reals_only
from probgen.model import Model
from probgen.nets.torch_diffusion.denoiser import Network
from probgen.nets.torch_diffusion.schedules import Elucidated
from probgen.nets.torch_diffusion.site import diffused
from probgen.nets.torch_diffusion.unet import pictured


def edm_images(
    x, label=None, width=16, halvings=2, num_blocks=2, attention=False, num_classes=0, low=0.002, high=80.0, centre=0.0,
    spread=1.0,
):  # fmt: skip
    net = pictured("net", x.shape[1:], label, width, halvings, num_blocks, num_classes, attention)
    with pyro.plate("row", len(x)):
        pyro.sample("x", diffused(Network(Elucidated(low, high), net, "edm"), x.shape[1:], centre, spread), obs=x)


def rows(x, label=None):
    return {"x": x} | ({} if label is None else {"label": label})


model = Model(
    program=edm_images,
    data=lambda: rows(dequantised(16 * load("digits_grey"), levels=17)),
    rows=rows,
    derived=with_classes(reals_only("x", one=True)),
    settings={"times": "normal", "batch_size": 64, "learning_rate": 0.002},
)
