"""An autoregressive moving average series, ARMA(1, 1).

    mu ~ N(0, 10),  phi, theta ~ N(0, 2),  sigma ~ HalfCauchy(2.5),  err_t ~ N(0, sigma)
    y_t = mu + phi y_{t-1} + theta err_{t-1} + err_t,  with y_0 = mu and err_0 = 0

Shapes: y: (time,). Source: posteriordb, arma11; Stan user's guide, "Modeling moving average models".
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import lax, random
from scipy import stats

from probgen.model import Model, Oracle


def data(length=200):
    rng = np.random.default_rng(11)
    error, y = rng.normal(0, 0.2, length), np.zeros(length + 1)
    for t in range(length):
        y[t + 1] = 0.9 * y[t] + error[t] + 0.3 * (error[t - 1] if t else 0.0)
    return {"length": length, "y": y[1:]}


class ARMA11(dist.Distribution):
    """White noise through a filter of unit determinant: the density of a series is that of its errors."""

    support: Any = dist.constraints.real_vector
    pytree_data_fields = ("mu", "phi", "theta", "sigma")

    def __init__(self, mu, phi, theta, sigma, length):
        self.mu, self.phi, self.theta, self.sigma = mu, phi, theta, sigma
        super().__init__(event_shape=(length,))

    def log_prob(self, value):
        previous = jnp.append(self.mu, value[:-1])

        def step(error, residual):
            error = residual - self.theta * error
            return error, error

        _, errors = lax.scan(step, jnp.zeros_like(self.mu), value - self.mu - self.phi * previous)
        return dist.Normal(0.0, self.sigma).log_prob(errors).sum()

    def sample(self, key: Any, sample_shape=()):
        errors = self.sigma * random.normal(key, (*self.event_shape, *sample_shape))

        def step(carry, error):
            y, last = carry
            y = self.mu + self.phi * y + self.theta * last + error
            return (y, error), y

        start = jnp.broadcast_to(self.mu, sample_shape), jnp.zeros_like(errors[0])
        return jnp.moveaxis(lax.scan(step, start, errors)[1], 0, -1)


def arma(length, y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    phi = numpyro.sample("phi", dist.Normal(0.0, 2.0))
    theta = numpyro.sample("theta", dist.Normal(0.0, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    numpyro.sample("y", ARMA11(mu, phi, theta, sigma, length), obs=y)


def log_density(values, data):
    mu, phi, theta, sigma = (float(values[site]) for site in ("mu", "phi", "theta", "sigma"))
    total = stats.norm.logpdf(mu, 0, 10) + stats.norm.logpdf([phi, theta], 0, 2).sum()
    total += stats.halfcauchy.logpdf(sigma, scale=2.5)
    previous, error = mu, 0.0
    for y in data["y"]:
        error = y - (mu + phi * previous + theta * error)
        total += stats.norm.logpdf(error, 0, sigma)
        previous = y
    return total


model = Model(
    program=arma,
    data=data,
    dims={"y": ["time"]},
    oracle=Oracle("log density", log_density),
    reference="arma-arma11",
)
