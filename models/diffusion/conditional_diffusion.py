"""Diffusion of a class that is asked for: the denoiser sees the label, and at times does not, so that samples can be guided.

    z_N ~ N(0, I),   z_{i-1} | z_i ~ N(m(z_i, i, label), beta_i),   x | z_1 ~ N(m(z_1, 1, label), beta_1), or its mass
    guide:  z_i = alpha_i x + sigma_i e_i                  m: the bridge's mean, at what a network believes x to be

label=-1 is "any". Learned by "denoising" with `unlabelled` rows; `fit.sample(64, label=7, guidance=2.0)` exaggerates what the label
says, guidance=1 is the conditional model. Shapes: x: (dim,), label: (), z: (num_levels, dim).
Ho and Salimans 2022 (arXiv:2207.12598); Ho, Jain and Abbeel 2020 (arXiv:2006.11239).
"""

from typing import Any

import jax
import numpyro

from probgen.data.pictures import classes
from probgen.data.values.levels import either, levels_or_scales
from probgen.datasets import labels, load
from probgen.model import Model
from probgen.nets.diffusion.chains import Backward, Noised, levels
from probgen.nets.diffusion.networks import denoiser
from probgen.nets.diffusion.observed import measured, observed
from probgen.nets.diffusion.schedules import linear_levels


def conditional_diffusion(
    label, x=None, dim=64, num_classes=10, num_levels=1000, width=256, depth=3, kind="v", variance="beta",
    whole=0, centre=0.0, spread=1.0,
):  # fmt: skip
    schedule = linear_levels(num_levels)
    net = denoiser("net", schedule, kind, dim, width, depth, jax.nn.one_hot(label, num_classes))
    chain = Backward(net, (dim,), levels(schedule, num_levels), variance)
    z: Any = numpyro.sample("z", chain)
    numpyro.sample("x", observed(*chain.last(z[0]), whole=whole, centre=centre, spread=spread), obs=x)


def guide(x, num_levels=1000, whole=0, centre=0.0, spread=1.0):
    schedule = linear_levels(num_levels)
    numpyro.sample("z", Noised(measured(x, whole, centre, spread), schedule, levels(schedule, num_levels)))


def rows(x, label):
    x = either(x.reshape(len(x), -1))
    return {"x": x, "dim": x.shape[1], "label": label}


def derived(data):
    return levels_or_scales("x")(data) | classes("x", "label")(data)


model = Model(
    program=conditional_diffusion,
    guide=guide,
    data=lambda: rows(load("digits_grey"), labels("digits_grey")),
    rows=rows,
    derived=derived,
    settings={"num_steps": 8000, "unlabelled": 0.1, "ema": 0.998},
)
