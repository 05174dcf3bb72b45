"""Terms of the likelihood, one a point: which sites have them, which rows are masked, and what leaving each out says."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from probgen.algorithm import Incompatible, Learner, closest
from probgen.data import slashes
from probgen.engine.drawable import WEIGHTS, weighed
from probgen.fits.tree import SAMPLE, dataset, group, merged
from probgen.fitted import Fitted, LogProb
from probgen.target import Generative, Site

OBSERVED = "_observed"  # ending of the site that both engines make of the seen entries of one with obs_mask
TERMS = "log_likelihood"  # the name of the one variable of that group


def of_observed(fit: Fitted, data: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The terms of the observed sites on data, in nats: arrays (chain, draw, *batch). ValueError where nothing is observed."""
    names = fit.target.named("observed")
    if not names:
        raise ValueError(_unobserved(fit))
    summed = any(s.kind == "latent" and s.discrete for s in fit.target.sites)
    counted = [s.name for s in fit.target.sites if s.weighed and (s.discrete or s.name in names)]
    if summed and counted:
        why = "with finite unknowns summed out it has no log likelihood of points"
        raise Incompatible(WEIGHTS.format(counted[0], why, ", or count rows more often by repeating them"))
    return {k: v for k, v in fit.target.log_likelihood(fit.draws, data).items() if k in names}


def _unobserved(fit: Fitted) -> str:
    factors = [site for site in fit.target.sites if site.kind == "factor" and _shape(site)]
    if not factors:
        return "The program observes nothing (no site has obs=), so there is no likelihood of points."
    return (
        "The program observes nothing (no site has obs=), and what a factor stands for is not known.\n"
        f"If {factors[0].name!r} holds the log likelihood of one point in each of its {_shape(factors[0])} entries: "
        f"fit.loo(var_name={factors[0].name!r})."
    )


def _shape(site: Site) -> tuple[int, ...]:
    """The shape of a factor's terms; Pyro's have an empty axis more."""
    return site.shape[:-1] if site.shape[-1:] == (0,) else site.shape


def _of_points(fit: Fitted, name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Terms (chain, draw, *batch) of a site as (chain, draw, point), and which are points: not those that a mask leaves out.

    These are 0 in every draw; where nothing masks a site, 0 is the log of a density of 1. A factor may say by 0 what it leaves out.
    """
    flat = values.reshape(*values.shape[:2], -1)
    site = next((s for s in fit.target.sites if s.name == name), None)
    plain = site is not None and site.kind == "observed" and not site.masked and not name.endswith(OBSERVED)
    return flat, np.ones(flat.shape[2], bool) if plain else (flat != 0).any(axis=(0, 1))


def averaged(fit: Fitted, terms: Mapping[str, np.ndarray]) -> LogProb:
    """The log of the mean over draws of the densities of points; terms: of sites, in nats, (chain, draw, *batch)."""
    from arviz_stats.base import array_stats

    found = [_of_points(fit, name, values) for name, values in terms.items()]
    values = np.concatenate([flat[..., kept] for flat, kept in found], axis=2)
    if values.shape[1] == 1 and isinstance(fit.inference, Learner):  # of several searches the best is the first
        return LogProb(
            values[0, 0], np.zeros(values.shape[2]), f"at the point of {fit.inference.name}: no posterior is averaged"
        )
    top = values.max((0, 1))
    weights = np.exp(values - np.where(np.isneginf(top), 0.0, top))  # -inf at a point that no draw gives a density
    mean = weights.mean((0, 1))
    ess = np.array([array_stats.ess(weights[..., i], chain_axis=0, draw_axis=1) for i in range(weights.shape[-1])])
    with np.errstate(divide="ignore", invalid="ignore"):
        stderr = weights.std((0, 1)) / np.sqrt(np.maximum(ess, 1)) / mean
        value = top + np.log(mean)
    whose = f"under draws of {fit.inference.name}" if isinstance(fit.inference, Learner) else "posterior predictive"
    return LogProb(value, stderr, f"{whose}, Monte Carlo estimate")


def log_likelihood(fit: Fitted) -> Any:
    """Pointwise log likelihood as a Dataset, kept in the tree's log_likelihood group."""
    import xarray as xr

    if "log_likelihood" not in fit.tree.children:
        found = dataset(fit, of_observed(fit, merged(fit, {})))
        fit.tree["log_likelihood"] = xr.DataTree(slashes.plain(found))
    return group(fit, "log_likelihood")


def of_one_site(fit: Fitted, var_name: str | None = None) -> Any:
    """A DataTree with the posterior and the terms of one site's points, as ArviZ's loo and compare take it."""
    import xarray as xr

    terms = xr.Dataset({TERMS: _terms(fit, _site(fit, var_name))})
    groups = {"posterior": fit.tree["posterior"].to_dataset(), "log_likelihood": slashes.plain(terms)}
    return xr.DataTree.from_dict(groups)


def left_out(fit: Fitted, var_name: str | None = None) -> Any:
    """ArviZ's estimate by leaving out the points of one site, each by itself.

    Draws of a guide are weighted to the posterior first (Magnusson et al. 2019, arXiv:1904.10679).
    Incompatible for a point, for draws of a guide without a density, and for a site that a scale weighs.
    """
    from arviz_stats import loo as of
    from arviz_stats import loo_approximate_posterior as of_a_guide

    from probgen.fits.tables import quiet

    name, logs = _site(fit, var_name), [np.ravel(fit.answer.get(k, np.nan)) for k in ("log_p", "log_q")]
    if isinstance(fit.inference, Learner) and not all(np.isfinite(v).all() for v in logs):
        raise Incompatible(
            f"Leaving a point out weighs draws of the posterior; {fit.inference.name} gives "
            f"{'a point' if fit.z.shape[:2] == (1, 1) else 'draws whose density is not known'}.\nFit by 'nuts' or 'mean_field'."
        )
    tree = of_one_site(fit, name)
    with quiet():
        if not isinstance(fit.inference, Learner):
            return of(tree, var_name=TERMS, pointwise=True)
        return of_a_guide(tree, *logs, var_name=TERMS, pointwise=True)


def loo(fit: Fitted, var_name: str | None = None) -> Any:
    """`left_out`; its warning about k-hat becomes a sentence that says what it means and what to do."""
    found = left_out(fit, var_name)
    khat = np.asarray(getattr(found, "pareto_k", np.zeros(0)))
    bar = float(getattr(found, "good_k", 0.7) or 0.7)
    high = int((khat > bar).sum()) + int(np.isnan(khat).sum())
    if high:
        warnings.warn(
            f"loo is unreliable at {high} of {khat.size} observations: their Pareto k is above {bar:.2f}. "
            "A more robust likelihood, or fitting anew without them, tells more.",
            stacklevel=3,
        )
    return found


def _site(fit: Fitted, var_name: str | None) -> str:
    """The site whose points are left out: the one that is asked for, or the only observed one."""
    observed = fit.target.named("observed")
    if var_name is None:
        if len(observed) == 0:
            raise ValueError(_unobserved(fit))
        if len(observed) > 1:
            raise ValueError(
                f"{len(observed)} sites are observed ({', '.join(observed)}); leaving a point out means another thing in each.\n"
                f"Say of which: fit.loo(var_name={observed[0]!r})."
            )
        var_name = observed[0]
    known = (*observed, *fit.target.named("factor"))
    if var_name not in known:
        raise ValueError(
            f"No observed site is called {var_name!r}.{closest(var_name, known)}\nKnown: {', '.join(known)}."
        )
    if var_name in weighed(fit.target):
        rows = ", and repeat the rows that count more often"
        raise Incompatible(WEIGHTS.format(var_name, "what leaving a point out leaves is not said", rows))
    return var_name


def _terms(fit: Fitted, name: str) -> Any:
    """The terms of a site's points: a DataArray of dims (chain, draw, *batch), or (chain, draw, point) where some are masked."""
    if name in fit.target.named("observed"):
        found = log_likelihood(fit)[name]
    else:
        found = dataset(fit, {name: _of_factor(fit, name)})[name]
    flat, kept = _of_points(fit, name, found.values)
    if not kept.any():
        raise ValueError(f"Every point of {name!r} is masked: there is none to leave out.")
    still = kept & (flat == flat[:1, :1]).all(axis=(0, 1))
    if still.any() and flat[..., 0].size > 1:
        raise ValueError(
            f"The log likelihood of {name!r} is the same in all draws at {int(still.sum())} of {int(kept.sum())} points, the first "
            f"at {int(np.argmax(still))}: they do not depend on the unknowns, and leaving them out says nothing."
        )
    if kept.all() and found.ndim > 2:
        return found
    import xarray as xr

    return xr.DataArray(flat[..., kept], dims=(*SAMPLE, "point"), coords={"point": np.flatnonzero(kept)})


def _of_factor(fit: Fitted, name: str) -> np.ndarray:
    """The terms of a factor that is said to hold one point in each entry."""
    shape = next(_shape(site) for site in fit.target.sites if site.name == name)
    if isinstance(fit.target, Generative) or not shape:
        raise ValueError(
            f"{name!r} is one number, the sum over all points; leaving one out needs its terms: a factor in a plate, one entry a "
            "point."
        )
    terms = fit.target.log_likelihood(fit.draws, merged(fit, {}))
    if name not in terms:
        raise ValueError(f"The terms of the factor {name!r} are not known apart where finite unknowns are summed out.")
    return np.broadcast_to(terms[name], (*fit.z.shape[:2], *shape))
