"""Which finite unknowns of a fit belong to the rows that are predicted, where those are not the fit's own.

A finite unknown of the whole data (a change point, a bit of inclusion), or of groups that the data have, keeps its draws of the
posterior. One that each row has (the assignment in a mixture) belongs to the fit's rows: for new ones it is drawn from its
conditional prior given the rest, by running the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from probgen.target import Arrays, Target

TRIALS = 4
NOT_THEIRS = """There are no draws of {!r} for these data, a finite unknown that observations share: it is of the fit's own rows.
Pointwise terms of other data are defined where each row has its own finite unknowns, or all share one."""
ENTANGLED = """The finite unknowns cannot be summed out: at their values the program's density is not what enumeration makes of it.
It combines units of a plate (a sum, an index, a matrix product along it). Write a site for each unit, or the sum in the program."""


def check_factors(pairs: np.ndarray, precision: str) -> None:
    """ValueError where log densities of the program at values of its finite unknowns, (trial, 0), are not the sums of the
    enumerated factors there, (trial, 1): it then does something with an unknown that enumeration does not follow."""
    tolerance = 1e-6 if precision == "float64" else 1e-3
    finite = pairs[np.isfinite(pairs).all(axis=1)]
    if (abs(finite[:, 0] - finite[:, 1]) > tolerance * (1 + abs(finite).max(axis=1, initial=0))).any():
        raise ValueError(ENTANGLED)


def changed(old: Mapping[str, Any], new: Mapping[str, Any], observed: set[str]) -> list[str]:
    """Keywords whose data are not those of the fit; observed ones may be left out."""
    found = []
    for key in {**old, **new}:
        before, after = _host(old.get(key)), _host(new.get(key))
        if after is None and key in observed:
            continue
        if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
            same = before.shape == after.shape and np.allclose(before, after, rtol=1e-6, atol=0, equal_nan=True)
        else:
            same = type(before) is type(after) and before == after
        if not same:
            found.append(key)
    return found


def _host(value: Any) -> Any:
    return np.asarray(value) if hasattr(value, "__array__") and not np.isscalar(value) else value


def going(old: Mapping[str, Any], new: Mapping[str, Any], names: list[str]) -> tuple[bool, bool]:
    """Whether every changed array begins with the fit's own (a series that goes on), and whether any array changed."""
    pairs = [(_host(old.get(key)), _host(new.get(key))) for key in names]
    arrays = [pair for pair in pairs if any(isinstance(value, np.ndarray) for value in pair)]
    both = [pair for pair in arrays if all(isinstance(value, np.ndarray) for value in pair)]
    return all(_begins(after, before) for before, after in both), bool(arrays)


def _begins(long: np.ndarray, short: np.ndarray) -> bool:
    if not short.ndim or long.ndim != short.ndim or len(long) < len(short) or long.shape[1:] != short.shape[1:]:
        return False
    return np.allclose(long[: len(short)], short, rtol=1e-6, atol=0, equal_nan=True)


def kept(
    target: Target, posterior: Arrays, plates: Mapping[str, frozenset[str]], shapes: Mapping[str, tuple[int, ...]],
    scan: str, goes_on: bool, moved: bool,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The posterior without the finite unknowns of rows, for data with other rows.

    plates: of every sample site; scan: what stands among them for the steps of a scan. shapes: of the finite unknowns on new data.
    goes_on: whether these begin with the fit's own, so that a chain of states goes on from its last one; moved: whether arrays
        differ, and not settings alone.
    Raises ValueError for an unknown of which it cannot be said whose it is.
    """
    observed = [site for site in target.sites if site.kind == "observed"]
    found = dict(posterior)
    for site in target.sites:
        if site.kind != "latent" or not site.discrete or site.name not in posterior:
            continue
        own, new = plates.get(site.name, frozenset()), shapes.get(site.name)
        if scan in own:
            if not (goes_on and new is not None and new[:1] >= site.shape[:1] and new[1:] == site.shape[1:]):
                del found[site.name]
        elif any(own >= plates[o.name] > frozenset() for o in observed if o.name in plates):
            if moved or new != site.shape:
                del found[site.name]
        elif new != site.shape:
            raise ValueError(
                f"Site {site.name!r} has shape {site.shape} in the fit and {new} on the new data: which of its values belong to "
                "the new ones cannot be told.\nGive data with the fit's own groups, or put its units and their rows into one plate."
            )
        elif moved and not own and site.shape and any(o.shape[:1] == site.shape[:1] for o in observed):
            raise ValueError(
                f"Site {site.name!r} has a unit for each row, and no plate: whether new rows have their own cannot be told.\n"
                "Put rows into a plate."
            )
    return found


def shared(
    parts: Mapping[str, Iterable[str]],
    observed: Iterable[str],
    plates: Mapping[str, frozenset[str]],
    finite: Iterable[str],
) -> set[str]:
    """Finite sites that several entries of an observed one may depend on: they lack one of its plates.

    parts: the finite sites in the factor of every site.
    """
    names, found = {k: set(v) & set(finite) for k, v in parts.items()}, set()
    for site in observed:
        seen, ahead = set(), set(names.get(site, ()))
        while ahead:
            name = ahead.pop()
            seen.add(name)
            if not plates[name] >= plates[site]:
                found.add(name)
                continue
            ahead |= {other for members in names.values() if name in members for other in members} - seen
    return found
