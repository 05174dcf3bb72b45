"""Mean field: independent normals, q(z) = prod_i N(z_i | m_i, s_i^2).

On a correlated posterior its variances are too small: at the optimum s_i^2 = 1 / precision_ii on a normal target.
Automatic differentiation variational inference: Kucukelbir, Tran, Ranganath, Gelman and Blei 2017, JMLR 18(14).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.inference.variational._guide import Guide


@dataclass(frozen=True, kw_only=True)
class MeanField(Guide):
    """Independent normals in unconstrained space."""

    whitening: ClassVar = "diagonal"

    def jax_guide(self, key: Any, dim: int) -> Any:
        from probgen.inference.variational import _jax

        return _jax.normal(_jax.affine(dim, dense=False))

    def torch_guide(self, dim: int) -> Any:
        from probgen.inference.variational import _torch

        return _torch.Flow(dim, [], _torch.Affine(dim, dense=False))
