"""Hebb's rule: units that are alike in the patterns are coupled, in proportion.

    W = (1 / n) sum_p s_p s_p',   W_ii = 0,   s_p = 2 v_p - 1 the patterns' spins, n units

Random patterns are recalled up to a load of 0.138 patterns a unit. Hebb 1949; Hopfield 1982
(doi:10.1073/pnas.79.8.2554); Amit, Gutfreund and Sompolinsky 1985.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.inference.energy._storage import Storage


@dataclass(frozen=True, kw_only=True)
class Hebbian(Storage):
    """Hebbian storage of the rows of data as patterns; one step, in closed form."""

    bias: ClassVar[str | None] = "stores patterns; its parameters are not those of the largest likelihood"

    def weights(self, spins: Any) -> Any:
        return spins.T @ spins / spins.shape[1]
