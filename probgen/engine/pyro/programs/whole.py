"""Pyro programs with parameters beside unknowns, on their whole data; see `probgen.engine.numpyro.programs.whole`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import nn
from torch.distributions import constraints, transform_to

from probgen.engine.pyro.graph import LinAlgError
from probgen.engine.pyro.programs.density import Unknowns, scoped, whole_plates
from probgen.engine.pyro.programs.onto import onto
from probgen.engine.pyro.programs.parameters import Learned, Parameter, Registered, given

TRIES = 5  # points at which a program is looked at


class PointMeasure(TorchDistribution):
    """A measure on a constrained tensor that is flat in unconstrained coordinates: its log density is minus the log-Jacobian."""

    arg_constraints: dict = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, shape: torch.Size, constraint: Any) -> None:
        rest = len(shape) - constraint.event_dim
        self.constraint = constraints.independent(constraint, rest) if rest else constraint
        super().__init__(torch.Size(), shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.constraint

    def rsample(self, sample_shape: Any = torch.Size()) -> torch.Tensor:  # noqa: B008
        """The image of zero: a point has no prior to be drawn from."""
        transform = onto(self.constraint)
        return transform(torch.zeros((*sample_shape, *transform.inverse_shape(self.event_shape))))

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        transform: Any = onto(self.constraint)
        return -transform.log_abs_det_jacobian(transform.inv(value), value)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Itself: it stands in no plate."""
        return self


class Whole:
    """A program whose parameters are sites of a flat measure, by their names."""

    def __init__(
        self,
        program: Callable[..., Any],
        parameters: Sequence[Parameter],
        roots: Sequence[nn.Module],
        shapes: Mapping[str, torch.Size],
    ) -> None:
        self.program, self.parameters, self.roots, self.shapes = program, tuple(parameters), tuple(roots), shapes

    def __call__(self, *args: Any, **data: Any) -> Any:
        values = {p.name: pyro.sample(p.name, PointMeasure(self.shapes[p.name], p.constraint)) for p in self.parameters}
        with poutine.block(hide_types=["param"]), given(self.parameters, values, self.roots, constrained=True):
            return self.program(*args, **data)

    def initial(self, data: Mapping[str, Any], precision: str, seed: int) -> dict[str, torch.Tensor]:
        """Where the program says that its parameters begin: unconstrained, by name."""
        seen = registered(self.program, data, precision, seed)
        constrained = {p.name: transform_to(p.constraint)(seen.values[p.name]) for p in self.parameters}
        return {p.name: onto(p.constraint).inv(constrained[p.name]) for p in self.parameters}

    @property
    def base(self) -> Callable[..., Any]:
        """The program as its author wrote it."""
        return self.program

    @property
    def __name__(self) -> str:
        return getattr(self.program, "__name__", "program")


def registered(program: Callable[..., Any], data: Mapping[str, Any], precision: str, seed: int = 0) -> Registered:
    """The parameters that a program registers, its unknowns at small unconstrained values: priors may have no draws.

    Tried at a few points, in case the program's own arithmetic fails at one, on all rows of plates, and on minibatches.
    """
    for attempt in range(TRIES):
        try:
            return _registered(program, data, precision, seed, attempt, whole_plates())
        except (ValueError, ArithmeticError, LinAlgError) as error:
            if attempt == 0:
                with suppress(Exception):
                    return _registered(program, data, precision, seed, attempt, nullcontext())
            if attempt == TRIES - 1:
                raise error
    raise AssertionError("unreachable")


def _registered(
    program: Callable[..., Any], data: Mapping[str, Any], precision: str, seed: int, attempt: int, plates: Any
) -> Registered:
    rng, seen = np.random.default_rng(attempt), Registered()
    give = Unknowns(lambda _, shape: torch.as_tensor(rng.uniform(-0.5, 0.5, shape)).to(getattr(torch, precision)))
    with scoped(precision, seed=seed), torch.no_grad(), seen, plates, give:
        program(**data)
    return seen


def whole(program: Callable[..., Any], data: Mapping[str, Any], precision: str) -> Callable[..., Any]:
    """The program with its parameters as sites; itself where it has none, or where they are data already."""
    if isinstance(program, Learned):
        return program
    seen = registered(program, data, precision)
    if not seen.found:
        return program
    parameters = list(seen.found.values())
    shapes = {p.name: transform_to(p.constraint)(seen.values[p.name]).shape for p in parameters}
    return Whole(program, parameters, seen.roots, shapes)
