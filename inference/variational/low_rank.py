"""Low rank: a normal with diagonal plus low-rank covariance, u = m + D (e + W h) with noise e in R^dim and h in R^rank.

    q(u) = N(m, D (I + W W') D),   evaluated in O(dim rank^2) by Woodbury's identity

Ong, Nott and Smith 2018, "Gaussian variational approximation with a factor covariance structure", arXiv:1701.03208.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.algorithm import positive
from probgen.inference.variational._guide import Guide


@dataclass(frozen=True, kw_only=True)
class LowRank(Guide):
    """A normal in unconstrained space whose parameters grow linearly with the number of unknowns.

    rank: columns of W; at most as many as there are unknowns are used.
    """

    rank: int = 10

    whitening: ClassVar = "diagonal"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "rank")

    def jax_guide(self, key: Any, dim: int) -> Any:
        from probgen.inference.variational import _jax

        return _jax.LowRankNormal(key, dim, min(self.rank, dim))

    def torch_guide(self, dim: int) -> Any:
        from probgen.inference.variational import _torch

        return _torch.LowRankNormal(dim, min(self.rank, dim))
