"""MADE, the masked autoencoder for distribution estimation: all conditionals in one pass of a perceptron.

    p(x) = 1/M sum_m prod_i p_m(x_i | x_j before i in order m),   h_1 = relu((W_1 * A_1) x + b_1), ...,
    h_l = relu((W_l * A_l) h_l-1 + b_l),   logit = (V * A_m) h + (D * A_0) x + c,   with masks A of zeros and ones

A unit of degree d sees inputs 1 ... d of the order, and outputs from d + 1 on see the unit. The M orders (`num_orders`) share
their weights; learning is by the likelihood of the mixture, M passes a row. order: "natural", so that the upper part of a
picture can be completed exactly (further orders are random), or "random" for all. Degrees are spaced evenly and the same in all
orders; the paper draws them. direct: the paper's direct connections D, without which a picture's first rows, mostly blank, waste
units of low degree.
Shapes: x: (dim,), W1: (width, dim), W2 ...: (width, width), V: (dim, width), D: (dim, dim), b1 ...: (width,), c: (dim,).
Germain, Gregor, Murray and Larochelle 2015 (arXiv:1502.03509).
"""

import jax
import jax.numpy as jnp
import numpyro

from probgen.data import load
from probgen.model import Model
from probgen.nets.autoregressive import Autoregressive, Made, check_sizes


def made(x=None, dim=64, width=256, depth=1, num_orders=1, order="natural", direct=True):
    check_sizes(dim=dim, width=width, depth=depth, num_orders=num_orders)
    if order not in ("natural", "random"):
        raise ValueError(f"order is {order!r}; known: natural, random.")
    names, sizes = [*(str(layer + 1) for layer in range(depth))], [dim, *[width] * depth]
    W = [
        numpyro.param(f"W{name}", lambda key, m=m: jax.random.normal(key, (width, m)) * (2 / m) ** 0.5)
        for name, m in zip(names, sizes, strict=False)
    ]
    b = [numpyro.param(f"b{name}", jnp.zeros(width)) for name in names]
    V = numpyro.param("V", lambda key: jax.random.normal(key, (dim, width)) / width**0.5)
    D = numpyro.param("D", jnp.zeros((dim, dim))) if direct else None
    c = numpyro.param("c", jnp.zeros(dim))
    numpyro.sample("x", Autoregressive(Made([*W, V], [*b, c], D, num_orders, order == "natural")), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "dim": x.shape[1]}


model = Model(program=made, data=lambda: rows(load("digits")), rows=rows)
