"""A velocity that takes noise to pictures on straight paths, in Pyro: `velocity` by a U-Net.

    y_1 ~ N(0, I),   dy / dt = v(y, t) from t = 1 to 0,   x = centre + spread y_0
    v learns to be E[e - y_0 | y_t],   y_t = (1 - t) y_0 + t e

inference="flow_matching" needs no ODE. With labels a picture is drawn given its class. Of a batch: x: (row, height, width) or
(row, height, width, channel), label: (row,). Lipman et al. 2023 (arXiv:2210.02747).
"""

import pyro

from probgen.data import load
from probgen.data.dequantise import dequantised
from probgen.data.pictures import with_classes
from probgen.data.values.levels import reals_only
from probgen.model import Model
from probgen.nets.torch_diffusion.denoiser import Network
from probgen.nets.torch_diffusion.schedules import Straight
from probgen.nets.torch_diffusion.site import diffused
from probgen.nets.torch_diffusion.unet import pictured


def velocity_images(
    x, label=None, width=16, halvings=2, num_blocks=2, attention=False, num_classes=0, centre=0.0, spread=1.0
):
    net = pictured("net", x.shape[1:], label, width, halvings, num_blocks, num_classes, attention)
    with pyro.plate("row", len(x)):
        pyro.sample("x", diffused(Network(Straight(), net, "velocity"), x.shape[1:], centre, spread), obs=x)


def rows(x, label=None):
    return {"x": x} | ({} if label is None else {"label": label})


model = Model(
    program=velocity_images,
    data=lambda: rows(dequantised(16 * load("digits_grey"), levels=17)),
    rows=rows,
    inference="flow_matching",
    derived=with_classes(reals_only("x", one=True)),
    settings={"batch_size": 64, "learning_rate": 0.002},
)
