"""A mixture of independent bits: every component is a picture of probabilities.

    p(x) = sum_k w_k prod_i p_ki^x_i (1 - p_ki)^(1 - x_i)

Shapes: x: (bit,), weights: (component,), logits: (component, bit), of the p_ki. The logits begin at random around zero, which
breaks the symmetry between components. Lazarsfeld and Henry 1968, latent class analysis.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from probgen.data import load
from probgen.model import Model


def bernoulli_mixture(x=None, num_visible=64, num_components=10):
    uniform = jnp.full(num_components, 1 / num_components)
    weights = numpyro.param("weights", uniform, constraint=constraints.simplex)
    logits = numpyro.param("logits", lambda key: jax.random.normal(key, (num_components, num_visible)))
    components = dist.Bernoulli(logits=logits).to_event(1)
    numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(probs=weights), components), obs=x)


def rows(x):
    x = x.reshape(len(x), -1)
    return {"x": x, "num_visible": x.shape[1]}


model = Model(program=bernoulli_mixture, data=lambda: rows(load("digits")), rows=rows)
