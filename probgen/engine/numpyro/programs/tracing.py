"""The structure of a program, found by tracing it once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import ExpandedDistribution, Independent, MaskedDistribution, Unit, biject_to, constraints
from numpyro.infer import init_to_uniform

from probgen.data.checks import bounds, on_the_line
from probgen.data.dims import aligned
from probgen.engine.numpyro.programs import indices, pieces
from probgen.engine.numpyro.programs.edges import Edges, is_angle
from probgen.engine.numpyro.programs.messengers import SCAN, Free, FullPlates, Steps
from probgen.engine.numpyro.programs.stated import HasState, kinds_of
from probgen.engine.numpyro.programs.structure import PARTLY, Structure, settings
from probgen.engine.numpyro.programs.supports import (
    is_masked,
    supports_of,
    valid_arguments,
    variables_of,
    whole_arguments,
)
from probgen.engine.numpyro.sums import one_by_one
from probgen.programs.pinned import Pinned
from probgen.target import Site


def structure_of(
    program: Callable[..., Any], arrays: Mapping[str, Any], static: Mapping[str, Any], precision: str
) -> Structure:
    """The structure of a program on arrays of these shapes, traced once."""
    _forget_other_precision(program, precision)
    shapes = tuple((k, v.shape, str(v.dtype)) for k, v in sorted(arrays.items()) if not k.endswith(PARTLY))
    return _structure(program, shapes, settings(static), precision)


_precisions: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()  # of programs' last traces


def _forget_other_precision(program: Callable[..., Any], precision: str) -> None:
    """Drop JAX's traces where this program had another precision.

    JAX keeps NumPy arrays that a function closes over in the precision of a trace that lives on, and then cannot compile the
    function in another one.
    """
    while not isinstance(program, Pinned) and hasattr(program, "program"):  # a program of an engine's about the user's
        program = program.program
    with contextlib.suppress(TypeError):  # a callable without weak references
        if _precisions.get(program, precision) != precision:
            jax.clear_caches()
        _precisions[program] = precision


@functools.lru_cache(maxsize=64)
def _structure(program: Callable[..., Any], shapes: tuple, static: tuple, precision: str) -> Structure:
    abstract = {k: jax.ShapeDtypeStruct(shape, dtype) for k, shape, dtype in shapes}
    settings_of = {k: v for k, v, _ in static}
    found: dict[str, Any] = {}

    def look(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        seeded = Edges(handlers.seed(lambda: program(**arrays, **settings_of), jax.random.key(0)))
        started = handlers.substitute(seeded, substitute_fn=init_to_uniform)
        free = Free()
        with free:
            trace = handlers.trace(Steps(started)).get_trace()
        if kinds := kinds_of(trace):
            raise HasState(kinds)
        found.update(sites=tuple(_sites(trace, arrays)), nesting=_nesting(trace), variables=variables_of(trace))
        found.update(plates=_plates(trace), dimensions=_dimensions(trace))
        found.update(learnable=bool(free.names), keyed=free.keyed, transforms=one_by_one.in_densities(trace))
        halved = any(_is_scaled(site) for site in trace.values() if site["type"] == "sample")
        full, found["part"] = pieces.whole(started, trace, FullPlates) if halved else (trace, None)
        found.update(
            whole=set(whole_arguments(full)), supports=supports_of(full), axes=_axes(full), bijections=_bijections(full)
        )
        if halved:
            found.update(sites=tuple(_counted(site, trace, full, found["part"]) for site in found["sites"]))
        return {
            k: biject_to(site["fn"].support).inv(site["value"])
            for k, site in full.items()
            if site["type"] == "sample" and not site["is_observed"] and not site["fn"].support.is_discrete
        }, supported(full, {site.name for site in found["sites"] if site.bounds}) | valid_arguments(full)

    jaxpr, (unknown, observed) = jax.make_jaxpr(look, return_shape=True)(abstract)
    shapes_of = {k: v.shape for k, v in sorted(unknown.items())}
    dim = sum(math.prod(shape) for shape in shapes_of.values())
    unravel = functools.partial(_unravel, shapes_of)
    looked_up, in_support = indices.of(jaxpr, sorted(abstract)), tuple(sorted(observed))
    known = set() if looked_up is None else looked_up.named(in_support)
    return Structure(
        program, settings_of, found["sites"], dim, unravel, found["nesting"], precision, found["variables"],
        found["learnable"], plates=found["plates"], looked_up=looked_up, in_support=in_support,
        open_arguments=bool(found["whole"] - known), supports=found["supports"], axes=found["axes"], bijections=found["bijections"],
        dimensions=found["dimensions"], transforms=found["transforms"] or one_by_one.transforms(jaxpr), part=found["part"],
        keyed=found["keyed"],
    )  # fmt: skip


def supported(trace: Mapping[str, Any], checked: set[str]) -> dict[str, Any]:
    """Where the values of observed sites lie in their supports, as far as that is not checked already: booleans."""
    found = {}
    for k, site in trace.items():
        if site["type"] == "sample" and site["is_observed"] and k not in checked and not _anywhere(site["fn"]):
            with contextlib.suppress(NotImplementedError, ValueError, TypeError):
                found[k] = _good(site["fn"], site["value"])
    return found


def _good(fn: Any, value: Any) -> Any:
    """Where a value lies in the support, or is masked: (*batch)."""
    if isinstance(fn, MaskedDistribution):
        return _good(fn.base_dist, value) | ~jnp.asarray(fn._mask)
    if isinstance(fn, Independent):
        return jnp.all(_good(fn.base_dist, value), tuple(range(-fn.reinterpreted_batch_ndims, 0)))
    return _good(fn.base_dist, value) if isinstance(fn, ExpandedDistribution) else fn.support(value)


def _anywhere(fn: Any) -> bool:
    """Whether any number may be observed: of reals."""
    reals = (constraints.real, constraints.real_vector, constraints.real_matrix)
    return isinstance(fn, Unit) or on_the_line(fn.support) in reals


def _plates(trace: Mapping[str, Any]) -> tuple[tuple[str, frozenset[str]], ...]:
    """The names of the plates that every sample site stands in."""
    found = []
    for key, site in trace.items():
        if site["type"] == "sample":
            scan = {SCAN} if {"_scan_current_index", SCAN} & set(site["infer"]) else set()
            found.append((key, frozenset(frame.name for frame in site["cond_indep_stack"]) | scan))
    return tuple(found)


def _dimensions(trace: Mapping[str, Any]) -> tuple[int, tuple[tuple[str, frozenset[str]], ...]]:
    """How many dimensions the sites have, and the plates of every site with those of dimensions that have none."""
    if not any(site["type"] == "sample" and site["fn"].support.is_discrete for site in trace.values()):
        return 0, ()
    from probgen.engine.numpyro.sums import loose

    nesting, names = loose.found(trace)
    return nesting, tuple((k, own | names[k]) for k, own in _plates(trace)) if nesting else ()


def _axes(trace: Mapping[str, Any]) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    """Of every site in a plate, the plate of every axis of its value."""
    found = []
    for key, site in trace.items():
        frames = [(f.name, f.dim, f.size) for f in site.get("cond_indep_stack") or () if f.dim is not None]
        if frames and site["type"] in ("sample", "deterministic"):
            event = site["fn"].event_dim if site["type"] == "sample" else None
            found.append((key, aligned(jnp.shape(site["value"]), frames, event)))
    return tuple(found)


def _bijections(trace: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds of the unknowns' supports, which say their bijections."""
    found = []
    for key, site in trace.items():
        if site["type"] == "sample" and not site["is_observed"]:
            support, words = site["fn"].support, [key]
            while support is not None:
                words.append(type(support).__name__)
                support = getattr(support, "base_constraint", None)
            found.append(" ".join(words))
    return tuple(found)


def _unravel(shapes: Mapping[str, tuple[int, ...]], z: Any) -> dict[str, Any]:
    """The sites' unconstrained values, in alphabetical order, out of one flat array."""
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    return {
        k: z[end - math.prod(shape) : end].reshape(shape) for end, (k, shape) in zip(ends, shapes.items(), strict=True)
    }


def _sites(trace: Mapping[str, Any], arrays: Mapping[str, Any]) -> list[Site]:
    sites = []
    for key, site in trace.items():
        if site["type"] == "deterministic":
            sites.append(Site(key, "deterministic", jnp.shape(site["value"])))
        elif site["type"] == "sample":
            source = next((k for k, v in arrays.items() if v is site["value"]), "")
            masked = is_masked(site["fn"])  # where masked, anything may stand
            limits = bounds(site["fn"].support, constraints) if source and not masked else None
            found = _sample_site(key, site)
            sites.append(dataclasses.replace(found, source=source, bounds=limits, masked=masked))
    return sites


def _sample_site(key: str, site: dict[str, Any]) -> Site:
    shape, fn = jnp.shape(site["value"]), site["fn"]
    distribution = type(fn.base_dist if hasattr(fn, "base_dist") else fn).__name__
    if distribution == "Unit":
        return Site(key, "factor", shape, distribution=distribution)
    discrete = bool(fn.support.is_discrete)
    if site["is_observed"]:
        jnp.asarray(site["value"])  # a TypeError for what is no array, such as a sparse matrix
        _check_observed(key, shape, tuple(fn.shape()))
        return Site(key, "observed", shape, discrete, distribution=distribution)
    enumerable = discrete and fn.has_enumerate_support
    if not discrete:
        try:
            biject_to(fn.support)
        except NotImplementedError:
            raise ValueError(
                f"Site {key!r} ({distribution}): no bijection from R^n to its support {fn.support}."
            ) from None
    return Site(key, "latent", shape, discrete, enumerable, False, distribution, circular=is_angle(fn.support))


def _is_scaled(site: Mapping[str, Any], by: float = 1.0) -> bool:
    scale = site["scale"]
    return scale is not None and not (isinstance(scale, int | float) and math.isclose(scale, by))


def _counted(site: Site, trace: Mapping[str, Any], full: Mapping[str, Any], part: Any) -> Site:
    """The site with how often its density counts: in a minibatch, or by a scale of the author's.

    trace: plates drawing their minibatches; full: all rows of plates, but those of `part`.
    """
    if site.kind == "deterministic" or site.name not in full:
        return site
    drawn = {k for k, s in trace.items() if s["type"] == "plate" and s["args"][1] not in (None, s["args"][0])}
    frames = {frame.name for frame in trace[site.name]["cond_indep_stack"]}
    times = part.size / part.count if part is not None and part.plate in frames else 1.0
    return dataclasses.replace(site, subsampled=bool(frames & drawn), weighed=_is_scaled(full[site.name], times))


def _check_observed(key: str, value: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if np.broadcast_shapes(value, expected) != value:
        raise ValueError(
            f"Observed site {key!r} has data of shape {value}; its distribution has shape {expected}.\n"
            "They broadcast to something larger than the data: reshape the data."
        )


def _nesting(trace: Mapping[str, Any]) -> int:
    dims = [frame.dim for site in trace.values() if site["type"] == "sample" for frame in site["cond_indep_stack"]]
    return -min(dims, default=0)
