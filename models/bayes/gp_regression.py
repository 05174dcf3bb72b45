"""Gaussian process regression with a squared exponential kernel, the function integrated out.

    rho ~ Gamma(25, 4),  alpha ~ HalfNormal(2),  sigma ~ HalfNormal(1)
    y ~ N(0, K + sigma I),  K_ij = alpha^2 exp(-(x_i - x_j)^2 / (2 rho^2))

sigma is a variance. Shapes: x, y: (observation,). The default data are simulated.
Source: posteriordb, gp_regr; Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", chapter 2.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

from probgen.model import Model, Oracle


def data():
    rng = np.random.default_rng(2006)
    x = np.linspace(-10, 10, 11)
    return {"x": x, "y": 3 * np.cos(x / 5) + rng.normal(0, 1, len(x))}


def gp_regression(x, y=None):
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    kernel = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2)
    numpyro.sample("y", dist.MultivariateNormal(0.0, kernel + sigma * jnp.eye(len(x))), obs=y)


def log_density(values, data):
    rho, alpha, sigma = values["rho"], values["alpha"], values["sigma"]
    x = np.asarray(data["x"])
    kernel = alpha**2 * np.exp(-(np.subtract.outer(x, x) ** 2) / (2 * rho**2))
    prior = stats.gamma.logpdf(rho, 25, scale=1 / 4) + stats.halfnorm.logpdf([alpha, sigma], scale=[2, 1]).sum()
    return prior + stats.multivariate_normal.logpdf(data["y"], cov=kernel + sigma * np.eye(len(x)))


def moments(data):
    """A sum over a grid; one eigendecomposition of the kernel a length scale serves every alpha and sigma."""
    rho, alpha, sigma = (np.linspace(0, top, 101)[1:] for top in (16, 12, 6))
    square = np.subtract.outer(data["x"], data["x"]) ** 2
    eigen, basis = np.linalg.eigh(np.exp(-square / (2 * rho[:, None, None] ** 2)))
    projected = np.einsum("rij,i->rj", basis, data["y"])[:, None, None]
    spectrum = alpha[:, None, None] ** 2 * eigen[:, None, None] + sigma[:, None]
    log_weight = -0.5 * (projected**2 / spectrum + np.log(spectrum)).sum(-1)
    log_weight += stats.gamma.logpdf(rho, 25, scale=1 / 4)[:, None, None]
    log_weight += stats.halfnorm.logpdf(alpha, scale=2)[:, None] + stats.halfnorm.logpdf(sigma)
    weight = np.exp(log_weight - log_weight.max())
    marginals = {
        "rho": (rho, weight.sum((1, 2))),
        "alpha": (alpha, weight.sum((0, 2))),
        "sigma": (sigma, weight.sum((0, 1))),
    }
    means = {site: np.average(grid, weights=w) for site, (grid, w) in marginals.items()}
    return {
        site: (means[site], np.sqrt(np.average((grid - means[site]) ** 2, weights=w)))
        for site, (grid, w) in marginals.items()
    }


model = Model(
    program=gp_regression,
    data=data,
    dims={"y": ["observation"]},
    oracle=Oracle("quadrature", log_density, moments),
    reference="gp_pois_regr-gp_regr",
)
