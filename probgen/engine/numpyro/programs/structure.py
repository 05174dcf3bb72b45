"""What a trace of a NumPyro program says: its sites, its unknowns and their shapes, and densities of it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import _unconstrain_reparam, potential_energy
from numpyro.infer.util import log_density as joint_log_density

from probgen import runtime
from probgen.engine.numpyro.programs import indices, pieces
from probgen.engine.numpyro.programs.edges import UNOBSERVED, Edges, Shown
from probgen.engine.numpyro.programs.messengers import FullPlates
from probgen.engine.numpyro.programs.supports import whole_arguments
from probgen.engine.numpyro.sums import energy, rows
from probgen.engine.numpyro.sums.energy import Block
from probgen.programs.completable import KNOWN, VALUE
from probgen.target import Site, Variable

PARTLY = (KNOWN, VALUE, rows.ENDING)  # endings of arrays that are not the program's


HELD_NOISE = (
    "The program draws noise with numpyro.prng_key(), as dropout does: its density is that of one draw of it, held throughout. "
    "'svi' with a guide on the whole data (guide=lambda *args, **data: None where nothing is unknown) draws it anew at every step."
)


KEYS = 10  # of random numbers, that tell whether a density depends on them


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
    open_arguments: bool = False  # whether arguments that must sum to 1, and the like, depend on unknowns
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
    by_state: Any = None  # how the finite unknowns are summed out, where that is state by state; see `states`
    axes: tuple[tuple[str, tuple[str | None, ...]], ...] = ()  # of sites in plates, the plate of every axis
    bijections: tuple[str, ...] = ()  # the kinds of the unknowns' supports, in words
    keyed: bool = False  # whether the program asks for keys of random numbers; see `held_noise`

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The sites' unconstrained values in the order in which they lie in a flat point."""
        return self.unravel.args[0]

    @property
    def finite(self) -> dict[str, tuple[int, ...]]:
        """The finite unknowns and their shapes."""
        return {site.name: site.shape for site in self.sites if site.kind == "latent" and site.discrete}

    def check_data(self, arrays: Mapping[str, Any], what: str = "") -> None:
        """Raise ValueError for data that are indices out of range, or lie outside supports that depend on data; see `indices`."""
        indices.check(self.looked_up, arrays, self.in_support, what)
        if self.open_arguments and not self.part:
            for name, good in _at_a_point(self)(dict(arrays)).items():
                if not np.all(good):
                    indices.refuse_argument(name, np.asarray(good))

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
            return self.by_state(self, arrays, z)
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
            from probgen.engine.numpyro.sums import enumeration

            program = handlers.substitute(program, substitute_fn=functools.partial(_unconstrain_reparam, values))
            return aside + enumeration.log_sum(enumeration.gathered(program, self.plate_nesting, self.loose))
        program = rows.Together(program, arrays) if full else program
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

    def joint(self, arrays: Mapping[str, Any], values: Mapping[str, Any], key: Any = None) -> Any:
        """The log density of given values of all unknown sites, in their own supports."""
        whole = {site.name for site in self.sites if site.distribution.startswith("Categorical")}  # used as indices
        values = {k: v.astype(int) if k in whole else v for k, v in values.items()}
        with handlers.block():
            return joint_log_density(FullPlates(self.closed(arrays, key)), (), {}, values)[0]

    def constrain(self, arrays: Mapping[str, Any], z: Any, finite: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Continuous latent and deterministic sites at z, with finite unknowns at the given values."""
        values, _ = self.filled(arrays, z)
        program = handlers.substitute(FullPlates(self.closed(arrays)), substitute_fn=functools.partial(biject, values))
        program = handlers.substitute(program, substitute_fn=functools.partial(put, finite or {}))
        trace = handlers.trace(Shown(program)).get_trace()
        return {site.name: trace[site.name]["value"] for site in self.sites if _kept(site)}


@functools.lru_cache(maxsize=64)
def _at_a_point(structure: Structure) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """What of the arguments of distributions is whole, see `whole_arguments`, the unknowns at a point in general position."""

    def look(arrays: Mapping[str, Any]) -> dict[str, Any]:
        z = jnp.asarray(np.random.default_rng(0).normal(size=structure.dim), structure.precision)
        values, _ = structure.filled(arrays, z)
        program = handlers.substitute(
            FullPlates(structure.closed(arrays)), substitute_fn=functools.partial(biject, values)
        )
        with handlers.block():
            return whole_arguments(handlers.trace(program).get_trace())

    return jax.jit(look, compiler_options=runtime.ONCE)


def held_noise(structure: Structure, arrays: Mapping[str, Any]) -> tuple[str, ...]:
    """What to tell of a program whose density depends on noise that it draws itself."""
    if not structure.keyed or structure.by_state or structure.blocks:
        return ()
    z = jnp.asarray(np.random.default_rng(0).normal(size=structure.dim), structure.precision)
    with contextlib.suppress(Exception):  # what has no density on its data is said where one is asked for
        return (HELD_NOISE,) if varies(lambda key: structure.log_density(arrays, z, key=key)) else ()
    return ()


def varies(of: Callable[[Any], Any]) -> bool:
    """Whether a number depends on a key of random numbers; by so many keys that noise of one bit is hardly missed."""
    of = jax.jit(of)
    found = [np.asarray(of(jax.random.key(seed))) for seed in range(KEYS)]
    return not all(np.array_equal(found[0], other, equal_nan=True) for other in found)


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


def settings(static: Mapping[str, Any]) -> tuple[tuple[str, Any, str], ...]:
    """Settings as a key: 1, 1.0 and True are not the same there, nor are 0.0 and -0.0."""
    return tuple((k, v, repr(v)) for k, v in sorted(static.items()))


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


def index_of(shapes: Mapping[str, tuple[int, ...]], points: tuple[str, ...]) -> np.ndarray:
    """Where the named sites lie in the flat point: (coordinate,)."""
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()]).tolist()
    spans = zip(ends, shapes.items(), strict=True)
    found = [np.arange(end - math.prod(shape), end) for end, (name, shape) in spans if name in points]
    return np.concatenate(found) if found else np.zeros(0, int)
