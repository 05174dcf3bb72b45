"""The NumPyro engine: targets from plain NumPyro programs, and the array words of kernels; `xla` runs them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer import Predictive, init_to_uniform
from numpyro.infer.util import log_likelihood

from probgen import runtime, scales
from probgen.algorithm import Incompatible
from probgen.autoguides import is_auto, own_program, unwrapped
from probgen.data import by_place, check_support
from probgen.engine import energy, one_by_one, pieces
from probgen.engine.lifted import NARROWED, Modelled, Typed, of_types, reason
from probgen.engine.messengers import FullPlates
from probgen.engine.structure import (
    FLAT,
    KNOWN,
    MEASURES,
    PARTLY,
    Structure,
    index_of,
    parts,
    put,
    with_blocks,
)  # fmt: skip
from probgen.engine.xla import Executor
from probgen.pinned import pinned
from probgen.target import (
    Conditional,
    Continuous,
    Discrete,
    Mixed,
    Simulable,
    Site,
    SubsampledContinuous,
    Target,
    Variable,
)  # fmt: skip

__all__ = ["Executor", "guided", "name", "prepare", "with_parameters"]

name = "numpyro"
NOT_FINITE = """Site {!r} ({}) is discrete and cannot be enumerated.
Sum it out in the program, or give it a finite support."""


class Ops:
    """The array words in which a Markov kernel is written once for both engines."""

    xp = jnp
    while_loop = staticmethod(lax.while_loop)
    cond = staticmethod(lax.cond)
    map = staticmethod(lax.map)
    fold_in = staticmethod(jax.random.fold_in)
    split = staticmethod(jax.random.split)
    normal = staticmethod(jax.random.normal)
    uniform = staticmethod(jax.random.uniform)
    exponential = staticmethod(jax.random.exponential)
    popcount = staticmethod(lax.population_count)
    where = staticmethod(jnp.where)
    cholesky = staticmethod(jnp.linalg.cholesky)  # NaN where the matrix is not positive definite
    key = staticmethod(jax.random.key)

    @staticmethod
    def each(function: Callable[[Any], Any], points: Any) -> Any:
        """A function of one point at many."""
        return jax.vmap(function)(points)

    @staticmethod
    def put(array: Any, index: Any, value: Any) -> Any:
        """The array with one entry replaced."""
        return array.at[index].set(value)

    @staticmethod
    def stream(key: Any) -> Callable[[Any], Any]:
        """The i-th uniform number of a stream, as a function of i."""
        return lambda i: jax.random.uniform(jax.random.fold_in(key, i))


OPS = Ops()


class NumpyroTarget(Target):
    """A NumPyro program on data: a pytree whose leaves are the data, so that compiled code takes them as arguments."""

    engine = name

    def __init__(self, structure: Structure, arrays: Mapping[str, Any]):
        self.structure, self.arrays = structure, arrays

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_pytree_node(
            cls, lambda t: ((t.arrays,), t.structure), lambda structure, leaves: cls(structure, leaves[0])
        )

    ops = OPS

    @property
    def sites(self) -> tuple[Site, ...]:  # type: ignore[override]
        return self.structure.sites

    @property
    def data(self) -> Mapping[str, Any]:  # type: ignore[override]
        return {**self.structure.static, **self.arrays}

    @property
    def precision(self) -> str:
        return self.structure.precision

    @property
    def points(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(site.name for site in self.sites if site.distribution == FLAT)

    @property
    def axes(self) -> Mapping[str, tuple[str | None, ...]]:  # type: ignore[override]
        return dict(getattr(self.structure, "axes", ()))

    def by_row(self) -> Target | None:
        from probgen.engine import learned, one_row

        with runtime.jax_scope(self.precision):
            program = one_row.one_row(self)
            if program is None:
                return None
            arrays = {k: np.asarray(v) for k, v in self.arrays.items()}
            return learned.rows_of(program, arrays, self.structure.static, self.precision)

    def lowered(self) -> str:
        """What this target computes, as the text of its lowered density: equal texts compute equal things."""
        return f"{self.sites}"

    def _closed(self, data: Mapping[str, Any]) -> Callable[[], Any]:
        """The program on data as the fit's kernels give them to it: JAX's arrays, which a plate's or a scan's index can index."""
        return FullPlates(self._on(data), told=True)

    def _on(self, data: Mapping[str, Any]) -> Callable[[], Any]:
        """The program on data, its plates as it says."""
        arrays = {
            k: jnp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in as_arrays(data, self.precision).items()
        }
        return lambda: self.structure.program(**arrays)

    def prior(self, seed: int, num_samples: int) -> dict[str, np.ndarray]:
        with runtime.jax_scope(self.precision):
            draws = _prior(self, num_samples, jax.random.key(seed))
        return {site.name: np.asarray(draws[site.name]) for site in self.sites if site.name in draws}

    def sample(self, num_samples: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
        from probgen.engine import completion

        self._check_forward()
        with runtime.jax_scope(self.precision):
            try:
                draws, exact = _completed(self, num_samples, jax.random.key(seed))
            except completion.NoCompletion as error:
                raise Incompatible(str(error)) from None
        if approximate := [k for k, flags in exact.items() if not flags.all()]:
            warnings.warn(
                f"{approximate[0]} is drawn coordinate by coordinate, and a part that is known comes after one that is not: the "
                "draws ignore it.\npg.fit(fit.condition(...), inference='gibbs', conditionals='evaluation') draws from the exact "
                "conditional.",
                stacklevel=2,
            )
        return {site.name: np.asarray(draws[site.name]) for site in self.sites if site.name in draws}

    def _check_forward(self) -> None:
        """Raises Incompatible where the program's draws, run forward, are not of its density."""
        chain = "Draw by a Markov chain: pg.fit(..., inference='gibbs') or 'nuts'."
        before = ""
        for site in self.sites:
            if site.kind == "factor" or site.distribution in MEASURES:
                raise Incompatible(f"{site.name!r} is part of an energy, from which nothing is drawn forward.\n{chain}")
            if before and (site.kind == "observed" or f"{site.name}{KNOWN}" in self.arrays):
                raise Incompatible(
                    f"{site.name!r} is known and comes after {before!r}, which may depend on it.\n{chain}"
                )
            if site.kind == "latent" and not before:
                before = site.name

    def predict(self, posterior: Mapping[str, np.ndarray], data: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
        from probgen.engine import prediction

        with runtime.jax_scope(self.precision):
            latent = {k: jnp.asarray(v) for k, v in posterior.items() if k in self.named("latent")}
            if self.structure.part:
                return pieces.predicted(self._on(data), self.structure.part, latent, self.named("observed"), seed)
            program = prediction.program_on(self, latent, as_arrays(data, self.precision))
            predictive = Predictive(program, latent, return_sites=self.named("observed"), batch_ndims=2)
            return {k: np.asarray(v) for k, v in predictive(jax.random.key(seed)).items()}

    def observed_values(self) -> dict[str, np.ndarray]:
        with runtime.jax_scope(self.precision):
            return {k: np.asarray(v) for k, v in _observed_values(self).items()}

    def log_likelihood(self, posterior: Mapping[str, np.ndarray], data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        from probgen.engine import prediction

        with runtime.jax_scope(self.precision):
            latent = {k: jnp.asarray(v) for k, v in posterior.items() if k in self.named("latent")}
            if self.structure.part:
                return pieces.likelihoods(self._on(data), self.structure.part, latent, self.named("observed"))
            prediction.check_likelihood(self, latent, data := as_arrays(data, self.precision))
            program = handlers.seed(self._closed(data), jax.random.key(0))
            terms = log_likelihood(program, latent, batch_ndims=2)
            names = (*self.named("observed"), *self.named("factor"))
            return {k: np.asarray(v) for k, v in terms.items() if k in names}


class NumpyroContinuous(NumpyroTarget, Continuous):
    """Unknowns in R^dim through NumPyro's bijections."""

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.structure.dim

    @property
    def point_index(self) -> np.ndarray:
        return index_of(self.structure.shapes, self.points)

    def first_points(self, key: Any) -> Any:
        begun = self.structure.program.initial(self.arrays, self.structure.static, key)
        values = [jnp.ravel(begun[name]) for name in self.structure.shapes if name in self.points]
        return jnp.concatenate(values).astype(self.precision)

    def paired(self) -> Any:
        from probgen.engine import paired

        with runtime.jax_scope(self.precision):
            return paired.paired(self)

    def lowered(self) -> str:
        z = jax.ShapeDtypeStruct((self.dim,), self.precision)
        text = (
            f"{super().lowered()} {self.structure.bijections} "
            + _value_and_grad.lower(self.structure, self.arrays, z).as_text()
        )
        if self.points:
            begin = lambda arrays, key: type(self)(self.structure, arrays).first_points(key)  # noqa: E731
            text += jax.jit(begin).lower(self.arrays, jax.random.key(0)).as_text()
        return text

    def log_density(self, z: Any) -> Any:
        return _log_density(self.structure, self.arrays, z)

    def value_and_grad(self, z: Any) -> tuple[Any, Any]:
        return _value_and_grad(self.structure, self.arrays, z)

    def own_value_and_grad(self, z: Any) -> tuple[Any, Any]:
        return _own_value_and_grad(self.structure, self.arrays, z)

    def own_gradients(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with runtime.jax_scope(self.precision):
            values, gradients = _own_gradients(self, jnp.asarray(points))
            return np.asarray(values), np.asarray(gradients)

    def log_density_batch(self, z: Any) -> Any:
        return jax.vmap(self.log_density)(z)

    def gradient_batch(self, z: Any) -> Any:
        return jax.vmap(self.value_and_grad)(z)[1]

    def gradients(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with runtime.jax_scope(self.precision):
            values, gradients = _gradients(self, jnp.asarray(points))
            return np.asarray(values), np.asarray(gradients)

    def constrain(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        summed = self.summed
        with runtime.jax_scope(self.precision):
            found = _constrain(self.structure, self.arrays, draws)
            return {k: np.asarray(v) for k, v in found.items() if k not in summed}

    @property
    def summed(self) -> tuple[str, ...]:
        if not self.structure.discrete:
            return ()
        from probgen.engine import assigned

        return assigned.summed(self)

    def drawn(self, draws: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        if not self.structure.discrete:
            return self.constrain(draws)
        from probgen.engine import assigned

        return assigned.drawn(self, draws, seed)

    def predict(self, posterior: Mapping[str, np.ndarray], data: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
        if self.structure.discrete:
            from probgen.engine import assigned

            found = assigned.kept(self, posterior, data)
            finite = self.structure.finite  # a scan that goes on wants the type that its own steps have
            posterior = {k: v.astype(int) if k in finite and v.dtype.kind == "i" else v for k, v in found.items()}
        return super().predict(posterior, data, seed)

    def log_likelihood(self, posterior: Mapping[str, np.ndarray], data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if not self.structure.discrete:
            return super().log_likelihood(posterior, data)
        from probgen.engine import assigned

        return assigned.log_likelihood(self, posterior, data)

    def unconstrain(self, values: Mapping[str, Any]) -> np.ndarray:
        with runtime.jax_scope(self.precision):
            return np.asarray(_unconstrain(self, {k: jnp.asarray(v) for k, v in values.items()}))

    def begun_at(self, values: Mapping[str, Any], seed: int) -> np.ndarray:
        with runtime.jax_scope(self.precision):
            given = {k: jnp.asarray(v) for k, v in values.items() if k in self.structure.shapes}
            return np.asarray(_begun_at(self, given, jax.random.key(seed)))

    def terms(self, z: Any) -> dict[str, float]:
        """The log density of every site at z, for error messages."""
        with runtime.jax_scope(self.precision):
            values = {k: jnp.asarray(v[0, 0]) for k, v in self.constrain(np.asarray(z)[None, None]).items()}
            program = handlers.substitute(FullPlates(self.structure.closed(self.arrays)), data=values)
            trace = handlers.trace(program).get_trace()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPyro's, of values outside of supports
                return {
                    k: float(jnp.sum(site["fn"].log_prob(site["value"])))
                    for k, site in trace.items()
                    if site["type"] == "sample"
                }


class NumpyroSubsampled(NumpyroContinuous, SubsampledContinuous):
    """The same, with plates that draw minibatches."""

    def lowered(self) -> str:
        z = jax.ShapeDtypeStruct((self.dim,), self.precision)
        estimate = lambda arrays, *given: type(self)(self.structure, arrays).minibatch_value_and_grad(*given)  # noqa: E731
        return super().lowered() + jax.jit(estimate).lower(self.arrays, jax.random.key(0), z).as_text()

    def minibatch_log_density(self, key: Any, z: Any) -> Any:
        """An unbiased estimate of the log density at z from one random minibatch."""
        return self.structure.log_density(self.arrays, z, full=False, key=key)

    def minibatch_value_and_grad(self, key: Any, z: Any) -> tuple[Any, Any]:
        return jax.value_and_grad(self.minibatch_log_density, argnums=1)(key, z)


class NumpyroConditional(NumpyroTarget, Conditional):
    """Bits, levels and reals by blocks. A site that is known in part has its values and where they hold in the data."""

    takes_turns = False  # whether its finite unknowns and its reals are drawn in turn; see `turns`

    @property
    def is_energy(self) -> bool:
        """Whether it is an energy: measures of bits, levels and reals, and factors."""
        return all(site.distribution in MEASURES for site in self.sites if site.kind == "latent")

    @property
    def suits_turns(self) -> bool:
        """Whether it is a posterior with levels, or with sites computed from its unknowns: rows of levels are drawn at once so."""
        from probgen.engine.learned import Learned

        if self.is_energy or isinstance(self.structure.program, Learned) or self.known:
            return False
        return bool(self.named("deterministic")) or any(v.kind == "levels" for v in self.variables)

    def in_turns(self) -> NumpyroConditional:
        """The target whose finite unknowns and reals, of any support, are drawn in turn; `energy.NotConditional` where a support
        has no list of values."""
        from probgen.engine import turns

        return turns.in_turns(self)

    @property
    def variables(self) -> tuple[Variable, ...]:  # type: ignore[override]
        return self.structure.variables

    @property
    def dim(self) -> int:  # type: ignore[override]
        return sum(v.size for v in self.variables)

    def lowered(self) -> str:
        with runtime.jax_scope(self.precision):
            values = {v.name: jax.ShapeDtypeStruct(v.shape, self.precision) for v in self.variables}
            text = _joint.lower(self.structure, self.arrays, values).as_text()
        return f"{super().lowered()} {self.variables} {self.structure.blocks} {text}"

    def joint(self, values: Any) -> Any:
        return _joint(self.structure, self.arrays, values)

    @property
    def known(self) -> dict[str, tuple[Any, Any]]:
        """Of sites known in part: where (booleans) and what, in the sites' shapes."""
        return parts(self.arrays)

    def start(self, key: Any) -> dict[str, Any]:
        """Values to start a chain at: uniform bits and levels, standard normal reals, what is known as it is."""
        drawn = energy.anywhere(key, self.variables)
        return self.held(drawn | {k: v.astype(drawn[k].dtype) for k, v in (self.begin_at or {}).items()})

    def held(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with what is known put in."""
        known = self.known
        return {
            k: jnp.where(known[k][0], known[k][1], v).astype(v.dtype) if k in known else v for k, v in values.items()
        }

    def sweep(self, key: Any, values: Any, joint: Any = None) -> dict[str, Any]:
        """Every unknown drawn once given the rest, under the target's density or another one of the same structure."""
        return self.sweep_with_density(key, values, joint)[0]

    def sweep_with_density(self, key: Any, values: Any, joint: Any = None) -> tuple[dict[str, Any], Any]:
        """The same, and the log density at the end, which the last block's conditionals give without evaluating it."""
        known = {k: mask for k, (mask, _) in self.known.items()}
        variables = {v.name: v for v in self.variables}
        return energy.sweep(key, joint or self.joint, values, variables, self.structure.blocks, known)

    def pruned(self) -> Any:
        from probgen.engine import barren

        return barren.pruned(self)

    def completed(self, draws: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
        from probgen.engine import barren

        return barren.completed(self, draws, seed)

    def flat(self, values: Mapping[str, Any]) -> Any:
        """The point as one array (dim,); of bytes where no unknown is real."""
        small = all(0 < v.levels <= 256 for v in self.variables)
        flat = energy.join(self.variables, values)
        return flat.astype(jnp.uint8) if small else flat

    def constrain(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        return energy.split(self.variables, draws)

    def blocked(self, groups: tuple[tuple[str, ...], ...] = (), evaluate: bool = False) -> NumpyroConditional:
        """The target with its blocks found; `energy.NotConditional` where a site's units have no such conditional."""
        with runtime.jax_scope(self.precision):
            bare = with_blocks(self.structure, ())
            blocks = energy.find_blocks(bare.joint, self.arrays, self.variables, groups, evaluate)
        return type(self)(with_blocks(self.structure, blocks), self.arrays)


class NumpyroMixed(NumpyroConditional, Mixed):
    """Continuous and finite unknowns."""

    def marginalise(self) -> NumpyroContinuous:
        if held := [v.name for v in self.variables if v.levels and v.name in self.known]:
            raise energy.NotConditional(
                f"Site {held[0]!r} is known in part and cannot be summed out: use inference='gibbs'."
            )
        from probgen.engine import enumeration, states

        try:
            return self._summed_out()
        except ValueError as error:
            if enumeration.BACKWARD in str(error):  # where steps are numbered from the end, draws are, too
                raise
            if not 0 < states.count(self.structure) <= states.LARGEST:
                told = str(error)
                raise type(error)(told if "gibbs" in told else f"{told}\nOr draw them: inference='gibbs'.") from error
        told = states.note(self.structure)
        self.notes = (*(note for note in self.notes if note != told), told)
        return NumpyroContinuous(states.with_states(self.structure), self.arrays)

    def _summed_out(self) -> NumpyroContinuous:
        """The finite unknowns summed out by enumeration, or as bits that do not interact; ValueError where neither can be."""
        bits = {v.name for v in self.variables if v.kind == "bits" and v.event}
        for site in self.sites:
            if site.kind == "latent" and site.discrete and not site.enumerable and site.name not in bits:
                raise ValueError(NOT_FINITE.format(site.name, site.distribution))
        if not bits:
            from probgen.engine import assigned

            return NumpyroContinuous(assigned.checked(self.structure, self.arrays), self.arrays)
        blocks, every = self.blocked().structure.blocks, {v.name for v in self.variables if v.levels}
        if not any(every <= set(block.sites) for block in blocks if block.colours is None):
            raise energy.NotConditional(f"The bits of {', '.join(sorted(every))} interact: use inference='gibbs'.")
        return NumpyroContinuous(with_blocks(self.structure, blocks), self.arrays)


class NumpyroDiscrete(NumpyroConditional, Discrete):
    """Finite unknowns alone."""


class NumpyroSimulable(NumpyroTarget, Simulable):
    """A program that can only be run forward."""


@functools.partial(jax.jit, static_argnums=1)
def _prior(target: Any, num_samples: int, key: Any) -> dict[str, Any]:
    program = handlers.uncondition(FullPlates(lambda: target.structure.program(**target.data)))
    return Predictive(program, num_samples=num_samples)(key)


@functools.partial(jax.jit, static_argnums=1)
def _completed(target: Any, num_samples: int, key: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws of all sites, and of those known in part whether their law is exact."""
    from probgen.engine.completion import Completed

    def one(key: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        known = {k: v for k, v in target.arrays.items() if not k.endswith(PARTLY)}
        program = FullPlates(lambda: target.structure.program(**known, **target.structure.static))
        completed = Completed(program, parts(target.arrays))
        with handlers.block():
            trace = handlers.trace(handlers.seed(completed, key)).get_trace()
        return {site.name: trace[site.name]["value"] for site in target.sites}, completed.exact

    return jax.vmap(one)(jax.random.split(key, num_samples))


@jax.jit
def _observed_values(target: Any) -> dict[str, Any]:
    program = handlers.substitute(FullPlates(target.structure.closed(target.arrays)), substitute_fn=init_to_uniform)
    trace = handlers.trace(program).get_trace()
    return {k: trace[k]["value"] for k in target.named("observed")}


@jax.jit
def _unconstrain(target: Any, values: Mapping[str, Any]) -> Any:
    program = handlers.substitute(FullPlates(target.structure.closed(target.arrays)), data=dict(values))
    trace = handlers.trace(program).get_trace()
    names = target.structure.unravel(jnp.zeros(target.dim))
    return ravel_pytree({k: biject_to(trace[k]["fn"].support).inv(trace[k]["value"]) for k in names})[0]


@jax.jit
def _begun_at(target: Any, values: Mapping[str, Any], key: Any) -> Any:
    def give(site: dict[str, Any]) -> Any:
        found = put(values, site)
        return init_to_uniform(site) if found is None else found

    program = handlers.substitute(FullPlates(target.structure.closed(target.arrays, key)), substitute_fn=give)
    trace = handlers.trace(program).get_trace()
    points = {k: biject_to(trace[k]["fn"].support).inv(trace[k]["value"]) for k in target.structure.shapes}
    return jnp.concatenate([jnp.ravel(v) for v in points.values()]).astype(target.precision)


@jax.jit
def _gradients(target: Any, points: Any) -> tuple[Any, Any]:
    return jax.vmap(target.value_and_grad)(points)


# Compiled functions of their own within kernels, so that a program is traced once and not at every place of use.
@functools.partial(jax.jit, static_argnums=0)
def _log_density(structure: Structure, arrays: Any, z: Any) -> Any:
    if structure.transforms:
        return one_by_one.log_density(structure.log_density, arrays, z)
    return structure.log_density(arrays, z)


@functools.partial(jax.jit, static_argnums=0)
def _value_and_grad(structure: Structure, arrays: Any, z: Any) -> tuple[Any, Any]:
    if structure.transforms:
        return one_by_one.value_and_grad(structure.log_density, arrays, z)
    return jax.value_and_grad(functools.partial(structure.log_density, arrays))(z)


@functools.partial(jax.jit, static_argnums=0)
def _own_value_and_grad(structure: Structure, arrays: Any, z: Any) -> tuple[Any, Any]:
    return jax.value_and_grad(functools.partial(structure.own_density, arrays))(z)


@jax.jit
def _own_gradients(target: Any, points: Any) -> tuple[Any, Any]:
    return jax.vmap(target.own_value_and_grad)(points)


@functools.partial(jax.jit, static_argnums=0)
def _joint(structure: Structure, arrays: Any, values: Any) -> Any:
    return structure.joint(arrays, values)


@functools.partial(jax.jit, static_argnums=0)
def _constrain(structure: Structure, arrays: Any, draws: Any) -> dict[str, Any]:
    if structure.transforms:
        return lax.map(lambda chain: lax.map(functools.partial(structure.constrain, arrays), chain), draws)
    return jax.vmap(jax.vmap(functools.partial(structure.constrain, arrays)))(draws)


def as_arrays(data: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Floats in the given precision; counts, settings and strings as they are."""
    real = np.dtype(precision)

    def convert(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            return value.astype(real)
        return value

    return {k: convert(v) for k, v in data.items()}


def prepare(
    program: Callable[..., Any], data: Mapping[str, Any], precision: str = "float64", by_row: bool | None = None
) -> Target:
    """The target of a program on data; traced once for each program and each set of shapes.

    data: NumPy arrays, which enter compiled code as arguments, and static settings (numbers, strings, None).
    by_row: whether the program says one row of its data; None: as the data show, see `reading`.
    A program that fixes types of 32 bits where double precision is asked for runs in single, and the target's notes say so.
    Raises ValueError where the program has no unknowns, does not run on the data, or has unknowns that no algorithm here
    can treat.
    """
    program = pinned(program, Modelled)
    try:
        return _prepared(program, data, precision, by_row)
    except Exception as error:
        if precision != "float64" or not of_types(error) or scales.need_double(data):
            raise
        try:
            target = _prepared(program, data, "float32", by_row)
        except Exception:
            raise error from None
        target.notes = (*target.notes, NARROWED.format(reason(error)))
        return target


def _prepared(program: Callable[..., Any], data: Mapping[str, Any], precision: str, by_row: bool | None) -> Target:
    arrays = {k: v for k, v in as_arrays(data, precision).items() if isinstance(v, np.ndarray)}
    static = {k: v for k, v in data.items() if k not in arrays}
    from probgen.engine import reading

    with runtime.jax_scope(precision):
        return reading.read(program, arrays, static, precision, by_row)


def of_structure(structure: Structure, arrays: Mapping[str, Any], notes: tuple[str, ...] = ()) -> Target:
    """The target of a program that runs on its whole data."""
    check_support(structure.sites, arrays)
    structure.check_data(arrays)
    arrays = {k: jax.device_put(v) for k, v in arrays.items()}
    kinds = {v.name: v.kind for v in structure.variables}
    for site in structure.sites:
        if site.kind == "latent" and site.discrete and not site.enumerable and kinds[site.name] == "other":
            from probgen.engine.learned import Learned

            if isinstance(structure.program, Learned):
                return NumpyroSimulable(structure, arrays)
            raise ValueError(NOT_FINITE.format(site.name, site.distribution))
    target = kind(structure)(structure, arrays)
    target.notes = notes
    return target


def with_parameters(program: Callable[..., Any], data: Mapping[str, Any], parameters: list[str], precision: str) -> Any:
    """The program with its named parameters as data; see `learned`."""
    from probgen.engine import learned

    return learned.with_parameters(pinned(program, Modelled), data, parameters, precision)


def has_parameters(program: Callable[..., Any], data: Mapping[str, Any]) -> bool:
    """Whether the program registers parameters; see `learned`."""
    from probgen.engine import learned

    return learned.has_parameters(program, data)


def probe(target: Any) -> dict[str, list[float]]:
    """Numbers that tell this program from another; see `probe`."""
    from probgen.engine import probe

    return probe.probe(target)


def guided(target: Any, guide: Callable[..., Any] | None, critic: Callable[..., Any] | None = None) -> Any:
    """A learnable target with the guide of its hidden sites, and a critic of its points; see `amortised`.

    Another target keeps the guide for algorithms that ask for it.
    """
    from probgen.engine import amortised, batches
    from probgen.engine.learned import NumpyroLearnable

    if not isinstance(target, NumpyroLearnable):
        plain = guide is not None and not is_auto(unwrapped(guide)[0])
        own = own_program(target.structure.program)
        target.author_guide = by_place(pinned(guide, Typed), own) if plain else guide
        return target
    guide, critic = (None if each is None else pinned(each, Typed) for each in (guide, critic))
    guide = guide and by_place(guide, own_program(target.structure.one.program))
    found = amortised.guided(target, None if guide is None else batches.guide_of(target, guide))
    if critic is None or not isinstance(found, amortised.NumpyroBounded):
        return found
    from probgen.engine import judged

    return judged.judged(found, critic)


def as_numbers(target: Any, names: Any) -> list[str]:
    """Which codes of words a program uses as numbers; see `codes`."""
    from probgen.engine import codes

    return codes.as_numbers(target, names)


def pair_by_row(program: Callable[..., Any], guide: Callable[..., Any], data: Mapping[str, Any]) -> bool | int | None:
    """Whether program and guide are both of batches of rows; see `batches`."""
    from probgen.engine import batches

    return batches.pair_by_row(program, guide, data)


def kind(structure: Structure) -> type[NumpyroTarget]:
    latent = [site for site in structure.sites if site.kind == "latent"]
    if not latent:
        return NumpyroSimulable
    if all(site.discrete for site in latent):
        return NumpyroDiscrete
    if structure.discrete:
        return NumpyroMixed
    observed = [site for site in structure.sites if site.subsampled]
    return NumpyroSubsampled if observed else NumpyroContinuous
