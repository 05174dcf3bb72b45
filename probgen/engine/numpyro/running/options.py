"""How hard XLA works on code: what runs once is worth less work than what runs a thousand times."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from probgen import runtime
from probgen.engine.numpyro.running.loops import answer, chunk, init, init_at

SMALL = 3_000  # numbers that code reads and writes, up to which plain loops are as fast as others
FEW = 10_000  # up to which code that runs once takes no time either way, if its density has no loop of its own


def options(make: Callable[..., Any], leaves: list[Any], loops: bool) -> dict[str, Any]:
    """The compiler's options for a function of arrays of these shapes; loops: whether the density has any, as a scan.

    `init` and `answer` run once a chain: compiling them is the longer part. Flags that the user has set hold for all.
    """
    flags, size = os.environ.get("XLA_FLAGS", ""), sum(math.prod(leaf.shape) for leaf in leaves)
    if any(name in flags for name in runtime.ONCE):
        return {}
    if make in (init, init_at, answer):
        return runtime.ONCE | ({runtime.LEVEL: 0} if size <= FEW and not loops else {})
    return runtime.PLAIN if make is chunk and size <= SMALL else {}
