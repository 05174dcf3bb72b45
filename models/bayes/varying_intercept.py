"""A regression whose intercept varies by group, non-centred: groups with few observations lean on the others.

    mu, beta ~ N(0, 5),  tau, sigma ~ HalfNormal(5),  z_g ~ N(0, 1)
    alpha_g = mu + tau z_g,  y_i ~ N(alpha_{group i} + beta x_i, sigma)

Shapes: group, x, y: (observation,), alpha, z: (group,). The default data are simulated: 30 groups of 2 to 8.
Source: Gelman and Hill 2007, "Data Analysis Using Regression and Multilevel/Hierarchical Models", chapter 12.
"""

from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

from probgen.model import Model, Oracle


def data(num_groups=30):
    rng = np.random.default_rng(2007)
    group = np.repeat(np.arange(num_groups), rng.integers(2, 9, num_groups))
    x = rng.normal(size=len(group))
    alpha = rng.normal(1.5, 0.4, num_groups)
    return {"group": group, "x": x, "y": rng.normal(alpha[group] - 0.7 * x, 0.8), "num_groups": num_groups}


def varying_intercept(group, x, num_groups, y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfNormal(5.0))
    with numpyro.plate("group", num_groups):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    alpha: Any = numpyro.deterministic("alpha", mu + tau * z)
    beta = numpyro.sample("beta", dist.Normal(0.0, 5.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(5.0))
    with numpyro.plate("observation", len(x)):
        numpyro.sample("y", dist.Normal(alpha[group] + beta * x, sigma), obs=y)


def log_density(values, data):
    mu, beta, tau, sigma, z = (np.asarray(values[site]) for site in ("mu", "beta", "tau", "sigma", "z"))
    prior = stats.norm.logpdf([mu, beta], 0, 5).sum() + stats.halfnorm.logpdf([tau, sigma], scale=5).sum()
    mean = [mu + tau * z[group] + beta * x for group, x in zip(data["group"], data["x"], strict=True)]
    return prior + stats.norm.logpdf(z).sum() + stats.norm.logpdf(data["y"], mean, sigma).sum()


model = Model(
    program=varying_intercept,
    data=data,
    dims={"z": ["group"], "alpha": ["group"], "y": ["observation"]},
    oracle=Oracle("log density", log_density),
)
