"""Plain Monte Carlo: the share of draws in an event, and means of functions, with errors that count autocorrelation.

    p = k / n;   the interval is Clopper and Pearson's, k and n scaled to the effective number of draws

No hit in n draws says p < 1 - 0.05^(1/n), about 3 / n, at 95 % (Hanley and Lippman-Hand, doi:10.1001/jama.1983.03330370053031).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probgen.evaluate.rare.draws import Drawn
from probgen.evaluate.rare.event import Event, Row
from probgen.evaluate.rare.result import Estimate

KHAT = 0.5  # from which on a variance may not exist
FEW = 100  # draws that carry a mean, below which its law is far from normal
RHAT = 1.05
NO_ERROR = "the same number at all draws: no error can be told"


def counted(event: Event, drawn: Drawn, confidence: float) -> tuple[Estimate, np.ndarray]:
    """The share of draws in the event, and the scores of all draws, (chain, draw)."""
    event.try_on(drawn.row())
    scores = event.scores(drawn.columns(event.read), drawn.scope).reshape(drawn.shape)
    return proportion(event.hit(scores), scores, drawn, confidence), scores


def proportion(hits: np.ndarray, scores: np.ndarray, drawn: Drawn, confidence: float) -> Estimate:
    """The estimate of draws (chain, draw) that are hits, or not."""
    n, k = hits.size, int(hits.sum())
    mixed = scores if np.isfinite(scores).all() else hits.astype(float)
    effective = float(n) if drawn.independent else _effective(hits, mixed, drawn)
    p = k / n
    low, high = clopper_pearson(p * effective, effective, confidence)
    kind = drawn.kind
    notes = list(drawn.notes)
    if k == 0:
        kind, spread = "upper bound: no draw is in the event", 1 / (effective + 2)
        notes.append(f"None of {n} draws is in the event, so it is rarer than {high:.2g}.")
    elif k == n:
        kind, spread = "lower bound: all draws are in the event", 1 / (effective + 2)
        notes.append(f"All of {n} draws are in the event: ask for the probability of its contrary.")
    else:
        spread = np.sqrt(p * (1 - p) / effective)
    if not drawn.independent and 0 < k < n:
        notes += _disagree(mixed)
    return Estimate(
        name="probability", value=p, stderr=float(spread), interval=(low, high), confidence=confidence, method="monte_carlo",
        kind=kind, effective=effective, cost=n, hits=k, law=drawn.law, notes=tuple(notes),
    )  # fmt: skip


def clopper_pearson(hits: float, count: float, confidence: float) -> tuple[float, float]:
    """The interval of a share, one-sided at its whole level where there are no hits, or nothing else."""
    from scipy.stats import beta

    rest = 1 - confidence
    if hits <= 0:
        return 0.0, float(1 - rest ** (1 / count))
    if hits >= count:
        return float(rest ** (1 / count)), 1.0
    return float(beta.ppf(rest / 2, hits, count - hits + 1)), float(beta.ppf(1 - rest / 2, hits + 1, count - hits))


def mean(function: Callable[[Any], Any], drawn: Drawn, confidence: float) -> Estimate:
    """The mean of a function of a draw, of any shape, with its standard error."""
    from scipy.stats import norm

    values, constant = _values(function, drawn)
    n = values.shape[0] * values.shape[1]
    flat = values.reshape(*values.shape[:2], -1)
    effective = np.array([n if drawn.independent else _ess(flat[..., i]) for i in range(flat.shape[-1])], float)
    shape = values.shape[2:]
    value, spread = flat.mean((0, 1)), flat.std((0, 1), ddof=1)
    stderr = spread / np.sqrt(effective)
    heavy, same = _heavy(flat), np.ptp(flat, (0, 1)) == 0
    notes, kind = [*drawn.notes, *heavy], drawn.kind + (", by few draws" if heavy else "")
    if same.any() and not constant:
        kind = NO_ERROR if same.all() else kind
        notes.append(_no_error(same, n))
        stderr = np.where(same, np.inf, stderr)
    far = norm.ppf(0.5 + confidence / 2) * stderr
    shaped: Any = [
        a.reshape(shape) if shape else float(a[0]) for a in (value, stderr, value - far, value + far, effective)
    ]
    return Estimate(
        name="expectation", value=shaped[0], stderr=shaped[1], interval=(shaped[2], shaped[3]), confidence=confidence,
        method="monte_carlo", kind=kind, effective=shaped[4], cost=n, law=drawn.law, notes=tuple(notes),
    )  # fmt: skip


def _no_error(same: np.ndarray, n: int) -> str:
    what = "The same number" if same.all() else f"{int(same.sum())} of {same.size} numbers were the same"
    return f"{what} at all {n} draws: no error can be told (inf), for what is seldom other was not seen."


def _values(function: Callable[[Any], Any], drawn: Drawn) -> tuple[np.ndarray, bool]:
    """The function at every draw, (chain, draw, *shape), and whether it reads nothing of them."""
    first = drawn.row()
    function(first)
    columns = drawn.columns(tuple(name for name in first.names if name in first.read))
    rows = [
        _array(function(Row(tuple(columns), lambda name, i=i: columns[name][i])), i) for i in range(_count(columns))
    ]
    if len({row.shape for row in rows}) > 1:
        raise ValueError("The function returned arrays of different shapes at different draws; expected one shape.")
    return np.stack(rows).reshape(*drawn.shape, *rows[0].shape), not first.read


def _count(columns: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(columns.values())))


def _array(value: Any, draw: int) -> np.ndarray:
    found = np.asarray(value.detach() if hasattr(value, "detach") else value)
    if found.dtype.kind not in "biuf":
        raise TypeError(f"The function returned a {type(value).__name__}; expected a number or an array of them.")
    if not np.isfinite(found).all():
        raise ValueError(f"The function is not finite at draw {draw}: its mean is no number.")
    return found.astype(float)


# ---- how much draws are worth


def _ess(values: np.ndarray) -> float:
    """The effective number of draws (chain, draw) for their mean, at most their number."""
    if values.shape[1] < 4 or np.ptp(values) == 0:
        return float(values.size)
    found = float(_stats().ess(values, chain_axis=0, draw_axis=1, method="mean"))
    return min(found, float(values.size)) if np.isfinite(found) and found > 0 else 1.0


def _effective(hits: np.ndarray, scores: np.ndarray, drawn: Drawn) -> float:
    """That of the event; where it is hit seldom, no more than that of the score's own tail, or of the unknowns."""
    found = [_ess(hits.astype(float))] if 0 < hits.sum() < hits.size else []
    if np.ptp(scores) > 0:
        found += [_ess((scores > np.quantile(scores, 0.9)).astype(float)), _ess(scores)]
    else:  # a bool that is always the same says nothing of how the chains mix
        found += [_ess(v.reshape(*drawn.shape, -1)[..., 0]) for v in drawn.arrays.values() if v.dtype.kind == "f"]
    return min(found, default=float(hits.size))


def _disagree(scores: np.ndarray) -> list[str]:
    if scores.shape[0] < 2 or np.ptp(scores) == 0:
        return []
    rhat = float(_stats().rhat(scores, chain_axis=0, draw_axis=1, method="identity"))
    return (
        [f"Chains disagree about it (R-hat {rhat:.2f}): the error is too small; see fit.diagnose()."]
        if rhat > RHAT
        else []
    )


def _heavy(flat: np.ndarray) -> list[str]:
    """Notes where few draws carry the mean: by their number, and by Pareto's shape of the tails.

    The variance exists where the shape is below a half (Vehtari et al. 2024, arXiv:1507.02646).
    """
    told, columns = [], [flat[..., i] for i in range(min(flat.shape[-1], 20))]
    count = flat.shape[0] * flat.shape[1]
    carrying = min(_carrying(column) for column in columns)
    if carrying < min(FEW, count / 5):
        told.append(
            f"About {carrying:.0f} of {count} draws carry the mean: the interval may be too narrow; take more num_samples."
        )
    worst = max(khat(column) for column in columns) if count >= 100 else 0.0
    if worst > KHAT:
        told.append(
            f"A few draws carry the mean (Pareto k-hat {worst:.2f}): "
            "its variance may not exist, and the error is not to be relied on."
        )
    return told


def _carrying(values: np.ndarray) -> float:
    """How many draws carry a mean: (sum a)^2 / sum a^2 of what each is away from the median (Kish 1965)."""
    away = np.abs(values - np.median(values))
    return float(away.sum() ** 2 / (away**2).sum()) if away.any() else float(values.size)


def khat(values: np.ndarray, tail: str = "both") -> float:
    """Pareto's shape of the tails of draws (chain, draw); 0 where a tail is of one value, which has none."""
    with contextlib.suppress(ValueError):
        return float(_stats().pareto_khat(values, chain_axis=0, draw_axis=1, tail=tail)) if np.ptp(values) else 0.0
    return 0.0


def _stats() -> Any:
    """ArviZ's functions of arrays."""
    from arviz_stats.base import array_stats

    return array_stats
