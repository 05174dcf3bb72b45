"""Eight schools, non-centred, in Pyro: the twin of `eight_schools`.

    mu ~ N(0, 5),  tau ~ HalfCauchy(5),  z_j ~ N(0, 1),  theta_j = mu + tau z_j,  y_j ~ N(theta_j, sigma_j)

Shapes: y, sigma, z, theta: (school,). Source: Rubin 1981; Gelman et al., "Bayesian Data Analysis", section 5.5.
"""

import numpy as np
import pyro
import pyro.distributions as dist
from scipy import stats

from probgen.model import Model, Oracle

DATA = {
    "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
}


def eight_schools_pyro(sigma, y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(sigma)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def log_density(values, data):
    mu, tau, z = values["mu"], values["tau"], np.asarray(values["z"])
    prior = stats.norm.logpdf(mu, 0, 5) + stats.halfcauchy.logpdf(tau, scale=5) + stats.norm.logpdf(z).sum()
    return prior + stats.norm.logpdf(data["y"], mu + tau * z, data["sigma"]).sum()


model = Model(
    program=eight_schools_pyro,
    data=DATA,
    dims={"z": ["school"], "theta": ["school"], "y": ["school"]},
    coords={"school": list("ABCDEFGH")},
    oracle=Oracle("log density", log_density),
    reference="eight_schools-eight_schools_noncentered",
)
