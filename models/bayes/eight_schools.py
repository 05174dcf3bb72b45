"""Eight schools, non-centred: coaching effects of eight parallel experiments, partially pooled.

    mu ~ N(0, 5),  tau ~ HalfCauchy(5),  z_j ~ N(0, 1),  theta_j = mu + tau z_j,  y_j ~ N(theta_j, sigma_j)

Shapes: y, sigma, z, theta: (school,). Source: Rubin 1981, "Estimation in parallel randomized experiments";
Gelman et al., "Bayesian Data Analysis", section 5.5.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

from probgen.model import Model, Oracle

DATA = {
    "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
}


def eight_schools(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(sigma)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def log_density(values, data):
    mu, tau, z = values["mu"], values["tau"], np.asarray(values["z"])
    prior = stats.norm.logpdf(mu, 0, 5) + stats.halfcauchy.logpdf(tau, scale=5) + stats.norm.logpdf(z).sum()
    return prior + stats.norm.logpdf(data["y"], mu + tau * z, data["sigma"]).sum()


def moments(data):
    """Given tau everything is normal, which leaves one integral: a sum over log tau."""
    y, variance = data["y"], data["sigma"] ** 2
    tau = np.exp(np.linspace(-12, 8, 4001))[:, None]
    total = variance + tau**2
    precision = 1 / 25 + (1 / total).sum(1, keepdims=True)
    mu = (y / total).sum(1, keepdims=True) / precision
    fit = precision * mu**2 - np.log(precision) - (np.log(total) + y**2 / total).sum(1, keepdims=True)
    weight = fit / 2 + stats.halfcauchy.logpdf(tau, scale=5) + np.log(tau)
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    keep = variance / total

    def mix(mean, var):
        centre = (weight * mean).sum(0)
        return centre, np.sqrt((weight * (var + (mean - centre) ** 2)).sum(0))

    scalars = {"mu": mix(mu, 1 / precision), "tau": mix(tau, 0)}
    return {site: (mean[0], sd[0]) for site, (mean, sd) in scalars.items()} | {
        "z": mix(tau * (y - mu) / total, keep + (tau / total) ** 2 / precision),
        "theta": mix(y + keep * (mu - y), keep * tau**2 + keep**2 / precision),
    }


model = Model(
    program=eight_schools,
    data=DATA,
    dims={"z": ["school"], "theta": ["school"], "y": ["school"]},
    coords={"school": list("ABCDEFGH")},
    oracle=Oracle("quadrature", log_density, moments),
    reference="eight_schools-eight_schools_noncentered",
)
