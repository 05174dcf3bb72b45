"""Pictures made of others, in pairs: edges filled in, grey ones coloured.

    z ~ N(0, I),   b = f(a, z)                       critic:  D(a, b), one logit for each patch

f is a U-Net that z enters at its smallest grid. Beside the critic's judgement stands how far b is from the row's own, by the
learner's `reconstruction`, here 100 mean |b - f(a, z)|. Shapes: a, b: (height, width), or with channels, from `low` to `high`; z:
(num_latents,). Isola, Zhu, Zhou and Efros 2017 (arXiv:1611.07004), whose noise is dropout.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.data.pictures import of_pictures
from probgen.model import Model
from probgen.nets.adversarial.generator import centred, ranged
from probgen.nets.adversarial.judges import patches
from probgen.nets.adversarial.unet import unet
from probgen.nets.vae import standard


def pix2pix(
    a, b=None, height=8, width=8, given_channels=0, channels=0, halvings=2, num_latents=8, num_filters=16, low=0.0, high=1.0
):  # fmt: skip
    z = numpyro.sample("z", standard(num_latents))
    f = unet("generator", a, height, width, (given_channels, channels), halvings, num_filters, z, low, high)
    numpyro.sample("b", dist.Delta(ranged(f, low, high, channels), event_dim=3 if channels else 2), obs=b)


def critic(a, b, num_filters=16, low=0.0, high=1.0):
    pair = jnp.concatenate([centred(a, low, high), centred(b, low, high)], -1)
    return patches("critic", pair, 2 * num_filters)


def rows(a, b):
    return {"a": a, "b": b}


model = Model(
    program=pix2pix,
    critic=critic,
    data=lambda: rows(*load("edges_to_digits")),
    rows=rows,
    derived=of_pictures("a", "b", most=2),
    settings={"num_steps": 3000, "batch_size": 32, "ema": 0.99, "reconstruction": 100.0},
)
