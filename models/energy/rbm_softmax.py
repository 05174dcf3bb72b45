"""The restricted Boltzmann machine with softmax visible units: each takes one of K levels; hidden bits.

    log p(v, h) = sum_i (b_{i, v_i} + W_{i, v_i}' h) + c' h - log Z,   v in {0, ..., K - 1}^D, h in {0, 1}^H

Given h, p(v_i = k | h) is the softmax over k of b_ik + W_ik' h. Visible levels are drawn by evaluating the density at each of
them, one unit after the other, which is exact, and slower than the bits of an RBM.
Shapes: v: (visible,), h: (hidden,), W: (visible, level, hidden), b: (visible, level), c: (hidden,).
Salakhutdinov, Mnih and Hinton 2007 (doi:10.1145/1273496.1273596).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from probgen.data import load
from probgen.measures import bits, levels
from probgen.model import Model


def rbm_softmax(v=None, num_visible=64, num_levels=4, num_hidden=16):
    W: Any = numpyro.param("W", lambda key: 0.01 * jax.random.normal(key, (num_visible, num_levels, num_hidden)))
    b = numpyro.param("b", jnp.zeros((num_visible, num_levels)))
    c = numpyro.param("c", jnp.zeros(num_hidden))
    v = numpyro.sample("v", levels(num_levels, num_visible), obs=v)
    h: Any = numpyro.sample("h", bits(num_hidden))
    on = jax.nn.one_hot(jnp.asarray(v, int), num_levels)
    numpyro.factor("energy", jnp.sum(on * (W @ h + b)) + h @ c)


def rows(x):
    """Pictures with grey levels from 0 to 1, cut into four levels; other rows are levels already."""
    x = x.reshape(len(x), -1)
    x = x if x.max() > 1 else np.minimum(np.floor(4 * x), 3)
    return {"v": x, "num_visible": x.shape[1], "num_levels": max(4, int(x.max()) + 1)}


model = Model(program=rbm_softmax, data=lambda: rows(load("digits_grey")), rows=rows)
