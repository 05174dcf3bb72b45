"""Draws of a learned program, rows that were held out and rows that were learned from, as features; made once for a fit.

Vectors are taken as they are, in units of their spread, each coordinate in its own where their ranges differ; rows of more than 64
numbers by their 50 principal components.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.data.scales import pixels
from probgen.data.whole_numbers import generator
from probgen.diagnostics.samples import energies
from probgen.engine import drawing
from probgen.evaluate.samples.drawn import held_out
from probgen.fitted import FittedDenoiser
from probgen.target import Arrays, Learnable

MOST = 2000  # draws, and rows that they are held against
ENOUGH = 200  # held-out rows that draws are held against alone
WIDE, COMPONENTS = 64, 50
LEVELS = 64  # of a chain of tokens, at most, by which draws are made
SMALL, RARE = (
    0.1,
    0.1,
)  # of the range of all, and of a pixel's own range: a spread that is large in a small range is no pixel's
KINDS = 20  # values of an input that are taken for classes
CLASS = 3.0  # how far apart classes are, in spreads


@dataclass(frozen=True)
class Gathered:
    """Features (row, dim) of `known` rows, of `held` ones and of `draws`.

    rows: those that as many of the draws are held against one by one, with their inputs beside, `beside`; own: whether these are
    held-out rows alone; paired: whether there are inputs, each of its row.
    low, high: see `outside`; bad: draws that are NaN or infinite.
    """

    known: np.ndarray
    held: np.ndarray
    draws: np.ndarray
    rows: np.ndarray
    beside: np.ndarray
    own: bool
    paired: bool
    values: tuple[np.ndarray, np.ndarray, np.ndarray]
    groups: np.ndarray
    bad: int


def gathered(fit: Any) -> Gathered | None:
    """Kept with the fit; None where its draws cannot be had."""
    kept = vars(fit)
    if "_gathered" not in kept:
        kept["_gathered"] = _gather(fit)
    return kept["_gathered"]


def _gather(fit: Any) -> Gathered | None:
    target, rng = fit.target, generator(fit.seed, 7)
    held = held_out(fit)
    known = rng.permutation(np.setdiff1d(np.arange(target.num_rows), held))
    if is_energy(target):
        return _of_energy(fit, known)
    most = getattr(target, "most_draws", MOST)  # of draws that are slow to make
    against = (held if len(held) >= ENOUGH else np.concatenate([held, known]))[:most]
    count = min(most, max(target.num_rows, ENOUGH))
    given = np.concatenate([against, rng.choice(known, max(count - len(against), 0))])[:count]
    inputs = {k: np.asarray(target.data[k]) for k in target.inputs}
    unpaired = getattr(target, "unpaired", False)  # inputs are rows of another kind, which say nothing of these
    picked = _others(fit, inputs, count, rng) if unpaired else given
    drawn = _drawn(fit, {k: v[picked] for k, v in inputs.items()}, count)
    if drawn is None:
        return None
    told = [inputs_of(v, given, known) for v in inputs.values() if not unpaired]
    return _compared(target.all_rows(), drawn, target, against, held, known, told)


def is_energy(target: Any) -> bool:
    """Whether a learned program is an energy, which has factors or measures and is not run forward."""
    return isinstance(target, Learnable) and not target.proper


def _of_energy(fit: Any, known: np.ndarray) -> Gathered | None:
    """Of an energy: draws by `energies.drawn`, beside rows that no chain of theirs began at."""
    found = energies.drawn(fit, known)
    if found.draws is None:
        return None
    return _compared(energies.rows(fit), found.draws, fit.target, found.against[:MOST], known[:0], known, [])


def _compared(
    every: Arrays, drawn: Arrays, target: Any, against: np.ndarray, held: np.ndarray, known: np.ndarray, told: list[Any]
) -> Gathered:
    """Rows and draws (row, *event) as features; told: of inputs, (draw, dim)."""
    sites, count = [v.name for v in target.visible], len(next(iter(drawn.values())))
    rows = {k: np.asarray(every[k], float).reshape(target.num_rows, -1) for k in sites}
    draws = {k: np.asarray(drawn[k], float).reshape(count, -1) for k in sites}
    good = np.all([np.isfinite(v).all(1) for v in draws.values()], axis=0)
    parts = [features(rows[k], np.where(good[:, None], draws[k], rows[k][0]), known[:MOST]) for k in sites]
    x, y = (np.concatenate([part[i] for part in parts], 1) for i in (0, 1))
    size = min(len(against), count)
    against = against[:size]
    raw = np.concatenate([rows[k] for k in sites], 1)
    return Gathered(
        known=x[known], held=x[held], draws=y[good], rows=np.concatenate([x[against], *(t[:size] for t in told)], 1),
        beside=np.concatenate([y[:size], *(t[:size] for t in told)], 1), own=len(held) >= ENOUGH, paired=bool(told),
        values=(raw[known], raw[held], np.concatenate([draws[k] for k in sites], 1)[good]),
        groups=_groups([rows[k] for k in sites]), bad=int((~good).sum()),
    )  # fmt: skip


def _others(fit: Any, inputs: dict[str, np.ndarray], count: int, rng: Any) -> np.ndarray:
    """Indices of so many rows of another kind, those held out first: (count,)."""
    (rows,) = inputs.values()
    apart = getattr(fit.inference, "held_given", None)
    held = np.asarray(apart(fit.state, len(rows)), int) if apart and fit.state else np.zeros(0, int)
    return np.concatenate([held[:count], rng.integers(len(rows), size=max(count - len(held), 0))])


def _size(fit: Any) -> int:
    """Units of a row."""
    return sum(v.size for v in fit.target.visible)


def _drawn(fit: Any, inputs: dict[str, np.ndarray], count: int) -> Any:
    """Draws for inputs of rows: {site: (count, *event)}."""
    seed = fit.seed + 5
    if isinstance(fit, FittedDenoiser):
        tokens = bool(fit.target.cannot_denoise())  # a chain of tokens, which has as many levels as there are of them
        return fit.drawn(inputs, count, seed, min(LEVELS, _size(fit)) if tokens else None)
    try:
        return drawing.forward(fit.target, fit.answer, inputs, count, seed)
    except Incompatible:
        pass
    try:
        return None if inputs else fit.sample(count, seed)
    except (Incompatible, NotImplementedError):
        return None


def features(rows: np.ndarray, draws: np.ndarray, few: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and draws (row, dim) of one site in units in which distances mean something, by a few of the rows."""
    mean, scale = rows[few].mean(0), units(rows[few])
    x, y = ((a - mean) / scale for a in (rows, draws))
    limit = 10 * max(float(abs(x[few]).max()), 1.0)
    y = np.clip(y, -limit, limit)  # a draw that is very far says no more than one that is far
    if rows.shape[1] <= WIDE:
        return x, y
    _, _, axes = np.linalg.svd(x[few] - x[few].mean(0), full_matrices=False)
    return x @ axes[:COMPONENTS].T, y @ axes[:COMPONENTS].T


def units(rows: np.ndarray) -> np.ndarray:
    """What each column of rows (row, dim) is counted in: its spread; of pixels, the spread of all.

    A pixel that is hardly ever lit is no more than any other; a column that is small and no pixel counts as much as a large one.
    """
    spread, ranges = rows.std(0), np.ptp(rows, axis=0)
    whole = float(np.sqrt(np.mean(spread**2))) or 1.0
    own = np.where(spread > 0, spread, whole)
    if not pixels(rows):
        return own
    return np.where((ranges < SMALL * np.ptp(rows)) & (spread > RARE * ranges), own, whole)


def _groups(sites: list[np.ndarray]) -> np.ndarray:
    """For each column the group whose least and largest value bound it: itself, or the picture that it is a part of."""
    found, start = [], 0
    for rows in sites:
        size = rows.shape[1]
        together = pixels(rows[:MOST])
        found.append(np.full(size, start) if together else start + np.arange(size))
        start = int(found[-1][-1]) + 1
    return np.concatenate(found)


def inputs_of(values: np.ndarray, given: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Features of the inputs of rows, classes apart: (row, dim)."""
    flat = values.reshape(len(values), -1)
    kinds = np.unique(flat[known]) if flat.shape[1] == 1 else np.zeros(KINDS + 1)
    if len(kinds) <= KINDS:
        return CLASS * (flat[given] == kinds).astype(float)
    return features(flat.astype(float), flat[given].astype(float), known[:MOST])[1]
