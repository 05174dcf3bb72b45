"""Masked diffusion: units of a picture, bits, levels or tokens, are masked by and by, and a network shows them again.

    z_T all mask;   z_{t-1} | z_t:  of the masked units some are shown, x_i ~ Categorical(softmax f_i(z_t));   x = z_0
    guide:  every unit is masked at t with probability m_t, which rises from 0 to 1, and stays so

    -log p(x) <= sum_t (m_t - m_{t-1}) / m_t E sum_{i masked at t} -log p(x_i | z_t)

f never says "mask". One level stands for all. num_levels=None is continuous time, where units are masked one by one in an order
drawn evenly: the bound of every order at once. f: tokens of `piece` by `piece` units, mixed by a "mixer" or "attention".
Shapes: x: (height, width), or (width,) with height=0; z: (level, unit).
Sahoo et al. 2024 (arXiv:2406.07524); Hoogeboom et al. 2022 (arXiv:2110.02037).
"""

from typing import Any

import numpyro

from probgen.data import load
from probgen.data.values.levels import either
from probgen.data.values.tokens import of_tokens
from probgen.model import Model
from probgen.nets.diffusion.masking import Masking, Shown, Unmasking
from probgen.nets.tokens.unmasker import unmasker


def masked_diffusion(
    x=None, height=8, width=8, num_values=2, num_levels=None, schedule="linear", piece=2, num_features=96, depth=4, mixing="mixer"
):  # fmt: skip
    shape = (height, width) if height else (width,)
    f = unmasker("net", shape, num_values, piece, num_features, depth, mixing)
    z: Any = numpyro.sample("z", Unmasking(f, num_levels, max(height, 1) * width, num_values, schedule))
    numpyro.sample("x", Shown(z[0].reshape(shape), num_values), obs=x)


def guide(x, num_values=2, num_levels=None, schedule="linear"):
    numpyro.sample("z", Masking(x.ravel(), num_levels, num_values, schedule))


def rows(x):
    return {"x": either(x)}


model = Model(
    program=masked_diffusion,
    guide=guide,
    data=lambda: rows(load("digits")),
    rows=rows,
    derived=of_tokens("x"),
    settings={"num_steps": 6000, "batch_size": 64, "ema": 0.998},
)
