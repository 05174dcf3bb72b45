"""Linear regression with normal errors, in Pyro: the twin of `linear_regression`.

    beta_k ~ N(0, 10),  sigma ~ HalfNormal(10),  y_i ~ N(x_i . beta, sigma)

Shapes: X: (observation, feature), y: (observation,), beta: (feature,). Source: posteriordb, sblrc-blr;
the data: Efron, Hastie, Johnstone and Tibshirani 2004, "Least angle regression".
"""

from typing import Any

import pyro
import pyro.distributions as dist
from scipy import stats

from probgen.model import Model, Oracle


def data():
    from sklearn.datasets import load_diabetes

    found: Any = load_diabetes(return_X_y=True)
    X, y = found
    return {"X": X / X.std(0), "y": (y - y.mean()) / y.std()}


def linear_regression_pyro(X, y=None):
    slopes: Any = dist.Normal(0.0, 10.0).expand([X.shape[1]])
    beta = pyro.sample("beta", slopes.to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(10.0))
    with pyro.plate("observation", len(X)):
        pyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)


def log_density(values, data):
    beta, sigma = values["beta"], values["sigma"]
    prior = stats.norm.logpdf(beta, 0, 10).sum() + stats.halfnorm.logpdf(sigma, scale=10)
    return prior + stats.norm.logpdf(data["y"], data["X"] @ beta, sigma).sum()


model = Model(
    program=linear_regression_pyro,
    data=data,
    dims={"beta": ["feature"], "y": ["observation"]},
    coords={"feature": ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]},
    oracle=Oracle("log density", log_density),
    reference="sblrc-blr",
)
