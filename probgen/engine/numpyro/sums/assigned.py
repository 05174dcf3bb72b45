"""What a NumPyro target whose finite unknowns are summed out says of them: draws, predictions with them, pointwise terms."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer.util import log_density as joint_log_density

from probgen import runtime
from probgen.engine import rows
from probgen.engine.numpyro.programs.messengers import SCAN, FullPlates, freed
from probgen.engine.numpyro.programs.structure import Structure, biject, put, with_loose
from probgen.engine.numpyro.running.arrays import as_arrays
from probgen.engine.numpyro.sums import assignments, energy, enumeration, pointwise, states

AT_ONCE = 1 << 22  # numbers that the factors of the draws of one chunk hold
_SALT = 0x5EED  # of the keys, which no kernel has


def summed(target: Any) -> tuple[str, ...]:
    """Finite unknowns, and deterministic sites that depend on them."""
    structure: Structure = target.structure
    if structure not in _summed:
        with runtime.jax_scope(target.precision):
            _summed[structure] = (*structure.finite, *_dependent(structure, target.arrays))
    return _summed[structure]


_summed: weakref.WeakKeyDictionary[Structure, tuple[str, ...]] = weakref.WeakKeyDictionary()


def _dependent(structure: Structure, arrays: Mapping[str, Any]) -> list[str]:
    """Deterministic sites through which a finite unknown reaches an output of the program, by the equations of its trace."""
    names = [site.name for site in structure.sites if site.kind == "deterministic"]
    if not names:
        return []
    finite = {k: jnp.zeros(shape, jnp.int32) for k, shape in structure.finite.items()}

    def run(finite: Mapping[str, Any]) -> list[Any]:
        found = structure.constrain(arrays, jnp.zeros(structure.dim), finite)
        return [found[name] for name in names]

    traced = jax.make_jaxpr(run)(finite).jaxpr
    reached = set(traced.invars)
    for equation in traced.eqns:
        if any(not hasattr(v, "val") and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    return [k for k, v in zip(names, traced.outvars, strict=True) if not hasattr(v, "val") and v in reached]


# ---- draws -------------------------------------------------------------------------------------------------------


def drawn(target: Any, draws: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """All latent and deterministic sites at draws (chain, draw, dim); see `Continuous.drawn`."""
    chains, count, dim = draws.shape
    with runtime.jax_scope(target.precision):
        keys = _keys(jax.random.key(seed), chains, count).reshape(-1)
        flat = draws.reshape(-1, dim)
        pieces = [
            _drawn(target.structure, target.arrays, keys[rows], jnp.asarray(flat[rows]))
            for rows in _chunks(len(flat), target)
        ]
        pieces = [{k: np.asarray(v) for k, v in piece.items()} for piece in pieces]
    joined = {k: np.concatenate([piece[k] for piece in pieces])[: len(flat)] for k in pieces[0]}
    return {k: v.reshape(chains, count, *v.shape[1:]) for k, v in joined.items()}


@functools.partial(jax.jit, static_argnums=(1, 2))
def _keys(key: Any, chains: int, draws: int) -> Any:
    """A key for every draw, by its place, so that more draws leave those before as they are: (chain, draw)."""
    key = jax.random.fold_in(key, _SALT)
    each = jax.vmap(jax.random.fold_in, (None, 0))
    return jax.vmap(each, (0, None))(each(key, jnp.arange(chains)), jnp.arange(draws))


def _chunks(count: int, target: Any) -> list[np.ndarray]:
    """Rows of chunks of one size, the last filled up with its last row."""
    size = min(count, max(1, AT_ONCE // _weight(target)))
    return [np.minimum(np.arange(start, start + size), count - 1) for start in range(0, count, size)]


def _weight(target: Any) -> int:
    """How many numbers the factors of one draw hold."""
    structure: Structure = target.structure
    if structure not in _weights:
        site_sizes = sum(int(np.prod(site.shape)) for site in structure.sites) + 1
        if structure.blocks or structure.by_state:
            _weights[structure] = site_sizes * (states.count(structure) if structure.by_state else 1)
        else:
            sizes = jax.eval_shape(lambda z: _sizes(structure, target.arrays, z), jnp.zeros(structure.dim))
            _weights[structure] = site_sizes + sum(int(np.prod(found.shape)) for found in sizes)
    return _weights[structure]


_weights: weakref.WeakKeyDictionary[Structure, int] = weakref.WeakKeyDictionary()


def _sizes(structure: Structure, arrays: Any, z: Any) -> list[Any]:
    found = _factors(structure, arrays, z)
    return [f.data for group in (found.plain, *(c.factors for c in found.chains)) for f in group.values()]


def _factors(structure: Structure, arrays: Any, z: Any) -> enumeration.Factors:
    values, _ = structure.filled(arrays, z)
    program = handlers.substitute(FullPlates(structure.closed(arrays)), substitute_fn=functools.partial(biject, values))
    return enumeration.gathered(program, structure.plate_nesting, structure.loose)


@functools.partial(jax.jit, static_argnums=0)
def _drawn(structure: Structure, arrays: Any, keys: Any, z: Any) -> dict[str, Any]:
    def one(key: Any, z: Any) -> dict[str, Any]:
        finite = _bits(structure, arrays, key, z) if structure.blocks else None
        finite = states.drawn(structure, arrays, key, z) if structure.by_state else finite
        finite = finite or assignments.drawn(_factors(structure, arrays, z), key, structure.finite)
        return {**structure.constrain(arrays, z, finite), **finite}

    return jax.vmap(one)(keys, z)


def _bits(structure: Structure, arrays: Any, key: Any, z: Any) -> dict[str, Any]:
    """Bits that do not interact given the reals: logit p(k_i = 1 | z, y) is the slope of the log density."""
    values, _ = structure.filled(arrays, z)
    zero = {name: jnp.zeros(shape, z.dtype) for name, shape in structure.finite.items()}
    slopes = energy.slopes(functools.partial(structure.joint, arrays), {**values, **zero}, list(zero))
    keys = jax.random.split(key, len(zero))
    return {
        name: jax.random.bernoulli(k, jax.nn.sigmoid(slopes[name])).astype(jnp.int32)
        for k, name in zip(keys, zero, strict=True)
    }


# ---- predictions -------------------------------------------------------------------------------------------------


def kept(target: Any, posterior: Mapping[str, np.ndarray], data: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The posterior without the finite unknowns of rows that are not the fit's own; see `probgen.engine.rows`."""
    changed = rows.changed(target.data, data, _observed_keywords(target))
    if not changed:
        return dict(posterior)
    with runtime.jax_scope(target.precision):
        shapes = _shapes(target, data)
    plates = dict(target.structure.plates)
    return rows.kept(target, posterior, plates, shapes, SCAN, *rows.going(target.data, data, changed))


def _observed_keywords(target: Any) -> set[str]:
    return {site.source for site in target.sites if site.kind == "observed" and site.source}


def _shapes(target: Any, data: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of the finite unknowns where the program runs on other data."""

    def run() -> dict[str, Any]:
        program = freed(target._closed(as_arrays(data, target.precision)))
        trace = handlers.trace(handlers.seed(program, jax.random.key(0))).get_trace()
        return {name: trace[name]["value"] for name in target.structure.finite if name in trace}

    return {name: tuple(value.shape) for name, value in jax.eval_shape(run).items()}


# ---- pointwise terms ---------------------------------------------------------------------------------------------


def log_likelihood(
    target: Any,
    posterior: Mapping[str, np.ndarray],
    data: Mapping[str, Any],
    plain: Callable[..., dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Pointwise terms of the observed sites, in nats: arrays (chain, draw, *batch); see `probgen.engine.numpyro.sums.pointwise`.

    plain: of posterior and data, the terms at drawn values of all unknowns.
    """
    structure: Structure = target.structure
    posterior = kept(target, posterior, data)
    if structure.blocks or structure.by_state:
        return plain(posterior, data)  # at the drawn bits, which all observations share
    given = as_arrays(data, target.precision)
    arrays = {k: v for k, v in given.items() if hasattr(v, "shape")}
    static = tuple(sorted((k, v) for k, v in given.items() if k not in arrays))
    latent = {k: v for k, v in posterior.items() if k in target.named("latent")}
    chains, count = next(iter(latent.values())).shape[:2]
    with runtime.jax_scope(target.precision):
        flat = {k: jnp.asarray(v).reshape(-1, *v.shape[2:]) for k, v in latent.items()}
        pieces = [
            {
                k: np.asarray(v)
                for k, v in _terms(structure, static, arrays, {k: v[at] for k, v in flat.items()}).items()
            }
            for at in _chunks(chains * count, target)
        ]
    joined = {k: np.concatenate([piece[k] for piece in pieces])[: chains * count] for k in pieces[0]}
    return {k: v.reshape(chains, count, *v.shape[1:]) for k, v in joined.items()}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _terms(structure: Structure, static: tuple, arrays: Any, values: Any) -> dict[str, Any]:
    observed = [site.name for site in structure.sites if site.kind == "observed"]
    plates, finite = dict(structure.plates), structure.finite

    def one(values: Mapping[str, Any]) -> dict[str, Any]:
        run = handlers.seed(lambda: structure.program(**arrays, **dict(static)), jax.random.key(0))
        reals = {k: v for k, v in values.items() if k not in finite}
        program = handlers.substitute(FullPlates(run), substitute_fn=functools.partial(put, reals))
        factors = enumeration.gathered(program, structure.plate_nesting, structure.loose)
        groups = (factors.plain, *(chain.factors for chain in factors.chains))
        parts: dict[str, set[str]] = {}
        for key, factor in ((k, f) for group in groups for k, f in group.items()):
            parts.setdefault(assignments.root(key), set()).update(map(assignments.root, factor.inputs))
        held = {}
        for name in sorted(rows.shared(parts, observed, plates, finite)):
            if name not in values:
                raise ValueError(rows.NOT_THEIRS.format(name))
            held |= pointwise.indices(factors, name, values[name])
        return pointwise.terms(factors, observed, held)

    return jax.vmap(one)(values)


# ---- what enumeration follows ------------------------------------------------------------------------------------


def checked(structure: Structure, arrays: Any) -> Structure:
    """The structure whose finite unknowns enumeration follows: itself, or with dimensions without a plate as plates; see `loose`.

    Raises ValueError where the factors of the enumerated program are not those of the program; looked at once for a structure.
    """
    try:
        return _check(structure, arrays)
    except ValueError:
        if (found := with_loose(structure)) is not None:
            with contextlib.suppress(ValueError):
                return _check(found, arrays)
        raise


def _check(structure: Structure, arrays: Any) -> Structure:
    if structure in _checked:
        return structure
    with runtime.jax_scope(structure.precision):
        keys = jax.random.split(jax.random.key(_SALT), rows.TRIALS)
        try:
            pairs = np.asarray(_both(structure, arrays, keys))
        except enumeration.NotSummable:
            raise
        except Exception as error:  # of NumPyro or of the program, whose finite values have dimensions of their own
            raise enumeration.NotSummable(
                f"The finite unknowns cannot be summed out: {error}\n{enumeration.HINT}"
            ) from error
        rows.check_factors(pairs, structure.precision)
    _checked.add(structure)
    return structure


_checked: weakref.WeakSet[Structure] = weakref.WeakSet()


@functools.partial(jax.jit, static_argnums=0)
def _both(structure: Structure, arrays: Any, keys: Any) -> Any:
    """The log density of the program, and the sum of its factors, at random values of all unknowns: (key, 2)."""

    def one(key: Any) -> Any:
        z = 0.3 * jax.random.normal(key, (structure.dim,))
        factors, held, values = _factors(structure, arrays, z), {}, {}
        enumeration.log_sum(factors)  # for what it raises
        for i, (name, shape) in enumerate(structure.finite.items()):
            held_here, values[name] = pointwise.anywhere(factors, name, shape, jax.random.fold_in(key, i))
            held |= held_here
        real = {k: v for k, v in structure.constrain(arrays, z, values).items() if k in structure.unravel(z)}
        with handlers.block():
            joint = joint_log_density(FullPlates(structure.closed(arrays)), (), {}, real | values)[0]
        return jnp.stack([joint, pointwise.total(factors, held)])

    return jax.lax.map(one, keys)
