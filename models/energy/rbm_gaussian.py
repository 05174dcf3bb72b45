"""The Gaussian-Bernoulli restricted Boltzmann machine: real visible units, hidden bits.

    log p(v, h) = - sum_i (v_i - b_i)^2 / (2 sigma_i^2) + (v / sigma^2)' W h + c' h - log Z,   v in R^D, h in {0, 1}^H

Given h the visible units are normal, v_i ~ N(b_i + W_i h, sigma_i^2); given v the hidden ones are independent,
p(h_j = 1 | v) = sigmoid(c_j + (v / sigma^2)' W_j). So p(v) is a mixture of 2^H Gaussians. sigma is learned on its logarithm.
Shapes: v: (visible,), h: (hidden,), W: (visible, hidden), b, log_sigma: (visible,), c: (hidden,).
Hinton and Salakhutdinov 2006 (doi:10.1126/science.1127647); Cho, Ilin and Raiko 2011 (doi:10.1007/978-3-642-21735-7_2).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from probgen.data import load
from probgen.measures import bits, reals
from probgen.model import Model


def rbm_gaussian(v=None, num_visible=64, num_hidden=16):
    W: Any = numpyro.param("W", lambda key: 0.01 * jax.random.normal(key, (num_visible, num_hidden)))
    b: Any = numpyro.param("b", jnp.zeros(num_visible))
    c = numpyro.param("c", jnp.zeros(num_hidden))
    log_sigma: Any = numpyro.param("log_sigma", jnp.zeros(num_visible))
    v = numpyro.sample("v", reals(num_visible), obs=v)
    h: Any = numpyro.sample("h", bits(num_hidden))
    scaled = v * jnp.exp(-2 * log_sigma)
    numpyro.factor("energy", -0.5 * jnp.sum(((v - b) * jnp.exp(-log_sigma)) ** 2) + scaled @ W @ h + h @ c)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"v": x, "num_visible": x.shape[1]}


def standardised():
    """Grey digits with their last bit filled by noise, so that no pixel is constant; mean 0 and variance 1 each."""
    x = load("digits_grey")
    x = x + np.random.default_rng(0).uniform(0, 1 / 16, x.shape)
    return rows((x - x.mean(0)) / x.std(0))


model = Model(program=rbm_gaussian, data=standardised, rows=rows)
