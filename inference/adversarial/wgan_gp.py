"""The game for the Wasserstein-1 distance, the critic's slope held near one by a penalty (Gulrajani et al. 2017).

    critic minimises  E D(x') - E D(x) + penalty E (|grad D(u)| - 1)^2,   u anywhere between a row and a draw
    program minimises -E D(x')

The norm is over all axes of a row. A linear critic of a shift of d has slope 1 + d / (2 penalty).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.inference.adversarial._game import Game, Play

TINY = 1e-12  # added under the root, whose slope at zero is infinite


@dataclass(frozen=True, kw_only=True)
class WGANGP(Game):
    """The Wasserstein game with a gradient penalty.

    penalty: its weight lambda; 10 for pictures in the source, 0.1 for points in the plane.
    """

    penalty: float = 0.1
    critic_steps: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.penalty >= 0:  # NaN as well
            raise ValueError(f"penalty is {self.penalty}; it must be at least 0")

    @property
    def has_middle(self) -> bool:
        return False

    def critic_loss(self, play: Play, real: Any, fake: Any) -> Any:
        slope = (play.square_slope(play.between(real, fake)) + TINY) ** 0.5
        distance = play.mean(play.judge(real)) - play.mean(play.judge(fake))
        return -distance + self.penalty * play.mean((slope - 1) ** 2)

    def model_loss(self, play: Play, real: Any, fake: Any) -> Any:
        return -play.mean(play.judge(fake))
