"""What learners of parameters from rows share: batches, an optimiser, an average, and a guard that rolls back.

Data of bits that lie between 0 and 1 are probabilities: every batch draws its bits anew ("dynamic binarisation").
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from probgen.algorithm import Learner, positive
from probgen.engine.numpyro.running import together
from probgen.target import Generative

NOISE = 3.0  # standard deviations of a single loss that its running mean may rise beyond other causes

T = TypeVar("T", bound=Generative, contravariant=True)


class Guard(NamedTuple):
    """The last good state, and what tells a good one.

    mean, best: the loss's running mean and the least of it; noise: variance of single losses; last: the loss at the last look;
    worst: the largest loss since then; factor: of the step size.
    """

    parameters: Any
    optimiser: Any
    chains: Any
    mean: Any
    best: Any
    noise: Any
    last: Any
    worst: Any
    factor: Any
    rollbacks: Any


class State(NamedTuple):
    """Parameters, their average, of use once it counts, the optimiser's state, chains, the order of the rows, and the guard."""

    step: Any
    parameters: Any
    average: Any
    optimiser: Any
    chains: Any
    order: Any
    loss: Any
    guard: Guard


class Info(NamedTuple):
    """loss: see the learner; gap: mean F over the batch minus over the model's points, in nats; rollbacks so far."""

    loss: Any
    gap: Any
    learning_rate: Any
    rollbacks: Any


@dataclass(frozen=True, kw_only=True)
class RowLearner(Learner[T]):
    """Settings of all learners of parameters from rows.

    num_steps: steps, each on one batch.
    batch_size: rows a step; all rows are used before any comes again.
    optimizer: "sgd", with `momentum`, or "adam", of Optax.
    learning_rate: the largest; it rises over the first hundredth of the steps.
    decay: of the learning rate: "linear" or "cosine" to zero at the last step, or "constant".
    momentum: of "sgd".
    weight_decay: of arrays with two or more axes.
    start: where parameters begin that are zero in the program and only multiply visible bits: "data", at the log odds of the
        data, or "program".
    average: the answer is the average of the parameters over this last part of the steps; 0 for the last alone.
    ema: where it is not 0 the answer is their exponential moving average instead, with this decay a step, such as 0.999.
    mixed_precision: products of matrices in bfloat16, their sums, parameters and all else in float32; for a GPU. On a CPU JAX goes
        without it. Of Pyro programs, in networks of `probgen.nets.pyro_modules.registered`.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    precision: ClassVar[str] = "float32"
    period: ClassVar[int] = 50
    spike: ClassVar[float] = math.inf  # of a single loss, in margins of the guard, that is a runaway too
    shared: ClassVar[bool] = False  # whether a step is a mean over the rows of its batch, which processes can share

    num_steps: int = 20_000
    batch_size: int = 100
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    decay: Literal["linear", "cosine", "constant"] = "linear"
    momentum: float = 0.0
    weight_decay: float = 0.0
    average: float = 0.2
    ema: float = 0.0
    start: Literal["data", "program"] = "data"
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "batch_size", "learning_rate")
        choices = {
            "optimizer": ("sgd", "adam"),
            "decay": ("linear", "cosine", "constant"),
            "start": ("data", "program"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; known: {', '.join(known)}")
        for name in ("momentum", "average", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")

    @property
    def averaged_from(self) -> int:
        """The step from which the average counts."""
        if self.ema:
            return 0
        return int(self.num_steps * (1 - self.average)) if self.average else self.num_steps

    def share(self, step: Any, xp: Any = jnp) -> Any:
        """The weight of a step's parameters in the average: as in a plain mean at first, so that it does not begin at zero."""
        if self.ema:
            return xp.maximum(1 - self.ema, 1 / (step + 1.0))
        return 1 / xp.maximum(1.0, step + 2.0 - self.averaged_from)

    def unshared(self, target: Any) -> str:
        return "" if self.shared else super().unshared(target)

    def check_batch(self, target: Any) -> None:
        """Raise ValueError for a batch larger than the data; a default is cut to them."""
        default = type(self).__dataclass_fields__["batch_size"].default
        if self.batch_size > target.num_rows and self.batch_size != default:
            raise ValueError(
                f"batch_size is {self.batch_size}; the data have {target.num_rows} rows: use at most that."
            )

    def check_precision(self, target: Any) -> None:
        """Raise ValueError for mixed precision of a target in double precision."""
        if self.mixed_precision and target.precision != "float32":
            raise ValueError(f"mixed_precision is for precision='float32'; the target's is {target.precision!r}.")

    # ---- the kernel

    def init(self, key: Any, target: Any) -> State:
        self.check_precision(target)
        k_parameters, k_chains, k_order, k_loss = jax.random.split(key, 4)
        parameters = self.first_parameters(k_parameters, target)
        optimiser = self._optimiser().init(parameters)
        order = jax.random.permutation(k_order, target.num_rows).astype(jnp.int32)
        batch = target.rows(order[: min(self.batch_size, target.num_rows)])
        chains = self.first_chains(k_chains, target, parameters, batch)
        zero = jnp.zeros(())
        guard = Guard(parameters, optimiser, chains, zero + jnp.nan, zero, zero, zero, zero, zero + 1.0, jnp.int32(0))
        state = State(jnp.int32(0), parameters, parameters, optimiser, chains, order, zero, guard)
        loss = self.first_loss(k_loss, target, state, batch)
        return state._replace(loss=loss, guard=guard._replace(best=loss, last=loss, worst=loss))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        k_order, k_model, k_loss = jax.random.split(key, 3)
        order, batch = self._batch(k_order, state, target)
        with jax.default_matmul_precision("BF16_BF16_F32") if self.mixed_precision else contextlib.nullcontext():
            gradient, gap, chains = self.gradient(k_model, target, state.parameters, batch, state.chains)
        gradient = self._decayed(gradient, state.parameters)
        rate = self.rate(state.step) * state.guard.factor
        updates, optimiser = self._optimiser().update(gradient, state.optimiser, state.parameters)
        parameters = jax.tree.map(lambda p, u: p - (rate * u).astype(p.dtype), state.parameters, updates)
        loss = self.monitor(k_loss, target, state, batch, gap)
        weight = self.share(state.step)
        mix = lambda: jax.tree.map(lambda a, p: a + weight.astype(p.dtype) * (p - a), state.average, parameters)  # noqa: E731
        average = jax.lax.cond(state.step + 1 >= self.averaged_from, mix, lambda: state.average)
        guard = state.guard._replace(worst=jnp.maximum(state.guard.worst, loss))
        new = State(state.step + 1, parameters, average, optimiser, chains, order, loss, guard)
        return new, self.told(new, Info(loss, gap, rate, guard.rollbacks))

    def look(self, state: State, info: Any, target: Any) -> tuple[State, Any]:
        """A runaway is rolled back."""
        state = self.looked(_guarded(state, self.spike), target)
        return state, self.told(state, info._replace(rollbacks=state.guard.rollbacks))

    def answer(self, key: Any, state: State, target: Any) -> dict[str, Any]:
        del key, target
        return self.averaged(state)

    def averaged(self, state: State) -> dict[str, Any]:
        """The average, once it counts; before, the parameters."""
        pick = lambda a, p: jnp.where(state.step >= self.averaged_from, a, p)  # noqa: E731
        return dict(jax.tree.map(pick, state.average, state.parameters))

    # ---- what learners say

    def first_parameters(self, key: Any, target: Any) -> Any:
        """The parameters before the first step, unconstrained, by their labels."""
        return target.initial(key, self.start == "data")

    def first_chains(self, key: Any, target: Any, parameters: Any, batch: Any) -> Any:
        """The model's points before the first step, where they persist; a tree of arrays."""
        return ()

    def first_loss(self, key: Any, target: Any, state: State, batch: Any) -> Any:
        """The loss before the first step."""
        return self.monitor(key, target, state, batch, jnp.zeros(()))

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        """Of minus the mean log likelihood; the gap; and the new chains."""
        raise NotImplementedError

    def monitor(self, key: Any, target: Any, state: State, batch: Any, gap: Any) -> Any:
        """The loss to be shown; `gap` is what `gradient` gave."""
        raise NotImplementedError

    def looked(self, state: State, target: Any) -> State:
        """The state with what is found out between steps."""
        return state

    def told(self, state: State, info: Any) -> Any:
        """What is recorded: a named tuple with loss, learning_rate and rollbacks of `info`."""
        return info

    # ---- parts

    def _optimiser(self) -> Any:
        """Directions at a learning rate of one, to be subtracted."""
        if self.optimizer == "adam":
            return optax.scale_by_adam()
        return optax.trace(self.momentum) if self.momentum else optax.identity()

    def rate(self, step: Any, xp: Any = jnp) -> Any:
        """The learning rate of a step."""
        warm = xp.minimum(1.0, (step + 1.0) / max(1.0, self.num_steps / 100))
        done = step / self.num_steps
        left = {"linear": 1.0 - done, "cosine": 0.5 + 0.5 * xp.cos(math.pi * done), "constant": 1.0}[self.decay]
        return self.learning_rate * warm * left

    def _decayed(self, gradient: Any, parameters: Any) -> Any:
        if not self.weight_decay:
            return gradient
        decay = lambda g, p: g + self.weight_decay * p if p.ndim >= 2 else g  # noqa: E731
        return jax.tree.map(decay, gradient, parameters)

    def _batch(self, key: Any, state: State, target: Any) -> tuple[Any, Any]:
        """The rows of this step, in an order that is drawn anew after each pass."""
        size = min(self.batch_size, len(state.order))
        passes = len(state.order) // size
        at = state.step % passes
        anew = jnp.logical_and(at == 0, state.step > 0)
        order = jax.lax.cond(anew, lambda: jax.random.permutation(key, state.order), lambda: state.order)
        rows = target.rows(jax.lax.dynamic_slice_in_dim(order, at * size, size), jax.random.fold_in(key, 1))
        return order, together.cut(rows)


def _guarded(state: State, spike: float) -> State:
    """Keep a good state, go back to the last one kept from a runaway."""
    g = state.guard
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for p in jax.tree.leaves(state.parameters)]))
    bad, good, guard = judged(g, state.loss, finite, spike, jnp)
    pick = lambda which, old, new: jax.tree.map(lambda a, b: jnp.where(which, a, b), old, new)  # noqa: E731
    before, now = g[:3], (state.parameters, state.optimiser, state.chains)
    parameters, optimiser, chains = pick(bad, before, now)
    average, loss = pick(bad, g.parameters, state.average), jnp.where(bad, g.best, state.loss)
    guard = Guard._make((*pick(good, now, before), *guard[3:]))
    loss = jnp.where(jnp.isfinite(loss), loss, 0.0)
    return state._replace(
        parameters=parameters, optimiser=optimiser, chains=chains, average=average, loss=loss, guard=guard
    )


def judged(g: Guard, loss: Any, finite: Any, spike: float, xp: Any) -> tuple[Any, Any, Guard]:
    """Whether a state is a runaway, whether it is worth keeping, and the guard's numbers after this look, by NumPy or JAX.

    A state is kept whose loss is no worse than before. The running mean decides on going back, so that one bad batch does not; the
    loss itself on keeping, so that a rise that the mean does not show yet is not kept. A single loss beyond `spike` margins is a
    runaway that may be over by now: a net can die of it. Noise is learned slowly, so that a runaway is not taken for it.
    """
    mean = xp.where(xp.isnan(g.mean), loss, 0.9 * g.mean + 0.1 * loss)  # single losses are noisy
    margin = 0.3 * xp.abs(g.best) + 1.0 + NOISE * xp.sqrt(g.noise)
    calm = xp.logical_and(mean <= g.best + margin, xp.logical_not(g.worst > g.best + spike * margin))
    bad = xp.logical_not(xp.logical_and(finite, calm))
    good = xp.logical_and(finite, loss <= g.best + margin)
    spread = 0.5 * (loss - g.last) ** 2  # of differences: blind to trends
    noise = g.noise + 0.1 * (xp.minimum(spread, 9 * g.noise + 0.01 * (1 + xp.abs(g.best)) ** 2) - g.noise)
    guard = g._replace(
        mean=xp.where(bad, g.best, mean), best=xp.where(bad, g.best, xp.minimum(g.best, mean)),
        noise=xp.where(bad, g.noise, noise), last=xp.where(bad, g.best, loss), worst=xp.where(bad, g.best, loss),
        factor=xp.where(bad, g.factor * 0.3, g.factor), rollbacks=g.rollbacks + bad,
    )  # fmt: skip
    return bad, good, guard
