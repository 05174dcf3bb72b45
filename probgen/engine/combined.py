"""What was seen of a point, as combinations or in part: its arrays among a target's, by endings that no program is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from probgen.programs import completable
from probgen.programs.completable import KNOWN, VALUE
from probgen.programs.linear import Combined

Y, APART, OVERLAPPING, WEIGHTS, NOISE, SHOWN, HIDDEN, TRUTH = (
    f" {word} value" for word in ("seen", "apart", "overlapping", "weights", "noise", "shown", "hidden", "truth")
)


@dataclass(frozen=True)
class Told:
    """y: (seen,); weights: (seen, most), of the numbers at the indices, or (seen, size) without; noise: (seen,) or None.

    apart: whether no number of the point is in two of y.
    """

    y: Any
    weights: Any
    at: Any
    noise: Any
    apart: bool


def data_of(site: str, combined: Combined) -> dict[str, np.ndarray]:
    """The arrays of what was seen of a site; a matrix where most numbers of the point are in most of y."""
    found = {
        Y: combined.y,
        NOISE: combined.noise,
        SHOWN: np.nan_to_num(combined.value),
        HIDDEN: np.isnan(combined.value),
        TRUTH: combined.truth,
    }
    if combined.apart:
        found |= {WEIGHTS: combined.weights, APART: combined.at}
    elif 2 * combined.weights.shape[1] < combined.size:
        found |= {WEIGHTS: combined.weights, OVERLAPPING: combined.at}
    else:
        found |= {WEIGHTS: combined.matrix}
    return {f"{site}{k}": np.asarray(v) for k, v in found.items() if v is not None}


def sites_of(arrays: Mapping[str, Any]) -> list[str]:
    """The sites of which combinations were seen."""
    return [k.removesuffix(Y) for k in arrays if k.endswith(Y)]


def told(arrays: Mapping[str, Any], site: str) -> Told:
    """What was seen of a site."""
    at = next((arrays[site + kind] for kind in (APART, OVERLAPPING) if site + kind in arrays), None)
    return Told(arrays[site + Y], arrays[site + WEIGHTS], at, arrays.get(site + NOISE), site + APART in arrays)


def shown(arrays: Mapping[str, Any], site: str, shape: tuple[int, ...]) -> completable.Told:
    """The same as it was given."""
    own = {k: v for k, v in arrays.items() if k.startswith(site) and k.endswith((KNOWN, VALUE))}
    held = {k.removeprefix(site): np.asarray(v, float) for k, v in own.items()}
    if KNOWN in held:
        return completable.Told(np.where(held[KNOWN] > 0, held[VALUE], np.nan), None, True)
    value, rows = np.where(held[HIDDEN] > 0, np.nan, held[SHOWN]), held[WEIGHTS]
    itself = value.shape == shape and rows.shape[1] == 1 and bool((rows == 1).all())
    return completable.Told(value, held.get(TRUTH), itself)
