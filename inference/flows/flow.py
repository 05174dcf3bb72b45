"""The flow to try first: RealNVP, learned with path gradients from Pathfinder's whitening.

Of the flows here it was the most accurate for its cost on posteriordb: means within 0.05 sd and sds within 5 % of the
reference draws. See `realnvp` for the equation, and `neural_spline`, which serves programs with a single unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.inference.flows.neural_spline import NeuralSpline
from probgen.inference.flows.realnvp import RealNVP


@dataclass(frozen=True, kw_only=True)
class Flow(RealNVP):
    """Affine coupling layers, then an affine map; splines where there is a single unknown."""

    smallest: ClassVar[int] = 1

    def jax_guide(self, key: Any, dim: int) -> Any:
        return NeuralSpline().jax_guide(key, dim) if dim == 1 else super().jax_guide(key, dim)

    def torch_guide(self, dim: int) -> Any:
        return NeuralSpline().torch_guide(dim) if dim == 1 else super().torch_guide(dim)
