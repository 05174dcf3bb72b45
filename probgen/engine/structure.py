"""What a trace of a NumPyro program says: its sites, its unknowns and their shapes, and densities of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import MaskedDistribution, Unit, biject_to, constraints
from numpyro.infer import init_to_uniform
from numpyro.infer.util import _unconstrain_reparam, potential_energy
from numpyro.infer.util import log_density as joint_log_density

from probgen.data import bounds, on_the_line
from probgen.dims import aligned
from probgen.engine import energy, indices, one_by_one, pieces
from probgen.engine.edges import UNOBSERVED, Edges, Shown, is_angle
from probgen.engine.energy import Block
from probgen.engine.messengers import SCAN, Free, FullPlates, Steps
from probgen.engine.stated import HasState, kinds_of
from probgen.engine.supports import supports_of, variables_of
from probgen.pinned import Pinned
from probgen.target import Site, Variable

KNOWN, VALUE = PARTLY = (" known", " value")  # endings of the data of sites that are known in part
FLAT = "PointMeasure"  # the measure of parameters that are learned beside unknowns, see `whole`
MEASURES = ("Bits", "Levels", "Reals", "ImproperUniform")  # with log density 0, and no constant


def parts(arrays: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Of sites known in part: where (booleans) and what, in the sites' shapes."""
    known = {k.removesuffix(KNOWN): v for k, v in arrays.items() if k.endswith(KNOWN)}
    return {k: (v, arrays[k + VALUE]) for k, v in known.items()}


@dataclass(frozen=True, eq=False)
class Structure:
    """What a trace of a program on data of given shapes says; compared by identity, so that it keys compiled code."""

    program: Callable[..., Any]
    static: Mapping[str, Any]
    sites: tuple[Site, ...]
    dim: int
    unravel: Callable[[Any], dict[str, Any]]
    plate_nesting: int
    precision: str
    variables: tuple[Variable, ...] = ()
    learnable: bool = False  # whether the program has parameters
    blocks: tuple[Block, ...] = ()
    guide: Any = None  # see `paired`
    plates: tuple[tuple[str, frozenset[str]], ...] = ()  # of every sample site; SCAN among them for sites of one
    looked_up: indices.Known | None = None  # the indices that depend on data alone, and
    in_support: tuple[str, ...] = ()  # for these sites, where observed values are in their supports
    supports: Mapping[str, Any] = field(
        default_factory=dict
    )  # of finite unknowns: the shape of their units and a unit's values
    loose: bool = False  # whether dimensions without a plate are taken for plates in enumeration; see `loose`
    dimensions: tuple[int, tuple[tuple[str, frozenset[str]], ...]] = (
        0,
        (),
    )  # then: how many, and the plates of every site
    part: Any = None  # the plate of a program that runs on minibatches alone; see `pieces`
    transforms: bool = False  # whether it has a Fourier transform; see `one_by_one`
    by_state: bool = False  # whether the finite unknowns are summed out state by state; see `states`
    axes: tuple[tuple[str, tuple[str | None, ...]], ...] = ()  # of sites in plates, the plate of every axis
    bijections: tuple[str, ...] = ()  # the kinds of the unknowns' supports, in words

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The sites' unconstrained values in the order in which they lie in a flat point."""
        return self.unravel.args[0]  # type: ignore[attr-defined]

    @property
    def finite(self) -> dict[str, tuple[int, ...]]:
        """The finite unknowns and their shapes."""
        return {site.name: site.shape for site in self.sites if site.kind == "latent" and site.discrete}

    def check_data(self, arrays: Mapping[str, Any], what: str = "") -> None:
        """Raise ValueError for data that are indices out of range, or lie outside supports that depend on data; see `indices`."""
        indices.check(self.looked_up, arrays, self.in_support, what)

    @property
    def discrete(self) -> bool:
        return any(site.discrete for site in self.sites if site.kind == "latent")

    def closed(self, arrays: Mapping[str, Any], key: Any = None) -> Callable[[], Any]:
        """The program on its data, with a key for programs that ask for one."""
        known = {k: v for k, v in arrays.items() if not k.endswith(PARTLY)}
        key = jax.random.key(0) if key is None else key
        run = lambda: self.program(**known, **self.static)  # noqa: E731
        run = pieces.Piece(run, self.part) if self.part else run
        return Edges(handlers.seed(run, key))

    def filled(self, arrays: Mapping[str, Any], z: Any) -> tuple[dict[str, Any], Any]:
        """Unconstrained values with known reals put in, and the log density of what stands in their place in z: N(0, 1)."""
        values, aside = self.unravel(z), 0.0
        for k, (where, known) in parts(arrays).items():
            aside = aside - 0.5 * jnp.sum(jnp.where(where, values[k], 0.0) ** 2)
            values[k] = jnp.where(where, known, values[k])
        return values, aside

    def log_density(self, arrays: Mapping[str, Any], z: Any, full: bool = True, key: Any = None) -> Any:
        if self.by_state:
            from probgen.engine import states

            return states.log_sum(self, arrays, z)
        if self.blocks:  # of bits that do not interact given the reals
            bits = [v for v in self.variables if v.levels]
            values, aside = self.filled(arrays, z)
            return aside + energy.collapsed(functools.partial(self.joint, arrays), values, bits)
        program = (
            self.closed(arrays)
            if key is None
            else Edges(handlers.seed(lambda: self.program(**arrays, **self.static), key))
        )
        program = FullPlates(program) if full else program
        values, aside = self.filled(arrays, z)
        if self.part and full:
            run = lambda: self.program(**arrays, **self.static)  # noqa: E731
            return pieces.log_density(Edges(handlers.seed(run, jax.random.key(0))), self.part, values) + aside
        if self.discrete:
            from probgen.engine import enumeration

            program = handlers.substitute(program, substitute_fn=functools.partial(_unconstrain_reparam, values))
            return aside + enumeration.log_sum(enumeration.gathered(program, self.plate_nesting, self.loose))
        with handlers.block():  # a density inside another program has no sites there
            return aside - potential_energy(program, (), {}, values)

    def own_density(self, arrays: Mapping[str, Any], z: Any) -> Any:
        """The log density of the unknowns themselves: without the log-Jacobians of their bijections, but for what has none.

        Parameters have a measure that cancels theirs; angles are those of points of the plane.
        """
        values, _ = self.filled(arrays, z)
        program = handlers.substitute(FullPlates(self.closed(arrays)), substitute_fn=functools.partial(biject, values))
        with handlers.block():
            trace = handlers.trace(program).get_trace()
        kept = {site.name for site in self.sites if site.circular or site.distribution == FLAT}
        kept |= {k for k in values if k.endswith(UNOBSERVED)}
        jacobian = 0.0
        for name in (k for k in values if k not in kept):
            transform = biject_to(trace[name]["fn"].support)
            jacobian += jnp.sum(transform.log_abs_det_jacobian(values[name], trace[name]["value"]))
        return self.log_density(arrays, z) - jacobian

    def joint(self, arrays: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        """The log density of given values of all unknown sites, in their own supports."""
        whole = {site.name for site in self.sites if site.distribution.startswith("Categorical")}  # used as indices
        values = {k: v.astype(int) if k in whole else v for k, v in values.items()}
        with handlers.block():
            return joint_log_density(FullPlates(self.closed(arrays)), (), {}, values)[0]

    def constrain(self, arrays: Mapping[str, Any], z: Any, finite: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Continuous latent and deterministic sites at z, with finite unknowns at the given values."""
        values, _ = self.filled(arrays, z)
        program = handlers.substitute(FullPlates(self.closed(arrays)), substitute_fn=functools.partial(biject, values))
        program = handlers.substitute(program, substitute_fn=functools.partial(put, finite or {}))
        trace = handlers.trace(Shown(program)).get_trace()
        return {site.name: trace[site.name]["value"] for site in self.sites if _kept(site)}


def _kept(site: Site) -> bool:
    return site.kind == "deterministic" or (site.kind == "latent" and not site.discrete)


def biject(values: Mapping[str, Any], site: dict[str, Any]) -> Any:
    """The constrained value of a site, of unconstrained values by name: what `handlers.substitute` asks for."""
    if site["type"] == "sample" and site["name"] in values:
        index = site["infer"].get("_scan_current_index")
        z = values[site["name"]]
        return biject_to(site["fn"].support)(z if index is None else z[index])
    return None


def put(values: Mapping[str, Any], site: dict[str, Any]) -> Any:
    """The value of a site among given ones, at its step where it stands in a scan."""
    if site["type"] == "sample" and site["name"] in values:
        index = site["infer"].get("_scan_current_index")
        return values[site["name"]] if index is None else values[site["name"]][index]
    return None


def structure_of(
    program: Callable[..., Any], arrays: Mapping[str, Any], static: Mapping[str, Any], precision: str
) -> Structure:
    """The structure of a program on arrays of these shapes, traced once."""
    _forget_other_precision(program, precision)
    shapes = tuple((k, v.shape, str(v.dtype)) for k, v in sorted(arrays.items()) if not k.endswith(PARTLY))
    return _structure(program, shapes, settings(static), precision)


def settings(static: Mapping[str, Any]) -> tuple[tuple[str, Any, str], ...]:
    """Settings as a key: 1, 1.0 and True are not the same there, nor are 0.0 and -0.0."""
    return tuple((k, v, repr(v)) for k, v in sorted(static.items()))


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
def with_blocks(structure: Structure, blocks: tuple[Block, ...]) -> Structure:
    """The structure with blocks: the same object for equal blocks, so that compiled code is found again."""
    return structure if structure.blocks == blocks else dataclasses.replace(structure, blocks=blocks)


@functools.lru_cache(maxsize=64)
def with_loose(structure: Structure) -> Structure | None:
    """The structure whose dimensions without a plate are taken for plates; None where it has none."""
    nesting, plates = structure.dimensions
    if structure.loose or not nesting:
        return None
    return dataclasses.replace(structure, plate_nesting=nesting, plates=plates, loose=True)


def with_guide(structure: Structure, guide: tuple[Any, ...]) -> Structure:
    """The structure with program and guide as functions of their parameters."""
    return dataclasses.replace(structure, guide=guide)


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
        found.update(learnable=bool(free.names), transforms=one_by_one.in_densities(trace))
        halved = any(_in_minibatch(site) for site in trace.values() if site["type"] == "sample")
        full, found["part"] = pieces.whole(started, trace, FullPlates) if halved else (trace, None)
        found.update(supports=supports_of(full), axes=_axes(full), bijections=_bijections(full))
        return {
            k: biject_to(site["fn"].support).inv(site["value"])
            for k, site in full.items()
            if site["type"] == "sample" and not site["is_observed"] and not site["fn"].support.is_discrete
        }, supported(full, {site.name for site in found["sites"] if site.bounds})

    jaxpr, (unknown, observed) = jax.make_jaxpr(look, return_shape=True)(abstract)
    shapes_of = {k: v.shape for k, v in sorted(unknown.items())}
    dim = sum(math.prod(shape) for shape in shapes_of.values())
    unravel = functools.partial(_unravel, shapes_of)
    return Structure(
        program, settings_of, found["sites"], dim, unravel, found["nesting"], precision, found["variables"],
        found["learnable"], plates=found["plates"], looked_up=indices.of(jaxpr, sorted(abstract)),
        in_support=tuple(sorted(observed)), supports=found["supports"], axes=found["axes"], bijections=found["bijections"],
        dimensions=found["dimensions"], transforms=found["transforms"] or one_by_one.transforms(jaxpr), part=found["part"],
    )  # fmt: skip


def supported(trace: Mapping[str, Any], checked: set[str]) -> dict[str, Any]:
    """Where the values of observed sites lie in their supports, as far as that is not checked already: booleans."""
    found = {}
    for k, site in trace.items():
        if site["type"] == "sample" and site["is_observed"] and k not in checked and not _anywhere(site["fn"]):
            with contextlib.suppress(NotImplementedError, ValueError, TypeError):
                found[k] = site["fn"].support(site["value"])
    return found


def _anywhere(fn: Any) -> bool:
    """Whether any number may be observed: of reals, and where a mask leaves values out."""
    return isinstance(fn, MaskedDistribution | Unit) or on_the_line(fn.support) in (
        constraints.real, constraints.real_vector, constraints.real_matrix
    )  # fmt: skip


def index_of(shapes: Mapping[str, tuple[int, ...]], points: tuple[str, ...]) -> np.ndarray:
    """Where the named sites lie in the flat point: (coordinate,)."""
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()]).tolist()
    spans = zip(ends, shapes.items(), strict=True)
    found = [np.arange(end - math.prod(shape), end) for end, (name, shape) in spans if name in points]
    return np.concatenate(found) if found else np.zeros(0, int)


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
    from probgen.engine import loose

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
            masked = isinstance(site["fn"], MaskedDistribution)  # where masked, anything may stand
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
        _check_observed(key, shape, tuple(fn.shape()))
        return Site(key, "observed", shape, discrete, distribution=distribution, subsampled=_in_minibatch(site))
    enumerable = discrete and fn.has_enumerate_support
    if not discrete:
        try:
            biject_to(fn.support)
        except NotImplementedError:
            raise ValueError(
                f"Site {key!r} ({distribution}): no bijection from R^n to its support {fn.support}."
            ) from None
    return Site(
        key, "latent", shape, discrete, enumerable, _in_minibatch(site), distribution, circular=is_angle(fn.support)
    )


def _in_minibatch(site: dict[str, Any]) -> bool:
    scale = site["scale"]
    return scale is not None and not (isinstance(scale, int | float) and scale == 1)


def _check_observed(key: str, value: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if np.broadcast_shapes(value, expected) != value:
        raise ValueError(
            f"Observed site {key!r} has data of shape {value}; its distribution has shape {expected}.\n"
            "They broadcast to something larger than the data: reshape the data."
        )


def _nesting(trace: Mapping[str, Any]) -> int:
    dims = [frame.dim for site in trace.values() if site["type"] == "sample" for frame in site["cond_indep_stack"]]
    return -min(dims, default=0)
