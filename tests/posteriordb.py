"""Twelve posteriors of posteriordb with their reference draws, and how far draws are from them.

The reference lies beside the repository, in ../shared/data/posteriordb, or under PROBGEN_SHARED.
Source: Magnusson et al. 2024, "posteriordb: testing, benchmarking and developing Bayesian inference algorithms".
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from arviz_stats import ess, mcse
from numpyro.distributions import constraints

from probgen.models.bayes.arma import arma
from probgen.models.bayes.autoregressive import autoregressive, lagged
from probgen.models.bayes.eight_schools import eight_schools
from probgen.models.bayes.gp_regression import gp_regression
from probgen.models.bayes.hmm import forward, hmm
from probgen.models.bayes.linear_regression import linear_regression
from probgen.models.bayes.lotka_volterra import lotka_volterra
from probgen.models.bayes.two_normals import two_normals

SHARED = Path(os.environ.get("PROBGEN_SHARED", Path(__file__).resolve().parents[2] / "shared"))
FOLDER = SHARED / "data" / "posteriordb"

Draws = Mapping[str, np.ndarray]


def available() -> bool:
    return FOLDER.is_dir()


@dataclass(frozen=True)
class Posterior:
    """A program, how posteriordb's data are named by it, and how its sites are named by Stan.

    program: a NumPyro program.
    arrange: posteriordb's data -> the program's keywords.
    rename: draws, one array (chain, draw, *event) a site, deterministic ones included -> one array
        (chain, draw) or (chain, draw, vector) a Stan parameter.
    """

    program: Callable[..., Any]
    arrange: Callable[[Mapping[str, Any]], dict[str, Any]]
    rename: Callable[[Draws], Mapping[str, np.ndarray]]
    name: str = ""

    def data(self) -> dict[str, Any]:
        raw = json.loads((FOLDER / self.name / "data.json").read_text())
        return self.arrange({key: np.asarray(value, float) for key, value in raw.items()})

    def parameters(self, draws: Draws) -> dict[str, np.ndarray]:
        """Draws under the names of the reference, `theta[1]`: one array (chain, draw) each."""
        flat = {}
        for name, value in self.rename(draws).items():
            value = np.asarray(value, float)
            scalar = value.ndim == 2
            flat |= {name: value} if scalar else {f"{name}[{i + 1}]": value[..., i] for i in range(value.shape[2])}
        return flat


def same(*sites: str) -> Callable[[Draws], Mapping[str, np.ndarray]]:
    return lambda draws: {site: draws[site] for site in sites}


def kidscore(X, y=None):
    beta = numpyro.sample("beta", dist.ImproperUniform(constraints.real_vector, (), (X.shape[1],)))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    numpyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)


def diamonds(X, y=None):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    intercept = numpyro.sample("Intercept", dist.StudentT(3.0, 8.0, 10.0))
    sigma = numpyro.sample("sigma", dist.FoldedDistribution(dist.StudentT(3.0, 0.0, 10.0)))
    numpyro.sample("y", dist.Normal(intercept + X @ b, sigma), obs=y)


def earnings(X, y=None):
    beta = numpyro.sample("beta", dist.ImproperUniform(constraints.real_vector, (), (X.shape[1],)))
    sigma = numpyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    numpyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)


def hmm_drive(u, v, alpha):
    transition = numpyro.sample("transition", dist.Dirichlet(alpha).to_event(1))
    ordered = dist.ImproperUniform(constraints.positive_ordered_vector, (), (2,))
    phi, rate = numpyro.sample("phi", ordered), numpyro.sample("lambda", ordered)
    numpyro.factor("rates", dist.Normal(jnp.array([0.0, 3.0]), 1.0).log_prob(jnp.stack([phi, rate])).sum())
    emission = dist.Exponential(phi).log_prob(u[:, None]) + dist.Exponential(rate).log_prob(v[:, None])
    numpyro.factor("path", forward(transition, emission))


def rows(draws: Draws) -> dict[str, np.ndarray]:
    return {"theta1": draws["transition"][..., 0, :], "theta2": draws["transition"][..., 1, :]}


POSTERIORS = {
    "eight_schools-eight_schools_noncentered": Posterior(
        eight_schools, lambda d: {"sigma": d["sigma"], "y": d["y"]}, same("theta", "mu", "tau")
    ),
    "low_dim_gauss_mix-low_dim_gauss_mix": Posterior(
        two_normals, lambda d: {"size": int(d["N"]), "y": d["y"]}, same("mu", "sigma", "theta")
    ),
    "arma-arma11": Posterior(arma, lambda d: {"length": int(d["T"]), "y": d["y"]}, same("mu", "phi", "theta", "sigma")),
    "arK-arK": Posterior(autoregressive, lambda d: lagged(d["y"], int(d["K"])), same("alpha", "beta", "sigma")),
    "hmm_example-hmm_example": Posterior(
        hmm, lambda d: {"length": int(d["N"]), "y": d["y"]}, lambda draws: rows(draws) | {"mu": draws["mu"]}
    ),
    "gp_pois_regr-gp_regr": Posterior(
        gp_regression, lambda d: {"x": d["x"], "y": d["y"]}, same("rho", "alpha", "sigma")
    ),
    "hudson_lynx_hare-lotka_volterra": Posterior(
        lotka_volterra,
        lambda d: {"ts": np.append(0, d["ts"]), "y": np.vstack([d["y_init"], d["y"]])},
        same("theta", "z_init", "sigma"),
    ),
    "kidiq-kidscore_momhsiq": Posterior(
        kidscore,
        lambda d: {"X": np.column_stack([np.ones_like(d["mom_iq"]), d["mom_hs"], d["mom_iq"]]), "y": d["kid_score"]},
        same("beta", "sigma"),
    ),
    "diamonds-diamonds": Posterior(
        diamonds,
        lambda d: {"X": d["X"][:, 1:] - d["X"][:, 1:].mean(0), "y": d["Y"]},
        same("b", "Intercept", "sigma"),
    ),
    "sblrc-blr": Posterior(linear_regression, lambda d: {"X": d["X"], "y": d["y"]}, same("beta", "sigma")),
    "earnings-earn_height": Posterior(
        earnings,
        lambda d: {"X": np.column_stack([np.ones_like(d["height"]), d["height"]]), "y": d["earn"]},
        same("beta", "sigma"),
    ),
    "bball_drive_event_0-hmm_drive_0": Posterior(
        hmm_drive,
        lambda d: {"u": d["u"], "v": d["v"], "alpha": d["alpha"]},
        lambda draws: rows(draws) | {"phi": draws["phi"], "lambda": draws["lambda"]},
    ),
}
POSTERIORS = {name: Posterior(entry.program, entry.arrange, entry.rename, name) for name, entry in POSTERIORS.items()}


def reference(name: str) -> dict[str, np.ndarray]:
    """Nearly independent draws by Stan's parameter names: (10, 1000) each, in float64."""
    with np.load(FOLDER / name / "reference_draws.npz") as stored:
        return {key: stored[key].astype(float) for key in stored.files}


class Agreement(NamedTuple):
    """How draws compare with the reference.

    parameters: Stan's names. z: (parameter, statistic), differences in standard errors of the mean, the mean square
    and the 5 % and 95 % quantiles. ess: (parameter,), the bulk effective sample size of the draws.
    """

    parameters: tuple[str, ...]
    z: np.ndarray
    ess: np.ndarray

    @property
    def worst(self) -> float:
        """The largest |z|; NaN if any is."""
        return float(np.abs(self.z).max())


def zscores(draws: Draws, name: str) -> Agreement:
    """Compare draws, one array (chain, draw, *event) a site, with the reference of the posterior `name`."""
    ours, theirs = POSTERIORS[name].parameters(draws), reference(name)
    z = [[_difference(ours[key], theirs[key], statistic) for statistic in STATISTICS] for key in theirs]
    bulk = np.array([float(ess(ours[key], method="bulk")) for key in theirs])
    return Agreement(tuple(theirs), np.array(z), bulk)


def _mean(x: np.ndarray, size: float) -> tuple[float, float]:
    return x.mean(), x.std() / np.sqrt(size)


def _quantile(x: np.ndarray, prob: float) -> tuple[float, float]:
    return np.quantile(x, prob), float(mcse(x, method="quantile", prob=prob))


STATISTICS = (
    lambda x, size: _mean(x, size or float(ess(x, method="mean"))),
    lambda x, size: _mean(x**2, size or float(ess(x**2, method="mean"))),
    lambda x, size: _quantile(x, 0.05),
    lambda x, size: _quantile(x, 0.95),
)


def _difference(ours: np.ndarray, theirs: np.ndarray, statistic: Callable) -> float:
    (a, da), (b, db) = statistic(ours, None), statistic(theirs, theirs.size)
    return (a - b) / np.hypot(da, db)
