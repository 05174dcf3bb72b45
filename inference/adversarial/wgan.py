"""The game for the Wasserstein-1 distance, the critic's weights clipped (Arjovsky et al. 2017).

    critic minimises E D(x') - E D(x) with every weight within [-clip, clip];   program minimises -E D(x')

A clipped linear critic c'x says clip |E x - E x'|_1: the distance of a shift, up to a constant. For a network only the constant
differs from a Lipschitz bound in ways that nobody knows: its loss is a distance in units of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.algorithm import positive
from probgen.inference.adversarial._game import Game, Play


@dataclass(frozen=True, kw_only=True)
class WGAN(Game):
    """The Wasserstein game with clipped weights.

    clip: the largest absolute value of the critic's parameters.
    """

    clip: float = 0.1
    critic_steps: int = 5
    learning_rate: float = 0.0005

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "clip")

    @property
    def has_middle(self) -> bool:
        return False

    def critic_loss(self, play: Play, real: Any, fake: Any) -> Any:
        return play.mean(play.judge(fake)) - play.mean(play.judge(real))

    def model_loss(self, play: Play, real: Any, fake: Any) -> Any:
        return -play.mean(play.judge(fake))

    def bound_critic(self, parameters: Any) -> Any:
        return {k: v.clip(-self.clip, self.clip) for k, v in parameters.items()}
