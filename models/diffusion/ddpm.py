"""A denoising diffusion model: a chain from noise to a point, and a guide that nothing is learned of.

    z_N ~ N(0, I),   z_{i-1} | z_i ~ N(m(z_i, i), beta_i),   x | z_1 ~ N(m(z_1, 1), beta_1), of whole numbers its mass in each level
    guide:  z_i = alpha_i x + sigma_i e_i                  m: the bridge's mean, at what a network believes x to be

inference="svi" raises the bound itself, one level of the chain standing for all; "denoising" the simple loss, which is no bound.
Shapes: x: (dim,); z: (num_levels, dim). Ho, Jain and Abbeel 2020 (arXiv:2006.11239).
"""

from typing import Any

import numpyro

from probgen.data import load
from probgen.data.values.levels import either, levels_or_scales
from probgen.model import Model
from probgen.nets.diffusion.chains import Backward, Noised, levels
from probgen.nets.diffusion.networks import denoiser
from probgen.nets.diffusion.observed import measured, observed
from probgen.nets.diffusion.schedules import linear_levels


def ddpm(
    x=None, dim=64, num_levels=1000, width=256, depth=3, kind="noise", variance="beta", whole=0, centre=0.0, spread=1.0
):  # fmt: skip
    schedule = linear_levels(num_levels)
    net = denoiser("net", schedule, kind, dim, width, depth)
    chain = Backward(net, (dim,), levels(schedule, num_levels), variance)
    z: Any = numpyro.sample("z", chain)
    numpyro.sample("x", observed(*chain.last(z[0]), whole=whole, centre=centre, spread=spread), obs=x)


def guide(x, num_levels=1000, whole=0, centre=0.0, spread=1.0):
    schedule = linear_levels(num_levels)
    numpyro.sample("z", Noised(measured(x, whole, centre, spread), schedule, levels(schedule, num_levels)))


def rows(x):
    """Reals as they are; whole numbers, or grey from 0 to 1 in equal steps, as levels."""
    x = either(x.reshape(len(x), -1))
    return {"x": x, "dim": x.shape[1]}


model = Model(program=ddpm, guide=guide, data=lambda: rows(load("digits")), rows=rows, derived=levels_or_scales("x"))
