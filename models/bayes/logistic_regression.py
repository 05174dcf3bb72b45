"""Logistic regression on the standardised breast cancer data (569 biopsies, 30 covariates, 1 = benign).

    alpha ~ N(0, 5),  beta_k ~ N(0, 1),  y_i ~ Bernoulli(logit^-1(alpha + x_i . beta))

Shapes: X: (observation, feature), y: (observation,), beta: (feature,). With `batch_size` each run draws that many
observations and scales their likelihood up, which stochastic gradients need.
Source: Gelman et al. 2008, arXiv:0901.4011 (weak priors); the data: Street, Wolberg and Mangasarian 1993.
"""

from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

from probgen.model import Model, Oracle


def data():
    from sklearn.datasets import load_breast_cancer

    found: Any = load_breast_cancer(return_X_y=True)
    X, y = found
    return {"X": (X - X.mean(0)) / X.std(0), "y": y}


def logistic_regression(X, y=None, batch_size=None):
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 5.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("observation", len(X), subsample_size=batch_size):
        x: Any = numpyro.subsample(X, event_dim=1)
        t = None if y is None else numpyro.subsample(y, event_dim=0)
        numpyro.sample("y", dist.Bernoulli(logits=alpha + x @ beta), obs=t)


def log_density(values, data):
    alpha, beta = values["alpha"], values["beta"]
    prior = stats.norm.logpdf(alpha, 0, 5) + stats.norm.logpdf(beta).sum()
    margin = (2 * data["y"] - 1) * (alpha + data["X"] @ beta)
    return prior - np.logaddexp(0, -margin).sum()


model = Model(
    program=logistic_regression,
    data=data,
    dims={"beta": ["feature"], "y": ["observation"]},
    oracle=Oracle("log density", log_density),
)
