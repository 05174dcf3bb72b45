"""NADE, the neural autoregressive distribution estimator: conditionals with hidden units that share their weights.

    p(x) = prod_i p(x_i | x_<i),   p(x_i = 1 | x_<i) = sigmoid(b_i + V_i' h_i),   h_i = sigmoid(c + sum_{j < i} W_j x_j)

h_i follows from h_{i-1} by one column of W, so that a density takes time of dim times num_hidden.
Shapes: x: (dim,), W, V: (dim, hidden), b: (dim,), c: (hidden,). Larochelle and Murray 2011 (AISTATS, PMLR 15:29-37).
"""

import jax
import jax.numpy as jnp
import numpyro

from probgen.data import load
from probgen.model import Model
from probgen.nets.autoregressive import Autoregressive, Nade, check_sizes


def nade(x=None, dim=64, num_hidden=100):
    check_sizes(dim=dim, num_hidden=num_hidden)
    W = numpyro.param("W", lambda key: jax.random.normal(key, (dim, num_hidden)) / dim**0.5)
    V = numpyro.param("V", lambda key: jax.random.normal(key, (dim, num_hidden)) / num_hidden**0.5)
    b = numpyro.param("b", jnp.zeros(dim))
    c = numpyro.param("c", jnp.zeros(num_hidden))
    numpyro.sample("x", Autoregressive(Nade(W, V, b, c)), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=nade, data=lambda: rows(load("digits")), rows=rows)
