"""The rows that a fit draws, and those it learned from, as two arrays of one shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from probgen.fitted import Fitted
from probgen.target import Generative


class Own(NamedTuple):
    """Rows drawn of a fit's visible site, the rows of it that were learned from and those held out of learning, and notes."""

    draws: np.ndarray
    learned: np.ndarray
    held: np.ndarray
    notes: list[str]


def drawn(fit: Fitted, num: int, site: str | None, seed: int | None) -> Own:
    """`num` rows drawn of a visible site, (row, *event), and the fit's own rows of it.

    Of a posterior, data sets are drawn and their rows pooled: the law of a row, covariates aside.
    """
    if isinstance(fit.target, Generative):
        rows = fit.target.all_rows()
        own = {site for site in fit.target.keywords.values() if site in rows}
        chosen = _one(site, sorted(own), "visible")
        values, held = np.asarray(rows[chosen]), held_out(fit)
        parts = np.delete(values, held, axis=0), values[held]
        if not fit.target.inputs:
            return Own(_array(fit.sample(num, seed), chosen)[:num], *parts, [])
        inputs = ", ".join(fit.target.inputs)
        simulate: Any = getattr(fit, "simulate")  # noqa: B009  of fits that learned from rows
        note = f"drawn given {inputs} of rows by chance"
        return Own(_array(simulate(num, seed=seed), chosen)[:num], *parts, [note])
    observed = _observed(fit)
    chosen = _one(site, sorted(observed), "observed")
    seen = observed[chosen]
    each = max(len(seen), 1)
    sets = _array(fit.sample(-(-num // each), seed), chosen)
    rows = sets.reshape(-1, *sets.shape[2:]) if sets.ndim > 1 else sets
    note = f"posterior predictive data sets of {each} rows, pooled: the law of a row of {chosen!r}, covariates aside"
    return Own(rows[:num], seen, seen[:0], [note])


def held_out(fit: Any) -> np.ndarray:
    """Indices of the rows that were held out of learning; none of a learner that holds none."""
    if fit.state and (apart := getattr(fit.inference, "held_apart", None)) is not None:
        return apart(fit.state, fit.target.num_rows)
    if not fit.state or getattr(fit.inference, "held_rows", None) is None:
        return np.zeros(0, int)
    return np.asarray(fit.inference.held(fit.state, fit.target.num_rows), int)


def _observed(fit: Fitted) -> dict[str, np.ndarray]:
    """What the observed sites of a posterior are observed at, (row, ...)."""
    values = getattr(fit.target, "observed_values", None)
    found = {k: np.asarray(v) for k, v in values().items()} if values else {}
    found = {k: v for k, v in found.items() if v.ndim}
    if not found:
        raise TypeError(
            "Nothing is observed in this program, so that its draws are not compared with data. Pass arrays."
        )
    return found


def _one(site: str | None, sites: list[str], what: str) -> str:
    if site is not None and site not in sites:
        raise ValueError(f"site is {site!r}; {what} sites: {', '.join(sites)}")
    if site is None and len(sites) != 1:
        raise ValueError(
            f"The program has {len(sites)} {what} sites ({', '.join(sites)}); say which by site='{sites[0]}'."
        )
    return site or sites[0]


def _array(found: Any, site: str) -> np.ndarray:
    if not isinstance(found, Mapping) or site not in found:
        has = ", ".join(found) if isinstance(found, Mapping) else type(found).__name__
        raise TypeError(f"fit.sample gives no draws of {site!r}; it gives {has}.")
    return np.asarray(found[site])


def alike(x: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Rows in an event shape, where they have it but for axes of length one, for being flat, or for where channels stand."""
    own = x.shape[1:]
    plain = lambda s: tuple(n for n in s if n != 1)  # noqa: E731
    if plain(own) == plain(shape) or (np.prod(own) == np.prod(shape) and min(len(own), len(shape)) <= 1):
        return x.reshape(len(x), *shape)
    if len(own) == len(shape) == 3 and own[0] in (1, 3) and (*own[1:], own[0]) == shape:
        return np.moveaxis(x, 1, -1)
    raise ValueError(f"Rows of {name} have shape {own}, those of data {shape}; expected the same.")
