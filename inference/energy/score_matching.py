"""Denoising score matching: the score of the data with noise on them points back to the data.

    loss = mean of 1/2 |sigma s(x + sigma e) + e|^2,   e ~ N(0, I),   s = df/dx

Its minimum is the score of the data convolved with N(0, sigma^2 I): no constant and no sampling. Hyvarinen 2005;
Vincent 2011 (doi:10.1162/NECO_a_00142). Modes far apart leave their weights undetermined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.algorithm import positive
from probgen.inference.energy._score import RealEnergyLearner


@dataclass(frozen=True, kw_only=True)
class ScoreMatching(RealEnergyLearner):
    """Denoising score matching at one level of noise.

    noise: sigma, in the units of the data; the learned density is that of the data with this noise on them.
    """

    shared: ClassVar[bool] = True
    bias: ClassVar[str | None] = "learns the data with noise on them, and the weights of modes far apart only loosely"

    noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "noise")

    def loss(self, key: Any, target: Any, parameters: Any, batch: Any) -> Any:
        """The mean over rows and over e and -e, which takes out most of the variance at small noise."""
        import jax
        import jax.numpy as jnp

        from probgen.inference.energy._score import added, dot, normals, score

        def one(row: Any, e: Any) -> Any:
            total = 0.0
            for sign in (1.0, -1.0):
                s = score(target, parameters, added(row, sign * self.noise, e))
                error = added({k: sign * e[k] for k in e}, self.noise, s)
                total = total + 0.25 * dot(error, error)
            return total

        return jnp.mean(jax.vmap(one)(batch, normals(key, batch)))
