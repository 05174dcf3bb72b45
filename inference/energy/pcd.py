"""Persistent contrastive divergence: the model's points are Markov chains that go on from step to step.

    gradient = mean over the batch of dF/dtheta - mean over the chains of dF/dtheta

Tieleman 2008 (doi:10.1145/1390156.1390290); stochastic maximum likelihood, Younes 1989.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.algorithm import positive
from probgen.inference.energy._energy import EnergyLearner


@dataclass(frozen=True, kw_only=True)
class PCD(EnergyLearner):
    """Persistent contrastive divergence.

    num_chains: persistent Markov chains, sampled by Gibbs.
    num_sweeps: sweeps through all units for every step.
    """

    num_chains: int = 100
    num_sweeps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_chains", "num_sweeps")

    def prepare(self, target: Any) -> Any:
        from probgen.inference.energy import _energy

        _energy.without_inputs(self, target)
        return super().prepare(target)

    def first_chains(self, key: Any, target: Any, parameters: Any, batch: Any) -> Any:
        from probgen.engine.numpyro.sums import energy

        return energy.anywhere(key, target.variables.values(), self.num_chains)

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        from probgen.inference.energy import _energy

        chains = _energy.sweeps(key, target, parameters, chains, self.num_sweeps)
        return (*_energy.contrast(target, parameters, batch, chains), chains)
