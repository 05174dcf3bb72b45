"""Metropolis, one unit at a time: a bit flipped, a level changed for any other, a real number moved by a normal step.

    i uniform,   x'_i = 1 - x_i,  another level,  or x_i + s_i r with r ~ N(0, 1)
    accepted with probability min(1, exp(f(x') - f(x)))

It asks nothing of the log density f but its values: no affine bits, no quadratic reals. A step of `dim` proposals is about
one Gibbs sweep, and each of them evaluates f. The scales s_i are learned during warm-up, by Robbins and Monro's rule, for
the acceptance 0.44 that is optimal in one dimension. Metropolis et al. 1953 (doi:10.1063/1.1699114).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from probgen.algorithm import Sampler
from probgen.target import Conditional

OPTIMAL = 0.44  # acceptance of a normal step in one dimension; Gelman, Roberts and Gilks 1996


class State(NamedTuple):
    """Values of every site, their log density, log s_i of every unit (dim,), and the steps done."""

    values: Any
    log_density: Any
    log_scale: Any
    step: Any


class Info(NamedTuple):
    """The point as one array, its log density up to a constant in nats, and the share of proposals that was accepted."""

    z: Any
    lp: Any
    acceptance_rate: Any


@dataclass(frozen=True, kw_only=True)
class Metropolis(Sampler[Conditional]):
    """Single-unit Metropolis, all chains at once.

    thin: steps of `dim` proposals for every draw.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    together: ClassVar[bool] = True
    precision: ClassVar[str] = "float32"
    thins_itself: ClassVar[bool] = True

    thin: int = 1

    def kernel(self) -> Metropolis:
        return replace(self, num_samples=1, num_chains=1)

    def precision_on(self, target: Any) -> str | None:
        """Single precision for energies, as `gibbs`."""
        return self.precision if target.is_energy else None

    def prepare(self, target: Any) -> Any:
        from probgen.engine.numpyro.sums.energy import NotConditional

        if other := [v.name for v in target.variables if v.kind == "other"]:
            raise NotConditional(
                f"Site {other[0]!r} is neither bits, levels nor unbounded reals.\nUse inference='nuts'."
            )
        return target

    def init(self, key: Any, target: Any) -> State:
        import jax.numpy as jnp

        values = target.start(key)
        log_density = target.joint(values)
        return State(values, log_density, jnp.zeros(target.dim, log_density.dtype), jnp.int32(0))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax
        import jax.numpy as jnp

        from probgen.engine.numpyro.sums import energy

        count = self.thin * target.dim
        k_unit, k_jump, k_normal, k_accept = jax.random.split(key, 4)
        z = energy.join(target.variables, state.values)
        levels = jnp.concatenate([jnp.full(v.size, v.levels) for v in target.variables])
        rate = jnp.where(state.step < self.num_warmup, (1.0 + state.step) ** -0.5, 0.0).astype(z.dtype)

        def propose(carry: Any, draws: Any) -> Any:
            z, log_density, log_scale = carry
            i, jump, normal, uniform = draws
            other = (z[i] + 1 + jnp.floor(jump * (levels[i] - 1))) % jnp.maximum(levels[i], 1)
            moved = z.at[i].set(jnp.where(levels[i] > 0, other, z[i] + jnp.exp(log_scale[i]) * normal))
            value = target.joint(energy.split(target.variables, moved))
            accept = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(value), -jnp.inf, value - log_density), 0.0))
            taken = uniform < accept
            log_scale = log_scale.at[i].add(rate * (accept - OPTIMAL))
            return (jnp.where(taken, moved, z), jnp.where(taken, value, log_density), log_scale), accept

        draws = (
            jax.random.choice(k_unit, target.dim, (count,), p=_free(target)),
            jax.random.uniform(k_jump, (count,), z.dtype),
            jax.random.normal(k_normal, (count,), z.dtype),
            jax.random.uniform(k_accept, (count,), z.dtype),
        )
        (z, *rest), accept = jax.lax.scan(propose, (z, state.log_density, state.log_scale), draws)
        state = State(energy.split(target.variables, z), *rest, step=state.step + 1)
        return state, Info(target.flat(state.values), state.log_density, jnp.mean(accept))


def _free(target: Any) -> Any:
    """With which probability a unit is chosen: the same for all whose value is not known. (dim,)."""
    import jax.numpy as jnp

    from probgen.engine.numpyro.sums import energy

    known = {
        v.name: target.known[v.name][0] if v.name in target.known else jnp.zeros(v.shape) for v in target.variables
    }
    free = 1.0 - energy.join(target.variables, known)
    return free / jnp.sum(free)
