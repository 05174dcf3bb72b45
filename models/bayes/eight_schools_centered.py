"""Eight schools, centred: the same posterior as `eight_schools`, with a funnel in tau that defeats samplers.

    mu ~ N(0, 5),  tau ~ HalfCauchy(5),  theta_j ~ N(mu, tau),  y_j ~ N(theta_j, sigma_j)

Shapes: y, sigma, theta: (school,). Source: Rubin 1981; the geometry: Betancourt and Girolami 2013, arXiv:1312.0906.
"""

import numpyro
import numpyro.distributions as dist
from scipy import stats

from probgen.model import Model, Oracle

from . import eight_schools


def eight_schools_centered(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def log_density(values, data):
    mu, tau, theta = values["mu"], values["tau"], values["theta"]
    prior = stats.norm.logpdf(mu, 0, 5) + stats.halfcauchy.logpdf(tau, scale=5)
    return prior + (stats.norm.logpdf(theta, mu, tau) + stats.norm.logpdf(data["y"], theta, data["sigma"])).sum()


def moments(data):
    exact = eight_schools.moments(data)
    return {site: exact[site] for site in ("mu", "tau", "theta")}


model = Model(
    program=eight_schools_centered,
    data=eight_schools.DATA,
    dims={"theta": ["school"], "y": ["school"]},
    coords={"school": list("ABCDEFGH")},
    oracle=Oracle("quadrature", log_density, moments),
    reference="eight_schools-eight_schools_noncentered",
)
