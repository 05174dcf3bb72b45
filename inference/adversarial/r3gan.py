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
        much. Large at first, so that all modes are found.
    final_gamma: at the last step, reached by equal factors a step. Small, so that draws are sharp.
    """

    num_steps: int = 40_000
    batch_size: int = 128
    learning_rate: float = 0.002
    gamma: float = 0.05
    final_gamma: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gamma", "final_gamma"):
            if not getattr(self, name) >= 0:  # NaN as well
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")

    @property
    def has_middle(self) -> bool:
        return False

    def critic_loss(self, play: Play, real: Any, fake: Any) -> Any:
        loss = play.mean(play.softplus(play.judge(fake) - play.judge(real)))
        penalty = play.mean(play.square_slope(real)) + play.mean(play.square_slope(fake))
        return loss + self.weight(play.done) / 2 * penalty

    def weight(self, done: Any) -> Any:
        """gamma once a share of all steps is done."""
        if not (self.gamma and self.final_gamma):
            return self.gamma * (1 - done) + self.final_gamma * done
        return self.gamma * (self.final_gamma / self.gamma) ** done

    def model_loss(self, play: Play, real: Any, fake: Any) -> Any:
        return play.mean(play.softplus(play.judge(real) - play.judge(fake)))
