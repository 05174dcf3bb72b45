"""What every program about a user's program has: its name, its parameters, and the program as its author wrote it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


class About:
    """A callable with an attribute `program`, which takes what that takes and answers to its name."""

    program: Callable[..., Any]

    @property
    def base(self) -> Callable[..., Any]:
        """The program as its author wrote it."""
        return getattr(self.program, "base", self.program)

    @property
    def __name__(self) -> str:
        return getattr(self.program, "__name__", type(self.program).__name__)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.program)
