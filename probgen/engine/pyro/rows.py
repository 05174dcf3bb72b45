"""Pyro programs with parameters, learned from rows.

Such a program takes a batch of rows at once, the first axis of all its sites, in a plate as a rule:

    def program(x):
        decoder = pyro.module("decoder", net)
        with pyro.plate("row", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(8), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

The number of rows is read off the data alone: the program is run on batches, on copies of rows, and on rows that stand in for
new points.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from probgen import engine
from probgen.algorithm import Incompatible
from probgen.data.checks import check_begun, taken
from probgen.data.grey import note
from probgen.engine.pyro.executor import OPS
from probgen.engine.pyro.games import critics, draws
from probgen.engine.pyro.graph import SMALL, Watch
from probgen.engine.pyro.noise.chains import Short
from probgen.engine.pyro.noise.completing import seen_in_part
from probgen.engine.pyro.programs import data as pyro_data
from probgen.engine.pyro.programs.density import scoped
from probgen.engine.pyro.programs.looks import FEW, looked, traced
from probgen.engine.pyro.programs.parameters import Learned, Parameter, given
from probgen.engine.pyro.targets import PyroSimulable
from probgen.programs.pinned import check_pins
from probgen.target import CRITIC, START, Generative, Site, Target, Variable

IN_PART = (
    "Points that are known in part are for NumPyro programs, and for those Pyro programs whose one visible site a denoiser makes "
    "of noise.\nGive a whole one, or write the program for NumPyro."
)
AT_ONCE = 2000  # rows that a net is given at once outside of learning


@dataclass(frozen=True, eq=False)
class Learning:
    """What one look at a program tells: where its rows are, its sites, its parameters and the modules that hold them."""

    program: Callable[..., Any]
    static: Mapping[str, Any]
    precision: str
    rows: tuple[tuple[str, str], ...]  # data keyword, site
    inputs: tuple[str, ...]
    sites: tuple[Site, ...]
    variables: tuple[Variable, ...]
    grey: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    roots: tuple[nn.Module, ...]
    proper: bool

    @functools.cached_property
    def learned(self) -> Learned:
        """The program whose parameters are data; one object, so that the compiled code of one point serves for all."""
        return Learned(self.program, self.parameters, self.roots)


def data_of(static: Mapping[str, Any], arrays: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Data on the host."""
    return {**static, **{k: v.cpu().numpy() for k, v in arrays.items()}}


def host(x: torch.Tensor, variable: Variable) -> np.ndarray:
    """Values of a site, or its means, as an array (row, *shape)."""
    return x.reshape(-1, *variable.shape).cpu().numpy()


def are_bits(rows: torch.Tensor) -> bool:
    """Whether these are zeros and ones in more than one column, as integers: networks take them as numbers."""
    return rows.dtype is torch.int64 and rows.dim() > 1 and bool(((rows == 0) | (rows == 1)).all())


def _batch(rows: torch.Tensor, index: Any, precision: str) -> torch.Tensor:
    """Some rows; bits are numbers."""
    found = rows[index]
    return found.to(getattr(torch, precision)) if found.dtype is torch.bool else found


class PyroRows(Generative):
    """A program of a batch of rows, and the rows; opponent: a critic, where it plays against one, of `pack` rows at once."""

    engine = "pyro"
    ops = OPS
    opponent: Any = None
    pack = 1

    def __init__(self, structure: Learning, tensors: Mapping[str, torch.Tensor], data: Mapping[str, Any]) -> None:
        self.structure, self.tensors, self.data = structure, dict(tensors), data
        self.sites, self.precision = structure.sites, structure.precision
        self.keywords, self.inputs, self.grey = dict(structure.rows), structure.inputs, structure.grey
        self.proper, self.num_rows = structure.proper, len(next(iter(tensors.values())))
        self.visible = [v for v in structure.variables if v.name in self.keywords.values()]
        self.hidden = [v for v in structure.variables if v.name not in self.keywords.values()]
        self.row_sites = tuple(s for s in structure.sites if s.source)
        self.notes = note(self)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters."""
        return self.structure.parameters

    @property
    def roots(self) -> tuple[nn.Module, ...]:
        """The modules that hold parameters."""
        return self.structure.roots

    @property
    def dim(self) -> int:
        """How many parameters there are."""
        return len(self.parameters)

    def largest(self, rows: int) -> int:
        """Numbers of the largest array of a batch of so many rows, or of a parameter."""
        arrays = self.batch(torch.arange(rows - rows % self.pack) % self.num_rows)
        data = taken(self.structure.program, {**self.structure.static, **self._named(arrays)})
        with suppress(Exception), Watch(()) as watch:  # what fails is told where it is run
            values = looked(self.structure.program, data, self.precision)[1].values
            if self.opponent is not None:
                values = {**values, **critics.looked_at(self, arrays, 0).values}
            return max(watch.largest, *(v.numel() for v in values.values()))
        return SMALL + 1

    def initial(self, seed: int) -> dict[str, torch.Tensor]:
        """The parameters before learning, unconstrained: drawn anew, or what a module of the user's holds."""
        return self._looked(self.structure.program, seed)

    def _looked(self, program: Callable[..., Any], seed: int) -> dict[str, torch.Tensor]:
        rows = self.batch(torch.arange(FEW) % self.num_rows)
        _, seen = looked(program, taken(program, {**self.structure.static, **self._named(rows)}), self.precision, seed)
        return self.started(seen.values)

    def started(self, found: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Parameters, with those put in that begin elsewhere."""
        starts = {k: self.data.get(f"{k}{START}") for k in found}
        return {k: v if starts[k] is None else torch.as_tensor(starts[k]).to(v) for k, v in found.items()}

    def begun(self, answer: Mapping[str, np.ndarray]) -> PyroRows:
        shapes = {k: tuple(v.shape) for k, v in self.initial(0).items()}
        if self.opponent is not None:  # a critic of other shapes, as of other packs, begins anew
            rival = {f"{k}{CRITIC}": tuple(v.shape) for k, v in self.critic_initial(0).items()}
            shapes |= rival if all(answer[k].shape == v for k, v in rival.items() if k in answer) else {}
        found = copy.copy(self)
        found.data = {**self.data, **{f"{k}{START}": v for k, v in check_begun(shapes, answer).items()}}
        return found

    # ---- rows

    def batch(self, index: torch.Tensor, seed: int = 0) -> dict[str, torch.Tensor]:
        """Some rows {site: (row, *event)} and their inputs by keyword; bits of grey levels are drawn by the seed."""
        found = {site: _batch(self.tensors[k], index, self.precision) for k, site in self.keywords.items()}
        found |= self._bits({site: found[site] for site in self.grey}, seed)
        return found | {k: _batch(self.tensors[k], index, self.precision) for k in self.inputs}

    def _bits(self, levels: Mapping[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
        """Bits drawn of grey levels (row, *event), each site by a seed of its own."""
        drawn = {}
        for i, (site, level) in enumerate(sorted(levels.items())):
            generator = torch.Generator().manual_seed(OPS.seed(OPS.fold_in(OPS.key(seed), i)))
            uniform = torch.rand(level.shape, generator=generator, dtype=level.dtype).to(level.device)
            drawn[site] = (uniform < level).to(level.dtype)
        return drawn

    def check_indices(self, rows: Mapping[str, Any], answer: Mapping[str, Any] | None = None) -> None:
        """OutOfRange for rows {site or input: (row, *event)} that the program takes for indices out of range; by a run on a few."""
        if not rows:
            return
        few = pyro_data.extremes(rows, list(rows))
        given = self.from_host({k: np.asarray(v.cpu() if hasattr(v, "cpu") else v)[few] for k, v in rows.items()})
        part = self.stand_ins(len(few)) | given
        held = {k: np.asarray(v.cpu() if hasattr(v, "cpu") else v) for k, v in rows.items() if k in self.inputs}
        with pyro_data.in_words(held), torch.no_grad():
            if answer is None:
                data = taken(self.structure.program, {**self.structure.static, **self._named(part)})
                looked(self.structure.program, data, self.precision)
            else:
                with self.running(self.as_tensors(answer), 0):
                    self.told(part, Short())

    def drawn(self, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {k: v.cpu().numpy().astype(float) for k, v in self._bits(self.from_host(rows), 0).items()}

    def all_rows(self) -> dict[str, np.ndarray]:
        return {k: v.cpu().numpy().astype(float) for k, v in self.batch(torch.arange(self.num_rows)).items()}

    def from_host(self, rows: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Rows that the caller gave, as the program takes them."""
        like = {site: k for k, site in self.keywords.items()}
        kinds = {k: self.tensors[like.get(k, k)].dtype for k in rows if like.get(k, k) in self.tensors}
        return {k: _cast(v, kinds.get(k), self.precision) for k, v in rows.items()}

    def _named(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Rows by keyword."""
        return {k: rows[site] for k, site in self.keywords.items() if site in rows} | {k: rows[k] for k in self.inputs}

    def stand_ins(self, count: int) -> dict[str, torch.Tensor]:
        """Rows of zeros in place of the visible sites' values."""
        like = {site: self.tensors[k] for k, site in self.keywords.items()}
        return {k: _batch(v[:1].new_zeros((count, *v.shape[1:])), slice(None), self.precision) for k, v in like.items()}

    # ---- runs

    @contextmanager
    def running(self, values: Mapping[str, torch.Tensor], seed: int, train: bool = False) -> Iterator[None]:
        """Runs of the program inside see these parameters, and draw by the seed."""
        with scoped(self.precision, seed=seed), self.holding(values, train):
            yield

    def holding(self, values: Mapping[str, torch.Tensor], train: bool = False) -> Any:
        """A scope, inside `scoped`, in which the program sees these parameters."""
        return given(self.parameters, values, self.roots, train)

    def told(self, rows: Mapping[str, Any], *handlers: Any) -> dict[str, Any]:
        """The program's sites on rows, inside `running`: Pyro's messages, by name."""
        return traced(self.structure.program, {**self.structure.static, **self._named(rows)}, handlers)

    def as_tensors(self, answer: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Parameters as the program takes them."""
        device = next(iter(self.tensors.values())).device
        return {k: _cast(v, None, self.precision).to(device) for k, v in answer.items()}

    def constrained(self, answer: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        from torch.distributions import transform_to

        tensors, by_name = self.as_tensors(answer), {p.name: p.constraint for p in self.parameters}
        own = {k: transform_to(by_name[k])(v).cpu().numpy() for k, v in tensors.items() if k in by_name}
        return {**own, **{k: v.cpu().numpy() for k, v in tensors.items() if k not in own}}  # a critic's

    # ---- draws, and a critic of them

    def drawable(self) -> tuple[str, ...]:
        return draws.check(self)

    def simulated(self, rows: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> dict[str, torch.Tensor]:
        """The visible sites as drawn, inside `running`, differentiable in the parameters, with the rows' inputs by keyword.

        {site: (row, *event)}; given: values (row, *event) of other sites.
        """
        return draws.of_rows(self, rows, given or {})

    def learned_by_draws(self) -> PyroRows:
        """The same for a learner that has no critic and sees draws alone."""
        return copy.copy(self)

    def judged_by(self, critic: Callable[..., Any] | None, pack: int = 1) -> PyroRows:
        """The target with a critic, by default one made for the shape of its rows; see `critics.judged_by`."""
        return critics.judged_by(self, critic, pack)

    def critic_initial(self, seed: int) -> dict[str, torch.Tensor]:
        """The critic's parameters before learning, unconstrained."""
        return critics.initial(self, seed)

    def judging(self, values: Mapping[str, torch.Tensor], train: bool = False) -> Any:
        """A scope, inside `running` or `scoped`, in which `logits` sees these parameters of the critic."""
        return given(self.opponent.parameters, values, self.opponent.roots, train)

    def logits(self, points: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the critic says of points {site: (row, *event)}, inside `judging`, with their inputs by keyword: (row / pack,)."""
        return critics.logits(self, points)

    # ---- new points

    def learned(self, answer: Mapping[str, np.ndarray], given: Mapping[str, Any] | None = None) -> Target:
        """The target of a new point, given learned parameters; a batch of one row for the program."""
        given = dict(given or {})
        self.check_inputs(answer, given)
        if seen_in_part(given):
            raise Incompatible(IN_PART)
        known = [k for k in self.keywords if k in given]
        if known and len(known) < len(self.keywords):
            raise Incompatible(f"Give all of {', '.join(self.keywords)}, or none: parts are for NumPyro programs.")
        names = {p.name for p in self.structure.parameters}
        own = {k: v for k, v in answer.items() if k in names}
        if not known:
            return PyroNewPoint(PyroRows(self.structure, self.tensors, self.data), own, given)
        like = {**self.keywords, **{k: k for k in self.inputs}}
        rows = self.from_host({like[k]: np.asarray(v)[None] for k, v in given.items()})
        data = {**data_of({}, self._named(rows)), **self.structure.static, **own}
        return engine.load(self.engine).prepare(self.structure.learned, data, "float64")

    def check_inputs(self, answer: Mapping[str, np.ndarray], given: Mapping[str, Any]) -> None:
        """Raise TypeError where an input of a new point is not given, OutOfRange for an index out of range."""
        check_pins(self)
        if missing := [k for k in self.inputs if k not in given]:
            raise TypeError(
                f"A point is drawn given {', '.join(missing)}: say {missing[0]}=... in fit.sample or fit.condition."
            )
        if self.inputs:
            ours = {k: v for k, v in self.batch(torch.arange(1)).items() if k not in self.inputs}
            ours |= {k: np.asarray(given[k])[None] for k in self.inputs}
            self.check_indices(ours, answer)

    def reads_rows(self, answer: Mapping[str, np.ndarray]) -> bool:
        """Whether what the program draws depends on the rows that stand in: it cannot be run forward."""
        zeros = self.stand_ins(FEW)
        ones = {k: torch.ones_like(v) for k, v in zeros.items()}
        drawn = []
        for rows in (zeros, ones):
            inputs = self.batch(torch.arange(FEW) % self.num_rows)
            with self.running(self.as_tensors(answer), 0), torch.no_grad():
                drawn.append(self.told(inputs | rows, Short(), pyro_data.Unobserved()))
        return any(not _same(n["value"], drawn[1][k]["value"]) for k, n in drawn[0].items())


class PyroNewPoint(PyroSimulable):
    """A point of which only inputs are known: the program is run forward."""

    def __init__(self, base: PyroRows, answer: Mapping[str, np.ndarray], inputs: Mapping[str, Any]) -> None:
        self.base, self.answer, self.given = base, answer, inputs
        self.sites, self.precision, self.data = base.sites, base.precision, {**base.data, **inputs}
        self.dim = 0

    def sample(self, num_samples: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
        check_pins(self)
        if self.base.reads_rows(self.answer):
            raise Incompatible(
                "The program's distributions depend on the very data that they are of, so that it cannot be run forward.\n"
                "Write it for NumPyro, whose autoregressive distributions can be drawn from."
            )
        repeated = {k: np.repeat(np.asarray(v)[None], num_samples, 0) for k, v in self.given.items()}
        rows = self.base.stand_ins(num_samples) | self.base.from_host(repeated)
        with self.base.running(self.base.as_tensors(self.answer), seed), torch.no_grad():
            nodes = self.base.told(rows, pyro_data.Unobserved())
        return {v.name: host(nodes[v.name]["value"], v) for v in self.base.structure.variables}


def parts(rows: Mapping[str, torch.Tensor], size: int) -> Iterator[dict[str, torch.Tensor]]:
    """So many rows at a time."""
    for start in range(0, len(next(iter(rows.values()))), size):
        yield {k: v[start : start + size] for k, v in rows.items()}


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two arrays are equal, NaN where the other is too: of parameters that are NaN all that is drawn is."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def _cast(value: Any, kind: torch.dtype | None, precision: str) -> torch.Tensor:
    """A tensor of a kind: bits and reals in `precision`, integers in 64 bits."""
    tensor = torch.as_tensor(np.array(value))
    if kind is None or kind.is_floating_point or kind is torch.bool:
        return tensor.to(getattr(torch, precision))
    return tensor.to(torch.int64)
