"""Learning by the sliced Wasserstein-2 distance between rows and draws, without a critic (Deshpande et al. 2018).

    SW^2 = d E_u W2^2(u'x, u'x'),   u uniform on the sphere, d the number of coordinates

On a line the optimal transport pairs the sorted points, which is exact. The factor d makes it |shift|^2 for a shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.algorithm import positive
from probgen.inference.adversarial._distance import sliced
from probgen.inference.adversarial._draws import ByDistance


@dataclass(frozen=True, kw_only=True)
class SlicedWasserstein(ByDistance):
    """Transport along random lines, by Adam.

    num_lines: directions u, drawn anew at every step.
    """

    num_lines: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_lines")

    def distance(self, words: Any, x: Any, y: Any) -> Any:
        return sliced(words, x, y, self.num_lines)
