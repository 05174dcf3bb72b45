"""The Boltzmann machine with hidden units: visible and hidden bits, all connected to each other.

    log p(v, h) = sum_{i<j} W_ij u_i u_j + b' u - log Z,   u = (v, h) in {0, 1}^(D + H)

W is symmetric and without a diagonal by construction: only what stands above it is read. Hidden units interact, so that
their posterior is not a product: learners take its mean-field approximation.
Shapes: v: (visible,), h: (hidden,), W: (visible + hidden, visible + hidden), b: (visible + hidden,).
Ackley, Hinton and Sejnowski 1985 (doi:10.1207/s15516709cog0901_7).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro

from probgen.data import load
from probgen.measures import bits
from probgen.model import Model


def boltzmann_machine_hidden(v=None, num_visible=16, num_hidden=8):
    size = num_visible + num_hidden
    W: Any = numpyro.param("W", lambda key: 0.1 * jax.random.normal(key, (size, size)))
    b = numpyro.param("b", jnp.zeros(size))
    v = numpyro.sample("v", bits(num_visible), obs=v)
    h = numpyro.sample("h", bits(num_hidden))
    u: Any = jnp.concatenate([v, h])
    numpyro.factor("energy", u @ jnp.triu(W, 1) @ u + u @ b)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"v": x, "num_visible": x.shape[1]}


model = Model(program=boltzmann_machine_hidden, data=lambda: rows(load("bars_and_stripes")), rows=rows)
