"""Whether draws of a learned density, or of a program with hidden sites, are told from the rows.

That a likelihood is at its maximum says that the number is right, not that rows are of that law: a normal fitted to two moons is as
well learned as can be. The test is that of programs learned from draws, `told_apart`, on `MOST` rows and as many draws; on rows
that were held out of learning where there are enough. What it finds is a warning and no failure: log probabilities and parameters
are what they are said to be, it is the program that does not describe the rows.

Of conditionals draws are made given each row's own inputs, and both are compared with the inputs beside. Classes are taken apart,
angles by their sine and cosine, bits drawn of grey levels, and reals are rounded where those of the rows are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from probgen.data.grey import as_bits
from probgen.data.whole_numbers import generator
from probgen.diagnostics.evidence import Evidence
from probgen.diagnostics.samples.beside import APART, FEWEST, SURE
from probgen.diagnostics.samples.gathered import ENOUGH, KINDS, features, inputs_of
from probgen.diagnostics.samples.told_apart import Told, told_apart, too_few
from probgen.diagnostics.verdict import Finding, beside
from probgen.engine import drawing
from probgen.engine.drawable import weighed
from probgen.evaluate.samples.drawn import held_out
from probgen.programs.pinned import Changed
from probgen.target import Arrays, Learnable

MOST = 1000  # rows, and draws
LARGEST = 4096  # numbers of a row
ONE_BY_ONE = 100  # units that are drawn one after the other
CLASSES = 1024  # columns of classes that are taken apart
ANGLES = ("VonMises", "SineBivariateVonMises", "SineSkewed")
GRID = 1e-3  # of a step: how far rows that are rounded may be off it


class Beside(NamedTuple):
    """Features (row, dim) of rows and of draws; own: whether the rows were held out; paired: whether there are inputs.

    bad: draws that are NaN or infinite.
    """

    rows: np.ndarray
    draws: np.ndarray
    own: bool
    paired: bool
    bad: int


def is_judged(fit: Any) -> bool:
    """Whether a fit learned a density, or a program with hidden sites, that is run forward; energies have checks of their own."""
    return isinstance(fit.target, Learnable) and fit.target.proper


def drawn(fit: Any) -> Arrays | str:
    """Draws of the visible sites, given the inputs of the `chosen` rows: {site: (draw, *event)}; or why there are none.

    As many as these rows, of programs without inputs `MOST`. Kept with the fit.
    """
    kept = vars(fit)
    if "_density_draws" not in kept:
        kept["_density_draws"] = _drawn(fit)
    return kept["_density_draws"]


def chosen(fit: Any) -> tuple[np.ndarray, bool]:
    """The rows that draws are held against, by chance, those held out first; whether all of these were held out."""
    rng, held = generator(fit.seed, 7), held_out(fit)
    if len(held) >= ENOUGH:
        return rng.permutation(held)[:MOST], True
    return rng.permutation(fit.target.num_rows)[:MOST], False


def unsaid(fit: Any) -> tuple[str, ...]:
    """A note on why draws were not held against rows, or against few; nothing where nobody would expect it."""
    why = _why_not(fit) if is_judged(fit) else ""
    if is_judged(fit) and not why and isinstance(found := drawn(fit), str):
        why = found
    if is_judged(fit) and not why and not _compared(fit).bad and (few := too_few(_told(fit), SURE)):
        return (f"What the model draws is not told from the rows, and a poor model may not be either: {few}.",)
    return (
        (f"What the model draws was not held against the rows, so that a poor model may pass: {why}.",) if why else ()
    )


def two_sample(evidence: Evidence) -> Finding | None:
    """Whether a classifier tells draws of a learned density from rows: it then does not describe them, however well learned."""
    fit = evidence.fit
    if not is_judged(fit) or _why_not(fit) or isinstance(drawn(fit), str):
        return None
    found = _compared(fit)
    if found.bad:
        message = f"{found.bad} of {len(found.draws)} draws are NaN or infinite"
        return Finding("two_sample", "fail", float(found.bad), 0.0, message, "a smaller learning_rate")
    return _finding(_told(fit), found)


def _told(fit: Any) -> Told:
    """The test, made once for a fit."""
    kept = vars(fit)
    if "_density_told" not in kept:
        found = _compared(fit)
        kept["_density_told"] = told_apart(found.rows, found.draws, fit.seed, found.paired)
    return kept["_density_told"]


def _finding(told: Told, found: Beside) -> Finding:
    status = "pass" if told.p_value >= SURE or told.share <= APART[0] else "warn"
    of = "held-out rows" if found.own else "rows that it learned from"
    given = ", each given the inputs of its row," if found.paired else ""
    least = f", so that the laws are {max(0.0, 2 * told.share - 1):.0%} apart in total variation or more"
    message = (
        f"a classifier tells {beside(told.share, APART[0], '.1%')} of {told.count // 2} {of} and as many draws{given} right "
        f"(standard error {told.error:.1%}, p = {told.p_value:.2g}){least if status == 'warn' else ''}; at most {APART[0]:.0%}, "
        "50 % is chance"
    )
    remedy = (
        "once 'convergence' passes, another program: this one's log probabilities are right and do not describe the rows; look at "
        "fit.sample beside them"
    )
    return Finding("two_sample", status, told.share, APART[0], message, remedy)


# ---- what is compared --------------------------------------------------------------------------------------------


def _why_not(fit: Any) -> str:
    """Why rows and draws are not to be compared; nothing where they are."""
    target = fit.target
    if names := weighed(target):
        return f"a scale weighs {names[0]!r}, and draws are not weighed"
    if names := [s.name for s in target.row_sites if s.masked]:
        return f"a mask leaves out parts of {names[0]!r}, which draws have"
    if target.num_rows < FEWEST:
        return f"{target.num_rows} rows are too few, at least {FEWEST}"
    size = sum(v.size for v in target.visible)
    if size > LARGEST:
        return f"rows have {size} numbers, at most {LARGEST}; pg.evaluate(fit) compares them"
    slow = any("Pixel" in s.distribution or "Autoregressive" in s.distribution for s in target.sites)
    if slow and size > ONE_BY_ONE:
        return f"{size} units are drawn one after the other, which takes long; pg.evaluate(fit) compares them"
    return ""


def _drawn(fit: Any) -> Arrays | str:
    index, _ = chosen(fit)
    inputs = {k: np.asarray(fit.target.data[k])[index] for k in fit.target.inputs}
    fit._rows({})  # raises Changed where the program is not the one that was learned
    count = len(index) if inputs else MOST
    try:
        found = drawing.forward(fit.target, fit.answer, inputs, count, fit.seed + 5, once=True)
    except Changed:  # what the fit is of is not there any more
        raise
    except (TypeError, ValueError, RuntimeError) as error:  # the author's, which the verdict tells in a note
        return f"it is not drawn ({(str(error) or type(error).__name__).splitlines()[0].rstrip('.')})"
    names = [v.name for v in fit.target.visible]
    return {k: found[k] for k in names} if all(k in found for k in names) else "not all of a row is drawn"


def _compared(fit: Any) -> Beside:
    """Features of rows and of draws."""
    target, (index, own) = fit.target, chosen(fit)
    rows = as_bits(target, {k: np.asarray(v)[index] for k, v in target.all_rows().items() if k not in target.inputs})
    draws: Any = drawn(fit)
    sites = {s.name: s for s in target.row_sites}
    flat = {
        v.name: [np.asarray(a[v.name], float)[: len(index)].reshape(len(index), -1) for a in (rows, draws)]
        for v in target.visible
    }
    bad = ~np.all([np.isfinite(y).all(1) for _, y in flat.values()], axis=0)
    parts = [_columns(v, sites.get(v.name), *flat[v.name]) for v in target.visible] if not bad.any() else []
    told = [inputs_of(np.asarray(target.data[k]), index, index) for k in target.inputs]
    x, y = (np.concatenate([*(part[i] for part in parts), *told, np.zeros((len(index), 0))], 1) for i in (0, 1))
    return Beside(x, y, own, bool(told), int(bad.sum()))


def _columns(variable: Any, site: Any, rows: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and draws (row, dim) of one site in units in which distances mean something."""
    if site is not None and site.distribution in ANGLES:
        rows, draws = (np.concatenate([np.cos(a), np.sin(a)], 1) for a in (rows, draws))
    elif variable.kind == "levels" and 2 < variable.levels <= KINDS and variable.levels * variable.size <= CLASSES:
        rows, draws = (
            (a[..., None] == np.arange(variable.levels)).reshape(len(a), -1).astype(float) for a in (rows, draws)
        )
    elif variable.kind == "reals":
        draws = as_coarse(draws, rows)
    return features(rows, draws, np.arange(len(rows)))


def as_coarse(draws: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Draws (row, dim) rounded as the rows are: a column whose values repeat and are whole steps apart was rounded."""
    found = draws.copy()
    for j, column in enumerate(rows.T):
        values = np.unique(column)
        if not 2 < len(values) < len(column):
            continue
        step = float(np.diff(values).min())
        apart = (values - values[0]) / step
        if np.abs(apart - np.round(apart)).max() <= GRID * max(1.0, apart[-1] * 1e-3):
            found[:, j] = values[0] + step * np.round((draws[:, j] - values[0]) / step)
    return found


CHECKS = (two_sample,)
