"""The restricted Boltzmann machine: visible and hidden bits, with weights between the two sides alone.

    log p(v, h) = v' W h + b' v + c' h - log Z,   v in {0, 1}^D, h in {0, 1}^H

Given one side, the units of the other are independent: p(h_j = 1 | v) = sigmoid(c_j + v' W_j). Summed over h,
F(v) = b' v + sum_j log(1 + exp(c_j + v' W_j)). Shapes: v: (visible,), h: (hidden,), W: (visible, hidden).
Learners start b at the data's log odds, as they do for every parameter that only multiplies visible bits.
Smolensky 1986; Hinton 2002 (doi:10.1162/089976602760128018).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro

from probgen.data import digits
from probgen.measures import bits
from probgen.model import Model


def rbm(v=None, num_visible=64, num_hidden=16):
    W: Any = numpyro.param("W", lambda key: 0.01 * jax.random.normal(key, (num_visible, num_hidden)))
    b: Any = numpyro.param("b", jnp.zeros(num_visible))
    c = numpyro.param("c", jnp.zeros(num_hidden))
    v = numpyro.sample("v", bits(num_visible), obs=v)
    h: Any = numpyro.sample("h", bits(num_hidden))
    numpyro.factor("energy", v @ W @ h + v @ b + h @ c)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"v": x, "num_visible": x.shape[1]}


model = Model(program=rbm, data=lambda: rows(digits()), rows=rows)
