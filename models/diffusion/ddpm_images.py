"""A denoising diffusion model of pictures, in Pyro: `ddpm` by a U-Net.

    z_N ~ N(0, I),   z_{i-1} | z_i ~ N(m(z_i, i), beta_i),   x | z_1 ~ N(m(z_1, 1), beta_1), of whole numbers its mass in each level
    guide:  z_i = alpha_i x + sigma_i e_i                  m: the bridge's mean, at what the U-Net believes x to be

inference="denoising" learns by the simple loss, which is no bound; "svi" raises the bound itself, one level a row standing for all.
With labels a picture is drawn given its class. Shapes, of a batch: x: (row, height, width) or (row, height, width, channel), label:
(row,), z: (row, num_levels, *picture). Ho, Jain and Abbeel 2020 (arXiv:2006.11239); kind="v": Salimans and Ho 2022
(arXiv:2202.00512).
"""

import pyro

from probgen.data import load
from probgen.data.pictures import with_classes
from probgen.data.values.levels import either, levels_or_scales
from probgen.model import Model
from probgen.nets.torch_diffusion.chains import Backward, Noised, levels
from probgen.nets.torch_diffusion.denoiser import Network
from probgen.nets.torch_diffusion.observed import measured, observed
from probgen.nets.torch_diffusion.schedules import linear_levels
from probgen.nets.torch_diffusion.unet import pictured


def ddpm_images(
    x, label=None, num_levels=1000, width=16, halvings=2, num_blocks=2, attention=False, num_classes=0, kind="v",
    variance="beta", whole=0, centre=0.0, spread=1.0,
):  # fmt: skip
    schedule = linear_levels(num_levels)
    net = pictured("net", x.shape[1:], label, width, halvings, num_blocks, num_classes, attention)
    chain = Backward(Network(schedule, net, kind), x.shape[1:], levels(schedule, num_levels), variance)
    with pyro.plate("row", len(x)):
        z = pyro.sample("z", chain)
        pyro.sample("x", observed(*chain.last(z[:, 0]), whole, centre, spread), obs=x)


def guide(x, num_levels=1000, whole=0, centre=0.0, spread=1.0):
    schedule = linear_levels(num_levels)
    with pyro.plate("row", len(x)):
        pyro.sample("z", Noised(measured(x, whole, centre, spread), schedule, levels(schedule, num_levels)))


def rows(x, label=None):
    """Reals as they are; whole numbers, or grey from 0 to 1 in equal steps, as levels."""
    return {"x": either(x)} | ({} if label is None else {"label": label})


model = Model(
    program=ddpm_images,
    guide=guide,
    data=lambda: rows(load("digits_grey")),
    rows=rows,
    derived=with_classes(levels_or_scales("x")),
    settings={"batch_size": 64, "learning_rate": 0.002},
)
