"""Parallel tempering: Gibbs chains at a ladder of inverse temperatures, whose neighbours trade places.

    p_k(x) proportional to exp(b_k f(x)),   1 = b_1 > b_2 > ... > b_K = `hottest`;   the draws are those at b_1
    k and k + 1 trade places with probability min(1, exp((b_k - b_{k+1}) (f(x_{k+1}) - f(x_k))))

Hot chains cross between modes and hand their points down. Pairs that begin at an odd k trade after odd steps, the others
after even ones: points then travel the ladder without turning back at random (Okabe et al. 2001; Syed, Bouchard-Cote,
Deligiannidis and Doucet 2022, doi:10.1111/rssb.12464). Swendsen and Wang 1986 (doi:10.1103/PhysRevLett.57.2607).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from probgen.inference.mcmc.gibbs import Gibbs

FIRST_ROUND = 16  # steps; the ladder is learned anew after so many, and at every doubling


class State(NamedTuple):
    """Of every rung: values of the sites, log density f, inverse temperature, and which of the first points it holds.

    rejected: (rung - 1,), probabilities of no exchange, summed over the steps of this round.
    """

    values: Any
    log_density: Any
    inverse: Any
    replica: Any
    rejected: Any
    step: Any


class Info(NamedTuple):
    """The point at b = 1, its log density up to a constant in nats, which replica it is, exchange probabilities.

    swap_rate: (rung - 1,), the coldest pair first.
    """

    z: Any
    lp: Any
    replica: Any
    swap_rate: Any


@dataclass(frozen=True, kw_only=True)
class Tempering(Gibbs):
    """Parallel tempering over block Gibbs sampling; every chain is a ladder, all of them advance at once.

    num_temperatures: rungs of each ladder; exchanges fail where they are too few: see `swap_rate`.
    hottest: the smallest inverse temperature, at which a chain must cross between modes by itself.
    ladder: "adaptive" for rungs that trade places equally often, learned in warm-up; "geometric" for even ratios.
    thinning: sweeps, each with its exchanges, for every draw.
    """

    num_warmup: int = 500
    num_temperatures: int = 10
    hottest: float = 0.1
    ladder: Literal["adaptive", "geometric"] = "adaptive"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_temperatures < 2:
            raise ValueError(
                f"num_temperatures is {self.num_temperatures}; expected 2 or more (1 is inference='gibbs')."
            )
        if not 0 < self.hottest < 1:
            raise ValueError(f"hottest is {self.hottest}; an inverse temperature must lie between 0 and 1")
        if self.ladder not in ("adaptive", "geometric"):
            raise ValueError(f"ladder is {self.ladder!r}; known: adaptive, geometric")

    def kernel(self) -> Tempering:
        return replace(self, num_samples=1, num_chains=1)

    def init(self, key: Any, target: Any) -> State:
        import jax
        import jax.numpy as jnp

        count = self.num_temperatures
        values = jax.lax.map(target.start, jax.random.split(key, count))  # a vmap of vmapped keys compiles slowly
        log_density = jax.vmap(target.joint)(values)
        inverse = jnp.geomspace(1.0, self.hottest, count, dtype=log_density.dtype)
        return State(values, log_density, inverse, jnp.arange(count), 0 * inverse[1:], jnp.int32(0))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax

        def one(i: Any, carry: Any) -> Any:
            return self._round(jax.random.fold_in(key, i), carry[0], target)

        state, rates = jax.lax.fori_loop(0, self.thinning, one, (state, 0 * state.rejected))
        coldest = {k: v[0] for k, v in state.values.items()}
        return state, Info(target.flat(coldest), state.log_density[0], state.replica[0], rates)

    def _round(self, key: Any, state: State, target: Any) -> tuple[State, Any]:
        """A sweep of every rung, then exchanges; and the probabilities of these."""
        import jax

        def sweep(key: Any, values: Any, b: Any) -> Any:
            values, tempered = target.sweep_with_density(key, values, lambda x: b * target.joint(x))
            return values, tempered / b

        k_sweep, k_swap = jax.random.split(key)
        values, f = jax.vmap(sweep)(jax.random.split(k_sweep, self.num_temperatures), state.values, state.inverse)
        order, rates = exchanged(k_swap, state.inverse, f, state.step % 2)
        step, rejected = state.step + 1, state.rejected + 1 - rates
        inverse, rejected = self._learned(state.inverse, rejected, step)
        values = jax.tree.map(lambda x: x[order], values)
        return State(values, f[order], inverse, state.replica[order], rejected, step), rates

    def _learned(self, inverse: Any, rejected: Any, step: Any) -> tuple[Any, Any]:
        """The ladder after a step: at the end of a round of warm-up with equal rejections between all neighbours."""
        import jax.numpy as jnp

        if self.ladder == "geometric":
            return inverse, rejected
        barrier = jnp.append(0.0, jnp.cumsum(rejected + 1e-3 * step)).astype(inverse.dtype)
        even = jnp.interp(jnp.linspace(0.0, barrier[-1], len(inverse)), barrier, inverse)
        done = (step & (step - 1) == 0) & (step >= FIRST_ROUND) & (step <= self.num_warmup * self.thinning)
        return jnp.where(done, even.astype(inverse.dtype), inverse), jnp.where(done, 0.0, rejected)


def exchanged(key: Any, inverse: Any, f: Any, first: Any) -> tuple[Any, Any]:
    """Which point each rung takes, of pairs of neighbours from rung `first` (0 or 1) on; the probabilities of all pairs."""
    import jax
    import jax.numpy as jnp

    rates = jnp.exp(jnp.minimum(-jnp.diff(inverse) * jnp.diff(f), 0.0))
    turn = jnp.arange(len(rates)) % 2 == first
    swapped = turn & (jax.random.uniform(key, rates.shape, rates.dtype) < rates)
    no = jnp.zeros(1, bool)
    down, up = jnp.append(swapped, no).astype(int), jnp.append(no, swapped).astype(int)
    return jnp.arange(len(down)) + down - up, rates
