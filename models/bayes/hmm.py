"""A hidden Markov model with two states and unit-variance normal emissions, the states summed out.

    rows of transition ~ Dirichlet(1, 1),  0 < mu_1 < mu_2,  mu_1 ~ N(3, 1),  mu_2 ~ N(10, 1)
    s_1 uniform,  s_t ~ transition[s_{t-1}],  y_t ~ N(mu_{s_t}, 1)

Shapes: transition: (state, state), row = from; mu: (state,); y: (time,).
Source: posteriordb, hmm_example; the forward algorithm: Rabiner 1989, doi:10.1109/5.18626.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from scipy import special, stats

from probgen.model import Model, Oracle


def data(length=100):
    rng = np.random.default_rng(1989)
    state = np.zeros(length, int)
    for t in range(1, length):
        state[t] = rng.random() < (0.35, 0.92)[state[t - 1]]
    return {"length": length, "y": rng.normal(np.array([3.0, 9.0])[state], 1.0)}


def forward(transition, emission):
    """Log of the sum over all state paths; emission: (time, state) log densities."""
    peak = lax.stop_gradient(emission.max(-1))
    weights = jnp.exp(emission - peak[:, None])

    @jax.checkpoint
    def step(alpha, weight):
        alpha = (alpha @ transition) * weight
        return alpha / alpha.sum(), alpha.sum()

    alpha, totals = lax.scan(step, weights[0], weights[1:])
    return jnp.log(alpha.sum()) + jnp.log(totals).sum() + peak.sum()


class NormalHMM(dist.Distribution):
    """A series of `length` normal emissions around mu, from a chain whose first state is uniform."""

    support: Any = dist.constraints.real_vector
    pytree_data_fields = ("transition", "mu")

    def __init__(self, transition, mu, length):
        self.transition, self.mu = transition, mu
        super().__init__(event_shape=(length,))

    def log_prob(self, value):
        return forward(self.transition, dist.Normal(self.mu, 1.0).log_prob(value[:, None])) - np.log(len(self.mu))

    def sample(self, key: Any, sample_shape=()):
        first, chain, noise = random.split(key, 3)
        jump = jnp.log(self.transition)
        start = random.randint(first, sample_shape, 0, len(self.mu))
        keys = random.split(chain, self.event_shape[0] - 1)

        def step(state, key):
            following = random.categorical(key, jump[state])
            return following, following

        _, rest = lax.scan(step, start, keys)
        states = jnp.moveaxis(jnp.concatenate([start[None], rest]), 0, -1)
        return self.mu[states] + random.normal(noise, states.shape)


def hmm(length, y=None):
    with numpyro.plate("state", 2):
        transition = numpyro.sample("transition", dist.Dirichlet(jnp.ones(2)))
    low = numpyro.sample("low", dist.TruncatedNormal(3.0, 1.0, low=0.0))
    gap = numpyro.sample("gap", dist.TruncatedNormal(10.0 - low, 1.0, low=0.0))
    mu = numpyro.deterministic("mu", jnp.stack([low, low + gap]))
    numpyro.sample("y", NormalHMM(transition, mu, length), obs=y)


def log_density(values, data):
    low, high = values["low"], values["low"] + values["gap"]
    prior = stats.norm.logpdf([low, high], [3, 10]).sum() - stats.norm.logcdf(10 - low)
    emission = stats.norm.logpdf(np.asarray(data["y"])[:, None], [low, high])
    alpha = emission[0]
    for current in emission[1:]:
        alpha = special.logsumexp(alpha[:, None] + np.log(values["transition"]), axis=0) + current
    return prior + special.logsumexp(alpha)


model = Model(
    program=hmm,
    data=data,
    dims={"transition": ["state", "next_state"], "mu": ["state"], "y": ["time"]},
    oracle=Oracle("log density", log_density),
    reference="hmm_example-hmm_example",
)
