"""What learners of real energies share: no hidden units, real visible ones, a smoothed loss.

The score of a point is the gradient of its log density, s(x) = df/dx, which needs no constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from probgen.inference.energy._energy import EnergyLearner


@dataclass(frozen=True, kw_only=True)
class RealEnergyLearner(EnergyLearner):
    """Learners of energies over real points.

    The recorded loss is smoothed over some ten steps; the gap is its value at one step.
    """

    loss_of: ClassVar[str] = "loss"

    batch_size: int = 200
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 1e-3
    num_steps: int = 5000

    def prepare(self, target: Any) -> Any:
        bad = [v.name for v in target.hidden] or [v.name for v in target.visible if v.kind != "reals"]
        if bad:
            what = "is hidden" if target.hidden else "is not real"
            raise ValueError(f"{self.name} needs real visible sites alone; {bad[0]!r} {what}. Use inference='pcd'.")
        return target

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        loss, gradient = jax.value_and_grad(self.loss, argnums=2)(key, target, parameters, batch)
        return gradient, loss, chains

    def loss(self, key: Any, target: Any, parameters: Any, batch: Any) -> Any:
        """The mean loss of a batch."""
        raise NotImplementedError

    def monitor(self, key: Any, target: Any, state: Any, batch: Any, gap: Any) -> Any:
        first = lambda: self.loss(key, target, state.parameters, batch)  # noqa: E731
        return jax.lax.cond(state.step == 0, first, lambda: 0.9 * state.loss + 0.1 * gap)


def score(target: Any, parameters: Any, row: Any) -> Any:
    """df/dx of one point: {site: (*event)}."""
    return jax.grad(lambda x: target.joint(parameters, x))(row)


def normals(key: Any, batch: Any) -> Any:
    """Standard normal noise in the shapes of a batch."""
    keys = dict(zip(batch, jax.random.split(key, len(batch)), strict=True))
    return {k: jax.random.normal(keys[k], v.shape, v.dtype) for k, v in batch.items()}


def added(x: Any, scale: Any, y: Any) -> Any:
    """x + scale * y, site by site."""
    return {k: x[k] + scale * y[k] for k in x}


def dot(x: Any, y: Any) -> Any:
    """The inner product of two points."""
    return sum(jnp.sum(x[k] * y[k]) for k in x)
