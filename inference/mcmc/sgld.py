"""SGLD: Langevin steps whose gradient comes from a random minibatch.

    z' = z + (e_t^2 / 2) L L' g_batch(z) + e_t L r,   r ~ N(0, I),   e_t = e (1 + t / offset)^-decay

Welling and Teh 2011. The gradient's own noise adds e_t^4 V / 4 to the injected e_t^2 (V: its whitened variance); their
ratio is recorded as `gradient_noise`, and must be small for the draws to be believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.algorithm import Sampler, positive
from probgen.inference.mcmc import _metric, _start
from probgen.target import SubsampledContinuous


class State(NamedTuple):
    """A chain's position, the estimated log density there, its metric and the steps done."""

    z: Any
    log_density: Any
    metric: Any
    step: Any


class Info(NamedTuple):
    """lp is a minibatch's estimate; gradient_noise the share of gradient noise in the injected noise."""

    z: Any
    lp: Any
    step_size: Any
    n_steps: Any
    gradient_noise: Any


@dataclass(frozen=True, kw_only=True)
class SGLD(Sampler[SubsampledContinuous]):
    """Stochastic-gradient Langevin dynamics; the program says its minibatch by a plate with `subsample_size`.

    step_size: e, in whitened units; decay: its exponent, 1/3 is the optimal rate (Teh, Thiery and Vollmer 2016), 0
        keeps it constant; offset: steps of the decay's time scale.
    thin: Langevin steps for every draw.
    metric: "dense", "low_rank", "diagonal", or "auto" (dense up to 40 dimensions); from the start, it does not adapt.
    start: "pathfinder", or "uniform" for the best of a few draws from U(-2, 2).
    """

    steady: ClassVar[bool] = True
    bias: ClassVar[str | None] = "minibatch gradients without a Metropolis correction bias the draws"
    thins_itself: ClassVar[bool] = True

    step_size: float = 0.2
    decay: float = 1 / 3
    offset: float = 20_000.0
    thin: int = 50
    metric: Literal["auto", "dense", "low_rank", "diagonal"] = "auto"
    start: Literal["pathfinder", "uniform"] = "pathfinder"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "step_size", "offset")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}; it must lie in [0, 1)")

    def init(self, key: Any, target: SubsampledContinuous) -> State:
        xp = target.ops.xp
        start = _start.find(key, target, self.start)
        metric = _metric.initial(xp, _metric.choose(self.metric, target.dim), start.covariance)
        return State(start.z, target.log_density(start.z), metric, xp.int32(0))

    def step(self, key: Any, state: State, target: SubsampledContinuous) -> tuple[State, Info]:
        ops, xp, metric = target.ops, target.ops.xp, state.metric
        size = self.step_size * (1 + state.step * self.thin / self.offset) ** -self.decay

        def move(carry: Any) -> Any:
            i, z, _, _ = carry
            k_batch, k_noise = ops.split(ops.fold_in(key, i), 2)
            value, gradient = target.minibatch_value_and_grad(k_batch, z)
            pulled = metric.pull(gradient)
            step = 0.5 * size**2 * pulled + size * ops.normal(k_noise, z.shape)
            return i + 1, z + metric.push(step), value, pulled

        first = (xp.int32(0), state.z, state.log_density, state.z * 0)
        _, z, value, _ = ops.while_loop(lambda c: c[0] < self.thin, move, first)
        k_one, k_two = ops.split(ops.fold_in(key, self.thin), 2)
        one, two = (metric.pull(target.minibatch_value_and_grad(k, z)[1]) for k in (k_one, k_two))
        noise = 0.25 * size**2 * xp.mean((one - two) ** 2) / 2
        return State(z, value, metric, state.step + 1), Info(z, value, size, xp.int32(self.thin), noise)
