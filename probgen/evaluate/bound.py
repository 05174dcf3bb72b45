"""Bounds on the log probability of rows by draws of a guide, and what guide and program make of a row and of a code.

    ELBO = mean_k log w_k <= log mean_k w_k = IWAE_K <= log p(x),   w_k = p(x, h_k) / q(h_k | x),   in expectation

Burda, Grosse and Salakhutdinov 2016 (arXiv:1509.00519); k-hat of the weights: Vehtari et al. 2024 (arXiv:1507.02646); gaps: Cremer,
Li and Duvenaud 2018 (arXiv:1801.03558).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from probgen import watch
from probgen.algorithm import Incompatible
from probgen.fitted import FittedLatents, LogProb

Rows = Mapping[str, np.ndarray]
AT_ONCE = 20_000  # draws
FEWEST = 100  # draws that a k-hat needs


class Bound(LogProb):
    """A LogProb with the k-hat of its weights: (row,), NaN for fewer than 100 draws."""

    khat: np.ndarray


def by_draws(fit: FittedLatents, rows: Rows, method: str, num_particles: int, seed: int) -> Bound:
    """The ELBO or the importance-weighted bound of rows."""
    if num_particles < 1:
        raise ValueError(f"num_particles is {num_particles}; it must be at least 1")
    target: Any = fit.target
    parts = _parts(rows, num_particles, "bound")
    log_ratio = np.concatenate([target.log_ratios(fit.answer, part, (seed, at), num_particles) for at, part in parts])
    if method == "elbo":
        found = Bound(log_ratio.mean(1), _error(log_ratio, fit), "lower bound: ELBO")
        found.khat = np.full(len(log_ratio), np.nan)
        return found
    top = log_ratio.max(1, keepdims=True)
    weights = np.exp(log_ratio - top)
    mean = weights.mean(1)
    khat = _khat(log_ratio)
    bad = f"; k-hat above 0.7 in {np.mean(khat > 0.7):.0%} of the rows" if num_particles >= FEWEST else ""
    kind = f"lower bound: importance-weighted, {num_particles} draws a row{bad}"
    found = Bound(np.log(mean) + top[:, 0], _error(weights, fit) / mean, kind)
    found.khat = khat
    return found


def _error(values: np.ndarray, fit: FittedLatents) -> np.ndarray:
    """The standard error of the mean over draws (row, draw): NaN, not known, from a single one, but of codes, which are certain."""
    if values.shape[1] > 1:
        return values.std(1, ddof=1) / np.sqrt(values.shape[1])
    return np.full(len(values), 0.0 if is_certain(fit) else np.nan)


def is_certain(fit: FittedLatents) -> bool:
    """Whether the guide has no noise: all that is hidden are vectors of codebooks."""
    kinds = {site.name: site.distribution for site in fit.target.sites}
    return all(kinds.get(v.name) == "Codes" for v in fit.target.hidden)


def _khat(log_ratio: np.ndarray) -> np.ndarray:
    if log_ratio.shape[1] < FEWEST:
        return np.full(len(log_ratio), np.nan)
    from arviz_stats.base import array_stats

    equal = np.ptp(log_ratio, axis=1) < 1e-6  # no tail to fit
    khat = np.full(len(log_ratio), -np.inf)
    if not equal.all():
        khat[~equal] = array_stats.psislw(-log_ratio[~equal])[1]
    return khat


def by_annealing(fit: FittedLatents, rows: Rows) -> LogProb:
    """log p of rows, one after the other: the constant of the posterior of each row's hidden sites."""
    from probgen.evaluate import ais

    if fit.target.engine != "numpyro":
        raise Incompatible("Annealed importance sampling is for NumPyro programs; use method='iwae' with more draws.")
    keywords = {site: k for k, site in fit.target.keywords.items()}
    found = []
    for i in tqdm(range(len(next(iter(rows.values())))), desc="ais", unit="row", delay=1, disable=watch.unseen()):
        target = fit.condition(**{keywords.get(k, k): v[i] for k, v in rows.items()})
        found.append(ais.log_z(target, seed=fit.seed))
    kind = next((f.kind for f in found if "not" in f.kind), found[0].kind)
    return LogProb(np.array([f.value for f in found]), np.array([f.stderr for f in found]), kind)


def encoded(fit: FittedLatents, rows: Rows, num_samples: int, seed: int) -> dict[str, np.ndarray]:
    """Hidden sites of rows: the guide's middle, or draws."""
    target: Any = fit.target
    parts = [
        target.codes(fit.answer, part, (seed, at), num_samples)
        for at, part in _parts(rows, max(num_samples, 1), "encode")
    ]
    joined = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    return {k: np.moveaxis(v, 1, 0) if num_samples else v[:, 0] for k, v in joined.items()}


def decoded(fit: FittedLatents, values: Rows) -> dict[str, np.ndarray]:
    """Means of the visible sites given hidden sites and inputs."""
    target: Any = fit.target
    parts = [target.decoded(fit.answer, part) for _, part in _parts(values, 1, "decode")]
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def gaps(fit: FittedLatents, rows: Rows, num_particles: int) -> dict[str, np.ndarray]:
    """Amortisation and approximation gaps of rows, in nats."""
    keywords = {site: k for k, site in fit.target.keywords.items()}
    bound = by_draws(fit, rows, "elbo", num_particles, fit.seed + 4).value
    best = []
    for i in tqdm(range(len(bound)), desc="gaps", unit="row", delay=1, disable=watch.unseen()):
        target = fit.condition(**{keywords.get(k, k): v[i] for k, v in rows.items()})
        answer = fit.runner.fit(target, inference="mean_field", seed=fit.seed, progress=False).answer
        best.append(float(np.mean(answer["log_p"] - answer["log_q"])))
    whole = by_draws(fit, rows, "iwae", num_particles, fit.seed + 4).value
    return {"amortisation": np.array(best) - bound, "approximation": whole - np.array(best)}


def _parts(rows: Rows, draws: int, label: str) -> Iterator[tuple[int, Rows]]:
    """So many rows that about AT_ONCE draws are made at a time, and where they begin."""
    count = len(next(iter(rows.values())))
    size = min(count, max(1, AT_ONCE // draws))
    for start in tqdm(range(0, count, size), desc=label, unit="part", delay=1, disable=watch.unseen()):
        yield start, {k: v[start : start + size] for k, v in rows.items()}
