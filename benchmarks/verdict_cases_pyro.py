"""The same for Pyro programs; see `verdict_cases`."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from verdict_cases import (
    COUNTS,
    Y,
    apart,
    fit,
    moments,
    of_counts,
    of_frozen,
    of_location_scale,
    of_regression,
    regression_data,
)
from verdict_cases import sound as known
from verdict_cases import trap as snare


def location_scale(y):
    m = pyro.sample("m", dist.Normal(0.0, 5.0))
    s = pyro.sample("s", dist.HalfNormal(5.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(m, s), obs=y)


def regression(x, y):
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[1]]).to_event(1))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def two_humps(gap):
    x = pyro.sample("x", dist.Normal(0.0, 1000.0))
    pyro.factor("humps", torch.logaddexp(-0.5 * (x - gap) ** 2, -0.5 * (x + gap) ** 2))


@known("pyro")
def pyro_location_and_scale_by_nuts():
    found = fit(location_scale, {"y": Y})
    return found, apart(found.draws, of_location_scale())


@known("pyro")
def pyro_regression_by_full_rank():
    data = regression_data()
    found = fit(regression, data, "full_rank")
    return found, apart(found.draws, of_regression(data))


@known("pyro")
def pyro_counts_without_exposure_by_nuts():
    def counts(exposure, y):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Poisson(rate * exposure), obs=y)

    found = fit(counts, COUNTS)
    return found, apart(found.draws, of_counts())


@known("pyro")
def pyro_angle_at_the_cut_by_nuts():
    y = np.array([3.1, -3.1, 3.0, -2.9, 3.14])

    def angle(y):
        m = pyro.sample("m", dist.VonMises(torch.tensor(0.0), torch.tensor(0.1)))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.VonMises(m, torch.tensor(4.0)), obs=y)

    found = fit(angle, {"y": y})
    of = lambda m: 0.1 * np.cos(m) + sum(4 * np.cos(v - m) for v in y)  # noqa: E731
    return found, apart({"m": found.draws["m"] % (2 * np.pi)}, moments(of, m=np.linspace(0, 2 * np.pi, 20001)))


@known("pyro")
def pyro_masked_observations_by_nuts():
    def masked(y, seen):
        m = pyro.sample("m", dist.Normal(0.0, 5.0))
        s = pyro.sample("s", dist.HalfNormal(5.0))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(m, s), obs=y, obs_mask=seen)

    found = fit(masked, {"y": np.r_[Y, np.zeros(5)], "seen": np.arange(30) < 25})
    return found, apart(found.draws, of_location_scale())


@snare("pyro")
def pyro_two_humps_by_laplace():
    found = fit(two_humps, {"gap": np.array(20.0)}, "laplace")
    return found, apart(found.draws, {"x": (0.0, np.sqrt(401.0))})


@snare("pyro")
def pyro_two_humps_by_mean_field():
    found = fit(two_humps, {"gap": np.array(20.0)}, "mean_field", num_steps=2000)
    return found, apart(found.draws, {"x": (0.0, np.sqrt(401.0))})


@snare("pyro")
def pyro_narrow_guide_of_correlated_weights():
    data = regression_data(0.97)
    found = fit(regression, data, "mean_field", num_steps=3000)
    return found, apart(found.draws, of_regression(data))


@snare("pyro")
def pyro_parameter_beside_unknown_by_nuts():
    def frozen(y):
        s = pyro.param("s", torch.tensor(1.0), constraint=dist.constraints.positive)
        m = pyro.sample("m", dist.Normal(0.0, 5.0))
        with pyro.plate("row", len(y)):
            pyro.sample("y", dist.Normal(m, s), obs=y)

    found = fit(frozen, {"y": Y})
    return found, apart(found.draws, of_frozen())


SLOPE = np.linspace(-1, 1, 40)


def reads_a_global(y):
    b = pyro.sample("b", dist.Normal(0.0, 10.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", dist.Normal(b * torch.as_tensor(SLOPE), 0.5), obs=y)


@snare("pyro")
def pyro_global_changed_and_fitted_again():
    global SLOPE
    y = 2 * SLOPE
    fit(reads_a_global, {"y": y}, num_samples=200)
    SLOPE = -SLOPE
    try:
        found = fit(reads_a_global, {"y": y})
    finally:
        SLOPE = -SLOPE
    precision = SLOPE @ SLOPE / 0.25 + 0.01
    return found, apart(found.draws, {"b": (-(SLOPE @ y) / 0.25 / precision, precision**-0.5)})
