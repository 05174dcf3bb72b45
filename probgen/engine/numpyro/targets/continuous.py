"""Targets of unknowns in R^dim: densities and gradients, and the way to constrained values and back."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer import init_to_uniform

from probgen import engine, runtime
from probgen.engine.numpyro.programs.messengers import FullPlates
from probgen.engine.numpyro.programs.structure import Structure, index_of, put
from probgen.engine.numpyro.running import numbers
from probgen.engine.numpyro.sums import assigned, one_by_one, rows
from probgen.engine.numpyro.targets.base import NumpyroTarget
from probgen.target import Continuous, Site, SubsampledContinuous


class NumpyroContinuous(NumpyroTarget, Continuous):
    """Unknowns in R^dim through NumPyro's bijections."""

    @property
    def dim(self) -> int:
        return self.structure.dim

    @property
    def point_index(self) -> np.ndarray:
        return index_of(self.structure.shapes, self.points)

    def first_points(self, key: Any) -> Any:
        begun = self.structure.program.initial(self.arrays, self.structure.static, key)
        values = [jnp.ravel(begun[name]) for name in self.structure.shapes if name in self.points]
        return jnp.concatenate(values).astype(self.precision)

    def paired(self) -> Any:
        return engine.load(self.engine).paired(self)

    def for_run(self, density_alone: bool = False) -> Any:
        run = rows.together(self) if type(self) is NumpyroContinuous else self
        return _opened(run) if density_alone else run

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
            values, gradients = _gradients(_opened(self), jnp.asarray(points))
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
        return assigned.summed(self)

    def drawn(self, draws: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        if not self.structure.discrete:
            return self.constrain(draws)
        return assigned.drawn(self, draws, seed)

    def predict(self, posterior: Mapping[str, np.ndarray], data: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
        if self.structure.discrete:
            found = assigned.kept(self, posterior, data)
            finite = self.structure.finite  # a scan that goes on wants the type that its own steps have
            posterior = {k: v.astype(int) if k in finite and v.dtype.kind == "i" else v for k, v in found.items()}
        return super().predict(posterior, data, seed)

    def log_likelihood(self, posterior: Mapping[str, np.ndarray], data: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if not self.structure.discrete:
            return super().log_likelihood(posterior, data)
        return assigned.log_likelihood(self, posterior, data, super().log_likelihood)

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


@dataclass(frozen=True)
class Bare:
    """What the loops of a run need of a program: its sites, and its density with the numbers left open; see `numbers`."""

    sites: tuple[Site, ...]
    dim: int
    precision: str
    density: numbers.Open


class NumpyroOpen(NumpyroContinuous):
    """A density whose numbers are arrays beside the data. Programs that differ in them alone have the same code."""

    made: Any = None  # what follows from the arrays alone

    def ready(self) -> Any:
        self.made = self.structure.density.first(self.arrays)
        return self

    def lowered(self) -> str:
        return f"{self.sites} {self.structure.density.text}"

    def log_density(self, z: Any) -> Any:
        return self.value_and_grad(z)[0]

    def value_and_grad(self, z: Any) -> tuple[Any, Any]:
        made = self.structure.density.first(self.arrays) if self.made is None else self.made
        return _open_value_and_grad(self.structure, self.arrays, made, z)


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


@functools.partial(jax.jit, compiler_options=runtime.ONCE)
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


def _evaluated(structure: Structure, arrays: Any, z: Any) -> tuple[Any, Any]:
    if structure.transforms:
        return one_by_one.value_and_grad(structure.log_density, arrays, z)
    return jax.value_and_grad(functools.partial(structure.log_density, arrays))(z)


_value_and_grad = jax.jit(_evaluated, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def _own_value_and_grad(structure: Structure, arrays: Any, z: Any) -> tuple[Any, Any]:
    if structure.transforms:
        return one_by_one.value_and_grad(structure.own_density, arrays, z)
    return jax.value_and_grad(functools.partial(structure.own_density, arrays))(z)


@jax.jit
def _own_gradients(target: Any, points: Any) -> tuple[Any, Any]:
    return jax.vmap(target.own_value_and_grad)(points)


@functools.partial(jax.jit, static_argnums=0)
def _constrain(structure: Structure, arrays: Any, draws: Any) -> dict[str, Any]:
    if structure.transforms:
        return lax.map(lambda chain: lax.map(functools.partial(structure.constrain, arrays), chain), draws)
    return jax.vmap(jax.vmap(functools.partial(structure.constrain, arrays)))(draws)


def _opened(target: NumpyroContinuous) -> NumpyroContinuous:
    """The target with its numbers left open; itself where more than a density is asked of it, or its density calls Python."""
    if type(target) is not NumpyroContinuous or target.points or target.structure.transforms:
        return target
    with runtime.tracing(target.precision):
        found = _bare(target.structure, numbers.shapes_of(target.arrays))
    return target if found is None else NumpyroOpen(found[0], {**target.arrays, **found[1]})


@functools.lru_cache(maxsize=64)
def _bare(structure: Structure, shapes: numbers.Shapes) -> tuple[Bare, dict[str, Any]] | None:
    point = jax.ShapeDtypeStruct((structure.dim,), structure.precision)
    made = numbers.opened(functools.partial(_evaluated, structure), shapes, point, structure.precision)
    return made and (Bare(structure.sites, structure.dim, structure.precision, made[0]), made[1])


@functools.partial(jax.jit, static_argnums=0)
def _open_value_and_grad(structure: Bare, arrays: Any, made: Any, z: Any) -> tuple[Any, Any]:
    return structure.density.rest(arrays, made, z)
