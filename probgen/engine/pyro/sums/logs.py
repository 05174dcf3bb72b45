"""Pyro's logarithm with bounded gradients, in a form that `torch.vmap` can follow.

Sums over finite unknowns end in `pyro.ops.special.safe_log`. Its class says its gradient alone, so that densities at many points
went one by one; this one computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.ops import special


class SafeLog(torch.autograd.Function):
    """log x, with the gradient 1 / max(x, eps): x of any shape."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.log()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return grad / x.clamp(min=torch.finfo(x.dtype).eps)


@contextmanager
def vectorised() -> Iterator[None]:
    """A scope in which sums over finite unknowns can be computed at many points at once."""
    before = special._SafeLog
    special._SafeLog = SafeLog
    try:
        yield
    finally:
        special._SafeLog = before
