"""The fully visible sigmoid belief network: every bit a logistic regression on the bits before it.

    p(x) = prod_i p(x_i | x_<i),   p(x_i = 1 | x_<i) = sigmoid(b_i + sum_{j < i} W_ij x_j)

Shapes: x: (dim,), b: (dim,), W: (dim, dim), of which the part below the diagonal counts. Minus the log likelihood is convex.
Neal 1992 (doi:10.1016/0004-3702(92)90065-6); Frey 1998, Graphical Models for Machine Learning and Digital Communication.
"""

import jax.numpy as jnp
import numpyro

from probgen.data import load
from probgen.model import Model
from probgen.nets.autoregressive import Autoregressive, SigmoidBelief, check_sizes


def fvsbn(x=None, dim=64):
    check_sizes(dim=dim)
    W = numpyro.param("W", jnp.zeros((dim, dim)))
    b = numpyro.param("b", jnp.zeros(dim))
    numpyro.sample("x", Autoregressive(SigmoidBelief(W, b)), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=fvsbn, data=lambda: rows(load("digits")), rows=rows)
