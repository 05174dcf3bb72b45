"""Pseudo-likelihood: every visible unit predicted from all the others, which needs no constant.

    loss = - mean over the batch of sum_i log p(v_i | v_rest),   log p(v_i | v_rest) = F(v) - log sum_k exp F(v, v_i = k)

F(v) = log sum_h exp f(v, h), exactly. Its maximum tends to that of the likelihood as rows are added, where the model
holds. Besag 1975 (doi:10.2307/2987782).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from probgen.inference.energy._energy import EnergyLearner


@dataclass(frozen=True, kw_only=True)
class PseudoLikelihood(EnergyLearner):
    """Maximum pseudo-likelihood, for visible bits and levels.

    num_units: units of a row that a step predicts, drawn at random; all by default. Fewer leave the gradient unbiased.
    The loss is minus the log pseudo-likelihood of a row, in nats, smoothed over steps; the gap its value at one step.
    """

    shared: ClassVar[bool] = True

    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 0.01
    num_steps: int = 5000
    num_units: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_units is not None and self.num_units < 1:
            raise ValueError(f"num_units is {self.num_units}; it must be above 0")

    def prepare(self, target: Any) -> Any:
        from probgen.engine.numpyro.sums.free_energy import hidden_block
        from probgen.inference.energy._energy import blocked

        target = blocked(target)
        real = [v.name for v in target.visible if not v.levels]
        if real:
            raise ValueError(
                f"Site {real[0]!r} is real; pseudo-likelihood is for bits. Use inference='score_matching'."
            )
        if hidden_block(target) is None:
            names = ", ".join(v.name for v in target.hidden)
            raise ValueError(f"The hidden units ({names}) interact: their sum is not exact. Use inference='pcd'.")
        return target

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        import jax

        loss, gradient = jax.value_and_grad(self.loss, argnums=2)(key, target, parameters, batch)
        return gradient, loss, chains

    def loss(self, key: Any, target: Any, parameters: Any, batch: Any) -> Any:
        """Minus the log pseudo-likelihood, mean over rows, in nats."""
        import jax
        import jax.numpy as jnp

        from probgen.engine.numpyro.sums.free_energy import free

        here, total = free(target, parameters, batch), 0.0
        for i, v in enumerate(target.visible):
            chosen = self._units(jax.random.fold_in(key, i), v.size)

            def change(unit: Any, shift: Any, v: Any = v) -> Any:
                """F with one unit moved on by some levels, minus F: (row,)."""
                hit = jax.nn.one_hot(unit, v.size, dtype=here.dtype).reshape(v.shape)
                moved = jnp.where(hit > 0, (batch[v.name] + shift) % v.levels, batch[v.name])
                return free(target, parameters, {**batch, v.name: moved}) - here

            shifts = jnp.arange(1, v.levels)
            changes = jax.vmap(lambda unit: jax.vmap(lambda s: change(unit, s))(shifts))(chosen)  # noqa: B023
            others = jax.scipy.special.logsumexp(changes, axis=1)
            total = total + v.size * jnp.mean(jax.nn.softplus(others))
        return total

    def _units(self, key: Any, size: int) -> Any:
        import jax
        import jax.numpy as jnp

        if self.num_units is None or self.num_units >= size:
            return jnp.arange(size)
        return jax.random.choice(key, size, (self.num_units,), replace=False)

    def monitor(self, key: Any, target: Any, state: Any, batch: Any, gap: Any) -> Any:
        import jax

        first = lambda: self.loss(key, target, state.parameters, batch)  # noqa: E731
        return jax.lax.cond(state.step == 0, first, lambda: 0.9 * state.loss + 0.1 * gap)
