"""Full rank: one multivariate normal, q(z) = N(z | m, L L') with L lower triangular.

Titsias and Lazaro-Gredilla 2014, "Doubly stochastic variational Bayes"; Kucukelbir et al. 2017, JMLR 18(14).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.inference.variational._guide import Guide


@dataclass(frozen=True, kw_only=True)
class FullRank(Guide):
    """A multivariate normal in unconstrained space."""

    def jax_guide(self, key: Any, dim: int) -> Any:
        from probgen.inference.variational import _jax

        return _jax.normal(_jax.affine(dim))

    def torch_guide(self, dim: int) -> Any:
        from probgen.inference.variational import _torch

        return _torch.Flow(dim, [], _torch.Affine(dim))
