"""Linear regression with normal errors, on the standardised diabetes data (a year's progression, ten covariates).

    beta_k ~ N(0, 10),  sigma ~ HalfNormal(10),  y_i ~ N(x_i . beta, sigma)

Shapes: X: (observation, feature), y: (observation,), beta: (feature,). Source: posteriordb, sblrc-blr;
the data: Efron, Hastie, Johnstone and Tibshirani 2004, "Least angle regression".
"""

from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

from probgen.model import Model, Oracle


def data():
    from sklearn.datasets import load_diabetes

    found: Any = load_diabetes(return_X_y=True)
    X, y = found
    return {"X": X / X.std(0), "y": (y - y.mean()) / y.std()}


def linear_regression(X, y=None):
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([X.shape[1]]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(10.0))
    with numpyro.plate("observation", len(X)):
        numpyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)


def log_density(values, data):
    beta, sigma = values["beta"], values["sigma"]
    prior = stats.norm.logpdf(beta, 0, 10).sum() + stats.halfnorm.logpdf(sigma, scale=10)
    return prior + stats.norm.logpdf(data["y"], data["X"] @ beta, sigma).sum()


def conjugate_moments(X, y, scale, log_prior):
    """(mean, sd) of beta ~ N(0, scale) and of sigma: beta is normal given sigma, and sigma is summed over a grid."""
    eigen, basis = np.linalg.eigh(X.T @ X)
    projected = basis.T @ (X.T @ y)
    spread = np.std(y - X @ np.linalg.lstsq(X, y, rcond=None)[0])
    sigma = spread * np.exp(np.linspace(-1, 1, 2001))[:, None]
    precision = eigen / sigma**2 + 1 / scale**2
    mean = projected / sigma**2 / precision
    fit = (precision * mean**2 - np.log(precision)).sum(1, keepdims=True) - y @ y / sigma**2
    weight = fit / 2 + (1 - len(y)) * np.log(sigma) + log_prior(sigma)
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    centre = (weight * mean).sum(0)
    variance = (weight / precision).sum(0) * np.eye(len(eigen)) + (mean - centre).T @ (weight * (mean - centre))
    sigma_mean = (weight * sigma).sum()
    return {
        "beta": (basis @ centre, np.sqrt(np.diag(basis @ variance @ basis.T))),
        "sigma": (sigma_mean, np.sqrt((weight * (sigma - sigma_mean) ** 2).sum())),
    }


def moments(data):
    return conjugate_moments(data["X"], data["y"], 10, lambda sigma: stats.halfnorm.logpdf(sigma, scale=10))


model = Model(
    program=linear_regression,
    data=data,
    dims={"beta": ["feature"], "y": ["observation"]},
    coords={"feature": ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]},
    oracle=Oracle("quadrature", log_density, moments),
    reference="sblrc-blr",
)
