"""Fits of NumPyro programs whose truth is known, about half of them traps: what `verdicts.py` asks for a verdict on.

A case makes a fit and gives how far its answer is from the truth. Of draws: the largest error of a mean in true sds, or of the
log of an sd, whichever is larger; of a learned density: nats a row below what can be reached. The truth comes from a closed form,
from quadrature on a grid, or from enumeration.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

SD_BAR, NATS_BAR = 0.35, 0.1  # errors beyond which an answer is wrong: of draws, and in nats


@dataclass(frozen=True)
class Case:
    """A fit whose truth is known. make() gives the fit and its error; trap: whether it is made to go wrong."""

    name: str
    trap: bool
    engine: str
    bar: float
    make: Callable[[], tuple[Any, float]]


CASES: list[Case] = []
SEED = 0  # of every fit; the command sets it


def case(trap: bool, engine: str = "numpyro", bar: float = SD_BAR) -> Callable[[Any], Any]:
    """Register a function as a case, named by itself."""

    def register(make: Callable[[], tuple[Any, float]]) -> Any:
        CASES.append(Case(make.__name__.replace("_", " "), trap, engine, bar, make))
        return make

    return register


sound, trap = functools.partial(case, False), functools.partial(case, True)
density_trap = functools.partial(case, True, bar=NATS_BAR)


def fit(*arguments: Any, **settings: Any) -> Any:
    import probgen as pg

    return pg.fit(*arguments, progress=False, seed=SEED, **settings)


def apart(draws: Mapping[str, Any], truth: Mapping[str, tuple[Any, Any]]) -> float:
    """The largest error of draws (chain, draw, *event) from means and sds, in sds and in logs of sds."""
    worst = 0.0
    for name, (mean, sd) in truth.items():
        values = np.asarray(draws[name], float)
        values = values.reshape(-1, *values.shape[2:])
        with np.errstate(all="ignore"):
            errors = abs(values.mean(0) - mean) / sd, abs(np.log(values.std(0) / sd))
        worst = max(worst, *(float(np.max(np.nan_to_num(e, nan=np.inf, posinf=np.inf))) for e in errors))
    return worst


def moments(log_density: Callable[..., np.ndarray], **grids: np.ndarray) -> dict[str, tuple[float, float]]:
    """Means and sds of a density of a few scalars, by quadrature on a grid that is even in each."""
    points = np.meshgrid(*grids.values(), indexing="ij")
    values = log_density(*points)
    weights = np.exp(values - values.max())
    weights /= weights.sum()
    means = {k: float((weights * p).sum()) for k, p in zip(grids, points, strict=True)}
    return {
        k: (m, float(np.sqrt((weights * (p - m) ** 2).sum()))) for (k, m), p in zip(means.items(), points, strict=True)
    }


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- programs on NumPyro, and their truths -----------------------------------------------------------------------


def location_scale(y):
    m = numpyro.sample("m", dist.Normal(0.0, 5.0))
    s = numpyro.sample("s", dist.HalfNormal(5.0))
    numpyro.sample("y", dist.Normal(m, s), obs=y)


Y = rng(1).normal(1.0, 2.0, 25)


@functools.cache
def of_location_scale() -> dict[str, tuple[float, float]]:
    def log_density(m, s):
        square = sum((y - m) ** 2 for y in Y)
        return -(m**2) / 50 - s**2 / 50 - len(Y) * np.log(s) - square / (2 * s**2)

    return moments(log_density, m=np.linspace(-4, 6, 600), s=np.linspace(0.5, 7, 600))


def regression(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def regression_data(correlation: float = 0.3) -> dict[str, np.ndarray]:
    noise = rng(2).normal(size=(40, 4))
    x = np.sqrt(correlation) * noise[:, :1] + np.sqrt(1 - correlation) * noise[:, 1:]
    return {"x": x, "y": x @ np.array([1.0, -1.0, 0.5]) + rng(3).normal(size=40)}


def of_regression(data: Mapping[str, np.ndarray]) -> dict[str, tuple[Any, Any]]:
    covariance = np.linalg.inv(data["x"].T @ data["x"] + np.eye(data["x"].shape[1]) / 4)
    return {"w": (covariance @ data["x"].T @ data["y"], np.sqrt(np.diag(covariance)))}


def counts(exposure, y):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Poisson(rate * exposure), obs=y)


COUNTS = {"exposure": np.r_[0.0, 0.0, rng(4).uniform(0.5, 4, 12)], "y": np.r_[0, 0, rng(5).poisson(3, 12)]}


def of_counts() -> dict[str, tuple[float, float]]:
    shape, inverse = 2 + COUNTS["y"].sum(), 1 + COUNTS["exposure"].sum()
    return {"rate": (shape / inverse, np.sqrt(shape) / inverse)}


def humps(centres, weights, sd=1.0):
    numpyro.sample(
        "x", dist.MixtureSameFamily(dist.Categorical(jnp.asarray(weights)), dist.Normal(jnp.asarray(centres), sd))
    )


def of_humps(centres, weights, sd=1.0) -> dict[str, tuple[float, float]]:
    centres, weights = np.array(centres), np.array(weights)
    mean = weights @ centres
    return {"x": (mean, np.sqrt(weights @ (centres - mean) ** 2 + sd**2))}


def humped(centres, weights, inference="nuts", **settings) -> tuple[Any, float]:
    program = functools.partial(humps, tuple(centres), tuple(weights))
    found = fit(program, {}, inference, engine="numpyro", **settings)
    return found, apart(found.draws, of_humps(centres, weights))


def funnel(centred=True):
    v = numpyro.sample("v", dist.Normal(0.0, 3.0))
    z = numpyro.sample("z", dist.Normal(0.0, jnp.exp(v / 2) if centred else 1.0).expand([9]).to_event(1))
    numpyro.deterministic("x", z if centred else z * jnp.exp(v / 2))


def ising(coupling, field=0.2, size=6):
    x = numpyro.sample("x", dist.Bernoulli(0.5).expand([size]).to_event(1))
    s = 2.0 * x - 1.0
    numpyro.factor("energy", coupling * jnp.sum(s[1:] * s[:-1]) + field * jnp.sum(s))


def of_ising(coupling, field=0.2, size=6) -> dict[str, tuple[Any, Any]]:
    x = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
    s = 2 * x - 1
    energy = coupling * (s[:, 1:] * s[:, :-1]).sum(1) + field * s.sum(1)
    weights = np.exp(energy - energy.max())
    mean = weights @ x / weights.sum()
    return {"x": (mean, np.sqrt(mean * (1 - mean)))}


def gibbs_of_ising(coupling, **settings) -> tuple[Any, float]:
    settings = {"conditionals": "evaluation", "num_samples": 2000} | settings
    found = fit(functools.partial(ising, coupling), {}, "gibbs", engine="numpyro", **settings)
    return found, apart(found.draws, of_ising(coupling))


# ---- sound -------------------------------------------------------------------------------------------------------


@sound()
def location_and_scale_by_nuts():
    found = fit(location_scale, {"y": Y})
    return found, apart(found.draws, of_location_scale())


@sound()
def location_and_scale_by_hmc():
    found = fit(location_scale, {"y": Y}, "hmc")
    return found, apart(found.draws, of_location_scale())


@sound()
def location_and_scale_by_full_rank():
    found = fit(location_scale, {"y": Y}, "full_rank")
    return found, apart(found.draws, of_location_scale())


@sound()
def regression_by_nuts():
    data = regression_data()
    found = fit(regression, data)
    return found, apart(found.draws, of_regression(data))


@sound()
def regression_by_laplace():
    data = regression_data()
    found = fit(regression, data, "laplace")
    return found, apart(found.draws, of_regression(data))


@sound()
def regression_by_full_rank():
    data = regression_data()
    found = fit(regression, data, "full_rank")
    return found, apart(found.draws, of_regression(data))


@sound()
def counts_without_exposure_by_nuts():
    found = fit(counts, COUNTS)
    return found, apart(found.draws, of_counts())


@sound()
def counts_without_exposure_by_mean_field():
    found = fit(counts, COUNTS, "mean_field")
    return found, apart(found.draws, of_counts())


@sound()
def two_humps_that_touch_by_nuts():
    return humped([-1.5, 1.5], [0.4, 0.6])


@sound()
def two_humps_apart_by_tempering():
    return humped([-6.0, 6.0], [0.4, 0.6], "tempering", num_samples=4000)


@sound()
def student_location_by_nuts():
    y = np.array([-1.0, 0.5, 0.8, 1.0, 9.0])

    def student(y):
        m = numpyro.sample("m", dist.Normal(0.0, 10.0))
        numpyro.sample("y", dist.StudentT(3.0, m, 1.0), obs=y)

    found = fit(student, {"y": y})
    of = lambda m: -(m**2) / 200 - sum(2 * np.log(1 + (v - m) ** 2 / 3) for v in y)  # noqa: E731
    return found, apart(found.draws, moments(of, m=np.linspace(-20, 20, 20001)))


@sound()
def logistic_regression_by_nuts():
    x, y = (
        np.linspace(-2, 2, 20),
        (rng(6).uniform(size=20) < 1 / (1 + np.exp(-1.5 * np.linspace(-2, 2, 20)))).astype(int),
    )

    def logistic(x, y):
        a, b = (numpyro.sample(k, dist.Normal(0.0, 3.0)) for k in "ab")
        numpyro.sample("y", dist.Bernoulli(logits=a + b * x), obs=y)

    found = fit(logistic, {"x": x, "y": y})

    def of(a, b):
        likelihood = sum(t * (a + b * u) - np.logaddexp(0, a + b * u) for u, t in zip(x, y, strict=True))
        return likelihood - (a**2 + b**2) / 18

    return found, apart(found.draws, moments(of, a=np.linspace(-6, 6, 400), b=np.linspace(-4, 12, 600)))


@sound()
def angle_at_the_cut_by_nuts():
    y = np.array([3.1, -3.1, 3.0, -2.9, 3.14])

    def angle(y):
        m = numpyro.sample("m", dist.VonMises(0.0, 0.1))
        numpyro.sample("y", dist.VonMises(m, 4.0), obs=y)

    found = fit(angle, {"y": y})
    of = lambda m: 0.1 * np.cos(m) + sum(4 * np.cos(v - m) for v in y)  # noqa: E731
    turned = {"m": found.draws["m"] % (2 * np.pi)}
    return found, apart(turned, moments(of, m=np.linspace(0, 2 * np.pi, 20001)))


@sound()
def masked_observations_by_nuts():
    def masked(y, seen):
        m = numpyro.sample("m", dist.Normal(0.0, 5.0))
        s = numpyro.sample("s", dist.HalfNormal(5.0))
        numpyro.sample("y", dist.Normal(m, s), obs=y, obs_mask=seen)

    found = fit(masked, {"y": np.r_[Y, np.zeros(5)], "seen": np.arange(30) < 25})
    return found, apart(found.draws, of_location_scale())


@sound()
def funnel_without_centre_by_nuts():
    found = fit(functools.partial(funnel, centred=False), {}, engine="numpyro")
    return found, apart(found.draws, {"v": (0.0, 3.0)})


@sound()
def weak_ising_chain_by_gibbs():
    return gibbs_of_ising(0.3)


@sound()
def certain_assignments_by_gibbs():
    y = np.r_[rng(7).normal(-10, 1, 8), rng(8).normal(10, 1, 8)]

    def assignments(y):
        with numpyro.plate("row", len(y)):
            k = numpyro.sample("k", dist.Bernoulli(0.5))
            numpyro.sample("y", dist.Normal(20.0 * k - 10.0, 1.0), obs=y)

    found = fit(assignments, {"y": y}, "gibbs", conditionals="evaluation")
    return found, float(abs(found.draws["k"].mean((0, 1)) - (y > 0)).max())


@sound(bar=NATS_BAR)
def normal_density_by_mle():
    x = rng(9).normal(size=(300, 2)) @ np.array([[1.0, 0.0], [0.8, 0.5]])
    found = fit("gaussian", x, "mle")
    return found, nats_of_normal(x) - float(np.mean(found.log_prob().value))


def nats_of_normal(x: np.ndarray) -> float:
    """Mean log probability of rows under the normal that fits them best."""
    return float(-0.5 * (np.linalg.slogdet(2 * np.pi * np.atleast_2d(np.cov(x.T, bias=True)))[1] + x.shape[1]))


# ---- traps: unmixed, of one mode, badly shaped ------------------------------------------------------------------


@trap()
def few_draws_of_a_random_walk():
    data = regression_data(0.95)
    found = fit(regression, data, "random_walk", num_warmup=20, num_samples=60)
    return found, apart(found.draws, of_regression(data))


@trap()
def few_draws_by_nuts():
    found = fit(functools.partial(funnel, centred=True), {}, engine="numpyro", num_warmup=20, num_samples=50)
    return found, apart(found.draws, {"v": (0.0, 3.0)})


@trap()
def bad_step_of_langevin():
    data = regression_data()
    found = fit(regression, data, "ula", target_accept=0.3)
    return found, apart(found.draws, of_regression(data))


@trap()
def three_humps_by_nuts():
    return humped([0.0, 60.0, 200.0], [0.3, 0.3, 0.4])


@trap()
def three_humps_from_uniform_starts():
    return humped([0.0, 60.0, 200.0], [0.3, 0.3, 0.4], start="uniform")


@trap()
def two_humps_by_mean_field():
    return humped([-20.0, 20.0], [0.5, 0.5], "mean_field")


@trap()
def two_humps_by_laplace():
    return humped([-20.0, 20.0], [0.3, 0.7], "laplace")


@trap()
def two_humps_by_flow():
    return humped([-20.0, 20.0], [0.3, 0.7], "flow")


@trap()
def frozen_ising_chain_by_gibbs():
    return gibbs_of_ising(12.0, num_samples=500)


@trap()
def centred_funnel_by_nuts():
    """The neck is where the moments of v do not tell: by how many sds its 2.5 % quantile is off counts, too."""
    found = fit(functools.partial(funnel, centred=True), {}, engine="numpyro")
    low = abs(np.quantile(found.draws["v"], 0.025) / 3 + 1.96)
    return found, max(float(low), apart(found.draws, {"v": (0.0, 3.0)}))


@trap()
def narrow_guide_of_correlated_weights():
    data = regression_data(0.97)
    found = fit(regression, data, "mean_field")
    return found, apart(found.draws, of_regression(data))


@trap()
def heavy_tails_by_mean_field():
    def heavy():
        numpyro.sample("x", dist.StudentT(2.5, 0.0, 1.0).expand([3]).to_event(1))

    found = fit(heavy, {}, "mean_field", engine="numpyro")
    return found, apart(found.draws, {"x": (np.zeros(3), np.full(3, np.sqrt(2.5 / 0.5)))})


@trap()
def short_mean_field():
    data = regression_data(0.8)
    found = fit(regression, data, "mean_field", num_steps=30)
    return found, apart(found.draws, of_regression(data))


# ---- traps: stale, frozen, unscaled, unconverged -----------------------------------------------------------------

X = np.linspace(-1, 1, 40)


def reads_a_global(y):
    b = numpyro.sample("b", dist.Normal(0.0, 10.0))
    numpyro.sample("y", dist.Normal(b * X, 0.5), obs=y)


@trap()
def global_changed_and_fitted_again():
    global X
    y = 2 * X
    fit(reads_a_global, {"y": y}, num_samples=200)
    X = -X
    try:
        found = fit(reads_a_global, {"y": y})
    finally:
        X = -X
    precision = X @ X / 0.25 + 0.01
    return found, apart(found.draws, {"b": (-(X @ y) / 0.25 / precision, precision**-0.5)})


def frozen(y):
    s = numpyro.param("s", 1.0, constraint=dist.constraints.positive)
    m = numpyro.sample("m", dist.Normal(0.0, 5.0))
    numpyro.sample("y", dist.Normal(m, s), obs=y)


def of_frozen() -> dict[str, tuple[float, float]]:
    """The posterior of m at the scale of largest marginal likelihood."""
    count, mean = len(Y), Y.mean()
    scales = np.linspace(0.5, 8, 4000)
    spread = 25 + scales**2 / count
    evidence = (
        -(count - 1) * np.log(scales)
        - count * Y.var() / (2 * scales**2)
        - 0.5 * np.log(spread)
        - mean**2 / (2 * spread)
    )
    precision = count / scales[evidence.argmax()] ** 2 + 1 / 25
    return {"m": (count * mean / scales[evidence.argmax()] ** 2 / precision, precision**-0.5)}


@trap()
def parameter_beside_unknown_by_nuts():
    found = fit(frozen, {"y": Y}, "nuts")
    return found, apart(found.draws, of_frozen())


@trap()
def parameter_beside_unknown_by_laplace():
    found = fit(frozen, {"y": Y}, "laplace")
    return found, apart(found.draws, of_frozen())


@density_trap()
def flow_on_unscaled_rows():
    x = rng(10).normal(5000.0, 300.0, (400, 2))
    found = fit("maf", x, "mle", num_steps=300)
    return found, nats_of_normal(x) - float(np.mean(found.log_prob().value))


@density_trap()
def spline_on_unscaled_rows():
    x = rng(11).normal(0.0, 1000.0, (400, 2))
    found = fit("neural_spline", x, "mle", num_steps=300)
    return found, nats_of_normal(x) - float(np.mean(found.log_prob().value))


@density_trap()
def mixture_of_unscaled_features():
    from sklearn.mixture import GaussianMixture

    centres = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    x = (centres[rng(12).integers(3, size=300)] + rng(13).normal(size=(300, 2)) * 0.5) * np.array([1.0, 1000.0])
    found = fit("gaussian_mixture", {"centre": x.mean(0), "spread": x.std(0), "x": x, "num_components": 3}, "em")
    white = (x - x.mean(0)) / x.std(0)
    best = GaussianMixture(3, n_init=20, random_state=0).fit(white).score(white) - np.log(x.std(0)).sum()
    return found, best - float(np.mean(found.log_prob().value))


@density_trap()
def restricted_boltzmann_machine_by_short_pcd():
    x = np.repeat(np.eye(8), 20, axis=0)
    found = fit("rbm", {"v": x, "num_visible": 8, "num_hidden": 8}, "pcd", num_steps=50)
    return found, -np.log(8) - float(np.mean(found.log_prob().value))  # eight rows, which as many hidden units can hold


@density_trap()
def short_flow():
    x = rng(14).normal(size=(400, 2)) @ np.array([[1.0, 0.0], [3.0, 0.3]])
    found = fit("realnvp", x, "mle", num_steps=20)
    return found, nats_of_normal(x) - float(np.mean(found.log_prob().value))


@density_trap(bar=1.0)
def separable_classes_by_mle():
    x = np.r_[rng(15).normal(-3, 0.5, (30, 2)), rng(16).normal(3, 0.5, (30, 2))]
    found = fit("softmax_regression", {"x": x, "y": np.repeat([0, 1], 30), "num_classes": 2}, "mle")
    return found, np.inf  # the likelihood rises for ever: no parameters are its maximum


@density_trap(bar=1.0)
def collapsed_autoencoder():
    x = (
        rng(17).uniform(size=(300, 16)) < np.repeat(rng(18).uniform(size=(300, 1)) > 0.5, 16, axis=1) * 0.8 + 0.1
    ).astype(float)
    data = {"x": x, "dim": 16, "num_latents": 2, "width": 16}
    found = fit("beta_vae", data, "amortised_svi", num_steps=600, kl_weight=100.0)
    truth = [
        np.logaddexp(*(k * np.log(p) + (16 - k) * np.log(1 - p) for p in (0.1, 0.9))) - np.log(2) for k in x.sum(1)
    ]
    return found, float(np.mean(truth)) - float(np.mean(found.log_prob().value))
