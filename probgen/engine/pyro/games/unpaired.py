"""Maps between rows of two kinds that are no pairs, in Pyro: a program from a to b without noise, a guide back, a critic of each.

def program(a, b):
    with pyro.plate("row", len(a)):
        pyro.sample("b", dist.Delta(g(a), event_dim=1), obs=b)

def guide(b):
    with pyro.plate("row", len(b)):
        pyro.sample("a", dist.Delta(h(b), event_dim=1))

The twin of `probgen.engine.numpyro.targets.unpaired`. A critic is called with a alone, or with b alone; its parameters are learned
apart for each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch

from probgen.data.checks import taken
from probgen.engine.pyro.games import critics, draws
from probgen.engine.pyro.learnable import PyroImplicit
from probgen.engine.pyro.programs.data import innermost
from probgen.engine.pyro.programs.density import scoped
from probgen.engine.pyro.programs.looks import FEW, looked, refuse_batch_norm, traced
from probgen.engine.pyro.programs.parameters import Parameter
from probgen.programs.pinned import pinned
from probgen.target import Variable

Tensors = dict[str, torch.Tensor]


class Back(NamedTuple):
    """A guide as a look at it tells."""

    program: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    roots: tuple[Any, ...]


class PyroUnpaired(PyroImplicit):
    """Rows of both kinds, the program, the guide back, and the critics: targets of one kind each, by keyword.

    Rows of what is given may differ in number from those of what is drawn, and go round where there are fewer.
    """

    guide: Back | None = None
    sides: Mapping[str, Any] = {}

    def __init__(self, structure: Any, tensors: Mapping[str, torch.Tensor], data: Mapping[str, Any]) -> None:
        super().__init__(structure, tensors, data)
        self.num_rows = len(self.tensors[self.made])

    @property
    def given(self) -> str:
        """The keyword of what is mapped."""
        return self.inputs[0]

    @property
    def made(self) -> str:
        """The keyword of what it is mapped to."""
        return next(iter(self.keywords))

    @property
    def unpaired(self) -> bool:
        """Whether rows of both kinds are no partners; paired ones are learned without a way back."""
        return self.guide is not None

    @property
    def num_given(self) -> int:
        return len(self.tensors[self.given])

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (*super().parameters, *(self.guide.parameters if self.guide else ()))

    @property
    def roots(self) -> tuple[Any, ...]:
        return (*super().roots, *(self.guide.roots if self.guide else ()))

    def batch(self, index: torch.Tensor, seed: int = 0) -> Tensors:
        own = copy.copy(self)
        own.inputs = ()
        return PyroImplicit.batch(own, index, seed) | self.rows_given(index)

    def rows_given(self, index: torch.Tensor) -> Tensors:
        """Rows of what is mapped: {keyword: (row, *event)}."""
        kind = getattr(torch, self.precision)
        found = {k: self.tensors[k][index % len(self.tensors[k])] for k in self.inputs}
        return {k: v.to(kind) for k, v in found.items()} if self.guide else found

    def initial(self, seed: int) -> Tensors:
        found = super().initial(seed)
        if self.guide is None:
            return found
        rows = self.batch(torch.arange(FEW) % self.num_rows)[self.keywords[self.made]]
        seen = looked(self.guide.program, self._of(self.guide.program, {self.made: rows}), self.precision, seed + 1)[1]
        return found | self.started(seen.values)

    def begun(self, answer: Mapping[str, Any]) -> PyroUnpaired:
        """The target whose parameters begin where a fit ended, those of the critics too."""
        from probgen.data.checks import check_begun
        from probgen.target import START

        shapes = {k: tuple(v.shape) for k, v in {**self.initial(0), **named(self.critics_initial(0))}.items()}
        found = copy.copy(self)
        found.data = {**self.data, **{f"{k}{START}": v for k, v in check_begun(shapes, answer).items()}}
        return found

    # ---- both ways, inside `holding`

    def forth(self, x: torch.Tensor) -> torch.Tensor:
        """What the program makes of rows (row, *event)."""
        return draws.run(self, {self.given: x}, {}).values[self.keywords[self.made]]

    def back(self, x: torch.Tensor) -> torch.Tensor:
        """What the guide makes of rows (row, *event)."""
        assert self.guide is not None
        drawn = traced(self.guide.program, self._of(self.guide.program, {self.made: x}), ())
        if list(drawn) != [self.given]:
            raise ValueError(
                f"The guide draws {', '.join(drawn) or 'nothing'}; expected {self.given!r} alone, given {self.made}."
            )
        if not isinstance(innermost(drawn[self.given]["fn"]), dist.Delta):
            raise ValueError(f"The guide draws {self.given!r} with noise; a way back has none: Delta(h({self.made})).")
        return drawn[self.given]["value"]

    def said(self, keyword: str, values: Tensors, x: torch.Tensor, train: bool = False) -> torch.Tensor:
        """What the critic of one kind, with these parameters, says of rows of it, inside a scope: (row,)."""
        side = self.sides[keyword]
        with side.judging(values, train):
            return side.logits({side.visible[0].name: x})

    def critics_initial(self, seed: int) -> dict[str, Tensors]:
        """The critics' parameters before learning, by the keyword of what they see."""
        found = {k: side.critic_initial(seed + i) for i, (k, side) in enumerate(self.sides.items())}
        begun = self.started(named(found))
        return {k: {n: begun[of_critic(n, k)] for n in own} for k, own in found.items()}

    def _of(self, program: Callable[..., Any], data: Mapping[str, Any]) -> dict[str, Any]:
        """What a program takes of data and of all that is shared."""
        rest = {k: v for k, v in self.structure.static.items() if k not in self.keywords}
        return taken(program, {**rest, **data})


def of_critic(label: str, keyword: str) -> str:
    """The name in an answer of a parameter of the critic of one kind."""
    return f"{label} (critic of {keyword})"


def named(critics: Mapping[str, Tensors]) -> Tensors:
    """Parameters of both critics by their names in an answer."""
    return {of_critic(n, k): v for k, own in critics.items() for n, v in own.items()}


def both_ways(target: Any, guide: Callable[..., Any], critic: Callable[..., Any] | None) -> PyroUnpaired:
    """The target of a map with its way back, and its critics, by default made for the shapes of rows.

    Raises ValueError where guide or critic do not run, draw something else, mix rows, or share parameters with the program.
    """
    found, site = copy.copy(target), target.keywords[target.made]
    program = pinned(guide)
    found.guide = Back(program, (), ())
    rows = found.batch(torch.arange(FEW) % found.num_rows)
    try:
        seen = looked(program, found._of(program, {found.made: rows[site]}), found.precision)[1]
        found.guide = Back(program, tuple(seen.found.values()), tuple(seen.roots))
        with found.running(found.initial(0), 0), torch.no_grad():
            drawn = found.back(rows[site])
    except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"The guide does not run on rows of {found.made} alone: {str(error).partition(chr(10))[0]}"
        ) from error
    if shared := {p.name for p in seen.found.values()} & {p.name for p in target.parameters}:
        raise ValueError(f"The guide's parameter {min(shared)!r} is the program's as well; rename it.")
    if not seen.found:
        raise ValueError("The guide has no parameters to be learned: register its network with pyro.module.")
    refuse_batch_norm(seen.roots, "draw")
    shape, own = tuple(drawn.shape), (FEW, *target.tensors[target.given].shape[1:])
    if shape != own:
        raise ValueError(
            f"The guide draws {target.given!r} of shape {shape} for {FEW} rows of {target.made}; expected {own}."
        )
    found.sides = {k: _side(found, k, critic) for k in (target.given, target.made)}
    return found


def _side(target: PyroUnpaired, keyword: str, critic: Callable[..., Any] | None) -> PyroImplicit:
    """Rows of one kind alone, with their critic."""
    side: Any = PyroImplicit(target.structure, target.tensors, target.data)
    site = target.keywords.get(keyword, keyword)
    tensor = target.tensors[keyword].to(getattr(torch, target.precision))
    side.tensors, side.num_rows = {keyword: tensor}, len(tensor)
    side.keywords, side.inputs, side.grey = {keyword: site}, (), ()
    side.visible = [Variable(site, tuple(tensor.shape[1:]), "reals", 0, tensor.dim() > 1)]
    try:
        with scoped(target.precision):
            return critics.judged_by(side, critic, 1)
    except ValueError as error:
        raise ValueError(f"Of {keyword}: {error}") from error
