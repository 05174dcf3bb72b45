"""Sliced score matching: the score's own slope along random directions, without noise on the data.

    loss = mean of v' (ds/dx) v + 1/2 |s(x)|^2,   v ~ N(0, I),   s = df/dx

Its minimum is the score of the data themselves, by integration by parts. Hyvarinen 2005; Song, Garg, Shi and Ermon 2019
(arXiv:1905.07088), with reduced variance. Modes far apart leave their weights undetermined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.algorithm import positive
from probgen.inference.energy._score import RealEnergyLearner


@dataclass(frozen=True, kw_only=True)
class SlicedScoreMatching(RealEnergyLearner):
    """Sliced score matching.

    num_projections: random directions a row.
    """

    shared: ClassVar[bool] = True
    bias: ClassVar[str | None] = "learns the weights of modes far apart only loosely"

    num_projections: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_projections")

    def loss(self, key: Any, target: Any, parameters: Any, batch: Any) -> Any:
        import jax
        import jax.numpy as jnp

        from probgen.inference.energy._score import dot, normals, score

        def along(row: Any, v: Any) -> Any:
            s, slope = jax.jvp(lambda x: score(target, parameters, x), (row,), (v,))
            return dot(v, slope) + 0.5 * dot(s, s)

        keys = jax.random.split(key, self.num_projections)
        return jnp.mean(jax.vmap(lambda k: jax.vmap(along)(batch, normals(k, batch)))(keys))
