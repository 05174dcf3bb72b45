"""A neural energy: the log density of a point is a network's output, within a wide normal so that it has a constant.

    log p(x) = g(x) - |x|^2 / (2 s^2) - log Z,   g a perceptron with swish units

g grows at most linearly, so that Z is finite. Shapes: x: (dimension,). s is in the units of the data, whose points should
lie well within it. LeCun et al. 2006; Du and Mordatch 2019 (arXiv:1903.08689).
"""

from typing import Any

import jax.numpy as jnp
import numpyro
from numpyro.contrib.module import eqx_module

from probgen.data import load
from probgen.measures import reals
from probgen.model import Model
from probgen.nets.equinox import mlp


def neural_ebm(x=None, num_visible=2, width=128, depth=2, scale=4):
    net: Any = eqx_module("net", mlp(numpyro.prng_key(), num_visible, width, depth))
    x = numpyro.sample("x", reals(num_visible), obs=x)
    numpyro.factor("energy", net(x) - 0.5 * jnp.sum((x / scale) ** 2))


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "num_visible": x.shape[1]}


model = Model(program=neural_ebm, data=lambda: rows(load("eight_gaussians")), rows=rows)
