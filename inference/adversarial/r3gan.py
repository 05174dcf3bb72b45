"""The relativistic game with both zero-centred penalties (Huang et al. 2024; Jolicoeur-Martineau 2019, Mescheder et al. 2018).

    critic minimises  E softplus(D(x') - D(x)) + gamma / 2 (E |grad D(x)|^2 + E |grad D(x')|^2),   x and x' in pairs
    program minimises E softplus(D(x) - D(x'))

Only differences of logits count, so that every draw is held against a row of its own. gamma / 2 is the half that the sources have
in their formulas; some code lacks it, and its gamma is half of this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.inference.adversarial._game import Game, Play


@dataclass(frozen=True, kw_only=True)
class R3GAN(Game):
    """The relativistic game with penalties at rows and at draws.

    gamma: their weight at the first step, twice the factor of each: about the variance of noise that would blur data and draws as
        much.
    gamma_left: the share of it that is left at the last step, reached by equal factors a step; the source falls to a tenth.
    """

    num_steps: int = 40_000
    batch_size: int = 128
    learning_rate: float = 0.002
    gamma: float = 0.05
    gamma_left: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma >= 0:  # NaN as well
            raise ValueError(f"gamma is {self.gamma}; it must be at least 0")
        if not 0 < self.gamma_left <= 1:
            raise ValueError(f"gamma_left is {self.gamma_left}; it must be above 0 and at most 1")

    @property
    def has_middle(self) -> bool:
        return False

    def critic_loss(self, play: Play, real: Any, fake: Any) -> Any:
        loss = play.mean(play.softplus(play.judge(fake) - play.judge(real)))
        penalty = play.mean(play.square_slope(real)) + play.mean(play.square_slope(fake))
        return loss + self.gamma * self.gamma_left**play.done / 2 * penalty

    def model_loss(self, play: Play, real: Any, fake: Any) -> Any:
        return play.mean(play.softplus(play.judge(real) - play.judge(fake)))
