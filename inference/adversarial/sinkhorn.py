"""Learning by the Sinkhorn divergence between rows and draws, without a critic (Genevay et al. 2018, Feydy et al. 2019).

    S = OT(x, x') - OT(x, x) / 2 - OT(x', x') / 2,   OT the transport cost of |x - x'|^2 with entropy of weight epsilon

Near zero epsilon it is the squared Wasserstein-2 distance of the batches, near infinity the squared distance of means; without the
two last terms draws would shrink towards the mean. By ott-jax (Cuturi et al. 2022), of Pyro programs by the same steps in torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.inference.adversarial._distance import centred
from probgen.inference.adversarial._draws import ByDistance

LEAST, MOST = 0.005, 5000  # of epsilon; iterations


@dataclass(frozen=True, kw_only=True)
class Sinkhorn(ByDistance):
    """Entropic transport of batches, by Adam.

    epsilon: weight of the entropy, in mean squared distances between the rows of a batch; at least 0.005, below which the iteration
        does not come to rest in single precision.
    """

    epsilon: float = 0.05
    num_steps: int = 5000
    ema: float = 0.998

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.epsilon >= LEAST:
            raise ValueError(f"epsilon is {self.epsilon}; it must be at least {LEAST}")

    def distance(self, words: Any, x: Any, y: Any) -> Any:
        return divergence(words, x, y, self.epsilon)


def divergence(words: Any, x: Any, y: Any, epsilon: float) -> Any:
    """The Sinkhorn divergence of points x and y, (row, coordinate): (); epsilon in mean squared distances between x."""
    x, y = centred(x, y)
    unit = 2 * (x**2).mean(0).sum() + 1e-12
    return words.divergence(x, y, epsilon * unit, MOST)
