"""The twelve posteriors as PyMC models, with variables named like the sites of the programs in tests/posteriordb.py.

    python benchmarks/pymc_models.py

compares each model's log density with its program's, at a few points and up to a constant. Recurrences are scans,
except for the hidden Markov models, where `forward` was faster compiled for nutpie; for `arma` a scan was faster than a
triangular matrix, and nothing but a scan was tried for `lotka_volterra`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import harness
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc.distributions.transforms import ordered

Data = dict[str, np.ndarray]


def data(name: str) -> Data:
    """posteriordb's data, as float arrays under Stan's names."""
    raw = json.loads((harness.FOLDER / name / "data.json").read_text())
    return {key: np.asarray(value, float) for key, value in raw.items()}


def model(name: str) -> pm.Model:
    """The PyMC model of a posterior on its data."""
    with pm.Model() as built:
        MODELS[name](data(name))
    return built


def eight_schools(d: Data) -> None:
    mu = pm.Normal("mu", 0.0, 5.0)
    tau = pm.HalfCauchy("tau", 5.0)
    z = pm.Normal("z", 0.0, 1.0, shape=len(d["y"]))
    theta = pm.Deterministic("theta", mu + tau * z)
    pm.Normal("y", theta, d["sigma"], observed=d["y"])


def gaussian_mixture(d: Data) -> None:
    mu = pm.Normal("mu", 0.0, 2.0, shape=2, transform=ordered, initval=[-1.0, 1.0])
    sigma = pm.HalfNormal("sigma", 2.0, shape=2)
    theta = pm.Beta("theta", 5.0, 5.0)
    pm.NormalMixture("y", w=pt.stack([theta, 1 - theta]), mu=mu, sigma=sigma, observed=d["y"])


def arma(d: Data) -> None:
    mu = pm.Normal("mu", 0.0, 10.0)
    phi = pm.Normal("phi", 0.0, 2.0)
    theta = pm.Normal("theta", 0.0, 2.0)
    sigma = pm.HalfCauchy("sigma", 2.5)
    y = d["y"]
    previous = pt.concatenate([mu[None], pt.as_tensor(y[:-1])])
    errors = filtered(y - mu - phi * previous, theta)
    pm.Potential("errors", pm.logp(pm.Normal.dist(0.0, sigma), errors).sum())


def filtered(residuals: Any, theta: Any) -> Any:
    """errors_t = residuals_t - theta errors_{t-1}, with errors_0 = residuals_0."""

    def step(residual: Any, error: Any, theta: Any) -> Any:
        return residual - theta * error

    zero = pt.zeros((), dtype="float64")
    return pytensor.scan(step, [residuals], [zero], [theta], return_updates=False, strict=True)


def autoregressive(d: Data) -> None:
    y, lags = d["y"], int(d["K"])
    history = np.lib.stride_tricks.sliding_window_view(y, lags)[:-1, ::-1].copy()
    alpha = pm.Normal("alpha", 0.0, 10.0)
    beta = pm.Normal("beta", 0.0, 10.0, shape=lags)
    sigma = pm.HalfCauchy("sigma", 2.5)
    pm.Normal("y", alpha + history @ beta, sigma, observed=y[lags:])


def forward(transition: Any, emission: Any, length: int) -> Any:
    """Log of the sum over all paths of two states, none preferred at first; emission: (length, 2) log densities.

    The product of the transfer matrices, taken in pairs until one is left: a third to a half of a scan's time.
    """
    peak = emission.max(-1)
    weights = pt.exp(emission - peak[:, None])
    matrices, total = transition * weights[1:, None, :], peak.sum()
    count = length - 1
    while count > 1:
        half, odd = divmod(count, 2)
        left, right = matrices[: 2 * half : 2], matrices[1 : 2 * half : 2]
        pairs = (left[:, :, :, None] * right[:, None, :, :]).sum(2)
        scale = pairs.sum((1, 2))
        total, pairs = total + pt.log(scale).sum(), pairs / scale[:, None, None]
        matrices = pt.concatenate([pairs, matrices[2 * half :]]) if odd else pairs
        count = half + odd
    return total + pt.log((weights[0] @ matrices[0]).sum())


def hmm(d: Data) -> None:
    transition = pm.Dirichlet("transition", np.ones((2, 2)))
    mu = pm.TruncatedNormal("mu", [3.0, 10.0], 1.0, lower=0.0, transform=ordered, initval=[3.0, 10.0])
    emission = pm.logp(pm.Normal.dist(mu, 1.0), d["y"][:, None])
    pm.Potential("path", forward(transition, emission, len(d["y"])))


def hmm_drive(d: Data) -> None:
    transition = pm.Dirichlet("transition", d["alpha"])
    phi = pm.TruncatedNormal("phi", [0.0, 3.0], 1.0, lower=0.0, transform=ordered, initval=[0.5, 3.0])
    rate = pm.TruncatedNormal("lambda", [0.0, 3.0], 1.0, lower=0.0, transform=ordered, initval=[0.5, 3.0])
    terms = [pt.log(r) - r * x[:, None] for r, x in ((phi, d["u"]), (rate, d["v"]))]
    pm.Potential("path", forward(transition, terms[0] + terms[1], len(d["u"])))


def gp_regression(d: Data) -> None:
    x = d["x"]
    rho = pm.Gamma("rho", 25.0, 4.0)
    alpha = pm.HalfNormal("alpha", 2.0)
    sigma = pm.HalfNormal("sigma", 1.0)
    square = np.subtract.outer(x, x) ** 2
    kernel = alpha**2 * pt.exp(-0.5 * square / rho**2) + sigma * np.eye(len(x))
    pm.MvNormal("y", np.zeros(len(x)), cov=kernel, observed=d["y"])


def lotka_volterra(d: Data, substeps: int = 30) -> None:
    centre, spread = np.array([1.0, 0.05, 1.0, 0.05]), np.array([0.5, 0.05, 0.5, 0.05])
    theta = pm.TruncatedNormal("theta", centre, spread, lower=0.0, initval=centre)
    z_init = pm.LogNormal("z_init", np.log(10.0), 1.0, shape=2)
    sigma = pm.LogNormal("sigma", -1.0, 1.0, shape=2)
    times = np.append(0.0, d["ts"])
    z = trajectory(theta, z_init, np.repeat(np.diff(times) / substeps, substeps), substeps)
    pm.LogNormal("y", pt.log(z), sigma, observed=np.vstack([d["y_init"], d["y"]]))


def trajectory(theta: Any, z_init: Any, steps: np.ndarray, substeps: int) -> Any:
    """Hare and lynx at the observed times, (time, species), by classical Runge-Kutta with the steps of our program."""

    def step(h: Any, u: Any, v: Any, birth: Any, predation: Any, death: Any, growth: Any) -> Any:
        def slope(u: Any, v: Any) -> tuple[Any, Any]:
            return (birth - predation * v) * u, (growth * u - death) * v

        a, b = slope(u, v)
        c, d = slope(u + h / 2 * a, v + h / 2 * b)
        e, f = slope(u + h / 2 * c, v + h / 2 * d)
        g, k = slope(u + h * e, v + h * f)
        return u + h / 6 * (a + 2 * c + 2 * e + g), v + h / 6 * (b + 2 * d + 2 * f + k)

    starts, rates = [z_init[0], z_init[1]], [theta[i] for i in range(4)]
    u, v = pytensor.scan(step, [pt.as_tensor(steps)], starts, rates, return_updates=False, strict=True)
    path = pt.stack([u[substeps - 1 :: substeps], v[substeps - 1 :: substeps]], axis=1)
    return pt.concatenate([z_init[None], path])


def kidscore(d: Data) -> None:
    X = np.column_stack([np.ones_like(d["mom_iq"]), d["mom_hs"], d["mom_iq"]])
    beta = pm.Flat("beta", shape=3)
    sigma = pm.HalfCauchy("sigma", 2.5)
    pm.Normal("y", X @ beta, sigma, observed=d["kid_score"])


def diamonds(d: Data) -> None:
    X = d["X"][:, 1:] - d["X"][:, 1:].mean(0)
    b = pm.Normal("b", 0.0, 1.0, shape=X.shape[1])
    intercept = pm.StudentT("Intercept", nu=3.0, mu=8.0, sigma=10.0)
    sigma = pm.HalfStudentT("sigma", nu=3.0, sigma=10.0)
    pm.Normal("y", intercept + X @ b, sigma, observed=d["Y"])


def linear_regression(d: Data) -> None:
    beta = pm.Normal("beta", 0.0, 10.0, shape=d["X"].shape[1])
    sigma = pm.HalfNormal("sigma", 10.0)
    pm.Normal("y", d["X"] @ beta, sigma, observed=d["y"])


def earnings(d: Data) -> None:
    X = np.column_stack([np.ones_like(d["height"]), d["height"]])
    beta = pm.Flat("beta", shape=2)
    sigma = pm.HalfFlat("sigma")
    pm.Normal("y", X @ beta, sigma, observed=d["earn"])


MODELS: dict[str, Callable[[Data], None]] = {
    "eight_schools-eight_schools_noncentered": eight_schools,
    "low_dim_gauss_mix-low_dim_gauss_mix": gaussian_mixture,
    "arma-arma11": arma,
    "arK-arK": autoregressive,
    "hmm_example-hmm_example": hmm,
    "gp_pois_regr-gp_regr": gp_regression,
    "hudson_lynx_hare-lotka_volterra": lotka_volterra,
    "kidiq-kidscore_momhsiq": kidscore,
    "diamonds-diamonds": diamonds,
    "sblrc-blr": linear_regression,
    "earnings-earn_height": earnings,
    "bball_drive_event_0-hmm_drive_0": hmm_drive,
}


# ---- the check ---------------------------------------------------------------------------------------------------


def difference(name: str, num_points: int = 4) -> float:
    """How far the two log densities are from differing by a constant, relative to how much they vary."""
    import jax
    from numpyro import handlers
    from numpyro.infer import init_to_uniform
    from numpyro.infer.util import constrain_fn, log_density, unconstrain_fn
    from posteriordb import POSTERIORS

    entry, built = POSTERIORS[name], model(name)
    given, density = entry.data(), built.compile_logp(jacobian=False)
    ours, theirs = [], []
    with jax.enable_x64(True):
        seeded = handlers.seed(entry.program, 0)
        drawn = handlers.trace(handlers.substitute(seeded, substitute_fn=init_to_uniform)).get_trace(**given)
        sites = {k: v["value"] for k, v in drawn.items() if v["type"] == "sample" and not v["is_observed"]}
        free = unconstrain_fn(seeded, (), given, sites)
        for seed in range(num_points):
            rng = np.random.default_rng(seed)
            z = {k: rng.uniform(-1, 1, np.shape(v)) for k, v in free.items()}
            values = constrain_fn(seeded, (), given, z, return_deterministic=True)
            ours.append(float(log_density(entry.program, (), given, {k: values[k] for k in sites})[0]))
            theirs.append(float(density(point(built, values))))
    gaps, spread = np.subtract(ours, theirs), np.ptp(ours)
    return float(np.ptp(gaps) / spread)


def point(built: pm.Model, values: Any) -> dict[str, np.ndarray]:
    """Values of the variables as PyMC's transformed ones."""
    found = {}
    for rv in built.free_RVs:
        value, transform = np.asarray(values[rv.name], float), built.rvs_to_transforms[rv]
        found[built.rvs_to_values[rv].name] = (
            value if transform is None else transform.forward(value, *rv.owner.inputs).eval()
        )
    return found


def main() -> None:
    harness.require_data()
    worst = 0.0
    for name in harness.chosen(sys.argv[1:], list(MODELS), "posterior"):
        off = difference(name)
        worst = max(worst, off)
        harness.say(f"{name:<45} relative difference of log densities {off:.1e}")
    sys.exit(f"Off by {worst:.1e}; expected below 1e-6." if not worst < 1e-6 else 0)


if __name__ == "__main__":
    main()
