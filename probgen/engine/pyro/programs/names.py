"""Parameters of a guide whose names are those of other parameters of the program.

Two modules of `pyro.nn` that both have an attribute `net` register one name. Pyro's parameter store then gives both the tensor of
the first; two modules mean two tensors, so the guide's are called `guide.net.weight` and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyro.poutine.messenger import Messenger

from probgen.engine.pyro.programs.parameters import Parameter, Registered
from probgen.engine.pyro.programs.types import Lifted, in_its_type
from probgen.programs.about import About

PREFIX = "guide."
TOLD = "The guide's {} belongs to another module than the program's parameter of that name: the guide's is called {}."


class Apart(About):
    """A guide, some of whose parameters have other names."""

    def __init__(self, program: Callable[..., Any], names: frozenset[str]) -> None:
        self.program, self.names = program, names

    def __call__(self, *args: Any, **data: Any) -> Any:
        with _Renamed(self.names):
            return self.program(*args, **data)


class _Renamed(Messenger):
    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_param(self, msg: Any) -> None:
        if msg["name"] in self.names:
            msg["name"] = PREFIX + msg["name"]


def looked_at(
    guide: Callable[..., Any], look: Callable[[Any], tuple[Any, Registered]], own: Mapping[str, Parameter]
) -> tuple[Callable[..., Any], tuple[Any, Registered], tuple[str, ...]]:
    """The guide as it is to be run, what `look` tells of it, and notes; own: the program's parameters by name."""
    guide, found = in_its_type(guide, look)
    shared = {k for k, p in found[1].found.items() if k in own and _differ(p.owner, own[k].owner)}
    if not shared:
        return guide, found, ()
    guide = Apart(guide, frozenset(shared))
    names = sorted(shared)[:3]
    note = TOLD.format(", ".join(map(repr, names)), ", ".join(repr(PREFIX + k) for k in names))
    return guide, look(guide), (note,)


def wrapped_like(guide: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
    """Another guide run in the way that one was found to run in: its types lifted, its parameters' names its own."""
    if isinstance(other, Apart):
        return Apart(wrapped_like(guide, other.program), other.names)
    return Lifted(wrapped_like(guide, other.program)) if isinstance(other, Lifted) else guide


def _differ(one: Any, other: Any) -> bool:
    """Whether two parameters belong to two modules."""
    return one is not None and other is not None and one is not other
