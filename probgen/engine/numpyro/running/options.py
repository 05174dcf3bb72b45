"""How hard XLA works on code: what runs once is worth less work than what runs a thousand times."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from probgen import runtime
from probgen.algorithm import Inference, Sampler
from probgen.engine.numpyro.running import small
from probgen.engine.numpyro.running.loops import answer, chunk, init, init_at

FEW = 30_000  # numbers that code reads and writes up to which code that runs once takes no time either way
# Of a density: the longest axis of its data, and numbers of an array up to which plain loops are as fast as others. XLA makes most
# of these one function with the loop around them, see `runtime.SMALL_LOOP`.
ROWS, NUMBERS = 1_500, 12_000


def options(
    make: Callable[..., Any], kernel: Inference, leaves: list[Any], arrays: list[Any], density: str
) -> dict[str, Any]:
    """The compiler's options for a function of leaves, the target's arrays among them; density: its text.

    `init` and `answer` run once a chain: compiling them is the longer part, but where the density has a loop of its own, as a scan.
    Flags that the user has set hold for all.
    """
    if any(name in runtime.xla_flags() for name in runtime.ONCE):
        return {}
    if make in (init, init_at, answer):
        few = _size(leaves) <= FEW and not small.loops(density)
        return runtime.ONCE | ({runtime.LEVEL: 0} if few else {})
    longest = max((axis for array in arrays for axis in array.shape), default=0)
    plain = longest <= ROWS and max(_size(arrays), _largest(density)) <= NUMBERS
    return runtime.ONCE if make is chunk and isinstance(kernel, Sampler) and plain else {}


def _largest(text: str) -> int:
    """Numbers of the largest array in lowered code."""
    shapes = set(re.findall(r"tensor<(\d+(?:x\d+)*)x[a-z]", text))
    return max((math.prod(map(int, shape.split("x"))) for shape in shapes), default=0)


def _size(leaves: list[Any]) -> int:
    return sum(math.prod(leaf.shape) for leaf in leaves)
