"""What every target of a NumPyro program can do: draws of its prior, predictions, observed values, likelihoods."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer import Predictive, init_to_uniform
from numpyro.infer.util import log_likelihood

from probgen import engine, runtime
from probgen.algorithm import Incompatible
from probgen.engine import combined
from probgen.engine.numpyro.programs import completion, pieces, prediction
from probgen.engine.numpyro.programs.messengers import FullPlates, freed
from probgen.engine.numpyro.programs.structure import FLAT, KNOWN, MEASURES, PARTLY, parts
from probgen.engine.numpyro.running import numbers
from probgen.engine.numpyro.running.arrays import as_arrays
from probgen.engine.numpyro.running.ops import OPS
from probgen.target import Simulable, Site, Target

name = "numpyro"
FEW = 64  # draws of a prior that are made at once, and not one by one in a loop


class NumpyroTarget(Target):
    """A NumPyro program on data: a pytree whose leaves are the data, so that compiled code takes them as arguments."""

    engine = name

    def __init__(self, structure: Any, arrays: Mapping[str, Any]):
        self.structure, self.arrays = structure, arrays

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_pytree_node(
            cls, lambda t: ((t.arrays,), t.structure), lambda structure, leaves: cls(structure, leaves[0])
        )

    ops = OPS

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.structure.sites

    @property
    def data(self) -> Mapping[str, Any]:
        return {**self.structure.static, **self.arrays}

    @property
    def precision(self) -> str:
        return self.structure.precision

    @property
    def points(self) -> tuple[str, ...]:
        return tuple(site.name for site in self.sites if site.distribution == FLAT)

    @property
    def axes(self) -> Mapping[str, tuple[str | None, ...]]:
        return dict(getattr(self.structure, "axes", ()))

    def by_row(self) -> Target | None:
        return engine.load(self.engine).by_row(self)

    def for_run(self, density_alone: bool = False) -> Any:
        """The target as the loops of a run take it: with what its density needs of the data, made once.

        density_alone: whether they read nothing else of it; then a program's numbers are left open.
        """
        return self

    def ready(self) -> Any:
        """The target within compiled code, before its loops: with what follows from the data alone."""
        return self

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

    def prior(self, seed: int, num_samples: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        with runtime.jax_scope(self.precision):
            draws = _prior(self, num_samples, jax.random.key(seed), None if names is None else tuple(names))
        return {site.name: np.asarray(draws[site.name]) for site in self.sites if site.name in draws}

    def sample(self, num_samples: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
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
        if seen := combined.sites_of(self.arrays):
            raise Incompatible(
                f"Combinations of {seen[0]!r} were seen, of which draws forward know nothing.\n"
                "Draw by the denoiser: pg.fit(..., inference='twisted_smc') or 'guided'."
            )
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
        with runtime.jax_scope(self.precision):
            latent = {k: jnp.asarray(v) for k, v in posterior.items() if k in self.named("latent")}
            if self.structure.part:
                return pieces.likelihoods(self._on(data), self.structure.part, latent, self.named("observed"))
            prediction.check_likelihood(self, latent, data := as_arrays(data, self.precision))
            program = handlers.seed(self._closed(data), jax.random.key(0))
            terms = log_likelihood(program, latent, batch_ndims=2)
            names = (*self.named("observed"), *self.named("factor"))
            return {k: np.asarray(v) for k, v in terms.items() if k in names}


class NumpyroSimulable(NumpyroTarget, Simulable):
    """A program that can only be run forward."""


def _prior(target: Any, num_samples: int, key: Any, names: tuple[str, ...] | None) -> dict[str, Any]:
    """Draws of sites, by code that is the same when numbers of the program are edited."""
    found = _open_prior(type(target), target.structure, numbers.shapes_of(target.arrays), num_samples, names)
    return (
        _drawn(target, num_samples, key, names) if found is None else found[0].both({**target.arrays, **found[1]}, key)
    )


@functools.lru_cache(maxsize=64)
def _open_prior(
    kind: Any, structure: Any, shapes: numbers.Shapes, num_samples: int, names: tuple[str, ...] | None
) -> Any:
    draw = lambda arrays, key: _run_forward(kind(structure, arrays), num_samples, key, names)  # noqa: E731
    once = _once(num_samples)
    return numbers.opened(draw, shapes, jax.eval_shape(lambda: jax.random.key(0)), structure.precision, once)


def _run_forward(target: Any, num_samples: int, key: Any, names: tuple[str, ...] | None) -> dict[str, Any]:
    program = freed(FullPlates(lambda: target.structure.program(**target.data)))
    draws = Predictive(program, num_samples=num_samples, parallel=num_samples <= FEW)(key)
    return {k: v for k, v in draws.items() if names is None or k in names}


def _once(num_samples: int) -> dict[str, Any]:
    """The compiler's options: a few draws take less time than any work on their code."""
    return runtime.ONCE | ({runtime.LEVEL: 0} if num_samples <= FEW else {})


_drawn = jax.jit(_run_forward, static_argnums=(1, 3), compiler_options=runtime.ONCE)


@functools.partial(jax.jit, static_argnums=1)
def _completed(target: Any, num_samples: int, key: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws of all sites, and of those known in part whether their law is exact."""

    def one(key: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        known = {k: v for k, v in target.arrays.items() if not k.endswith(PARTLY)}
        program = FullPlates(lambda: target.structure.program(**known, **target.structure.static))
        completed = completion.Completed(program, parts(target.arrays))
        with handlers.block():
            trace = handlers.trace(handlers.seed(completed, key)).get_trace()
        return {site.name: trace[site.name]["value"] for site in target.sites}, completed.exact

    return jax.vmap(one)(jax.random.split(key, num_samples))


@functools.partial(jax.jit, compiler_options=runtime.ONCE)
def _observed_values(target: Any) -> dict[str, Any]:
    program = handlers.substitute(FullPlates(target.structure.closed(target.arrays)), substitute_fn=init_to_uniform)
    trace = handlers.trace(program).get_trace()
    return {k: trace[k]["value"] for k in target.named("observed")}
