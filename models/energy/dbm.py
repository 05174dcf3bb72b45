"""The deep Boltzmann machine: visible bits and two layers of hidden bits, with weights between neighbouring layers.

    log p(v, h1, h2) = v' W1 h1 + h1' W2 h2 + b' v + c1' h1 + c2' h2 - log Z

With `centre`, the mean of the data, and `hidden_centre` v, h1 and h2 have these taken off in the first two terms. It is the same
family of distributions in other parameters, which are learned from nothing; the plain ones want greedy training first.
Given h1 the units of v and h2 are independent, and the other way round: Gibbs sampling takes two blocks. The posterior of
the hidden units is not a product: learners take its mean-field approximation.
Shapes: v: (visible,), h1: (hidden1,), h2: (hidden2,), W1: (visible, hidden1), W2: (hidden1, hidden2).
Salakhutdinov and Hinton 2009 (proceedings.mlr.press/v5/salakhutdinov09a.html); centred: Montavon and Mueller 2012
(doi:10.1007/978-3-642-35289-8_33).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro

from probgen.data import load
from probgen.measures import bits
from probgen.model import Model


def dbm(v=None, num_visible=64, num_hidden1=32, num_hidden2=16, centre=0.0, hidden_centre=0.0):
    W1: Any = numpyro.param("W1", lambda key: 0.01 * jax.random.normal(key, (num_visible, num_hidden1)))
    W2 = numpyro.param("W2", lambda key: 0.01 * jax.random.normal(key, (num_hidden1, num_hidden2)))
    b: Any = numpyro.param("b", jnp.zeros(num_visible))
    c1 = numpyro.param("c1", jnp.zeros(num_hidden1))
    c2 = numpyro.param("c2", jnp.zeros(num_hidden2))
    v = numpyro.sample("v", bits(num_visible), obs=v)
    h1: Any = numpyro.sample("h1", bits(num_hidden1))
    h2: Any = numpyro.sample("h2", bits(num_hidden2))
    x, y, z = v - centre, h1 - hidden_centre, h2 - hidden_centre
    numpyro.factor("energy", x @ W1 @ y + y @ W2 @ z + v @ b + h1 @ c1 + h2 @ c2)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"v": x, "num_visible": x.shape[1], "centre": x.mean(0), "hidden_centre": 0.5}


model = Model(program=dbm, data=lambda: rows(load("digits")), rows=rows)
