"""Rows of data, a program of one row with parameters, and its draws."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen import engine, runtime
from probgen.data.checks import check_begun
from probgen.data.grey import note
from probgen.engine import combined
from probgen.engine.numpyro.programs import indices
from probgen.engine.numpyro.programs.parameters import initial_arrays
from probgen.engine.numpyro.sums.energy import Block
from probgen.engine.numpyro.targets import draws
from probgen.engine.numpyro.targets.base import NumpyroTarget
from probgen.programs.linear import Combined
from probgen.target import CRITIC, START, Generative, Target, Variable


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
    opponent: Any = None  # a `Learned` program that judges draws, of learners against a critic
    pack: int = 1  # rows that it judges at once
    overlap: int = 0  # rows after each that share entries with it, of windows of one series
    by_draws: bool = False  # whether it is learned by its draws, so that compiled code is of these

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


@functools.partial(jax.jit, static_argnums=(0, 1))
def first_parameters(kind: type[NumpyroRows], structure: Any, arrays: Any, key: Any) -> dict[str, Any]:
    """The parameters before learning. Asked for in many places, and traced once: a net's start is the slowest part of its trace."""
    return kind(structure, arrays).initial(key)


class NumpyroRows(NumpyroTarget, Generative):
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
    def row_sites(self) -> tuple[Any, ...]:
        return self.structure.row_sites

    @property
    def notes(self) -> tuple[str, ...]:
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
    def num_rows(self) -> int:
        return len(self.arrays[self.structure.rows[0][0]])

    @property
    def dim(self) -> int:
        return len(self.structure.parameters)

    @property
    def variables(self) -> dict[str, Variable]:
        """All sites of one point, by name."""
        return {v.name: v for v in self.structure.one.variables}

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

    def drawn(self, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
        with runtime.jax_scope(self.precision):
            levels = {k: jnp.asarray(v, self.precision) for k, v in rows.items()}
            return {k: np.asarray(v, float) for k, v in self._bits(levels, jax.random.key(0)).items()}

    def all_rows(self) -> dict[str, np.ndarray]:
        with runtime.jax_scope(self.precision):
            return {k: np.asarray(v, float) for k, v in self.rows(slice(None)).items()}

    @property
    def starts(self) -> dict[str, Any]:
        """Where parameters begin that do not begin as the program says."""
        return {k.removesuffix(START): v for k, v in self.arrays.items() if k.endswith(START)}

    def started(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters, with those put in that begin elsewhere."""
        starts = self.starts
        return {k: starts.get(k, v) for k, v in found.items()}

    def begun(self, answer: Mapping[str, np.ndarray]) -> NumpyroRows:
        with runtime.jax_scope(self.precision):
            shapes = {k: v.shape for k, v in self.first_shapes().items()}
            if self.structure.opponent is not None:  # a critic of other shapes, as of other packs, begins anew
                rival = {k: v.shape for k, v in jax.eval_shape(self.rivals, jax.random.key(0)).items()}
                shapes |= rival if all(answer[k].shape == v for k, v in rival.items() if k in answer) else {}
            starts = {k: jnp.asarray(v, self.precision) for k, v in check_begun(shapes, answer).items()}
        return type(self)(self.structure, {**self.arrays, **{f"{k}{START}": v for k, v in starts.items()}})

    def constrained(self, answer: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Learned parameters as the program sees them."""
        with runtime.jax_scope(self.precision):
            return {k: np.asarray(v) for k, v in self.structure.one.program.constrained(answer).items()}

    def learned(self, answer: Mapping[str, np.ndarray], given: Mapping[str, Any] | None = None) -> Target:
        """The target of a new point, given learned parameters.

        given: values of visible keywords, NaN where a part is unknown, and of inputs.
        """
        given = dict(given or {})
        if missing := [k for k in self.inputs if k not in given]:
            raise TypeError(
                f"A point is drawn given {', '.join(missing)}: say {missing[0]}=... in fit.sample or fit.condition."
            )
        data: dict[str, Any] = {k: np.asarray(v) for k, v in self.rest.items()}
        data |= {k: np.asarray(given.pop(k), self.arrays[k].dtype) for k in self.inputs}
        data |= {k: np.asarray(answer[k]) for k in self.structure.parameters} | dict(self.structure.static)
        for keyword in [k for k, v in given.items() if isinstance(v, Combined)]:
            data |= combined.data_of(self.keywords[keyword], given.pop(keyword))
        for keyword, value in given.items():
            if self.variables[self.keywords[keyword]].kind == "other" and 0 < np.isnan(value).sum() < np.size(value):
                raise ValueError(f"{keyword} is bounded; only bits, levels and unbounded reals can be known in part.")
            data |= partly(keyword, self.keywords[keyword], np.asarray(value, self.precision))
        return engine.load(self.engine).prepare(self.structure.one.program, data, self.precision)

    def initial(self, key: Any, from_data: bool = True) -> dict[str, Any]:
        """The parameters as labelled arrays, unconstrained, before learning."""
        del from_data
        program = self.structure.one.program
        found = initial_arrays(program, self.shared, self.structure.static, key)
        return self.started({k: jnp.asarray(v, self.precision) for k, v in found.items()})

    def first_shapes(self) -> dict[str, Any]:
        """The shapes and types of `initial`."""
        begin = functools.partial(first_parameters, type(self), self.structure)
        with runtime.jax_scope(self.precision):
            return dict(jax.eval_shape(begin, self.arrays, jax.random.key(0)))

    def lowered(self) -> str:
        s = self.structure
        return f"{super().lowered()} {s.rows} {s.grey} {s.blocks} {self._lowered()}"

    def _lowered(self) -> str:
        """The start of the parameters and, where they are learned from, draws, and a critic's judgements, as text."""
        with runtime.jax_scope(self.precision):
            of = lambda arrays: type(self)(self.structure, arrays)  # noqa: E731
            key = jax.random.key(0)
            texts = [first_parameters.lower(type(self), self.structure, self.arrays, key).as_text()]
            if self.structure.by_draws or self.structure.opponent is not None:
                play = jax.jit(lambda arrays, key: of(arrays).played(key))
                texts.append(play.lower(self.arrays, key).as_text())
        return " ".join(texts)

    # ---- draws, and a critic of them

    def drawable(self) -> tuple[str, ...]:
        with runtime.jax_scope(self.precision):
            return draws.check(self)

    def simulated(self, key: Any, parameters: Any, row: Any, given: Any = None) -> dict[str, Any]:
        """The visible sites as drawn, differentiable in the parameters, with the row's inputs; given: values of other sites."""
        return draws.simulated(self, key, parameters, row, given or {})

    def learned_by_draws(self) -> NumpyroRows:
        """The same for a learner that has no critic and sees draws alone."""
        found = type(self)(self.structure.but(by_draws=True), self.arrays)
        found.notes = self.notes
        return found

    def played(self, key: Any) -> Any:
        """All that learners from draws compute of the program: draws for two packs of rows, and what a critic says of both."""
        parameters, batch = self.initial(key), self.rows(jnp.arange(2 * self.structure.pack) % self.num_rows)
        points = draws.of_rows(self, key, parameters, batch)
        if self.structure.opponent is None:
            return points
        critic = self.critic_initial(key)
        return points, self.logits(critic, points), self.logits(critic, batch)

    def judged_by(self, critic: Any, pack: int = 1) -> NumpyroRows:
        from probgen.engine.numpyro.targets import critics

        return critics.judged_by(self, critic, pack)

    def critic_initial(self, key: Any) -> dict[str, Any]:
        """The critic's parameters as labelled arrays, unconstrained, before learning."""
        from probgen.engine.numpyro.targets import critics

        return critics.initial(self, key)

    def rivals(self, key: Any) -> dict[str, Any]:
        """All parameters of critics before learning, as an answer calls them."""
        return {f"{k}{CRITIC}": v for k, v in self.critic_initial(key).items()}

    def logits(self, parameters: Any, points: Any) -> Any:
        """What the critic says of points {site: (row, *event)}, with their inputs by keyword: (row,), or (row / pack,)."""
        from probgen.engine.numpyro.targets import critics

        return critics.logits(self, parameters, points)


def partly(keyword: str, site: str, value: np.ndarray) -> dict[str, np.ndarray]:
    """The data of a site: itself where it is known, else its known part and where that is (not NaN)."""
    known = ~np.isnan(value)
    if known.all():
        return {keyword: value}
    return {f"{site} known": known, f"{site} value": np.where(known, value, 0.0)}
