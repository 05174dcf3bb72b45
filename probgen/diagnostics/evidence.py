"""What checks read of a fit: its scalars, its records, and the importance weights of a guide's draws."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from probgen.algorithm import Learner
from probgen.data.large import scratch
from probgen.data.large.stored import Stored
from probgen.diagnostics import screen
from probgen.fitted import Fitted
from probgen.target import Continuous


class Scalars(NamedTuple):
    """The scalar components of latent and deterministic sites: names, and draws (scalar, chain, draw)."""

    names: tuple[str, ...]
    draws: np.ndarray

    def pick(self, keep: Any) -> Scalars:
        """Some of them, by an array of indices or booleans."""
        index = np.arange(len(self.names))[keep]
        return Scalars(tuple(self.names[i] for i in index), self.draws[index])


class Looked(NamedTuple):
    """The scalars that are checked in full, how many there are in all, how many vary, and whether all that vary are checked."""

    scalars: Scalars
    total: int
    varying: int

    @property
    def told(self) -> str:
        """How the rest was looked at; nothing where there is no rest."""
        count = len(self.scalars.names)
        return "" if count == self.varying else f"; the worst {count:,} of {self.varying:,} by a quick look at all"


class Weights(NamedTuple):
    """Pareto-smoothed importance weights, normalised: (chain * draw,), and the tail's shape estimate k-hat."""

    weights: np.ndarray
    khat: float


@dataclass(frozen=True)
class Evidence:
    """What checks read: the fit, its scalars that vary and are finite, and the records after warm-up (chain, draw)."""

    fit: Fitted
    scalars: Scalars
    records: Mapping[str, np.ndarray]
    told: str = ""  # of scalars that had a quick look alone

    @property
    def settings(self) -> dict[str, Any]:
        """The algorithm's settings."""
        return self.fit.inference.settings()

    @functools.cached_property
    def weights(self) -> Weights | None:
        """Importance weights of a guide's draws; None where there are none or they are not finite."""
        answer = self.fit.answer
        if "log_q" not in answer or not np.isfinite(_log_ratios(answer)).any() or np.isnan(_log_ratios(answer)).any():
            return None
        return smoothed_weights(self.fit)


UNKNOWNS, DERIVED = 1000, 200  # scalars of latent and of deterministic sites that are checked in full


def scalars(fit: Fitted) -> Scalars:
    """Every scalar component of the latent and deterministic sites, named as in ArviZ's tables; see `judged`."""
    parts = [_component(fit, key, value, None) for key, value in judged(fit).items()]
    names = tuple(name for part in parts for name in part.names)
    return Scalars(names, _together(fit, parts))


def _together(fit: Fitted, parts: list[Scalars]) -> np.ndarray:
    """The draws of all of them (scalar, chain, draw); of a fit whose draws are on disk, in scratch."""
    if not parts or not isinstance(fit.z, Stored):
        return np.concatenate([p.draws for p in parts]) if parts else np.zeros((0, *fit.z.shape[:2]))
    if len(parts) == 1:
        return parts[0].draws
    found = scratch.array((sum(len(p.names) for p in parts), *fit.z.shape[:2]), float, fit.directory)
    start = 0
    for part in parts:
        for draws in part.draws:
            found[start], start = draws, start + 1
            scratch.release(found)
        scratch.release(part.draws)
    return found


def looked_at(fit: Fitted) -> Looked:
    """The scalars that vary and that checks look at in full, in the program's order; made once and kept with the fit."""
    kept = vars(fit)
    if "_looked" not in kept:
        kept["_looked"] = _look(fit)
    return kept["_looked"]


def _look(fit: Fitted) -> Looked:
    sites = judged(fit)
    latent = set(fit.target.named("latent"))
    flat = {key: value.reshape(*value.shape[:2], -1) for key, value in sites.items()}
    looks = {key: screen.look(value) for key, value in flat.items()}
    parts = []
    for inside, most in ((True, UNKNOWNS), (False, DERIVED)):
        group = [key for key in flat if (key in latent) == inside]
        joined = screen.Look(*(np.concatenate([np.zeros(0, bool), *(looks[k][i] for k in group)]) for i in range(3)))
        joined = joined._replace(varies=joined.varies.astype(bool))
        few = UNKNOWNS + DERIVED if sum(v.shape[2] for v in flat.values()) <= UNKNOWNS + DERIVED else most
        chosen, start = screen.worst(joined, few), 0
        for key in group:
            size = flat[key].shape[2]
            rows = chosen[(chosen >= start) & (chosen < start + size)] - start
            parts.append((key, _component(fit, key, sites[key], rows)))
            start += size
    order = list(flat)
    picked = [part for key, part in sorted(parts, key=lambda pair: order.index(pair[0]))]
    names = tuple(name for part in picked for name in part.names)
    draws = _together(fit, picked)
    varies = sum(int(found.varies.sum()) for found in looks.values())
    return Looked(Scalars(names, draws), sum(v.shape[2] for v in flat.values()), varies)


def judged(fit: Fitted) -> dict[str, np.ndarray]:
    """The draws by which chains are judged: `unwrapped`, without finite unknowns that were summed out and what depends on them.

    Given the others these are drawn exactly and anew, so that chains which agree on the others agree on them.
    """
    summed = fit.target.summed if isinstance(fit.target, Continuous) else ()
    return {key: value for key, value in unwrapped(fit).items() if key not in summed}


def unwrapped(fit: Fitted) -> dict[str, np.ndarray]:
    """The draws of all sites, angles within pi of their circular mean: where the circle is cut must not matter."""
    angles = {site.name for site in fit.target.sites if site.circular}
    return {key: _around_mean(value) if key in angles else value for key, value in fit.draws.items()}


def _around_mean(angles: np.ndarray) -> np.ndarray:
    """Angles (chain, draw, *event), each within pi of the circular mean of its scalar."""
    middle = np.arctan2(np.sin(angles).mean(axis=(0, 1)), np.cos(angles).mean(axis=(0, 1)))
    return middle + wrapped(angles - middle)


def wrapped(angles: np.ndarray) -> np.ndarray:
    """Angles taken to [-pi, pi)."""
    return (angles + np.pi) % (2 * np.pi) - np.pi


def _component(fit: Fitted, key: str, value: np.ndarray, rows: np.ndarray | None) -> Scalars:
    """The scalars of one site, or those of the given rows: their names, and draws (scalar, chain, draw)."""
    shape, flat = value.shape[2:], value.reshape(*value.shape[:2], -1)
    labels = [_labels(fit, key, axis, size) for axis, size in enumerate(shape)]
    rows = np.arange(flat.shape[2]) if rows is None else rows
    where = np.transpose(np.unravel_index(rows, shape)) if shape else [()] * len(rows)
    names = [f"{key}[{', '.join(labels[i][j] for i, j in enumerate(index))}]" if shape else key for index in where]
    return Scalars(tuple(names), _picked(fit, flat, rows))


def _picked(fit: Fitted, flat: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some of the scalars of draws (chain, draw, scalar): (scalar, chain, draw)."""
    if not isinstance(fit.z, Stored):
        return np.moveaxis(flat[..., rows], -1, 0).astype(float)
    every = np.moveaxis(flat, -1, 0)
    if (
        len(rows) == len(every) and every.dtype == float and every.flags.c_contiguous
    ):  # sums depend on the order in memory
        return every
    found = scratch.array((len(rows), *every.shape[1:]), float, fit.directory)
    for into, row in zip(found, rows, strict=True):
        into[...] = every[row]
        scratch.release(found)
        scratch.release(every)
    return found


def with_summaries(fit: Fitted, found: Scalars) -> Scalars:
    """The scalars of an energy's chains, with every site's mean and the log density: single bits hide slow modes."""
    shape = fit.z.shape[:2]
    means = {f"mean of {k}": v.reshape(*shape, -1).mean(axis=2) for k, v in fit.draws.items() if v.ndim > 2}
    more = means | {"log density": fit.records["lp"][:, fit.num_warmup :]}
    return Scalars((*found.names, *more), np.concatenate([found.draws, np.array([*more.values()], float)]))


def _labels(fit: Fitted, key: str, axis: int, size: int) -> list[str]:
    dims = list(fit.model.dims.get(key, ()))
    coords = fit.model.coords.get(dims[axis]) if axis < len(dims) else None
    return [str(label) for label in (coords if coords is not None and len(coords) == size else range(size))]


def varying(draws: np.ndarray) -> np.ndarray:
    """Which scalars (scalar, chain, draw) are finite and not constant, as a Cholesky factor's zeros are."""
    low, high = draws.min(axis=(1, 2)), draws.max(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        return np.isfinite(low) & np.isfinite(high) & (high - low > 1e-12 * np.maximum(abs(low), abs(high)))


def has_draws(fit: Fitted) -> bool:
    """Whether there are draws of unknowns; a learner of parameters alone has none."""
    return "z" in (fit.answer if isinstance(fit.inference, Learner) else fit.records)


def going_on(fit: Fitted) -> str:
    return f"pg.resume({str(fit.directory)!r})" if fit.directory else "fit again, without stopping it"


def smoothed_weights(fit: Fitted) -> Weights:
    """Pareto-smoothed importance weights p/q of a guide's draws, normalised: (chain * draw,), and k-hat.

    Raises TypeError for a fit without a guide's density, ValueError where log p - log q is NaN or nowhere finite.
    """
    from arviz_stats.base import array_stats

    if "log_q" not in fit.answer:
        raise TypeError(f"{fit.inference.name} has no guide density; importance weights need log_p and log_q.")
    ratios = _log_ratios(fit.answer)
    if np.isnan(ratios).any() or not np.isfinite(ratios).any():
        raise ValueError(
            f"log p - log q is NaN at {int(np.isnan(ratios).sum())} of {ratios.size} draws, finite at "
            f"{int(np.isfinite(ratios).sum())}.\nLook at the program there, or fit with a smaller learning_rate."
        )
    if np.ptp(np.sort(ratios)[-max(5, ratios.size // 10) :]) < 1e-10:  # equal weights: there is no tail to fit
        weights = np.exp(ratios - ratios.max())
        return Weights(weights / weights.sum(), -np.inf)
    log_weights, khat = array_stats.psislw(-ratios)
    weights = np.exp(log_weights)
    return Weights(weights / weights.sum(), float(khat))


def _log_ratios(answer: Mapping[str, np.ndarray]) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (answer["log_p"].astype(float) - answer["log_q"]).ravel()
