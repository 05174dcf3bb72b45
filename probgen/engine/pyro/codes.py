"""Whether a Pyro program uses codes of words as indices alone: as numbers they would mean nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from probgen.engine.pyro.graph import Derived
from probgen.target import Continuous

INDEXED = ("index.", "index_", "gather.", "scatter", "embedding", "take", "_unsafe_index", "one_hot", "select.")


def as_numbers(target: Any, names: Sequence[str]) -> list[str]:
    """Those of the named data that enter the density as numbers, not as indices or in comparisons alone."""
    if not isinstance(target, Continuous):
        return list(names)
    own: Any = target
    structure, found = own.structure, []
    z = torch.full((target.dim,), 0.1, dtype=getattr(torch, target.precision))
    for name in names:
        codes = own.tensors[structure.arrays.index(name)]
        with structure.scope(), torch.no_grad(), _Uses(codes) as uses:
            structure.log_density(z, own.tensors)
        if uses.numbers:
            found.append(name)
    return found


class _Uses(TorchDispatchMode):
    """Notes whether codes, or whole numbers made of them, become real numbers."""

    def __init__(self, codes: torch.Tensor) -> None:
        super().__init__()
        self.numbers, self.codes = False, Derived((codes,))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        word = func.name().removeprefix("aten::")
        if self.codes.has((args, kwargs)) and isinstance(result, torch.Tensor):
            if result.is_floating_point():
                self.numbers |= not f"{word}.".startswith(INDEXED)
            elif result.dtype is not torch.bool:
                self.codes.add(result)
        return result
