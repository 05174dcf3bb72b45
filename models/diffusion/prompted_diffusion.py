"""Diffusion of what a few words say: a small transformer reads the prompt, and the denoiser sees what it makes of it.

    e = encoder(prompt)
    z_N ~ N(0, I),   z_{i-1} | z_i ~ N(m(z_i, i, e), beta_i),   x | z_1 ~ N(m(z_1, 1, e), beta_1), or its mass
    guide:  z_i = alpha_i x + sigma_i e_i                  m: the bridge's mean, at what a network believes x to be

Prompts are tokens, -1 for none; nothing but -1 is the empty prompt, which learners put in the place of some, so that samples can be
guided: `fit.sample(16, prompt=tokens("a thick slanted seven"), guidance=2.0)`, `tokens` of probgen.data.values.prompts.
Shapes: x: (dim,), prompt: (token,), z: (num_levels, dim). Ho and Salimans 2022 (arXiv:2207.12598); Saharia et al. 2022
(arXiv:2205.11487).
"""

from typing import Any

import equinox as eqx
import numpyro

from probgen.data.values.levels import either, levels_or_scales
from probgen.data.values.prompts import vocabulary
from probgen.datasets import load
from probgen.model import Model
from probgen.nets.diffusion.chains import Backward, Noised, levels
from probgen.nets.diffusion.denoiser import Network
from probgen.nets.diffusion.networks import perceptron
from probgen.nets.diffusion.observed import measured, observed
from probgen.nets.diffusion.schedules import linear_levels
from probgen.nets.tokens.transformer import encoder


def prompted_diffusion(
    prompt, x=None, dim=64, num_words=16, num_levels=1000, width=256, depth=3, text_width=32, text_depth=1,
    kind="v", variance="beta", whole=0, centre=0.0, spread=1.0,
):  # fmt: skip
    said = encoder("text", num_words, len(prompt), text_width, text_depth)(prompt)
    net = eqx.Partial(perceptron("net", dim, width, depth, text_width), given=said)
    schedule = linear_levels(num_levels)
    chain = Backward(Network(schedule, net, kind), (dim,), levels(schedule, num_levels), variance)
    z: Any = numpyro.sample("z", chain)
    numpyro.sample("x", observed(*chain.last(z[0]), whole=whole, centre=centre, spread=spread), obs=x)


def guide(x, num_levels=1000, whole=0, centre=0.0, spread=1.0):
    schedule = linear_levels(num_levels)
    numpyro.sample("z", Noised(measured(x, whole, centre, spread), schedule, levels(schedule, num_levels)))


def rows(prompt, x):
    x = either(x.reshape(len(x), -1))
    return {"prompt": prompt, "x": x, "dim": x.shape[1]}


def derived(data):
    return levels_or_scales("x")(data) | vocabulary("prompt", data)


model = Model(
    program=prompted_diffusion,
    guide=guide,
    data=lambda: rows(*load("prompted_digits")),
    rows=rows,
    derived=derived,
    settings={"num_steps": 8000, "unlabelled": 0.1, "ema": 0.998},
)
