"""How hard XLA works on code: what runs once is worth less work than what runs a thousand times."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from probgen import runtime
from probgen.engine.numpyro.running.loops import answer, init, init_at

FEW = 10_000  # numbers that code reads and writes: so few that it takes no time either way


def options(make: Callable[..., Any], leaves: list[Any]) -> dict[str, Any]:
    """The compiler's options for a function of arrays of these shapes.

    `init` and `answer` run once a chain: compiling them is the longer part. A level that the user has set holds for all.
    """
    if make not in (init, init_at, answer) or runtime.LEVEL in os.environ.get("XLA_FLAGS", ""):
        return {}
    few = sum(math.prod(leaf.shape) for leaf in leaves) <= FEW
    return runtime.ONCE | {runtime.LEVEL: 0 if few else 1}
