"""Stochastic variational inference with a normal guide: the family's name for what `full_rank` and `mean_field` are.

    maximise over m, L   E_{z ~ N(m, L L')} [log p(z) - log q(z)]

Hoffman, Blei, Wang and Paisley 2013, JMLR 14; Kucukelbir et al. 2017, JMLR 18(14).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from probgen.inference.variational._guide import Guide


@dataclass(frozen=True, kw_only=True)
class SVI(Guide):
    """A normal guide in unconstrained space.

    guide: "full_rank" for a multivariate normal, "mean_field" for independent ones.
    """

    guide: Literal["full_rank", "mean_field"] = "full_rank"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guide not in ("full_rank", "mean_field"):
            raise ValueError(f"guide is {self.guide!r}; known: full_rank, mean_field. For others use their own names.")

    @property
    def whitening(self) -> str:
        return "dense" if self.dense else "diagonal"

    @property
    def dense(self) -> bool:
        """Whether the guide has a full covariance."""
        return self.guide == "full_rank"

    def jax_guide(self, key: Any, dim: int) -> Any:
        from probgen.inference.variational import _jax

        return _jax.normal(_jax.affine(dim, dense=self.dense))

    def torch_guide(self, dim: int) -> Any:
        from probgen.inference.variational import _torch

        return _torch.Flow(dim, [], _torch.Affine(dim, dense=self.dense))
