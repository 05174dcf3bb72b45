"""Contrastive divergence: the model's points are a few Gibbs sweeps away from the batch.

    gradient = mean over the batch of dF/dtheta - mean over the batch after k sweeps of dF/dtheta

It is biased towards the data for small k. Hinton 2002 (doi:10.1162/089976602760128018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from probgen.algorithm import positive
from probgen.inference.energy._energy import EnergyLearner


@dataclass(frozen=True, kw_only=True)
class CD(EnergyLearner):
    """Contrastive divergence.

    num_sweeps: k, sweeps through all units from every row of the batch.
    """

    bias: ClassVar[str | None] = "its fixed point is not the maximum of the likelihood; inference='pcd' comes closer"

    num_sweeps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_sweeps")

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        import jax

        from probgen.inference.energy import _energy

        k_hidden, k_fill, k_sweep = jax.random.split(key, 3)
        points = _energy.filled(k_fill, target, parameters, _energy.with_hidden(k_hidden, target, parameters, batch))
        points = _energy.sweeps(k_sweep, target, parameters, points, self.num_sweeps)
        return (*_energy.contrast(target, parameters, batch, points), chains)
