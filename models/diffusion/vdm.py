"""A variational diffusion model: a chain of any number of levels, whose first and last levels of noise are learned too.

    z_t = alpha_t y + sigma_t e,   log alpha_t^2 / sigma_t^2 falls from `high` to `low` on a line
    -log p(x) <= KL(q(z_1 | x) || N(0, I)) + E[-log p(x | z_0)] - 1/2 int_0^1 (d log SNR / dt) E |e - e(z_t, t)|^2 dt

The integral is that of infinitely many levels, and depends on the ends of the line alone; samples take `num_levels` of them. With
continuous=False the bound is that of `num_levels` levels. clean, noisy: log SNR of the ends, where learning begins.
kind="mixture" says a mixture of each coordinate, for what is often one value, as pictures are black: there clean=8 is enough.
Shapes: x: (dim,); z: (num_levels, dim).
Kingma, Salimans, Poole and Ho 2021 (arXiv:2107.00630).
"""

from typing import Any

import jax.numpy as jnp
import numpyro

from probgen.data import load
from probgen.data.values.levels import either, levels_or_scales
from probgen.model import Model
from probgen.nets.diffusion.chains import Backward, Noised, evenly
from probgen.nets.diffusion.networks import denoiser
from probgen.nets.diffusion.observed import measured, observed
from probgen.nets.diffusion.schedules import LinearLogSNR


def schedule(learned, clean, noisy):
    if not learned:
        return LinearLogSNR(clean, noisy)
    return LinearLogSNR(numpyro.param("high", jnp.array(clean)), numpyro.param("low", jnp.array(noisy)))


def vdm(
    x=None, dim=64, num_levels=256, width=256, depth=3, kind="noise", learned=True, continuous=True,
    clean=13.3, noisy=-5.0, whole=0, centre=0.0, spread=1.0,
):  # fmt: skip
    net = denoiser("net", schedule(learned, clean, noisy), kind, dim, width, depth)
    chain = Backward(net, (dim,), evenly(num_levels), "bridge", continuous)
    z: Any = numpyro.sample("z", chain)
    numpyro.sample("x", observed(*chain.last(z[0]), whole=whole, centre=centre, spread=spread), obs=x)


def guide(x, num_levels=256, learned=True, clean=13.3, noisy=-5.0, whole=0, centre=0.0, spread=1.0):
    y = measured(x, whole, centre, spread)
    numpyro.sample("z", Noised(y, schedule(learned, clean, noisy), evenly(num_levels)))


def rows(x):
    """Reals as they are; whole numbers, or grey from 0 to 1 in equal steps, as levels."""
    x = either(x.reshape(len(x), -1))
    return {"x": x, "dim": x.shape[1]}


model = Model(program=vdm, guide=guide, data=lambda: rows(load("digits")), rows=rows, derived=levels_or_scales("x"))
