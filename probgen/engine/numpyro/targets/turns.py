"""Finite unknowns of any support beside reals of any support, drawn in turn.

    k ~ p(k | z, y)   exactly: together where they can be enumerated, else unit after unit, or by blocks of bits
    z ~ p(z | k, y)   by a Hamiltonian step in unconstrained space

The finite unknowns are held as indices into their supports, the reals in R^n through NumPyro's bijections, with the log-Jacobian.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from probgen import runtime
from probgen.engine import rows
from probgen.engine.numpyro.programs.messengers import FullPlates
from probgen.engine.numpyro.programs.structure import Structure, biject, put, with_blocks, with_loose
from probgen.engine.numpyro.sums import assigned, blocking, energy, enumeration
from probgen.engine.numpyro.sums.energy import Block, NotConditional, Values
from probgen.engine.numpyro.sums.finite import density, finite_of, value_of
from probgen.engine.numpyro.targets.base import NumpyroTarget
from probgen.engine.numpyro.targets.conditional import NumpyroMixed
from probgen.engine.numpyro.targets.continuous import NumpyroContinuous
from probgen.target import Variable

FEW = 8  # units of a site that are drawn one after the other without looking for something faster


WIDEST = 1 << 20  # numbers of the factors of an enumeration


STARTS = 16  # values of the finite unknowns of which a chain takes the likeliest


EACH = "{} {} drawn unit after unit, each by the log density at all of its values: a sweep takes {} evaluations of the density."


@functools.partial(jax.jit, static_argnums=(0, 4))
def _density(structure: Structure, arrays: Any, indices: Values, z: Any, smooth: frozenset[str]) -> Any:
    return density(structure, arrays, indices, z, smooth)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _slope(structure: Structure, arrays: Any, indices: Values, z: Any, smooth: frozenset[str]) -> Any:
    return jax.value_and_grad(lambda z: density(structure, arrays, indices, z, smooth))(z)


@dataclass(frozen=True)
class Joint:
    """The density as a function of data and of values by name, for `energy`."""

    structure: Structure
    smooth: frozenset[str]

    def __call__(self, arrays: Any, values: Values) -> Any:
        shapes = self.structure.shapes
        z = jnp.concatenate([jnp.ravel(values[k]) for k in shapes]) if shapes else jnp.zeros(0)
        return density(self.structure, arrays, values, z, self.smooth)


class NumpyroTurns(NumpyroMixed):
    """Finite unknowns and reals in turn. A point is the indices of the first and z, the others in unconstrained space."""

    takes_turns = True

    @property
    def finite(self) -> tuple[Variable, ...]:
        return finite_of(self.structure)

    @property
    def variables(self) -> tuple[Variable, ...]:
        return (*self.finite, *(Variable(k, shape, "reals") for k, shape in self.structure.shapes.items()))

    @property
    def smooth(self) -> frozenset[str]:
        """The sites of bits whose conditionals are derivatives of the density."""
        return frozenset(name for block in self.structure.blocks if not block.evaluated for name in block.sites)

    @property
    def reals(self) -> int:
        """The dimension of z."""
        return self.structure.dim

    def lowered(self) -> str:
        with runtime.jax_scope(self.precision):
            indices = {v.name: jax.ShapeDtypeStruct(v.shape, self.precision) for v in self.finite}
            z = jax.ShapeDtypeStruct((self.reals,), self.precision)
            text = _slope.lower(self.structure, self.arrays, indices, z, self.smooth).as_text()
        return f"{self.sites} {self.variables} {self.structure.supports} {self.structure.blocks} {text}"

    def joint(self, values: Any) -> Any:
        shapes = self.structure.shapes
        z = jnp.concatenate([jnp.ravel(values[k]) for k in shapes]) if shapes else jnp.zeros(0)
        return _density(self.structure, self.arrays, {v.name: values[v.name] for v in self.finite}, z, self.smooth)

    def begin(self, key: Any) -> dict[str, Any]:
        """Indices of the finite unknowns to start a chain at: the likeliest of a few, with reals from U(-2, 2)."""
        k_finite, k_reals = jax.random.split(key)
        tried = self.held(energy.anywhere(k_finite, self.finite, STARTS))
        z = jax.random.uniform(k_reals, (STARTS, self.reals), minval=-2.0, maxval=2.0)
        found = jax.vmap(lambda k, z: _density(self.structure, self.arrays, k, z, self.smooth))(tried, z)
        best = jnp.argmax(jnp.where(jnp.isnan(found), -jnp.inf, found))
        return {k: v[best] for k, v in tried.items()}

    def given(self, indices: Values) -> Given:
        """The density of the reals with the finite unknowns at these indices."""
        return Given(self, indices)

    def sweep_finite(self, key: Any, indices: Values, z: Any) -> dict[str, Any]:
        """Every finite unknown drawn once given the rest."""
        f = lambda k: _density(self.structure, self.arrays, k, z, self.smooth)  # noqa: E731
        now, variables = dict(indices), {v.name: v for v in self.finite}
        held = {name: mask for name, (mask, _) in self.known.items()}
        for i, block in enumerate(self.structure.blocks):
            k = jax.random.fold_in(key, i)
            if _together(block):
                now |= self._enumerated(k, block.sites, now, z)
            else:
                now |= energy.sweep(k, f, now, {n: variables[n] for n in block.sites}, (block,), held)[0]
        return now

    def _enumerated(self, key: Any, names: tuple[str, ...], indices: Values, z: Any) -> dict[str, Any]:
        """Sites drawn together from their joint conditional."""
        from probgen.engine.numpyro.sums import assignments

        rest = {v.name: value_of(self.structure, v, indices[v.name]) for v in self.finite if v.name not in names}
        factors = _factors(self.structure, self.arrays, z, rest)
        shapes = {v.name: _value_shape(self.structure, v) for v in self.finite if v.name in names}
        found = assignments.drawn(factors, key, shapes, numbered=True)
        return {k: v.astype(indices[k].dtype) for k, v in found.items()}

    def flat(self, values: Mapping[str, Any]) -> Any:
        return energy.join(self.variables, values)

    def point(self, indices: Values, z: Any) -> Any:
        """Indices and z as one array: (dim,)."""
        return jnp.concatenate([*(jnp.ravel(indices[v.name]) for v in self.finite), z])

    def constrain(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        indices, start = energy.split(self.finite, draws), self.dim - self.reals
        with runtime.jax_scope(self.precision):
            found = _constrained(self.structure, self.arrays, indices, jnp.asarray(draws[..., start:]))
            found = {k: np.asarray(v) for k, v in found.items()}
        return {site.name: found[site.name] for site in self.sites if site.name in found}

    def predict(self, posterior: Mapping[str, np.ndarray], data: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
        return super().predict(assigned.kept(self, posterior, data), data, seed)

    def log_likelihood(self, posterior: Mapping[str, np.ndarray], data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """See `Fit.log_likelihood`: finite unknowns of a row's own are summed out, where enumeration follows all of them."""
        if all(map(_together, self.structure.blocks)) and len(self.structure.blocks) == 1:
            summed = NumpyroContinuous(with_blocks(self.structure, ()), self.arrays)
            return assigned.log_likelihood(
                summed, posterior, data, functools.partial(NumpyroTarget.log_likelihood, summed)
            )
        return super().log_likelihood(assigned.kept(self, posterior, data), data)

    def blocked(self, groups: Any = (), evaluate: bool = False) -> NumpyroTurns:
        return self


class Given:
    """The reals of a target with its finite unknowns held, as a Continuous target for one step of a kernel."""

    begin_at = None  # chains in turn find their own starts

    def __init__(self, target: NumpyroTurns, indices: Values):
        self.target, self.indices, self.ops, self.dim = target, indices, target.ops, target.reals

    def log_density(self, z: Any) -> Any:
        return _density(self.target.structure, self.target.arrays, self.indices, z, self.target.smooth)

    def value_and_grad(self, z: Any) -> tuple[Any, Any]:
        return _slope(self.target.structure, self.target.arrays, self.indices, z, self.target.smooth)

    def log_density_batch(self, z: Any) -> Any:
        return jax.vmap(self.log_density)(z)

    def gradient_batch(self, z: Any) -> Any:
        return jax.vmap(self.value_and_grad)(z)[1]


def _value_shape(structure: Structure, v: Variable) -> tuple[int, ...]:
    return (*v.shape, *np.shape(structure.supports[v.name][1][0]))


@functools.partial(jax.jit, static_argnums=0)
def _constrained(structure: Structure, arrays: Any, indices: Values, z: Any) -> dict[str, Any]:
    def one(indices: Values, z: Any) -> dict[str, Any]:
        finite = {v.name: value_of(structure, v, indices[v.name]) for v in finite_of(structure)}
        small = {k: v.astype(jnp.int32) if jnp.issubdtype(v.dtype, jnp.integer) else v for k, v in finite.items()}
        return {**structure.constrain(arrays, z, finite), **small}

    return jax.vmap(jax.vmap(one))(indices, z)


def _together(block: Block) -> bool:
    """Whether a block is drawn by enumeration of its sites at once."""
    return block.evaluated and block.colours is None


def in_turns(target: Any) -> NumpyroTurns:
    """The target of a program whose finite unknowns and reals are drawn in turn; NotConditional where a support has no list."""
    bare = with_blocks(target.structure, ())
    if bare not in _found:
        finite_of(bare)
        with runtime.jax_scope(target.precision):
            _found[bare] = _with_blocks(bare, target.arrays)
    structure = _found[bare]
    found = NumpyroTurns(structure, target.arrays)
    each = [b.sites[0] for b in structure.blocks if b.evaluated and b.colours is not None]
    if (units := sum(v.size * v.levels for v in found.finite if v.name in each)) > 100:
        names = ", ".join(map(repr, each))
        found.notes = (EACH.format(names, "is" if len(each) == 1 else "are", units),)
    return found


_found: weakref.WeakKeyDictionary[Structure, Structure] = weakref.WeakKeyDictionary()


def _with_blocks(structure: Structure, arrays: Any) -> Structure:
    """The structure with blocks of its finite unknowns: all at once where they can be enumerated, else site by site."""
    names = tuple(v.name for v in finite_of(structure))
    for one in filter(None, (structure, with_loose(structure))):
        if _enumerable(one, arrays, names):
            return with_blocks(one, (Block(names, None, True),))
    return with_blocks(structure, _blocks(structure, arrays))


def _blocks(structure: Structure, arrays: Any) -> tuple[Block, ...]:
    """Blocks of the finite unknowns site by site: by enumeration, by derivatives, or unit by unit."""
    finite = finite_of(structure)
    joint = lambda *sites: Joint(structure, frozenset(sites))  # noqa: E731
    every = NumpyroTurns(structure, arrays).variables
    together = [v for v in finite if v.size > FEW and len(finite) > 1 and _enumerable(structure, arrays, (v.name,))]
    rest = [v for v in finite if v not in together]
    smooth = [v for v in rest if v.kind == "bits" and _is_smooth(joint(v.name), arrays, every, v)]
    found = blocking.smooth_blocks(joint(*(v.name for v in smooth)), arrays, every, smooth) if smooth else []
    found += [Block((v.name,), None, True) for v in together]
    return (*found, *(Block((v.name,), tuple(range(v.size)), True) for v in rest if v not in smooth))


def _is_smooth(joint: Joint, arrays: Any, variables: Sequence[Variable], v: Variable) -> bool:
    """Whether the density is affine in the bits of a site, which then may be no integers."""
    try:
        blocking.check_conditional(joint, arrays, variables, [v])
    except (NotConditional, TypeError, IndexError):  # a value that is used as an index, for one
        return False
    return True


def _enumerable(structure: Structure, arrays: Any, names: tuple[str, ...]) -> bool:
    """Whether enumeration follows these sites, the other ones given, and is no larger than it may be."""
    variables = {v.name: v for v in finite_of(structure)}
    if not all(name in structure.supports for name in names):
        return False
    try:
        first = {k: jnp.zeros(v.shape) for k, v in variables.items()}
        sizes = jax.eval_shape(lambda k, z: _sizes(structure, arrays, k, z, names), first, jnp.zeros(structure.dim))
        if sum(math.prod(found.shape) for found in sizes) > WIDEST:
            return False
        keys = jax.random.split(jax.random.key(0), rows.TRIALS)
        rows.check_factors(np.asarray(_both(structure, names, arrays, keys)), structure.precision)
    except Exception as error:  # of NumPyro or of the program, whose values then have dimensions that it does not know
        if enumeration.BACKWARD in str(error):
            raise NotConditional(enumeration.BACKWARD) from error
        return False
    return True


def _rest(structure: Structure, indices: Values, names: tuple[str, ...]) -> dict[str, Any]:
    return {v.name: value_of(structure, v, indices[v.name]) for v in finite_of(structure) if v.name not in names}


def _sizes(structure: Structure, arrays: Any, indices: Values, z: Any, names: tuple[str, ...]) -> list[Any]:
    found = _factors(structure, arrays, z, _rest(structure, indices, names))
    return [f.data for group in (found.plain, *(c.factors for c in found.chains)) for f in group.values()]


def _factors(structure: Structure, arrays: Any, z: Any, rest: Values) -> enumeration.Factors:
    """The factors of the program with its reals at z, and some finite sites at values."""
    values, _ = structure.filled(arrays, z)
    program = handlers.substitute(FullPlates(structure.closed(arrays)), substitute_fn=functools.partial(biject, values))
    program = handlers.substitute(program, substitute_fn=functools.partial(put, rest))
    return enumeration.gathered(program, structure.plate_nesting, structure.loose)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _both(structure: Structure, names: tuple[str, ...], arrays: Any, keys: Any) -> Any:
    """The log density of the program without Jacobian, and the sum of its factors, at random values of all unknowns: (key, 2)."""
    from numpyro.infer.util import log_density

    from probgen.engine.numpyro.sums import pointwise

    def one(key: Any) -> Any:
        z = 0.3 * jax.random.normal(key, (structure.dim,))
        indices = energy.anywhere(jax.random.fold_in(key, len(names) + 1000), finite_of(structure))
        values = _rest(structure, indices, names)
        factors, held = _factors(structure, arrays, z, values), {}
        enumeration.log_sum(factors)  # for what it raises
        for i, v in enumerate(finite_of(structure)):
            if v.name in names:
                found = pointwise.anywhere(factors, v.name, _value_shape(structure, v), jax.random.fold_in(key, i))
                held, values = held | found[0], values | {v.name: found[1]}
        real = {k: v for k, v in structure.constrain(arrays, z, values).items() if k in structure.shapes}
        with handlers.block():
            joint = log_density(FullPlates(structure.closed(arrays)), (), {}, real | values)[0]
        return jnp.stack([joint, pointwise.total(factors, held)])

    return jax.lax.map(one, keys)
