"""Data that are NaN or infinite: a program may handle them (imputation, masks, open bounds); they must not reach its density."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from probgen.data.fixed import arrays_of
from probgen.data.inputs import DROP, not_finite
from probgen.target import Continuous

SPREAD = 0.3  # of the points at which the density is looked at, unconstrained
POINTS = 4


class NotFinite(ValueError):
    """Data that are NaN or infinite reach a program's density."""


def check(target: Any) -> None:
    """Raise ValueError for data with NaN or infinite values that reach the density, naming the first and the site.

    Looked at at a few points; a program passes whose density and gradient are numbers at one of them, or which has neither NaN nor
    infinity among its data.
    """
    holes = {k: ~np.isfinite(v) for k, v in arrays_of(target.data).items() if v.dtype.kind == "f"}
    holes = {k: bad for k, bad in holes.items() if bad.any()}
    if not holes:
        return
    name, bad = next(iter(holes.items()))
    for site in target.sites:
        if site.source in holes and not site.masked:
            told = f"They reach the density of {site.name!r}."
            raise NotFinite(f"{not_finite(site.source, holes[site.source])} {told}\n{DROP}")
    if not isinstance(target, Continuous):
        raise NotFinite(f"{not_finite(name, bad)}\n{DROP}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values outside a support: told here
        try:
            reach = _reach(target)
        except ValueError as error:  # of a library that checks parameters
            reach = f"They reach the density: {error}"
    if reach:
        raise NotFinite(f"{not_finite(name, bad)} {reach}\n{DROP}")


def _reach(target: Any) -> str:
    """What values that are not finite reach, in words; empty where it is nothing, or may be the choice of points."""
    points = np.random.default_rng(0).normal(0, SPREAD, (POINTS, target.dim))
    values, gradients = target.gradients(points)
    if (np.isfinite(values) & np.isfinite(gradients).all(-1)).any():
        return ""
    if np.isfinite(values).any():
        return "They reach the gradient of the density: replace them before anything is computed from them (jnp.where)."
    seen, terms = target.observed_values(), target.terms(points[0])
    sites = [k for k, v in terms.items() if np.isnan(v) or not np.isfinite(np.asarray(seen.get(k, 0.0), float)).all()]
    return f"They reach the density of {sites[0]!r}." if sites else ""
