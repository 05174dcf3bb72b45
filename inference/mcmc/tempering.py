"""Parallel tempering: chains at a ladder of inverse temperatures, whose neighbours trade places.

    p_k(x) proportional to exp(b_k f(x)),   1 = b_1 > b_2 > ... > b_K = `hottest`;   the draws are those at b_1
    k and k + 1 trade places with probability min(1, exp((b_k - b_{k+1}) (f(x_{k+1}) - f(x_k))))

Hot chains cross between modes and hand their points down. Any other sampler moves the chains of the rungs, each with the step
size and metric of its own temperature. Pairs that begin at an odd k trade after odd steps, the others after even ones: points
then travel the ladder without turning back at random (Okabe et al. 2001; Syed, Bouchard-Cote, Deligiannidis and Doucet 2022,
doi:10.1111/rssb.12464). Swendsen and Wang 1986 (doi:10.1103/PhysRevLett.57.2607).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.algorithm import Sampler, fitting
from probgen.target import Conditional, Unnormalised

FIRST_ROUND = 16  # steps; the ladder is learned anew after so many, and at every doubling
MOVERS = ("gibbs", "metropolis", "random_walk", "mala", "hmc", "nuts")
POINT = ("z", "values", "log_density", "gradient")  # fields of a sampler's state that belong to where it is


class State(NamedTuple):
    """Of every rung: its sampler's state, log density f, inverse temperature, and which of the first points it holds.

    rejected: (rung - 1,), probabilities of no exchange, summed over the steps of this round.
    """

    rungs: Any
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


@dataclass(frozen=True)
class Tempered:
    """A target whose log density is multiplied by an inverse temperature; all else is the target's."""

    target: Any
    inverse: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    # what a chain of continuous unknowns asks for

    def log_density(self, z: Any) -> Any:
        return self.inverse * self.target.log_density(z)

    def value_and_grad(self, z: Any) -> tuple[Any, Any]:
        value, gradient = self.target.value_and_grad(z)
        return self.inverse * value, self.inverse * gradient

    def log_density_batch(self, z: Any) -> Any:
        return self.inverse * self.target.log_density_batch(z)

    def gradient_batch(self, z: Any) -> Any:
        return self.inverse * self.target.gradient_batch(z)

    # and one of sites

    def joint(self, values: Any) -> Any:
        return self.inverse * self.target.joint(values)

    def sweep(self, key: Any, values: Any) -> Any:
        return self.target.sweep(key, values, self.joint)

    def sweep_with_density(self, key: Any, values: Any) -> tuple[Any, Any]:
        return self.target.sweep_with_density(key, values, self.joint)


@dataclass(frozen=True, kw_only=True)
class Tempering(Sampler[Unnormalised]):
    """Parallel tempering; every chain is a ladder, all of them advance at once.

    over: the sampler of the rungs, "gibbs", "metropolis", "random_walk", "mala", "hmc" or "nuts", with its own defaults; by
        default "gibbs" where there are bits or levels, else "hmc". Gibbs evaluates what derivatives do not describe.
    num_temperatures: rungs of each ladder; exchanges fail where they are too few: see `swap_rate`.
    hottest: the smallest inverse temperature, at which a chain must cross between modes by itself.
    ladder: "adaptive" for rungs that trade places equally often, learned in warm-up; "geometric" for even ratios.
    thin: steps of the rungs' sampler, each with its exchanges, for every draw.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    together: ClassVar[bool] = True
    thins_itself: ClassVar[bool] = True

    over: Literal["auto", "gibbs", "metropolis", "random_walk", "mala", "hmc", "nuts"] = "auto"
    num_warmup: int = 500
    num_temperatures: int = 10
    hottest: float = 0.1
    ladder: Literal["adaptive", "geometric"] = "adaptive"
    thin: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.over not in ("auto", *MOVERS):
            raise ValueError(f"over is {self.over!r}; known: auto, {', '.join(MOVERS)}")
        if self.num_temperatures < 2:
            raise ValueError(f"num_temperatures is {self.num_temperatures}; expected 2 or more (1 is no ladder)")
        if not 0 < self.hottest < 1:
            raise ValueError(f"hottest is {self.hottest}; an inverse temperature must lie between 0 and 1")
        if self.ladder not in ("adaptive", "geometric"):
            raise ValueError(f"ladder is {self.ladder!r}; known: adaptive, geometric")

    def kernel(self) -> Tempering:
        return replace(self, num_samples=1, num_chains=1)

    def prepare(self, target: Any) -> Any:
        return fitting(self.mover(target), target, list)

    def mover(self, target: Any) -> Sampler:
        """The sampler of the rungs."""
        from probgen import catalog

        name = ("gibbs" if isinstance(target, Conditional) else "hmc") if self.over == "auto" else self.over
        settings: dict[str, Any] = {"num_warmup": self.num_warmup * self.thin}
        if name == "gibbs":
            settings["conditionals"] = "evaluation"
        found: Any = catalog.inference(name, settings).kernel()
        return found

    # ---- the kernel

    def init(self, key: Any, target: Any) -> State:
        import jax
        import jax.numpy as jnp

        count, mover = self.num_temperatures, self.mover(target)
        inverse = jnp.geomspace(1.0, self.hottest, count)
        first = lambda pair: mover.init(pair[0], Tempered(target, pair[1]))  # noqa: E731
        rungs = jax.lax.map(first, (jax.random.split(key, count), inverse))  # a vmap of vmapped keys compiles slowly
        f = rungs.log_density / inverse
        return State(rungs, f, inverse.astype(f.dtype), jnp.arange(count), 0 * f[1:], jnp.int32(0))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax

        def one(i: Any, carry: Any) -> Any:
            return self._round(jax.random.fold_in(key, i), carry[0], target)

        state, rates = jax.lax.fori_loop(0, self.thin, one, (state, 0 * state.rejected))
        coldest = jax.tree.map(lambda x: x[0], state.rungs)
        z = coldest.z if "z" in coldest._fields else target.flat(coldest.values)
        return state, Info(z, state.log_density[0], state.replica[0], rates)

    def _round(self, key: Any, state: State, target: Any) -> tuple[State, Any]:
        """A step of every rung, then exchanges; and the probabilities of these."""
        import jax

        mover = self.mover(target)
        k_move, k_swap = jax.random.split(key)
        move = lambda k, rung, b: mover.step(k, rung, Tempered(target, b))[0]  # noqa: E731
        rungs = jax.vmap(move)(jax.random.split(k_move, self.num_temperatures), state.rungs, state.inverse)
        f = rungs.log_density / state.inverse
        order, rates = exchanged(k_swap, state.inverse, f, state.step % 2)
        step, rejected = state.step + 1, state.rejected + 1 - rates
        inverse, rejected = self._learned(state.inverse, rejected, step)
        rungs = _traded(rungs, order, inverse / state.inverse[order])
        return State(rungs, f[order], inverse, state.replica[order], rejected, step), rates

    def _learned(self, inverse: Any, rejected: Any, step: Any) -> tuple[Any, Any]:
        """The ladder after a step: at the end of a round of warm-up with equal rejections between all neighbours."""
        import jax.numpy as jnp

        if self.ladder == "geometric":
            return inverse, rejected
        barrier = jnp.append(0.0, jnp.cumsum(rejected + 1e-3 * step)).astype(inverse.dtype)
        even = jnp.interp(jnp.linspace(0.0, barrier[-1], len(inverse)), barrier, inverse)
        done = (step & (step - 1) == 0) & (step >= FIRST_ROUND) & (step <= self.num_warmup * self.thin)
        return jnp.where(done, even.astype(inverse.dtype), inverse), jnp.where(done, 0.0, rejected)


def _traded(rungs: Any, order: Any, ratio: Any) -> Any:
    """The rungs' states with each other's points; what each has learned stays. ratio: of new to old temperature, (rung,)."""
    import jax

    new = {k: jax.tree.map(lambda x: x[order], getattr(rungs, k)) for k in rungs._fields if k in POINT}
    for k in ("log_density", "gradient"):
        if k in new:
            new[k] = new[k] * ratio.reshape(-1, *[1] * (new[k].ndim - 1))
    return rungs._replace(**new)


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
