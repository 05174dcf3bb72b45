"""Targets of diffusions between rows of two kinds that are no pairs: a program there, a guide back.

def program(a, b=None):                          def guide(b):
    numpyro.sample("b", Driven(drift, a), obs=b)     numpyro.sample("a", Driven(back, b))
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen import runtime
from probgen.algorithm import Incompatible
from probgen.engine.numpyro.targets import critics, draws
from probgen.engine.numpyro.targets.draws import ROWS
from probgen.engine.numpyro.targets.implicit import NumpyroImplicit, Wrong
from probgen.engine.numpyro.targets.unpaired import NumpyroUnpaired, as_map
from probgen.engine.numpyro.wrapped import innermost
from probgen.nets.bridges.drift import Driven, times
from probgen.programs.bridging import Bridging

CHUNK = 2048  # rows at once
NO_GAME = (
    "{!r} is where a diffusion ends that begins at a row; the rows are no pairs.\n"
    "It is learned by inference='bridge_matching', with a guide that goes back."
)
NO_WAY_BACK = (
    "bridge_matching learns a diffusion there and one back, and each from the other: give a guide that draws {0!r} given {1},\n"
    "numpyro.sample({0!r}, Driven(drift, {1}))."
)


class NumpyroBridging(NumpyroUnpaired, Bridging):
    """Rows of both kinds, the program, and the guide back."""

    def drawable(self) -> tuple[str, ...]:
        raise Incompatible(NO_GAME.format(self.visible[0].name))

    def driven(self, parameters: Any, keyword: str, x: Any) -> Driven:
        """The law of what becomes of a row of one kind: (*event)."""
        if keyword == self.given:
            (site,) = self.visible
            like = jnp.zeros(site.shape, self.precision)
            return innermost(
                draws.traced(self, jax.random.key(0), parameters, {keyword: x}, {site.name: like})[site.name]["fn"]
            )
        like = {self.given: jnp.zeros(self._shape(self.given), self.precision)}
        return innermost(self._returned(parameters, x, like)["fn"])

    def other(self, keyword: str) -> str:
        """The kind that rows of one kind go to."""
        return self.made if keyword == self.given else self.given

    def paths(self, key: Any, parameters: Any, keyword: str, x: Any) -> Any:
        """Paths from rows of one kind, (row, *event): (row, time, *event)."""

        def one(key: Any, x: Any) -> Any:
            law = self.driven(parameters, keyword, x)
            return law.drift.path(law.start, key, law.num_steps)

        return jax.vmap(one, axis_name=ROWS)(jax.random.split(key, len(x)), x)

    def times(self, keyword: str) -> np.ndarray:
        """Of a path, from 0 to 1: (time,)."""
        with runtime.jax_scope(self.precision):
            steps: list[int] = []

            def look(key: Any) -> Any:
                law = self.driven(self.initial(key), keyword, jnp.zeros(self._shape(keyword), self.precision))
                steps.append(law.num_steps)
                return jnp.zeros(())

            jax.eval_shape(look, jax.random.key(0))
            return np.asarray(times(steps[0]), float)

    def played(self, key: Any) -> Any:
        """A path each way, and drifts: what the run computes of program and guide."""
        parameters = jax.tree.map(lambda x: x + jnp.asarray(0.1, x.dtype), self.initial(key))
        rows = {k: self.arrays[k][:2].astype(self.precision) for k in (self.given, self.made)}
        ways = rows if self.structure.guide is not None else {self.given: rows[self.given]}
        return {k: self.paths(key, parameters, k, x)[:, 1:] for k, x in ways.items()}


def as_unpaired(target: NumpyroImplicit) -> NumpyroImplicit:
    """The target of a diffusion from row to row, or of a map, as such; another as it is. Wrong for a diffusion with other sites."""
    sites = [site.distribution for site in target.row_sites]
    if Driven.__name__ not in sites:
        return as_map(target)
    if len(sites) > 1 or len(target.inputs) != 1 or target.hidden:
        raise Wrong(
            f"A diffusion between two kinds of rows has one site, given one array of rows; this program has "
            f"{len(sites)} observed, {len(target.hidden)} hidden, and inputs {', '.join(target.inputs) or 'none'}."
        )
    return NumpyroBridging(target.structure.but(by_draws=True), target.arrays)


def both_ways(target: Any, guide: Callable[..., Any] | None) -> NumpyroBridging:
    """The target with its way back; ValueError for a guide that draws something else, or has another sigma."""
    if guide is None:
        raise Incompatible(NO_WAY_BACK.format(target.given, target.made))
    with runtime.jax_scope(target.precision):
        row = {target.made: jax.ShapeDtypeStruct(target._shape(target.made), target.precision)}
        try:
            learned = critics._learned(target, guide, row)
        except (TypeError, ValueError, IndexError) as error:
            raise ValueError(f"The guide does not run on a row of {target.made} alone: {error}") from error
        if shared := set(learned.parameters) & set(target.structure.parameters):
            raise ValueError(f"The guide's parameter {min(shared)!r} is the program's as well; rename it.")
        own = {k: target.arrays[k].astype(target.precision) for k in (target.given, target.made)}
        found = NumpyroBridging(target.structure.but(guide=learned), {**target.arrays, **own})
        found.notes = target.notes
        _check(found)
    return found


def _check(target: NumpyroBridging) -> None:
    """Raise ValueError where a way is no diffusion to rows of the other kind, or both have another noise."""
    parameters, sigma = target.initial(jax.random.key(0)), {}
    for keyword in (target.given, target.made):
        x, other = jnp.zeros(target._shape(keyword), target.precision), target.other(keyword)
        law = target.driven(parameters, keyword, x)
        if not isinstance(law, Driven):
            raise ValueError(f"{other!r} is {type(law).__name__} given {keyword}; expected Driven(drift, {keyword}).")
        if law.event_shape != target._shape(other):
            raise ValueError(
                f"What becomes of a row of {keyword} has shape {law.event_shape}; rows of {other} have {target._shape(other)}."
            )
        sigma[keyword] = float(law.drift.sigma)
    if len(set(sigma.values())) > 1:
        told = " and ".join(f"{v:g} from {k}" for k, v in sigma.items())
        raise ValueError(f"sigma is {told}: one diffusion has the same noise both ways.")


# ---- what is asked of a fit -------------------------------------------------------------------------------------------


def paths(
    target: NumpyroBridging, answer: Mapping[str, Any], keyword: str, rows: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Times (time,), rising, and paths from rows of one kind (row, *event): (row, time, *event)."""
    found = [_each(x) for x in _chunks(_paths, target, answer, keyword, rows, seed)]
    return target.times(keyword), np.concatenate(found)


def ends(target: NumpyroBridging, answer: Mapping[str, Any], keyword: str, rows: np.ndarray, seed: int) -> np.ndarray:
    """Where paths end that begin at rows of one kind: (row, *event)."""
    return np.concatenate([_each(x) for x in _chunks(_ends, target, answer, keyword, rows, seed)])


def sigma(target: NumpyroBridging, answer: Mapping[str, Any]) -> float:
    """The standard deviation of the Brownian motion after one unit of time."""
    with runtime.jax_scope(target.precision):
        parameters = {k: jnp.asarray(v, target.precision) for k, v in answer.items()}
        law = target.driven(parameters, target.given, jnp.zeros(target._shape(target.given), target.precision))
        return float(law.drift.sigma)


def _chunks(ask: Any, target: NumpyroBridging, answer: Mapping[str, Any], keyword: str, rows: Any, seed: int) -> Any:
    """What a compiled function says of rows, chunk after chunk."""
    with runtime.jax_scope(target.precision):
        parameters = {k: jnp.asarray(v, target.precision) for k, v in answer.items()}
        for i, start in enumerate(range(0, len(rows), CHUNK)):
            x = jnp.asarray(rows[start : start + CHUNK], target.precision)
            yield ask(target, jax.random.fold_in(jax.random.key(seed), i), parameters, keyword, x)


def _each(x: Any) -> np.ndarray:
    return np.asarray(x, float)


@functools.partial(jax.jit, static_argnames="keyword")
def _paths(target: Any, key: Any, parameters: Any, keyword: str, x: Any) -> Any:
    return target.paths(key, parameters, keyword, x)


@functools.partial(jax.jit, static_argnames="keyword")
def _ends(target: Any, key: Any, parameters: Any, keyword: str, x: Any) -> Any:
    return target.paths(key, parameters, keyword, x)[:, -1]
