"""Grey levels where a program has bits, one rule: who learns from rows, or is asked about rows, draws bits of them at every use and
says so; a program that is run on its whole data refuses them (`check_support`), as its posterior would change with every draw.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from probgen.data import check_support
from probgen.target import Arrays, Site


def is_grey(values: np.ndarray) -> bool:
    """Whether rows of bits are probabilities: not all of them are integers."""
    return bool(values.dtype.kind == "f" and (values != np.rint(values)).any())


def loosened(site: Site, grey: bool) -> Site:
    """The site, whose bits may be probabilities where they are grey."""
    return replace(site, bounds=site.bounds._replace(whole=False)) if grey and site.bounds else site


def grey_sites(target: Any, rows: Arrays) -> tuple[str, ...]:
    """Names of sites of bits of which rows {site: (row, *event)} hold grey levels."""
    bits = {v.name for v in target.visible if v.kind == "bits"}
    bounded = {s.name for s in target.row_sites if s.bounds is not None}
    return tuple(k for k, v in rows.items() if k in bits & bounded and is_grey(v))


def as_bits(target: Any, rows: Arrays) -> dict[str, np.ndarray]:
    """Rows of a learned program's sites, bits drawn of grey levels as they are of its own data; ValueError outside a support."""
    grey = grey_sites(target, rows)
    given = [s for s in target.row_sites if s.name in rows and s.bounds is not None]
    check_support(tuple(loosened(s, s.name in grey) for s in given), {s.source: rows[s.name] for s in given})
    return {**rows, **target.drawn({k: rows[k] for k in grey})} if grey else dict(rows)


def note(target: Any) -> tuple[str, ...]:
    """What a result says of such data: nothing where there are none."""
    names = ", ".join(k for k, site in target.keywords.items() if site in target.grey)
    return (
        ()
        if not names
        else (
            f"Grey levels of {names} are drawn as bits at every step (dynamic binarisation); likelihoods are of drawn bits.",
        )
    )


def told(found: Any, grey: Iterable[str]) -> Any:
    """A log probability whose kind says that bits were drawn."""
    return (
        found._replace(kind=f"{found.kind}; of bits drawn from grey levels (dynamic binarisation)")
        if tuple(grey)
        else found
    )
