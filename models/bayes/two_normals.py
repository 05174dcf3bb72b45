"""A mixture of two normals with ordered means and the assignments summed out.

    mu_1 < mu_2 each N(0, 2),  sigma_k ~ HalfNormal(2),  theta ~ Beta(5, 5)
    y_i ~ theta N(mu_1, sigma_1) + (1 - theta) N(mu_2, sigma_2)

The midpoint and the half distance of two independent normals are independent too, N(0, sqrt 2) and
HalfNormal(sqrt 2), so the program draws those. Shapes: y: (observation,), mu, sigma: (component,).
Source: posteriordb, low_dim_gauss_mix; Betancourt 2017, "Identifying Bayesian mixture models".
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

from probgen.model import Model, Oracle


def data(size=1000):
    rng = np.random.default_rng(2017)
    mean = np.where(rng.random(size) < 0.6, -2.5, 2.5)
    return {"size": size, "y": rng.normal(mean, 1.0)}


def two_normals(size, y=None):
    midpoint: Any = numpyro.sample("midpoint", dist.Normal(0.0, 2.0**0.5))
    reach = numpyro.sample("reach", dist.HalfNormal(2.0**0.5))
    mu = numpyro.deterministic("mu", jnp.stack([midpoint - reach, midpoint + reach]))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = numpyro.sample("theta", dist.Beta(5.0, 5.0))
    component = dist.Categorical(probs=jnp.stack([theta, 1 - theta]))
    with numpyro.plate("observation", size):
        numpyro.sample("y", dist.MixtureSameFamily(component, dist.Normal(mu, sigma)), obs=y)


def log_density(values, data):
    mu = values["midpoint"] + values["reach"] * np.array([-1, 1])
    sigma, theta = values["sigma"], values["theta"]
    prior = stats.norm.logpdf(mu, 0, 2).sum() + stats.halfnorm.logpdf(sigma, scale=2).sum()
    terms = np.log([theta, 1 - theta]) + stats.norm.logpdf(np.asarray(data["y"])[:, None], mu, sigma)
    return prior + stats.beta.logpdf(theta, 5, 5) + np.logaddexp(*terms.T).sum()


model = Model(
    program=two_normals,
    data=data,
    dims={"mu": ["component"], "sigma": ["component"], "y": ["observation"]},
    oracle=Oracle("log density", log_density),
    reference="low_dim_gauss_mix-low_dim_gauss_mix",
)
