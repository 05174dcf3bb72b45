"""Pyro's automatic guides (`AutoNormal`, ...) as guides of a program: copies, so that the user's own stays as it is."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from pyro.infer import autoguide
from pyro.poutine.messenger import Messenger

from probgen.programs.arguments import laid_out
from probgen.programs.autoguides import unwrapped


class Automatic:
    """An automatic guide of a program, called with the program's data.

    program: whose unknowns it draws; made: a guide of the library, or a class of them; settings: of the class, or what the guide is
    always called with (`functools.partial(guide, args=args)`).
    finite: unknowns that are summed out, which a class leaves out.
    """

    def __init__(self, guide: Any, program: Callable[..., Any], finite: frozenset[str]) -> None:
        self.made, self.settings = unwrapped(guide)
        self.whole, self.program = program, poutine.block(program, hide=sorted(finite)) if finite else program

    def fresh(self) -> Any:
        """A guide that nobody else has."""
        found = self.made(self.program, **self.settings) if isinstance(self.made, type) else _copied(self.made)
        for module in found.modules():
            if isinstance(module, autoguide.AutoGuide):
                module._model = (_Lifted()(module.model),)
        if isinstance(self.made, type):
            return found
        return laid_out(functools.partial(found, **self.settings) if self.settings else found, self.whole)

    @property
    def laplace(self) -> bool:
        """Whether it learns a mode, about which its draws are normal."""
        kind = self.made if isinstance(self.made, type) else type(self.made)
        return issubclass(kind, autoguide.AutoLaplaceApproximation)

    def __call__(self, **data: Any) -> Any:
        return self.fresh()(**data)

    @property
    def __name__(self) -> str:
        return getattr(self.made, "__name__", type(self.made).__name__)


class _Lifted(Messenger):
    """Draws have the run's precision: priors that were made outside of it draw in another one."""

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            msg["value"] = value.to(torch.get_default_dtype())


@contextmanager
def _graphs_cut() -> Iterator[None]:
    """A scope in which a tensor that was computed is copied without its history: a guide's first trace of a model may hold some."""
    original = torch.Tensor.__deepcopy__
    whole = lambda x: x if x.is_leaf else x.detach()  # noqa: E731
    torch.Tensor.__deepcopy__ = lambda self, memo: original(whole(self), memo)
    try:
        yield
    finally:
        torch.Tensor.__deepcopy__ = original


def _copied(guide: Any) -> Any:
    """A copy with the same model. Pyro drops a guide's model when that is copied, in the original too: it is put back."""
    own = [m for m in guide.modules() if isinstance(m, autoguide.AutoGuide)]
    kept = [(m._model, m.master) for m in own]
    try:
        with _graphs_cut():
            found = copy.deepcopy(guide)
    finally:
        for module, (model, master) in zip(own, kept, strict=True):
            module._model, module.master = model, master
    copies = [m for m in found.modules() if isinstance(m, autoguide.AutoGuide)]
    for module, (model, _) in zip(copies, kept, strict=True):
        module._model = model
    return found
