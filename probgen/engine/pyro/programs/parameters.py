"""Parameters of Pyro programs (`pyro.param`, `pyro.module`, modules of `pyro.nn`) as tensors that are given from outside.

Neither the parameter store nor a module is left changed: where a parameter belongs to a module, the module holds the given tensor
for the time of a run.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro
import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import nn
from torch.distributions import constraints, transform_to
from torch.nn.modules.batchnorm import _BatchNorm

from probgen.engine.pyro.programs.types import Lifted

_MODULE, _ATTRIBUTE = pyro.module.__code__, PyroModule.__getattr__.__code__


class Parameter(NamedTuple):
    """One of a program's parameters.

    module, attribute: where the unconstrained tensor lives, if in a module; owner: the module that it belongs to, PyroParams too.
    """

    name: str
    constraint: Any
    module: nn.Module | None
    attribute: str
    owner: nn.Module | None = None


class Registered(Messenger):
    """Notes the parameters of a run, their unconstrained values, and the modules that they were registered with."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Parameter] = {}
        self.values: dict[str, torch.Tensor] = {}
        self.roots: list[nn.Module] = []
        self.fixed: set[str] = set()  # by handlers of the program's own, such as poutine.substitute

    def _pyro_param(self, msg: Any) -> None:
        if msg["value"] is not None:
            self.fixed.add(msg["name"])

    def _pyro_post_param(self, msg: Any) -> None:
        if msg["name"] in self.fixed:
            return
        name, module, attribute, owner = msg["name"], None, "", None
        constraint = msg["kwargs"].get("constraint") or constraints.real
        frame: Any = sys._getframe()
        while frame is not None:
            known = frame.f_locals if frame.f_code in (_MODULE, _ATTRIBUTE) else None
            if known and frame.f_code is _MODULE:
                root, path = known["nn_module"], known["param_name"]
                parent, _, attribute = path.rpartition(".")
                module = root.get_submodule(parent)
                owner = module
                self._root(root)
                break
            if known:
                module, attribute = known["self"], known["name"]
                self._root(module)
                owner, own = module, module.__dict__.get("_pyro_params", {})
                if attribute in own:
                    constraint, module = own[attribute][0], None
                break
            frame = frame.f_back
        self.found[name] = Parameter(name, constraint, module, attribute, owner)
        self.values[name] = transform_to(constraint).inv(msg["value"].detach()).clone()

    def _root(self, module: nn.Module) -> None:
        if not any(module is m for root in self.roots for m in root.modules()):
            self.roots.append(module)


class _Put(Messenger):
    def __init__(
        self, parameters: Sequence[Parameter], values: Mapping[str, torch.Tensor], constrained: bool = False
    ) -> None:
        super().__init__()
        self.parameters, self.values, self.constrained = {p.name: p for p in parameters}, values, constrained

    def _pyro_param(self, msg: Any) -> None:
        name = msg["name"]
        if msg["done"]:
            return
        if name not in self.parameters:
            raise ValueError(f"The program registers parameter {name!r} in some runs only.\nRegister it in every run.")
        constraint, value = self.parameters[name].constraint, self.values[name]
        same = self.constrained or constraint is constraints.real
        msg["value"] = value if same else transform_to(constraint)(value)
        # Programs ask for it, as Pyro's store gives it.
        inverse = transform_to(constraint).inv if self.constrained and constraint is not constraints.real else None
        msg["value"].unconstrained = weakref.ref(value) if inverse is None else lambda: inverse(value)
        msg["done"] = True


@contextmanager
def unmoved() -> Iterator[None]:
    """A scope in which batch normalisation in training mode takes mean and variance of its rows, and changes no running ones.

    A density is then a function of parameters and data alone, and a user's module stays as it is.
    """
    before = _BatchNorm.forward

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        if not (self.training and self.track_running_stats):
            return before(self, x)
        self.track_running_stats = False
        try:
            return before(self, x)
        finally:
            self.track_running_stats = True

    _BatchNorm.forward = forward  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        _BatchNorm.forward = before


@contextmanager
def given(
    parameters: Sequence[Parameter],
    values: Mapping[str, torch.Tensor],
    roots: Sequence[nn.Module] = (),
    train: bool = False,
    constrained: bool = False,
) -> Iterator[None]:
    """Runs inside see these values by name, unconstrained unless said.

    roots: modules that are in training mode or not; batch normalisation always is.
    """
    owned: list[tuple[Any, Parameter]] = [(p.module, p) for p in parameters if p.module is not None]
    before = [module._parameters[p.attribute] for module, p in owned]
    beside = [(module, found) for module, _ in owned if (found := _lists(module))]
    modules = [m for root in roots for m in root.modules()]
    modes = [(m, m.training) for m in modules if m.training != (train or isinstance(m, _BatchNorm))]
    try:
        for owner, p in owned:
            owner._parameters[p.attribute] = values[p.name]
        for module, mode in modes:
            module.training = not mode
        with _Put(parameters, values, constrained), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*was not registered in the param store")
            yield
    finally:
        for (owner, p), value in zip(owned, before, strict=True):
            owner._parameters[p.attribute] = value
        for module, mode in modes:
            module.training = mode
        for module, lists in beside:
            vars(module).update(lists)


def _lists(module: Any) -> dict[str, Any]:
    """What a recurrent network keeps of its parameters beside them, and makes anew in a run with others."""
    return {k: v for k, v in vars(module).items() if k in ("_flat_weights", "_flat_weight_refs")}


class Learned:
    """A program whose parameters are data: a keyword for every one, unconstrained."""

    def __init__(
        self, program: Callable[..., Any], parameters: Sequence[Parameter], roots: Sequence[nn.Module]
    ) -> None:
        self.program, self.sites, self.roots = program, tuple(parameters), tuple(roots)

    def __call__(self, **data: Any) -> Any:
        values = {name: data.pop(name) for name in self.parameters}
        with given(self.sites, values, self.roots):
            return self.program(**data)

    @property
    def base(self) -> Callable[..., Any]:
        """The program as its author wrote it."""
        return self.program.program if isinstance(self.program, Lifted) else self.program

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters' names."""
        return tuple(p.name for p in self.sites)

    @property
    def __name__(self) -> str:
        return getattr(self.program, "__name__", "program")
