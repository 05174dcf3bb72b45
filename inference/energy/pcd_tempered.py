"""PCD whose chains are ladders of temperatures: hot chains move between modes and hand their points down.

    p_b(x) proportional to exp(b f(x)),   b from 1 down to b_min;   the model's points are those at b = 1
    neighbours change places with probability min(1, exp((b_i - b_j) (f(x_j) - f(x_i))))

Desjardins, Courville, Bengio, Vincent and Delalleau 2010 (AISTATS); Salakhutdinov 2010.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probgen.algorithm import positive
from probgen.inference.energy._energy import EnergyLearner


@dataclass(frozen=True, kw_only=True)
class PCDTempered(EnergyLearner):
    """Persistent contrastive divergence with parallel tempering.

    num_chains: ladders; num_temperatures: chains in each.
    hottest: the smallest inverse temperature; the others are evenly spaced up to 1.
    num_sweeps: Gibbs sweeps of every chain for every step, each followed by one round of exchanges.
    """

    num_chains: int = 20
    num_temperatures: int = 10
    hottest: float = 0.1
    num_sweeps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_chains", "num_sweeps")
        if self.num_temperatures < 2:
            raise ValueError(
                f"num_temperatures is {self.num_temperatures}; it must be 2 or more. inference='pcd' has one."
            )
        if not 0 < self.hottest < 1:
            raise ValueError(f"hottest is {self.hottest}; it must be an inverse temperature between 0 and 1")

    def prepare(self, target: Any) -> Any:
        from probgen.inference.energy import _energy

        _energy.without_inputs(self, target)
        return super().prepare(target)

    def first_chains(self, key: Any, target: Any, parameters: Any, batch: Any) -> Any:
        """Points {site: (ladder, temperature, *event)}, the coldest first."""
        from probgen.engine.numpyro.sums import energy

        return energy.anywhere(key, target.variables.values(), self.num_chains, self.num_temperatures)

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        import jax
        import jax.numpy as jnp

        from probgen.inference.energy import _energy

        inverse = jnp.linspace(1.0, self.hottest, self.num_temperatures, dtype=target.precision)

        def ladder(key: Any, points: Any) -> Any:
            return climbed(key, target, parameters, points, inverse, self.num_sweeps)

        chains = jax.vmap(ladder)(jax.random.split(key, self.num_chains), chains)
        coldest = jax.tree.map(lambda x: x[:, 0], chains)
        return (*_energy.contrast(target, parameters, batch, coldest), chains)


def climbed(key: Any, target: Any, parameters: Any, points: Any, inverse: Any, count: int) -> Any:
    """One ladder {site: (temperature, *event)} after sweeps and exchanges."""
    import jax

    from probgen.engine.numpyro.sums import energy
    from probgen.inference.mcmc.tempering import exchanged

    f = lambda x: target.joint(parameters, x)  # noqa: E731

    def sweep(k: Any, b: Any, x: Any) -> Any:
        return energy.sweep(k, lambda y: b * f(y), x, target.variables, target.structure.blocks, {})

    def one(i: Any, points: Any) -> Any:
        k_sweep, k_swap = jax.random.split(jax.random.fold_in(key, i))
        points, tempered = jax.vmap(sweep)(jax.random.split(k_sweep, len(inverse)), inverse, points)
        k_parity, k_swap = jax.random.split(k_swap)
        order, _ = exchanged(k_swap, inverse, tempered / inverse, jax.random.bernoulli(k_parity))
        return jax.tree.map(lambda x: x[order], points)

    return one(0, points) if count == 1 else jax.lax.fori_loop(0, count, one, points)
