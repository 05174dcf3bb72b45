"""The projection rule: couplings under which the patterns, correlated or not, are fixed points.

    W = (1 / n) sum_pq s_p (C^-1)_pq s_q',   C_pq = s_p . s_q / n,   W_ii = 0

Without its diagonal W is the projection onto the patterns' span; with n units up to n linearly independent patterns are
fixed points, up to half of that with basins of some size. Personnaz, Guyon and Dreyfus 1985
(doi:10.1051/jphyslet:01985004608035900); Kanter and Sompolinsky 1987.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.inference.energy._storage import Storage


@dataclass(frozen=True, kw_only=True)
class PseudoInverse(Storage):
    """Pseudo-inverse storage of the rows of data as patterns; one step, in closed form."""

    bias: ClassVar[str | None] = "stores patterns; its parameters are not those of the largest likelihood"

    def weights(self, spins: Any) -> Any:
        import jax.numpy as jnp

        overlaps = spins @ spins.T / spins.shape[1]
        return spins.T @ jnp.linalg.pinv(overlaps, hermitian=True) @ spins / spins.shape[1]
