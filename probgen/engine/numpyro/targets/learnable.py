"""Targets of learning: parameters of a program of one point, from rows of data."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen import engine, runtime
from probgen.data.grey import note
from probgen.engine.numpyro.programs import indices
from probgen.engine.numpyro.programs.parameters import initial_arrays
from probgen.engine.numpyro.programs.structure import MEASURES
from probgen.engine.numpyro.sums import blocking
from probgen.engine.numpyro.sums.energy import Block
from probgen.engine.numpyro.targets.base import NumpyroTarget
from probgen.target import START, Learnable, Target, Variable, check_begun


@dataclass(frozen=True, eq=False)
class Learning:
    """What a learnable target is: the structure of one free point, where its rows are, what its parameters are called."""

    one: Any
    rows: tuple[tuple[str, str], ...]  # data keyword, site
    parameters: tuple[str, ...]
    inputs: tuple[str, ...] = ()  # keywords of arrays of which a point takes one slice
    blocks: tuple[Block, ...] = ()
    biases: tuple[tuple[str, str], ...] = ()  # a parameter that is zero at first, the visible bits that it multiplies
    normal: bool = False  # whether the hidden sites are reals that are jointly normal given the visible ones
    guide: Any = None  # a `Learned` program that draws the hidden sites
    critic: Any = None  # a `Learned` program that judges points
    grey: tuple[str, ...] = ()  # visible bits whose data are probabilities: they are drawn anew at every use
    row_sites: tuple[Any, ...] = ()  # the visible sites with the bounds of their data

    def but(self, **changes: Any) -> Learning:
        """The same with other fields."""
        return learnable(*(changes.get(f.name, getattr(self, f.name)) for f in fields(self)))

    @property
    def sites(self) -> Any:
        return self.one.sites

    @property
    def precision(self) -> str:
        return self.one.precision

    @property
    def static(self) -> Any:
        return self.one.static


@functools.lru_cache(maxsize=64)
def learnable(*parts: Any) -> Learning:
    """The same object for equal parts, so that compiled code is found again."""
    return Learning(*parts)


class NumpyroLearnable(NumpyroTarget, Learnable):
    """A program of one point with parameters, and rows of data."""

    structure: Learning

    @property
    def keywords(self) -> dict[str, str]:
        """The data keywords that hold rows, and their sites."""
        return dict(self.structure.rows)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The data keywords that hold inputs of the rows, on which the program is conditioned."""
        return self.structure.inputs

    @property
    def grey(self) -> tuple[str, ...]:
        """Visible bits whose data are probabilities; `rows` draws them."""
        return self.structure.grey

    @property
    def row_sites(self) -> tuple[Any, ...]:  # type: ignore[override]
        return self.structure.row_sites

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        return (*vars(self).get("_notes", ()), *note(self))

    @notes.setter
    def notes(self, notes: tuple[str, ...]) -> None:
        own = note(self)
        self._notes = tuple(n for n in notes if n not in own)

    @property
    def rest(self) -> dict[str, Any]:
        """The data that are neither rows nor inputs."""
        apart = {*self.keywords, *self.inputs}
        return {k: v for k, v in self.arrays.items() if k not in apart and not k.endswith(START)}

    @property
    def shared(self) -> dict[str, Any]:
        """The data of one point that are no row: the rest, and the first slice of every input."""
        return self.rest | {k: self.arrays[k][0] for k in self.inputs}

    @property
    def num_rows(self) -> int:  # type: ignore[override]
        return len(self.arrays[self.structure.rows[0][0]])

    @property
    def dim(self) -> int:
        return len(self.structure.parameters)

    @property
    def variables(self) -> dict[str, Variable]:
        """All sites of one point, by name."""
        return {v.name: v for v in self.structure.one.variables}

    @property
    def proper(self) -> bool:
        sites = self.structure.one.sites
        return not any(site.kind == "factor" or site.distribution in MEASURES for site in sites)

    @property
    def normalised(self) -> bool:
        return self.proper and not self.hidden

    @property
    def visible(self) -> list[Variable]:
        """Sites that the data give."""
        return [self.variables[site] for site in self.keywords.values()]

    @property
    def hidden(self) -> list[Variable]:
        """Sites that no data give."""
        return [v for v in self.variables.values() if v.name not in self.keywords.values()]

    def rows(self, index: Any, key: Any = None) -> dict[str, Any]:
        """Values of the visible sites of some rows, and their inputs by keyword: arrays (row, *event).

        key: of the bits that are drawn where the data are their probabilities; without one, the same bits at every call.
        """
        found = {site: self.arrays[keyword][index].astype(self.precision) for keyword, site in self.structure.rows}
        if self.grey:
            found |= self._bits({k: found[k] for k in self.grey}, jax.random.key(0) if key is None else key)
        return found | {k: self.arrays[k][index] for k in self.inputs}

    def _bits(self, levels: Mapping[str, Any], key: Any) -> dict[str, Any]:
        """Bits drawn of grey levels (row, *event), each site by a key of its own."""
        keys = {site: jax.random.fold_in(key, i) for i, site in enumerate(sorted(levels))}
        return {k: (jax.random.uniform(keys[k], v.shape) < v).astype(self.precision) for k, v in levels.items()}

    def check_indices(self, rows: Mapping[str, Any], answer: Mapping[str, Any] | None = None) -> None:
        """OutOfRange for rows whose inputs, (row, *event) by keyword, are indices out of range."""
        known = self.structure.one.looked_up
        if known is not None and known.checks and answer is not None:
            data = {k: np.asarray(v) for k, v in self.rest.items()} | dict(answer)
            data |= {k: np.asarray(rows[k], self.arrays[k].dtype) for k in self.inputs}
            indices.check_rows(known, data, self.inputs)

    def drawn(self, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:  # type: ignore[override]
        with runtime.jax_scope(self.precision):
            levels = {k: jnp.asarray(v, self.precision) for k, v in rows.items()}
            return {k: np.asarray(v, float) for k, v in self._bits(levels, jax.random.key(0)).items()}

    def all_rows(self) -> dict[str, np.ndarray]:
        with runtime.jax_scope(self.precision):
            return {k: np.asarray(v, float) for k, v in self.rows(slice(None)).items()}

    def initial(self, key: Any, from_data: bool = True) -> dict[str, Any]:
        """The parameters as labelled arrays, unconstrained, before learning; with biases of visible bits at the data's log odds."""
        program = self.structure.one.program
        found = initial_arrays(program, self.shared, self.structure.static, key)
        found = {k: jnp.asarray(v, self.precision) for k, v in found.items()}
        keywords = {site: keyword for keyword, site in self.keywords.items()}
        for name, site in self.structure.biases if from_data else ():
            count = self.arrays[keywords[site]].sum(0)
            found[name] = jnp.log((count + 0.5) / (self.num_rows - count + 0.5))
        return self.started(found)

    @property
    def starts(self) -> dict[str, Any]:
        """Where parameters begin that do not begin as the program says."""
        return {k.removesuffix(START): v for k, v in self.arrays.items() if k.endswith(START)}

    def started(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters, with those put in that begin elsewhere."""
        starts = self.starts
        return {k: starts.get(k, v) for k, v in found.items()}

    def begun(self, answer: Mapping[str, np.ndarray]) -> NumpyroLearnable:
        with runtime.jax_scope(self.precision):
            shapes = {k: v.shape for k, v in jax.eval_shape(self.initial, jax.random.key(0)).items()}
            starts = {k: jnp.asarray(v, self.precision) for k, v in check_begun(shapes, answer).items()}
        return type(self)(self.structure, {**self.arrays, **{f"{k}{START}": v for k, v in starts.items()}})

    def constrained(self, answer: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Learned parameters as the program sees them."""
        with runtime.jax_scope(self.precision):
            return {k: np.asarray(v) for k, v in self.structure.one.program.constrained(answer).items()}

    def joint(self, parameters: Any, values: Any) -> Any:
        inputs = {k: jnp.asarray(values[k]).astype(self.arrays[k].dtype) for k in self.inputs}  # as indices are
        sites = {k: v for k, v in values.items() if k not in inputs}
        own = {k: parameters[k] for k in self.structure.parameters}  # without a guide's
        return self.structure.one.joint({**self.rest, **inputs, **own}, sites)

    def lowered(self) -> str:
        with runtime.jax_scope(self.precision):
            begin = jax.jit(lambda arrays, key: type(self)(self.structure, arrays).initial(key))
            density = jax.jit(lambda arrays, *given: type(self)(self.structure, arrays).joint(*given))
            values = {v.name: jax.ShapeDtypeStruct(v.shape, self.precision) for v in self.variables.values()}
            values |= {
                k: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for k, v in self.arrays.items() if k in self.inputs
            }
            key = jax.random.key(0)
            parameters = jax.eval_shape(begin, self.arrays, key)
            texts = [
                begin.lower(self.arrays, key).as_text(),
                density.lower(self.arrays, parameters, values).as_text(),
            ]
        return f"{super().lowered()} {self.structure.rows} {self.structure.grey} {self.structure.blocks} {texts}"

    def blocked(self, evaluate: bool = False) -> NumpyroLearnable:
        """The target with the blocks of its sites found, for parameters in general position; see `blocking.find_blocks`."""
        with runtime.jax_scope(self.precision):
            shapes = jax.eval_shape(self.initial, jax.random.key(0))
            rng = np.random.default_rng(0)
            parameters = {k: jnp.asarray(rng.normal(size=v.shape)) for k, v in shapes.items()}
            s = self.structure
            data, variables = {**self.shared, **parameters}, tuple(self.variables.values())
            blocks = blocking.find_blocks(s.one.joint, data, variables, evaluate=evaluate)
            biases = s.biases or self._biases(parameters)
            normal = blocking.jointly_normal(s.one.joint, data, variables, self.hidden)
        return NumpyroLearnable(s.but(blocks=blocks, biases=biases, normal=normal), self.arrays)

    def biased(self) -> NumpyroLearnable:
        """The target with the biases of its visible bits found, which then begin at the data's log odds."""
        with runtime.jax_scope(self.precision):
            s, biases = self.structure, self._biases(self.initial(jax.random.key(0)))
        if biases == s.biases:
            return self
        return NumpyroLearnable(s.but(biases=biases), self.arrays)

    def _biases(self, parameters: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """Parameters b that begin at zero, and the bits v whose log odds they add to: of v_i, df/db_i has the term v_i alone."""
        begun = self.initial(jax.random.key(0))
        bits = [v for v in self.visible if v.kind == "bits"]
        pairs = [(k, v) for v in bits for k, array in begun.items() if array.shape == v.shape and not array.any()]
        if not pairs or self.inputs:
            return ()
        values = blocking.random_points(tuple(self.variables.values()), 0)
        rest, some = {**self.shared, **parameters}, {k: parameters[k] for k, _ in pairs}
        slopes = functools.partial(_parameter_slopes, self.structure.one.joint, rest, some)

        def adds(name: str, v: Variable) -> bool:
            for at in {0, values[v.name].size // 2, values[v.name].size - 1}:
                bit = values[v.name].ravel()[at]
                flipped = values[v.name].ravel().at[at].set(1 - bit).reshape(v.shape)
                change = slopes({**values, v.name: flipped})[name] - slopes(values)[name]
                if abs(change.ravel()[at] - (1 - 2 * bit)) > 1e-3:
                    return False
            return True

        return tuple((name, v.name) for name, v in pairs if adds(name, v))

    def learned(self, answer: Mapping[str, np.ndarray], given: Mapping[str, Any] | None = None) -> Target:
        """The target of a new point, given learned parameters.

        given: values of visible keywords, NaN where a part is unknown, and of inputs.
        """
        given = dict(given or {})
        if missing := [k for k in self.inputs if k not in given]:
            raise TypeError(
                f"A point is drawn given {', '.join(missing)}: use fit.condition({missing[0]}=...).sample(64)."
            )
        data: dict[str, Any] = {k: np.asarray(v) for k, v in self.rest.items()}
        data |= {k: np.asarray(given.pop(k), self.arrays[k].dtype) for k in self.inputs}
        data |= {k: np.asarray(answer[k]) for k in self.structure.parameters} | dict(self.structure.static)
        for keyword, value in given.items():
            if self.variables[self.keywords[keyword]].kind == "other" and 0 < np.isnan(value).sum() < np.size(value):
                raise ValueError(f"{keyword} is bounded; only bits, levels and unbounded reals can be known in part.")
            data |= partly(keyword, self.keywords[keyword], np.asarray(value, self.precision))
        return engine.load(self.engine).prepare(self.structure.one.program, data, self.precision)


@functools.partial(jax.jit, static_argnums=0)
def _parameter_slopes(joint: Any, rest: Any, parameters: Any, values: Any) -> Any:
    """df/dtheta of one point."""
    return jax.grad(lambda p: joint({**rest, **p}, values))(dict(parameters))


def partly(keyword: str, site: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """The data of a site: itself where it is known, else its known part and where that is (not NaN)."""
    known = ~np.isnan(value)
    if known.all():
        return {keyword: value}
    return {f"{site} known": known, f"{site} value": np.where(known, value, 0.0)}
