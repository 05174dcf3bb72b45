"""How a NumPyro program is read: on its whole data, as NumPyro runs it, or as what it says of one row.

A program means what NumPyro makes of it on the whole data. It is read as a program of one row where that is declared, where it does
not run whole, where it is an energy (whose constant is that of one point), or where both mean the same: parameters, nothing hidden,
and a log density that is the sum of those of the rows.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen.engine.numpyro import batches, row_data
from probgen.engine.numpyro.kinds import of_structure
from probgen.engine.numpyro.programs import whole
from probgen.engine.numpyro.programs.parameters import Learned
from probgen.engine.numpyro.programs.stated import HasState, stated
from probgen.engine.numpyro.programs.structure import MEASURES, Structure, settings
from probgen.engine.numpyro.programs.tracing import structure_of
from probgen.engine.numpyro.targets.implicit import WITHOUT_DENSITY
from probgen.target import Implicit, Target

TOLERANCE = 1e-3  # of the log density of two rows against the sum of theirs
ONE_ROW = "The program is read as one of a single row, whose parameters are learned from all rows: {}."
SHARED = (
    "The program is read on its whole data, as NumPyro runs it: {} is one unknown for all rows. If every row has its own, say "
    "by_row=True, or write a plate over the rows."
)

NO_ROWS = (
    "{0!r} is observed at a distribution that has no density: the program is learned from draws of rows, and it is none of rows.\n"
    "Write what it says of one row, obs=x with x=None by default, or every site in a plate over the rows."
)

Arrays = Mapping[str, Any]


def read(program: Callable[..., Any], arrays: Arrays, static: Arrays, precision: str, by_row: bool | None) -> Target:
    """The target of a program; see above. Raises ValueError where it does not run on the data.

    by_row: what is declared; None for nothing.
    """
    rows = functools.partial(row_data.rows_of, program, arrays, static, precision)
    bound = isinstance(program, Learned)  # its parameters are data
    if by_row and not bound and (target := batches.rows_of(program, arrays, static, precision) or rows()):
        return target
    try:
        structure = structure_of(program, arrays, static, precision)
    except HasState as error:
        target = read(stated(program, error.kinds), arrays, static, precision, False)
        target.only_guided = str(error)
        return target
    except Exception:
        if by_row is None and not bound and (target := _implicit(program, arrays, static, precision) or rows()):
            target.notes = (ONE_ROW.format("it does not run on them at once"),)
            return target
        raise
    if bound or not structure.learnable:
        return of_structure(structure, arrays)
    if points := [
        site.name for site in structure.sites if site.kind == "observed" and site.distribution in WITHOUT_DENSITY
    ]:
        if target := _implicit(program, arrays, static, precision) or rows():
            return target
        raise ValueError(NO_ROWS.format(points[0]))
    if by_row is None and (target := _same_by_row(structure, arrays, rows)):
        return target
    return with_points(structure, arrays, rows if by_row is None else lambda: None)


def _implicit(program: Any, arrays: Arrays, static: Arrays, precision: str) -> Target | None:
    """The target of a batch of points that are drawn without a density; None for another program."""
    target = batches.rows_of(program, arrays, static, precision)
    return target if isinstance(target, Implicit) else None


def with_points(structure: Structure, arrays: Arrays, rows: Callable[[], Any]) -> Target:
    """The target of parameters and unknowns together."""
    shapes = tuple(sorted((k, v.shape, str(v.dtype)) for k, v in arrays.items()))
    program = whole.whole(structure.program, settings(structure.static), shapes)
    found = structure_of(program, arrays, structure.static, structure.precision)
    shared = [site.name for site in structure.sites if site.kind == "latent" and not site.shape]
    notes = (SHARED.format(", ".join(map(repr, shared))),) if shared and rows() else ()
    return of_structure(found, arrays, notes)


def _same_by_row(structure: Structure, arrays: Arrays, rows: Callable[[], Any]) -> Target | None:
    """The target of one row, where that is an energy or means the same as the program on its whole data."""
    energy = any(site.distribution in MEASURES for site in structure.sites)
    if not energy and any(site.kind == "latent" for site in structure.sites):
        return None
    target = rows()
    if target is None or energy or _is_sum(structure, arrays, target):
        return target
    return None


_sums: weakref.WeakKeyDictionary[Structure, bool] = weakref.WeakKeyDictionary()  # what was found of programs


def _is_sum(structure: Structure, arrays: Arrays, target: Any) -> bool:
    """Whether the log density of two rows, run at once, is the sum of theirs, at parameters in general position."""
    if structure not in _sums:
        _sums[structure] = _adds_up(structure, arrays, target)
    return _sums[structure]


def _adds_up(structure: Structure, arrays: Arrays, target: Any) -> bool:
    if target.num_rows < 2:
        return True
    some, sites = target.rows(slice(2)), target.keywords
    two = {k: some[site] if site in target.grey else arrays[k][:2] for k, site in sites.items()}
    rng, begun = np.random.default_rng(0), target.initial(jax.random.key(0))
    parameters = {k: v + 0.1 * jnp.asarray(rng.normal(size=v.shape), v.dtype) for k, v in begun.items()}
    two = {**target.rest, **two, **{k: some[k] for k in target.inputs}}
    both = _joint(target.structure.one.program, two, structure.static, parameters)
    if both is None:
        return False
    single = sum(target.joint(parameters, jax.tree.map(lambda v, i=i: v[i], some)) for i in (0, 1))
    return bool(abs(single - both) <= TOLERANCE * (1 + abs(both)))


def _joint(program: Learned, arrays: Arrays, static: Arrays, parameters: Arrays) -> Any:
    """The log density of a program on some rows at given parameters; None where it does not run on them."""
    from numpyro.infer.util import log_density

    own = {k: parameters[k] for k in program.parameters}
    try:
        return log_density(program, (), {**arrays, **static, **own}, {})[0]
    except Exception:
        return None
