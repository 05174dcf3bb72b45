"""What checks read of a fit: its scalars, its records, and the importance weights of a guide's draws."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probgen.algorithm import Learner
from probgen.target import Continuous

if TYPE_CHECKING:
    from probgen.result import Fit


class Scalars(NamedTuple):
    """The scalar components of latent and deterministic sites: names, and draws (scalar, chain, draw)."""

    names: tuple[str, ...]
    draws: np.ndarray

    def pick(self, keep: Any) -> Scalars:
        """Some of them, by an array of indices or booleans."""
        index = np.arange(len(self.names))[keep]
        return Scalars(tuple(self.names[i] for i in index), self.draws[index])


class Weights(NamedTuple):
    """Pareto-smoothed importance weights, normalised: (chain * draw,), and the tail's shape estimate k-hat."""

    weights: np.ndarray
    khat: float


@dataclass(frozen=True)
class Evidence:
    """What checks read: the fit, its scalars that vary and are finite, and the records after warm-up (chain, draw)."""

    fit: Fit
    scalars: Scalars
    records: Mapping[str, np.ndarray]

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


def scalars(fit: Fit) -> Scalars:
    """Every scalar component of the latent and deterministic sites, named as in ArviZ's tables.

    Without finite unknowns that were summed out, and what depends on them: given the others they are drawn exactly and anew, so
    that chains which agree on the others agree on them.
    """
    names, draws = [], []
    summed = fit.target.summed if isinstance(fit.target, Continuous) else ()
    for key, value in fit.draws.items():
        if key in summed:
            continue
        labels = [_labels(fit, key, axis, size) for axis, size in enumerate(value.shape[2:])]
        names += [f"{key}[{', '.join(index)}]" if index else key for index in product(*labels)]
        draws.append(np.moveaxis(value.reshape(*value.shape[:2], -1), -1, 0).astype(float))
    return Scalars(tuple(names), np.concatenate(draws) if draws else np.zeros((0, *fit.z.shape[:2])))


def with_summaries(fit: Fit, found: Scalars) -> Scalars:
    """The scalars of an energy's chains, with every site's mean and the log density: single bits hide slow modes."""
    shape = fit.z.shape[:2]
    means = {f"mean of {k}": v.reshape(*shape, -1).mean(axis=2) for k, v in fit.draws.items() if v.ndim > 2}
    more = means | {"log density": fit.records["lp"][:, fit.num_warmup :]}
    return Scalars((*found.names, *more), np.concatenate([found.draws, np.array([*more.values()], float)]))


def _labels(fit: Fit, key: str, axis: int, size: int) -> list[str]:
    dims = list(fit.model.dims.get(key, ()))
    coords = fit.model.coords.get(dims[axis]) if axis < len(dims) else None
    return [str(label) for label in (coords if coords is not None and len(coords) == size else range(size))]


def varying(draws: np.ndarray) -> np.ndarray:
    """Which scalars (scalar, chain, draw) are finite and not constant, as a Cholesky factor's zeros are."""
    low, high = draws.min(axis=(1, 2)), draws.max(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        return np.isfinite(low) & np.isfinite(high) & (high - low > 1e-12 * np.maximum(abs(low), abs(high)))


def has_draws(fit: Fit) -> bool:
    """Whether there are draws of unknowns; a learner of parameters alone has none."""
    return "z" in (fit.answer if isinstance(fit.inference, Learner) else fit.records)


def going_on(fit: Fit) -> str:
    return f"pg.resume({str(fit.directory)!r})" if fit.directory else "fit again, without stopping it"


def smoothed_weights(fit: Fit) -> Weights:
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
