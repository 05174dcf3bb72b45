"""Modes of a mixture, or classes, that samples reach: how many, in which shares, how well; beside what a perfect sampler has.

    high quality   within 3 sd of the nearest mode, by Euclidean distance: 1 - exp(-9/2) = 98.889 % of a round Gaussian on the plane
    KL             of the shares of the modes, and of one bin for all else, from the data's: (K - 1) / 2n for a perfect sampler

The number of modes alone says little: a generator with 10 % high quality can reach all 25. A collapsed generator seen through a
classifier that errs reaches dozens of 1000 classes; so modes with a fifth of their share are counted as well.
Lin et al. 2018, PacGAN (arXiv:1712.04086); Srivastava et al. 2017, VEEGAN (arXiv:1705.07761).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import xlogy

from probgen.evaluate.samples.result import Measure
from probgen.evaluate.samples.rows import flat

FEW = 0.2  # of a mode's share, below which it counts as lost
RADIUS = 3.0  # standard deviations within which a sample is of high quality


def modes(x: Any, centres: Any, sd: float, radius: float = RADIUS, shares: Any = None) -> dict[str, Measure]:
    """Of samples x (row, dim), a mixture of round Gaussians with centres (mode, dim) and one sd; by name:

    modes_reached: modes with a sample of high quality; modes_kept: those with a fifth of their share or more; high_quality;
    modes_kl: KL(samples | data) of shares of modes and of everything else, in nats.
    shares: of the modes in the data, (mode,); by default equal.
    """
    centres = np.atleast_2d(np.asarray(centres, float))
    x = flat(x, 1, "samples")
    if x.shape[1] != centres.shape[1] or not sd > 0:
        raise ValueError(
            f"Samples have {x.shape[1]} numbers, centres {centres.shape[1]}, sd is {sd}; expected as many, sd > 0."
        )
    shares = _shares(shares, len(centres))
    inside = _inside(radius, x.shape[1])
    label, good = assigned(x, centres, radius * sd)
    n = len(x)
    counts = np.bincount(label[good], minlength=len(centres))
    law = np.append(shares * inside, 1 - inside)
    found = _counted(np.append(counts, n - counts.sum()), law, n, len(centres), f"within {radius:g} sd")
    quality = Measure(
        name="high_quality", value=float(good.mean()), error=float(np.sqrt(good.mean() * (1 - good.mean()) / n)),
        error_kind="standard error over samples", perfect=inside, perfect_kind="exact", better="near", num_samples=n,
        kind=f"share within {radius:g} sd of the nearest mode, by Euclidean distance",
    )  # fmt: skip
    return {"modes_reached": found[0], "modes_kept": found[1], "high_quality": quality, "modes_kl": found[2]}


def classes(labels: Any, num_classes: int, shares: Any = None, noise: float = 0.0) -> dict[str, Measure]:
    """The same of classes (row,) that a classifier reads from samples, without high quality, which a class has not.

    shares: of the classes in the data, as the same classifier reads them, (class,); by default equal. noise: what their error
    adds to KL on average. `modes_reached` has the classes with five samples or more in `more`. See `shares_of`.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"Labels have shape {labels.shape}; expected (row,), whole numbers from 0 to {num_classes - 1}."
        )
    counts = np.bincount(labels.astype(int), minlength=num_classes)
    found = _counted(counts, _shares(shares, num_classes), len(labels), num_classes, "read by the classifier")
    found = (*found[:2], replace(found[2], perfect=found[2].perfect + noise))
    return dict(zip(("modes_reached", "modes_kept", "modes_kl"), found, strict=True))


def shares_of(labels: np.ndarray, num_classes: int, channels: int = 1) -> tuple[np.ndarray, float]:
    """Shares of classes in rows of data, half a row added to each, and what their noise adds to KL on average, in nats.

    channels: of how many independent digits a class is made, whose shares are pooled: 1000 classes of 10 digits, say.
    """
    base = round(num_classes ** (1 / channels))
    digits = np.concatenate([labels // base**i % base for i in range(channels)])
    counts = np.bincount(digits, minlength=base) + 0.5
    shares = own = counts / counts.sum()
    for _ in range(channels - 1):
        shares = np.outer(shares, own).ravel()
    return shares, channels * (base - 1) / (2 * len(digits))


def assigned(x: np.ndarray, centres: np.ndarray, within: float) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of each row, and whether it is within a distance: both (row,)."""
    from scipy.spatial import KDTree

    apart, label = (np.asarray(each) for each in KDTree(centres).query(x))
    return label, apart < within


def expected_kl(law: np.ndarray, n: int) -> float:
    """KL of the shares of n draws from their law, on average, in nats: exactly, sum_k E[(c / n) log(c / (n p_k))].

    To first order it is (K - 1) / 2n.
    """
    from scipy.stats import binom

    law, times = np.unique(np.round(law[law > 0], 12), return_counts=True)
    total = 0.0
    for p, count in zip(law, times, strict=True):
        middle, spread = n * p, 12 * np.sqrt(n * p * (1 - p)) + 12
        c = np.arange(max(0, int(middle - spread)), min(n, int(middle + spread)) + 1)
        total += count * (binom.pmf(c, n, p) @ xlogy(c / n, c / (n * p)))
    return float(total)


def _shares(shares: Any, count: int) -> np.ndarray:
    shares = np.full(count, 1 / count) if shares is None else np.asarray(shares, float)
    if shares.shape != (count,) or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(f"shares has shape {shares.shape}; expected one for each of {count} modes, none below 0.")
    return shares / shares.sum()


def _inside(radius: float, dim: int) -> float:
    """The mass of a round Gaussian within so many sd."""
    from scipy.stats import chi2

    return float(chi2.cdf(radius**2, dim))


def _counted(
    counts: np.ndarray, law: np.ndarray, n: int, num_modes: int, kind: str
) -> tuple[Measure, Measure, Measure]:
    """Modes reached, modes kept and KL, of counts whose last bin, where there is one more than modes, is everything else."""
    from scipy.stats import binom

    own, p = counts[:num_modes], law[:num_modes]
    enough = np.maximum(np.ceil(FEW * n * p - 1e-9), 1)
    chance = np.array([binom.sf(need - 1, n, p) for need in (np.ones(num_modes), enough, np.full(num_modes, 5))])
    chance[:, p == 0] = 0
    rows = np.random.default_rng(0).multinomial(n, counts / n, size=200)
    again = [(rows[:, :num_modes] >= need)[:, p > 0].sum(1).std() for need in (1, enough)]
    shared: dict[str, Any] = {
        "error_kind": "bootstrap over samples",
        "better": "higher",
        "num_samples": n,
        "perfect_kind": "exact",
    }
    reached = Measure(
        name="modes_reached", value=float((own[p > 0] > 0).sum()), error=float(again[0]), perfect=float(chance[0].sum()),
        kind=f"of {(p > 0).sum()}, with one sample {kind}", more={"with_five": float((own[p > 0] >= 5).sum())}, **shared,
    )  # fmt: skip
    kept = Measure(
        name="modes_kept", value=float((own >= enough)[p > 0].sum()), error=float(again[1]), perfect=float(chance[1].sum()),
        kind=f"of {(p > 0).sum()}, with {FEW:.0%} of their share {kind}", **shared,
    )  # fmt: skip
    bins = f"{num_modes} modes" + (" and one bin for all else" if len(counts) > num_modes else "")
    kl = Measure(
        name="modes_kl", value=_kl(counts / n, law), error=float(np.std([_kl(row / n, law) for row in rows])),
        perfect=expected_kl(law, n), kind=f"KL(samples | data) in nats, {bins}", **{**shared, "better": "lower"},
    )  # fmt: skip
    return reached, kept, kl


def _kl(shares: np.ndarray, law: np.ndarray) -> float:
    if ((shares > 0) & (law == 0)).any():
        return np.inf
    on = shares > 0
    return float(xlogy(shares[on], shares[on] / law[on]).sum())
