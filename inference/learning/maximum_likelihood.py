"""Maximum likelihood with the exact gradient: log Z and the sums over hidden units by enumeration.

    gradient of mean log p(v) = mean over the batch of d/dtheta log sum_h exp f(v, h) - d/dtheta log Z

The units of the largest block that do not interact are summed in closed form, the states of all others one by one: an RBM
takes 2^min(visible, hidden) states a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from probgen.inference.learning._energy import EnergyLearner


@dataclass(frozen=True, kw_only=True)
class MaximumLikelihood(EnergyLearner):
    """Exact maximum likelihood, for models of which at most 20 units have to be enumerated.

    batch_size: rows a step; by default all of them.
    The loss is minus the mean log likelihood of a row, the gap the mean log likelihood itself.
    Raises TooLarge for more units, and where real units interact.
    """

    num_steps: int = 2000
    batch_size: int = 10_000
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 0.05

    def prepare(self, target: Any) -> Any:
        from probgen.inference.learning import _exact

        target = target.blocked()
        for sites in (list(target.variables.values()), target.hidden):
            _exact.split(target, sites)
        return target

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        import jax

        loss, gradient = jax.value_and_grad(self.loss, argnums=1)(target, parameters, batch)
        return gradient, -loss, chains

    def loss(self, target: Any, parameters: Any, batch: Any) -> Any:
        """Minus the mean log likelihood of rows, in nats."""
        import jax
        import jax.numpy as jnp

        from probgen.inference.learning._exact import log_sum, split

        f = lambda values: target.joint(parameters, values)  # noqa: E731
        everything, hidden = split(target, list(target.variables.values())), split(target, target.hidden)
        return log_sum(f, everything, {}) - jnp.mean(jax.vmap(lambda row: log_sum(f, hidden, row))(batch))

    def monitor(self, key: Any, target: Any, state: Any, batch: Any, gap: Any) -> Any:
        import jax

        return jax.lax.cond(state.step == 0, lambda: self.loss(target, state.parameters, batch), lambda: -gap)
