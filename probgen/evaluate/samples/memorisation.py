"""Memorisation: whether samples are copies of the rows that were learned from, or nearer to them than other rows are.

    nearness a = P(d(sample) < d(held out)) + 1/2 P(d(sample) = d(held out)),      d(.) the distance to the nearest training row

a is 1/2 for a perfect sampler, near 1 for copies, near 0 for samples off the data: Meehan, Chaudhuri and Dasgupta 2020
(arXiv:2004.05675), whose test this is with one cell. Samples that are less spread than the data have a > 1/2 as well, and copies
among samples that are off the data can have 1/2: the share of copies is told apart from both by `copied`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from probgen.data.whole_numbers import generator
from probgen.evaluate.samples.copied import copies
from probgen.evaluate.samples.prdc import BLOCK, squares
from probgen.evaluate.samples.result import Measure
from probgen.evaluate.samples.rows import pair

COPIED = 1000  # samples, at most, whose nearest rows tell copies
CLOSE = 0.01  # the share of held-out rows that are called very close
SAME = 1e-12  # of squared distances, relative to the largest from the mean: the same row, but for rounding
DOUBLE = 1e-30  # the squared rounding of double precision


def memorisation(samples: Any, train: Any, held_out: Any = None, most: int = 3000, seed: int = 0) -> dict[str, Measure]:
    """Of samples, the rows that were learned from, and rows that were not, all (row, *event); by name:

    memorisation: the share of copies, be they blurred, with the p-value of "none" in `more`; see `copied`. Without held-out rows,
        and where rows of the data repeat, what of very_close is more than chance, which is rough, and said to be.
    nearness: a as above, with the p-value of "a > 1/2" in `more` (Mann and Whitney; for independent rows).
    very_close: the share of samples closer than all but 1 % of the held-out rows; copies: the share equal to a training row.
    held_out: without it each training row against the others, which are one fewer, and whose distances hang together: the p-value
        of nearness is then approximate, and said to be.
    most: samples and held-out rows that are looked at, by chance; training rows are all.
    """
    samples, train = pair(samples, train, 2, ("samples", "the rows learned from"))
    rng = generator(seed)
    some = lambda n: np.sort(rng.choice(n, min(n, most), replace=False))  # noqa: E731
    samples = samples[some(len(samples))]
    if held_out is None:
        own = some(len(train))
        others, slack = nearest(train[own], train, own), _slack(samples, train)
        source = "training rows, each without itself"
    else:
        held_out = pair(samples, held_out, 2, ("samples", "held-out rows"))[1]
        few = held_out[some(len(held_out))]
        others, slack = nearest(few, train), _slack(samples, train, few)
        source = "held-out rows"
    copied = {} if held_out is None else _copied(train, held_out, samples[:: -(-len(samples) // COPIED)], seed)
    own = nearest(samples, train)
    own, others = np.where(own <= slack, 0, own), np.where(others <= slack, 0, others)
    told = _told(own, others, source)
    return (copied or {"memorisation": _roughly(told["very_close"])}) | told


def _roughly(close: Measure) -> Measure:
    """The share of copies where nothing better tells it: of samples that are very close, those that chance does not explain."""
    usual = min(close.perfect, 0.99)
    kind = f"rough: {close.kind}, less what chance has; narrow samples count as copies"
    return replace(
        close, name="memorisation", value=(close.value - usual) / (1 - usual), error=close.error / (1 - usual), perfect=0.0,
        perfect_kind="approximate", better="lower", kind=kind,
    )  # fmt: skip


def _copied(train: np.ndarray, held: np.ndarray, samples: np.ndarray, seed: int) -> dict[str, Measure]:
    """The share of copies by name; nothing where rows repeat."""
    found = copies(train, held, samples, seed)
    if found is None:
        return {}
    kind = f"share of copies of training rows, by the nearest of training and held-out rows; p = {found.p_value:.2g}"
    measure = Measure(
        name="memorisation", value=found.share, error=found.error, error_kind="standard error over rows", perfect=0.0,
        perfect_kind="exact", better="lower", num_samples=len(samples), num_reference=len(held), kind=kind,
        more={"p_value": found.p_value, "nearest_rows": found.distinct},
    )  # fmt: skip
    return {"memorisation": measure}


def nearest(x: np.ndarray, y: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """The squared distance of each row of x to the nearest of y: (row,); own: where rows of x stand in y, which do not count.

    The nearest is found by |x|^2 + |y|^2 - 2 x.y, and its distance taken from the difference: zero for a copy.
    """
    found, centre = np.empty(len(x)), y.mean(0)
    x, y = x - centre, y - centre
    for start in range(0, len(x), BLOCK):
        apart = squares(x[start : start + BLOCK], y)
        if own is not None:
            apart[np.arange(len(apart)), own[start : start + BLOCK]] = np.inf
        found[start : start + BLOCK] = ((x[start : start + BLOCK] - y[apart.argmin(1)]) ** 2).sum(1)
    return found


def _slack(*sets: np.ndarray) -> float:
    """The squared distance that is rounding: in units of the spread, not of the distance from 0, which says nothing of it."""
    centre = sets[-1].mean(0)
    spread = max(((z - centre) ** 2).sum(1).max() for z in sets)
    return SAME * spread + DOUBLE * float(centre @ centre)


def _told(own: np.ndarray, others: np.ndarray, source: str) -> dict[str, Measure]:
    """Three numbers, of squared distances to the nearest training row of samples and of others."""
    from scipy.stats import binomtest, mannwhitneyu

    n, m = len(own), len(others)
    placed = np.sort(others)
    above = 1 - 0.5 * (np.searchsorted(placed, own, "left") + np.searchsorted(placed, own, "right")) / m
    ranks = np.sort(own)
    below = 0.5 * (np.searchsorted(ranks, others, "left") + np.searchsorted(ranks, others, "right")) / n
    error = np.sqrt(above.var(ddof=1) / n + below.var(ddof=1) / m)
    same = np.ptp(np.concatenate([own, others])) == 0
    p = 1.0 if same else float(mannwhitneyu(own, others, alternative="less", method="asymptotic").pvalue)
    shared = {"num_samples": n, "num_reference": m, "better": "near"}
    cut = np.quantile(others, CLOSE)
    close, usual = float((own < cut).mean()), float((others < cut).mean())
    p_close = float(binomtest(int((own < cut).sum()), n, min(max(usual, 1 / m), 1.0), alternative="greater").pvalue)
    rough = "" if source.startswith("held") else ", approximate"
    share = lambda value: float(np.sqrt(value * (1 - value) / n))  # noqa: E731
    return {
        "nearness": Measure(
            name="nearness", value=float(above.mean()), error=float(error), error_kind="standard error over rows" + rough,
            perfect=0.5, perfect_kind="exact" + rough, more={"p_value": p},
            kind=f"P(a sample is nearer to a training row than one of the {source}); p = {p:.2g}{rough}", **shared,
        ),
        "very_close": Measure(
            name="very_close", value=close, error=share(close), error_kind="standard error over samples", perfect=usual,
            perfect_kind=source, kind=f"share nearer to training rows than {1 - CLOSE:.0%} of {source}",
            more={"p_value": p_close}, **shared,
        ),
        "copies": Measure(
            name="copies", value=float((own == 0).mean()), error=share(float((own == 0).mean())),
            error_kind="standard error over samples", perfect=float((others == 0).mean()), perfect_kind=source,
            kind="share equal to a training row", **shared,
        ),
    }  # fmt: skip
