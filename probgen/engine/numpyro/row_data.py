"""Which data of a program hold rows of what it says of one point: the target of learning from them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.infer import init_to_uniform

from probgen.data.checks import check_support
from probgen.data.grey import is_grey, loosened
from probgen.data.values.series import overlapping
from probgen.engine.numpyro.programs import indices
from probgen.engine.numpyro.programs.parameters import initial_arrays, wrapped
from probgen.engine.numpyro.programs.structure import settings, varies
from probgen.engine.numpyro.programs.tracing import structure_of
from probgen.engine.numpyro.targets import implicit
from probgen.engine.numpyro.targets.implicit import Wrong
from probgen.engine.numpyro.targets.learnable import NumpyroLearnable
from probgen.engine.numpyro.targets.rows import NumpyroRows, learnable


def rows_of(
    program: Callable[..., Any], arrays: Mapping[str, Any], static: Mapping[str, Any], precision: str
) -> NumpyroRows | None:
    """The target of learning, where an observed keyword holds rows of what the program says of one point; else None.

    Arrays that have as many rows are inputs, of which the program takes one slice a point, where it does not run with them whole.
    """
    optional = {k for k, p in inspect.signature(program).parameters.items() if p.default is None}
    candidates = [k for k in arrays if k in optional]
    if not candidates:
        return None
    count = len(arrays[candidates[0]]) if arrays[candidates[0]].ndim else 0
    shared = [k for k in arrays if k not in candidates]
    by_row = [k for k in shared if arrays[k].ndim and len(arrays[k]) == count]
    others, wrong = [k for k in shared if arrays[k].ndim and len(arrays[k]) > 1 and k not in by_row], None
    kept = None
    for sliced in [[], by_row] if by_row else [[]]:
        try:
            found = rows_with(program, arrays, static, precision, candidates, [*candidates, *sliced])
        except Wrong as error:  # a map may take all rows of what it is given at once, and be one of a single row
            found, wrong = None, wrong or error
        if found and not sliced and by_row and any(site.weighed for site in found.sites):
            kept = found  # weights of all rows would count every row by their sum
        elif found:
            return found
    if kept is not None:
        return kept
    if others and count:
        found = _unpaired(program, arrays, static, precision, candidates, [*candidates, *by_row, *others])
    if found is None and wrong is not None:
        raise wrong
    return found


def _as_unpaired(target: Any) -> Any:
    from probgen.engine.numpyro.noise.bridged import as_unpaired  # networks, which few programs need

    return as_unpaired(target)


def _unpaired(
    program: Callable[..., Any], arrays: Mapping[str, Any], static: Mapping[str, Any], precision: str, candidates: list[str],
    sliced: list[str],
) -> NumpyroRows | None:  # fmt: skip
    """The target of a map without noise between rows that are no pairs and differ in number; None for another program."""
    one_of = {k: v[0] if k in sliced else v for k, v in arrays.items()}
    try:
        points = implicit.points_of(program, {**one_of, **static}, candidates)
        found = _as_unpaired(implicit.implicit(program, arrays, static, precision, points, sliced)) if points else None
    except Wrong:
        raise
    except Exception:
        return None
    if found is not None and found.hidden:
        _check_counts(arrays, sliced)
    return found


def rows_with(
    program: Callable[..., Any], arrays: Mapping[str, Any], static: Mapping[str, Any], precision: str,
    candidates: list[str], sliced: list[str],
) -> NumpyroRows | None:  # fmt: skip
    """The same, given which arrays the program takes one slice of."""
    if any(arrays[k].ndim == 0 for k in sliced):
        return None
    one_of = {k: v[0] if k in sliced else v for k, v in arrays.items()}
    points: Mapping[str, Any] = {}
    with contextlib.suppress(Exception):  # a program that does not run is told below
        points = implicit.points_of(program, {**one_of, **static}, candidates)
    if points:
        try:
            _check_counts(arrays, sliced)
            return _as_unpaired(implicit.implicit(program, arrays, static, precision, points, sliced))
        except Wrong:
            raise
        except Exception:
            return None
    try:
        one = structure_of(program, one_of, static, precision)
        sources = {s.source: s for s in one.sites if s.kind == "observed" and s.source in candidates}
        free = {**static, **dict.fromkeys(sources)}
        inputs = [k for k in sliced if k not in sources]
        rest = {k: v for k, v in one_of.items() if k not in sources}
        open_ended = structure_of(program, rest, free, precision)
    except Exception:
        return None
    shapes = {site.name: site.shape for site in open_ended.sites}
    if not one.learnable or not sources or any(one_of[k].shape != shapes[s.name] for k, s in sources.items()):
        return None
    _check_counts(arrays, [*sources, *inputs])
    bits = {v.name for v in open_ended.variables if v.kind == "bits"}
    held = {s.name: is_grey(arrays[k]) for k, s in sources.items() if s.name in bits and s.bounds is not None}
    grey = tuple(sorted(site for site, found in held.items() if found))
    check_support(tuple(loosened(s, s.name in grey) for s in sources.values()), {k: arrays[k] for k in sources})
    indices.check_rows(open_ended.looked_up, arrays, inputs)
    if any(s.distribution in ("Dirichlet", "Wishart", "WishartCholesky") for s in sources.values()):
        _check_points(program, {**rest, **free}, {k: (s.name, arrays[k]) for k, s in sources.items()})
    kept = tuple(sorted((k, v.shape, str(v.dtype)) for k, v in rest.items()))
    program = wrapped(program, settings(free), kept)
    parameters = program.parameters
    if clash := next((k for k in parameters if k in arrays or k in static), None):
        raise Wrong(
            f"numpyro.param({clash!r}) has the name of an argument of the program: give one of them another name."
        )
    begun = jax.eval_shape(lambda arrays, key: initial_arrays(program, arrays, free, key), rest, jax.random.key(0))
    with_parameters = {**rest, **begun}
    structure = structure_of(program, with_parameters, free, precision)
    rows = tuple(sorted((k, s.name) for k, s in sources.items()))
    overlap = max(overlapping(arrays[k]) for k in sources)
    structure = learnable(structure, rows, parameters, tuple(inputs)).but(
        grey=grey, row_sites=tuple(sources.values()), overlap=overlap
    )
    compact = lambda v: v if v.dtype.kind in "bu" else np.asarray(v, precision)  # noqa: E731
    arrays = {k: jax.device_put(compact(v) if k in sources else v) for k, v in arrays.items()}
    target = NumpyroLearnable(structure, arrays)
    target.notes = _held_noise(target)
    return target


HELD_NOISE = (
    "The program draws noise with numpyro.prng_key(), as dropout does: its density is that of one draw of it, the same for all "
    "rows. Only 'svi' of hidden sites, by its bound, draws it anew for each row and step."
)


def _held_noise(target: NumpyroLearnable) -> tuple[str, ...]:
    """What to tell of a program whose density of a row depends on noise that it draws itself."""
    if not target.structure.one.keyed:
        return ()
    with contextlib.suppress(Exception):  # what has no density is said where one is asked for
        parameters = target.initial(jax.random.key(0), False)
        hidden = {v.name: jnp.full(v.shape, 0.5 if v.kind == "reals" else 0, target.precision) for v in target.hidden}
        row = {k: v[0] for k, v in target.rows(slice(1)).items()} | hidden
        return (HELD_NOISE,) if varies(lambda key: target.joint(parameters, row, key)) else ()
    return ()


def _check_counts(arrays: Mapping[str, Any], names: list[str]) -> None:
    """Raise Wrong where arrays that hold rows have different numbers of them."""
    counts = {k: len(arrays[k]) for k in names}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{k}: {count}" for k, count in counts.items())
        raise Wrong(f"Data have different numbers of rows ({told}).")


def _check_points(program: Callable[..., Any], data: Mapping[str, Any], rows: Mapping[str, tuple[str, Any]]) -> None:
    """Raise ValueError for the first row that is no point of a simplex or no positive definite matrix, where a site needs one."""
    seeded = handlers.seed(lambda: program(**data), jax.random.key(0))
    trace = handlers.trace(handlers.substitute(seeded, substitute_fn=init_to_uniform)).get_trace()
    for keyword, (site, values) in rows.items():
        support = trace[site]["fn"].support
        if support in (constraints.simplex, constraints.positive_definite):
            good = np.asarray(support(np.asarray(values))).reshape(len(values), -1).all(1)
            if not good.all():
                what = "a simplex" if support is constraints.simplex else "the positive definite matrices"
                raise ValueError(
                    f"Data {keyword!r} is observed at site {site!r}, whose support is {what}; "
                    f"{keyword}[{int(np.argmin(good))}] is not in it."
                )
