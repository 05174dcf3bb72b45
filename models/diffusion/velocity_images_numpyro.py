"""A velocity that takes noise to pictures on straight paths, in NumPyro: the U-Net of `velocity_images`, in JAX.

    y_1 ~ N(0, I),   dy / dt = v(y, t) from t = 1 to 0,   x = centre + spread y_0
    v learns to be E[e - y_0 | y_t],   y_t = (1 - t) y_0 + t e

inference="flow_matching" needs no ODE. With labels a picture is drawn given its class. Shapes: x: (height, width) or
(height, width, channel), label: (). Lipman et al. 2023 (arXiv:2210.02747).
"""

import numpyro

from probgen.data import load
from probgen.data.dequantise import dequantised
from probgen.data.pictures import with_classes, with_sides
from probgen.data.values.levels import reals_only
from probgen.model import Model
from probgen.nets.diffusion.denoiser import Network
from probgen.nets.diffusion.schedules import Straight
from probgen.nets.diffusion.site import diffused
from probgen.nets.pictures.unet import pictured


def velocity_images_numpyro(
    x=None, label=None, height=8, width=8, channels=0, num_filters=16, halvings=2, num_blocks=2, attention=False, num_classes=0,
    centre=0.0, spread=1.0,
):  # fmt: skip
    net = pictured("net", channels, label, num_filters, halvings, num_blocks, num_classes, attention)
    shape = (height, width, channels) if channels else (height, width)
    numpyro.sample("x", diffused(Network(Straight(), net, "velocity"), shape, centre, spread), obs=x)


def rows(x, label=None):
    return {"x": x} | ({} if label is None else {"label": label})


model = Model(
    program=velocity_images_numpyro,
    data=lambda: rows(dequantised(16 * load("digits_grey"), levels=17)),
    rows=rows,
    inference="flow_matching",
    derived=with_sides(with_classes(reals_only("x", one=True))),
    settings={"batch_size": 64, "learning_rate": 0.002},
)
