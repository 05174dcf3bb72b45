"""The deep belief network: a restricted Boltzmann machine of two hidden layers, below which the visible bits are directed.

    log p(v, h1, h2) = log p(v | h1) + h1' W2 h2 + c1' h1 + c2' h2 - log Z
    p(v_i = 1 | h1) = sigmoid(b_i + W1_i h1)

Z is that of the top RBM alone, as p(v | h1) is normalised. Learned greedily: an RBM of (v, h1) gives W1 and b, an RBM of h1 as
it infers it gives W2, c1 and c2. log p(v | h1) is not affine in h1: given v its units are drawn by evaluation of the density,
`conditionals="evaluation"`. Free samples need none of that: the top RBM is sampled by Gibbs, then v by its own distribution.
Shapes: v: (visible,), h1: (hidden1,), h2: (hidden2,), W1: (visible, hidden1), W2: (hidden1, hidden2).
Hinton, Osindero and Teh 2006 (doi:10.1162/neco.2006.18.7.1527).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from probgen.data import load
from probgen.measures import bits
from probgen.model import Model


def dbn(v=None, num_visible=64, num_hidden1=32, num_hidden2=16):
    W1: Any = numpyro.param("W1", lambda key: 0.01 * jax.random.normal(key, (num_visible, num_hidden1)))
    W2 = numpyro.param("W2", lambda key: 0.01 * jax.random.normal(key, (num_hidden1, num_hidden2)))
    b = numpyro.param("b", jnp.zeros(num_visible))
    c1 = numpyro.param("c1", jnp.zeros(num_hidden1))
    c2 = numpyro.param("c2", jnp.zeros(num_hidden2))
    h2: Any = numpyro.sample("h2", bits(num_hidden2))
    h1: Any = numpyro.sample("h1", bits(num_hidden1))
    numpyro.factor("energy", h1 @ W2 @ h2 + h1 @ c1 + h2 @ c2)
    numpyro.sample("v", dist.Bernoulli(logits=W1 @ h1 + b).to_event(1), obs=v)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"v": x, "num_visible": x.shape[1]}


model = Model(program=dbn, data=lambda: rows(load("digits")), rows=rows)
