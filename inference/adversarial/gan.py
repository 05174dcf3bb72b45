"""The game of a program against a critic that tells its draws from data (Goodfellow et al. 2014).

    D the critic's logit, s(a) = 1 / (1 + exp(-a)), x data, x' drawn           critic minimises                    program minimises
    non_saturating   E softplus(-D(x)) + E softplus(D(x'))                         E softplus(-D(x'))
    minimax          the same                                                      -E softplus(D(x'))
    least_squares    E (D(x) - 1)^2 / 2 + E D(x')^2 / 2                            E (D(x') - 1)^2 / 2
    hinge            E max(0, 1 - D(x)) + E max(0, 1 + D(x'))                      -E D(x')

The first two are the Jensen-Shannon game: at its best the critic is log p(x) - log q(x), its loss 2 log 2 - 2 JSD. Sources: Mao et
al. 2017 (least squares), Miyato et al. 2018 (hinge), Mescheder et al. 2018 (r1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from probgen.inference.adversarial._game import Game, Play

LOSSES = ("non_saturating", "minimax", "least_squares", "hinge")


@dataclass(frozen=True, kw_only=True)
class GAN(Game):
    """A generative adversarial network's game, alternating steps of critic and program by Adam.

    loss: see above.
    r1: weight gamma of gamma / 2 E |grad D(x)|^2 at the data, which makes the game converge; 0 for the plain game.
    """

    loss: Literal["non_saturating", "minimax", "least_squares", "hinge"] = "non_saturating"
    r1: float = 0.0
    beta1: float = 0.5
    beta2: float = 0.999
    learning_rate: float = 0.0005

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}; known: {', '.join(LOSSES)}")
        if not self.r1 >= 0:  # NaN as well
            raise ValueError(f"r1 is {self.r1}; it must be at least 0")

    @property
    def has_middle(self) -> bool:
        return self.loss != "least_squares"

    def critic_loss(self, play: Play, real: Any, fake: Any) -> Any:
        d, g = play.judge(real), play.judge(fake)
        if self.loss == "least_squares":
            loss = play.mean((d - 1) ** 2) / 2 + play.mean(g**2) / 2
        elif self.loss == "hinge":
            loss = play.mean(play.relu(1 - d)) + play.mean(play.relu(1 + g))
        else:
            loss = play.mean(play.softplus(-d)) + play.mean(play.softplus(g))
        return loss + self.r1 / 2 * play.mean(play.square_slope(real)) if self.r1 else loss

    def model_loss(self, play: Play, real: Any, fake: Any) -> Any:
        g = play.judge(fake)
        if self.loss == "non_saturating":
            return play.mean(play.softplus(-g))
        if self.loss == "minimax":
            return -play.mean(play.softplus(g))
        return play.mean((g - 1) ** 2) / 2 if self.loss == "least_squares" else -play.mean(g)
