"""The fully visible Boltzmann machine: bits that are all connected to each other, none hidden.

    log p(v) = sum_{i<j} W_ij v_i v_j + b' v - log Z,   v in {0, 1}^D

W is symmetric and without a diagonal by construction: only what stands above it is read. The likelihood is concave in
(W, b), and at its maximum the model has the means and the pairwise correlations of the data.
Shapes: v: (visible,), W: (visible, visible), b: (visible,).
Ackley, Hinton and Sejnowski 1985 (doi:10.1207/s15516709cog0901_7).
"""

from typing import Any

import jax.numpy as jnp
import numpyro

from probgen.data import load
from probgen.measures import bits
from probgen.model import Model


def boltzmann_machine(v=None, num_visible=16):
    W: Any = numpyro.param("W", jnp.zeros((num_visible, num_visible)))
    b: Any = numpyro.param("b", jnp.zeros(num_visible))
    v = numpyro.sample("v", bits(num_visible), obs=v)
    numpyro.factor("energy", v @ jnp.triu(W, 1) @ v + v @ b)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"v": x, "num_visible": x.shape[1]}


model = Model(program=boltzmann_machine, data=lambda: rows(load("bars_and_stripes")), rows=rows)
