"""NumPyro's automatic guides (`AutoNormal`, ...) as guides of a program: made anew at every run.

A guide of the library keeps what it saw when it was first called: points to begin at, supports, the data themselves in some. Made
anew inside of every trace, it sees the data that the trace has as arguments, and what it looks for in vain costs nothing: the
compiler drops a search for points to begin at whose result is not used.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from numpyro import handlers
from numpyro.infer import autoguide

from probgen.programs.arguments import laid_out
from probgen.programs.autoguides import is_auto, parts, unwrapped
from probgen.programs.reads import digest_of


class Automatic:
    """An automatic guide of a program, called with the program's data.

    program: whose unknowns it draws; made: a guide of the library, or a class of them; settings: of the class, or what the guide is
    always called with (`functools.partial(guide, args=args)`).
    """

    def __init__(self, program: Callable[..., Any], made: Any, settings: dict[str, Any]) -> None:
        self.program, self.made, self.settings = program, made, settings

    def __call__(self, **data: Any) -> Any:
        return self.fresh()(**data)

    def fresh(self) -> Any:
        """The guide, not yet called."""
        if isinstance(self.made, type):
            return self.made(self.program, **self.settings)
        found = _uncalled(self.made)
        return laid_out(functools.partial(found, **self.settings) if self.settings else found, self.program)

    @property
    def laplace(self) -> bool:
        """Whether it learns a mode, about which its draws are normal."""
        kind = self.made if isinstance(self.made, type) else type(self.made)
        return issubclass(kind, autoguide.AutoLaplaceApproximation)

    @property
    def __name__(self) -> str:
        return getattr(self.made, "__name__", type(self.made).__name__)


def _uncalled(guide: Any) -> Any:
    """The guide as it was before its first call."""
    found = copy.copy(guide)
    for word, value in vars(guide).items():
        if isinstance(value, dict):
            setattr(found, word, {})
    found.prototype_trace = None  # a dictionary, once called
    if (own := parts(guide)) is not None:
        found._guides = [_uncalled(part) if is_auto(part) else part for part in own]
    return found


class _Words:
    """Settings told apart by their content, which need not be hashable."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.mark = tuple((k, digest_of(v) or id(v)) for k, v in sorted(settings.items()))

    def __hash__(self) -> int:
        return hash(self.mark)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Words) and self.mark == other.mark


def automatic(guide: Any, program: Callable[..., Any], finite: tuple[str, ...]) -> Automatic:
    """The guide of a program, the same object for the same guide; finite: unknowns that are summed out, left out by a class."""
    made, settings = unwrapped(guide)
    return _automatic(made, _Words(settings), program, finite if isinstance(made, type) else ())


@functools.lru_cache(maxsize=64)
def _automatic(made: Any, words: _Words, program: Callable[..., Any], finite: tuple[str, ...]) -> Automatic:
    if finite:  # it sees no random key either, once it is hidden
        program = handlers.block(handlers.seed(program, 0), hide=list(finite))
    return Automatic(program, made, words.settings)
