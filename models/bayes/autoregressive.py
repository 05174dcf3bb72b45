"""An autoregressive series, AR(5): each value is predicted from the five before it.

    alpha, beta_k ~ N(0, 10),  sigma ~ HalfCauchy(2.5),  y_t ~ N(alpha + sum_k beta_k y_{t-k}, sigma)

Shapes: history: (time, lag), history[t, k] = y_{t-k-1}; y: (time,); beta: (lag,). The first values are conditioned on.
Source: posteriordb, arK; Stan user's guide, "Autoregressive models".
"""

import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats

from probgen.model import Model, Oracle

from .linear_regression import conjugate_moments


def lagged(series, lags=5):
    """The series as a regression on its own past, the nearest value first."""
    series = np.asarray(series, float)
    windows = np.lib.stride_tricks.sliding_window_view(series, lags)
    return {"history": windows[:-1, ::-1].copy(), "y": series[lags:]}


def data(length=200):
    rng = np.random.default_rng(5)
    beta, series = np.array([0.6, 0.3, 0.1, -0.1, -0.2]), np.zeros(length)
    for t in range(5, length):
        series[t] = series[t - 5 : t][::-1] @ beta + rng.normal(0, 0.15)
    return lagged(series)


def autoregressive(history, y=None):
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([history.shape[1]]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    with numpyro.plate("time", len(history)):
        numpyro.sample("y", dist.Normal(alpha + history @ beta, sigma), obs=y)


def log_density(values, data):
    alpha, beta, sigma = values["alpha"], values["beta"], values["sigma"]
    prior = stats.norm.logpdf(np.append(beta, alpha), 0, 10).sum() + stats.halfcauchy.logpdf(sigma, scale=2.5)
    mean = [alpha + sum(b * value for b, value in zip(beta, past, strict=True)) for past in data["history"]]
    return prior + stats.norm.logpdf(data["y"], mean, sigma).sum()


def moments(data):
    X = np.column_stack([np.ones(len(data["y"])), data["history"]])
    exact = conjugate_moments(X, data["y"], 10, lambda sigma: stats.halfcauchy.logpdf(sigma, scale=2.5))
    mean, sd = exact["beta"]
    return {"alpha": (mean[0], sd[0]), "beta": (mean[1:], sd[1:]), "sigma": exact["sigma"]}


model = Model(
    program=autoregressive,
    data=data,
    dims={"beta": ["lag"], "y": ["time"]},
    coords={"lag": [1, 2, 3, 4, 5]},
    oracle=Oracle("quadrature", log_density, moments),
    reference="arK-arK",
)
