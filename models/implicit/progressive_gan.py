"""Pictures learned small first: each stage doubles the sides, begins where the last one ended, and fades in.

    z ~ N(0, I),   x = fade f_k(z) + (1 - fade) doubled(f_{k-1}(z))                 critic:  D_k(x), likewise

k is `stage`, of pictures of 4 2^k pixels a side. One stage after the other, x of 16 x 16 pixels:

    fit = pg.fit("progressive_gan", progressive(x, stage=0))                        4 x 4: means of squares of x
    for stage, fade in [(1, 0.5), (1, 1.0), (2, 0.5), (2, 1.0)]:
        fit = pg.fit("progressive_gan", progressive(x, stage=stage, fade=fade), init=fit)

Shapes: x: (side, side), or with channels, from `low` to `high`; z: (num_latents,). Karras, Aila, Laine and Lehtinen 2018
(arXiv:1710.10196); learned with equalised weights, its critic sees the spread of its batch.
"""

import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.data.pictures import in_stages, progressive
from probgen.model import Model
from probgen.nets.adversarial.generator import centred, ranged
from probgen.nets.adversarial.progressive import grown, judged
from probgen.nets.vae import standard


def progressive_gan(x=None, stage=1, fade=1.0, channels=0, num_latents=32, num_filters=32, low=0.0, high=1.0):
    z = numpyro.sample("z", standard(num_latents))
    f = grown("generator", z, stage, max(channels, 1), num_filters, fade, lambda f: ranged(f, low, high, 1))
    numpyro.sample("x", dist.Delta(f if channels else f[..., 0], event_dim=3 if channels else 2), obs=x)


def critic(x, stage=1, fade=1.0, num_filters=32, low=0.0, high=1.0):
    return judged("critic", centred(x, low, high), stage, num_filters, fade)


model = Model(
    program=progressive_gan,
    critic=critic,
    data=lambda: progressive(load("digits_grey")),
    rows=progressive,
    derived=in_stages("x"),
    settings={"num_steps": 3000, "batch_size": 64, "ema": 0.99, "equalised": True, "penalty": 10.0},
)
