"""What learners of energies share: batches, the likelihood's gradient, an optimiser, and a guard that rolls back.

With f the joint log density of one point, F(v) = log sum_h exp f(v, h) and Z its sum over v too, the gradient is

    d/dtheta mean log p(v) = mean over data of dF/dtheta - mean over the model of dF/dtheta

The learners differ in where the model's points come from. Both means are exact over one block of units given the rest,
by automatic differentiation of the sum over that block. Hidden units that interact take their mean-field values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from probgen.algorithm import Learner, positive
from probgen.engine import energy
from probgen.target import Learnable

SAMPLES = 1000  # of the posterior where F has no closed form
NOISE = 3.0  # standard deviations of a single loss that its running mean may rise beyond other causes


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
    """Parameters, their average, the optimiser's state, the model's chains, the order of the rows, and the guard."""

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
class EnergyLearner(Learner[Learnable]):
    """Settings of all learners of energies.

    num_steps: steps, each on one batch.
    batch_size: rows a step; all rows are used before any comes again.
    optimizer: "sgd", with `momentum`, or "adam", of Optax.
    learning_rate: the largest; it rises over the first hundredth of the steps.
    decay: "linear" to zero at the last step, or "constant".
    momentum: of "sgd".
    weight_decay: of arrays with two or more axes.
    start: where parameters begin that are zero in the program and only multiply visible bits: "data", at the log odds of the
        data, or "program".
    average: the answer is the average of the parameters over this last part of the steps; 0 for the last alone.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    precision: ClassVar[str] = "float32"
    period: ClassVar[int] = 50
    spike: ClassVar[float] = math.inf  # of a single loss, in margins of the guard, that is a runaway too

    num_steps: int = 20_000
    batch_size: int = 100
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    decay: Literal["linear", "constant"] = "linear"
    momentum: float = 0.0
    weight_decay: float = 0.0
    average: float = 0.2
    start: Literal["data", "program"] = "data"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "batch_size", "learning_rate")
        choices = {"optimizer": ("sgd", "adam"), "decay": ("linear", "constant"), "start": ("data", "program")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; known: {', '.join(known)}")
        for name in ("momentum", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")

    def prepare(self, target: Any) -> Any:
        return target.blocked()

    # ---- the kernel

    def init(self, key: Any, target: Any) -> State:
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
        gradient, gap, chains = self.gradient(k_model, target, state.parameters, batch, state.chains)
        gradient = self._decayed(gradient, state.parameters)
        rate = self._rate(state.step) * state.guard.factor
        updates, optimiser = self._optimiser().update(gradient, state.optimiser, state.parameters)
        parameters = jax.tree.map(lambda p, u: p - (rate * u).astype(p.dtype), state.parameters, updates)
        loss = self.monitor(k_loss, target, state, batch, gap)
        first = int(self.num_steps * (1 - self.average)) if self.average else self.num_steps
        weight = 1 / jnp.maximum(1.0, state.step + 2.0 - first)
        average = jax.tree.map(lambda a, p: a + weight.astype(p.dtype) * (p - a), state.average, parameters)
        guard = state.guard._replace(worst=jnp.maximum(state.guard.worst, loss))
        new = State(state.step + 1, parameters, average, optimiser, chains, order, loss, guard)
        return new, Info(loss, gap, rate, guard.rollbacks)

    def look(self, state: State, info: Any, target: Any) -> tuple[State, Any]:
        """A runaway is rolled back."""
        state = _guarded(state, self.spike)
        return state, info._replace(rollbacks=state.guard.rollbacks)

    def answer(self, key: Any, state: State, target: Any) -> dict[str, Any]:
        del key, target
        return dict(state.average)

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
        """The loss to be shown: minus the pseudo-likelihood of bits, estimated from one unit a row, every tenth step.

        Of reals, the reconstruction's squared error; of levels, the size of the gap.
        """
        later = lambda: state.loss  # noqa: E731
        now = lambda: pseudo_loss(key, target, state.parameters, batch)  # noqa: E731
        if all(v.kind == "reals" for v in target.visible):
            now = lambda: reconstruction(target, state.parameters, batch)  # noqa: E731
        elif not any(v.kind == "bits" for v in target.visible):
            now = lambda: jnp.abs(gap)  # noqa: E731
        return jax.lax.cond(state.step % 10 == 0, now, later)

    # ---- parts

    def _optimiser(self) -> Any:
        """Directions at a learning rate of one, to be subtracted."""
        if self.optimizer == "adam":
            return optax.scale_by_adam()
        return optax.trace(self.momentum) if self.momentum else optax.identity()

    def _rate(self, step: Any) -> Any:
        warm = jnp.minimum(1.0, (step + 1.0) / max(1.0, self.num_steps / 100))
        left = 1.0 - step / self.num_steps if self.decay == "linear" else 1.0
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
        return order, target.rows(jax.lax.dynamic_slice_in_dim(order, at * size, size))


def _guarded(state: State, spike: float) -> State:
    """Keep a state whose loss is no worse than before, go back to the last one kept where the loss has run away.

    The running mean decides on going back, so that one bad batch does not; the loss itself on keeping, so that a rise that the
    mean does not show yet is not kept. A single loss beyond `spike` margins is a runaway that may be over by now: a net can die of
    it. Noise is learned slowly, so that a runaway is not taken for it.
    """
    g = state.guard
    mean = jnp.where(jnp.isnan(g.mean), state.loss, 0.9 * g.mean + 0.1 * state.loss)  # single losses are noisy
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for p in jax.tree.leaves(state.parameters)]))
    margin = 0.3 * jnp.abs(g.best) + 1.0 + NOISE * jnp.sqrt(g.noise)
    calm = jnp.logical_and(mean <= g.best + margin, jnp.logical_not(g.worst > g.best + spike * margin))
    bad = jnp.logical_not(jnp.logical_and(finite, calm))
    good = jnp.logical_and(finite, state.loss <= g.best + margin)
    pick = lambda which, old, new: jax.tree.map(lambda a, b: jnp.where(which, a, b), old, new)  # noqa: E731
    before, now = g[:3], (state.parameters, state.optimiser, state.chains)
    parameters, optimiser, chains = pick(bad, before, now)
    average, loss = pick(bad, g.parameters, state.average), jnp.where(bad, g.best, state.loss)
    spread = 0.5 * (state.loss - g.last) ** 2  # of differences: blind to trends
    noise = g.noise + 0.1 * (jnp.minimum(spread, 9 * g.noise + 0.01 * (1 + jnp.abs(g.best)) ** 2) - g.noise)
    guard = Guard(
        *pick(good, now, before), *(jnp.where(bad, g.best, x) for x in (mean, jnp.minimum(g.best, mean))),
        jnp.where(bad, g.noise, noise), jnp.where(bad, g.best, state.loss), jnp.where(bad, g.best, state.loss),
        jnp.where(bad, g.factor * 0.3, g.factor), g.rollbacks + bad,
    )  # fmt: skip
    loss = jnp.where(jnp.isfinite(loss), loss, 0.0)
    return state._replace(
        parameters=parameters, optimiser=optimiser, chains=chains, average=average, loss=loss, guard=guard
    )


# ---- the likelihood ----------------------------------------------------------------------------------------------


def hidden_block(target: Any) -> list[Any] | None:
    """The hidden sites where they do not interact given the visible ones; None where they do."""
    names = {v.name for v in target.hidden}
    if not names:
        return []
    blocks = [b for b in target.structure.blocks if set(b.sites) & names]
    single = len(blocks) == 1 and blocks[0].colours is None
    return target.hidden if single else None


def exact(target: Any) -> bool:
    """Whether `free` has a closed form."""
    return target.structure.normal or hidden_block(target) is not None or any(v.kind == "levels" for v in target.hidden)


def summed(target: Any, parameters: Any, values: Any) -> Any:
    """f summed over the largest block whose units do not interact, the rest as in `values`; one point."""
    sizes = {b: sum(target.variables[s].size for s in b.sites) for b in target.structure.blocks if b.colours is None}
    hidden = hidden_block(target)
    sites = (
        hidden if hidden else [target.variables[s] for s in max(sizes, key=sizes.__getitem__).sites] if sizes else []
    )
    f = lambda x: target.joint(parameters, x)  # noqa: E731
    return energy.collapsed(f, values, sites) if sites else f(values)


def free(target: Any, parameters: Any, batch: Any) -> Any:
    """F of rows, (row,): exact where hidden units do not interact, are jointly normal, or have levels, which are enumerated.

    Else the mean-field bound, its values held fixed; where f is not affine in every hidden bit, one by draws from the mean-field
    posterior: see `sampled_bound`.
    """
    if target.structure.normal or any(v.kind == "levels" for v in target.hidden):
        from probgen.inference.learning._exact import marginal

        return jax.vmap(marginal(target, lambda x: target.joint(parameters, x)))(batch)
    summable = ("bits",) if evaluated(target) else ("bits", "reals")
    if other := [v for v in target.hidden if v.kind not in summable]:
        raise energy.NotConditional(
            f"Hidden site {other[0].name!r} ({other[0].kind}) cannot be summed out: that is for {' and '.join(summable)} here."
        )
    if evaluated(target):
        keys = jax.random.split(jax.random.key(0), len(next(iter(batch.values()))))
        return jax.lax.map(lambda x: sampled_bound(x[0], target, parameters, x[1]), (keys, batch))
    block = hidden_block(target)
    if block is not None:
        f = lambda row: energy.collapsed(lambda x: target.joint(parameters, x), row, block)  # noqa: E731
        return jax.vmap(f if block else lambda row: target.joint(parameters, row))(batch)
    if real := [v.name for v in target.hidden if v.kind == "reals"]:
        raise energy.NotConditional(
            f"Hidden site {real[0]!r} interacts with others and is not jointly normal with them: it has no closed integral."
        )
    means = jax.lax.stop_gradient(jax.vmap(lambda row: mean_field(target, parameters, row))(batch))
    entropy = sum(jnp.sum(_entropy(m).reshape(len(m), -1), axis=1) for m in means.values())
    return jax.vmap(lambda row, m: target.joint(parameters, {**row, **m}))(batch, means) + entropy


def _entropy(mean: Any) -> Any:
    """Of bits with these means, in nats."""
    return -jax.scipy.special.xlogy(mean, mean) - jax.scipy.special.xlogy(1 - mean, 1 - mean)


def mean_field(target: Any, parameters: Any, row: Any, num_iterations: int = 30) -> dict[str, Any]:
    """The hidden units' means by coordinate ascent on the bound, damped, a site after the other."""
    f = lambda x: target.joint(parameters, x)  # noqa: E731
    hidden = target.hidden

    def update(_: Any, means: Any) -> Any:
        for v in hidden:
            new = energy.means(f, {**row, **means}, [v])[v.name] if _whole(target, v) else _self_mean(f, row, means, v)
            means = {**means, v.name: new}
        return means

    return jax.lax.fori_loop(0, num_iterations, update, {v.name: jnp.full(v.shape, 0.5) for v in hidden})


def evaluated(target: Any) -> bool:
    """Whether f is not affine in some of the hidden bits."""
    names = {v.name for v in target.hidden}
    return any(b.evaluated and set(b.sites) & names for b in target.structure.blocks)


def sampled_bound(key: Any, target: Any, parameters: Any, row: Any) -> Any:
    """log of the mean of exp f(v, h) / q(h) over draws h of a factorised q: below F(v) on average, for any q.

    Burda, Grosse and Salakhutdinov 2016 (arXiv:1509.00519).
    """
    means = mean_field(target, parameters, row)
    means = {k: jnp.clip(m, 1e-3, 1 - 1e-3) for k, m in means.items()}  # so that no value is out of reach

    def term(key: Any) -> Any:
        h = {
            k: jax.random.bernoulli(jax.random.fold_in(key, i), m).astype(m.dtype)
            for i, (k, m) in enumerate(means.items())
        }
        log_q = sum(jnp.sum(jnp.where(h[k] > 0, jnp.log(m), jnp.log1p(-m))) for k, m in means.items())
        return target.joint(parameters, {**row, **h}) - log_q

    terms = jax.vmap(term)(jax.random.split(key, SAMPLES))
    return jax.nn.logsumexp(terms) - jnp.log(SAMPLES)


def _whole(target: Any, v: Any) -> bool:
    return any(v.name in b.sites and b.colours is None for b in target.structure.blocks)


def _self_mean(f: Any, row: Any, means: Any, v: Any) -> Any:
    """Half a step of all of a site's units at once, where they interact among themselves."""
    slope = energy.slopes(f, {**row, **means}, [v.name])[v.name]
    return 0.5 * means[v.name] + 0.5 * jax.nn.sigmoid(slope)


def sweeps(key: Any, target: Any, parameters: Any, chains: Any, count: int) -> Any:
    """Gibbs sweeps of many chains {site: (chain, *event)} under given parameters, all sites free."""
    f = lambda x: target.joint(parameters, x)  # noqa: E731
    number = len(next(iter(chains.values())))

    def one(i: Any, values: Any) -> Any:
        keys = jax.random.split(jax.random.fold_in(key, i), number)
        sweep = lambda k, x: energy.sweep(k, f, x, target.variables, target.structure.blocks, {})[0]  # noqa: E731
        return jax.vmap(sweep)(keys, values)

    return one(0, chains) if count == 1 else jax.lax.fori_loop(0, count, one, chains)


def with_hidden(key: Any, target: Any, parameters: Any, batch: Any) -> Any:
    """Rows with their hidden sites at random; the first block of a sweep draws what it needs."""
    number = len(next(iter(batch.values())))
    return {**batch, **energy.anywhere(key, target.hidden, number)}


def pseudo_loss(key: Any, target: Any, parameters: Any, batch: Any) -> Any:
    """Minus the log pseudo-likelihood of a row's bits in nats, estimated from one bit of every row.

    D log(1 + exp(F(v with one bit flipped) - F(v))), D the number of visible bits.
    """
    bits = [v for v in target.visible if v.kind == "bits"]
    number, total = len(next(iter(batch.values()))), sum(v.size for v in bits)
    at = jax.random.randint(key, (number,), 0, total)
    flipped, start = dict(batch), 0
    for v in bits:
        hit = jax.nn.one_hot(at - start, v.size, dtype=batch[v.name].dtype).reshape(number, *v.shape)
        flipped[v.name] = hit * (1 - batch[v.name]) + (1 - hit) * batch[v.name]
        start += v.size
    return total * jnp.mean(jax.nn.softplus(free(target, parameters, flipped) - free(target, parameters, batch)))


def reconstruction(target: Any, parameters: Any, batch: Any) -> Any:
    """Mean squared error of the visible means given the hidden means of a row."""

    def one(row: Any) -> Any:
        f = lambda x: target.joint(parameters, x)  # noqa: E731
        block = hidden_block(target)
        hidden = energy.means(f, row, block) if block else mean_field(target, parameters, row) if target.hidden else {}
        back = energy.means(f, {**row, **hidden}, target.visible)
        return sum(jnp.sum((back[k] - row[k]) ** 2) for k in row)

    return jnp.mean(jax.vmap(one)(batch))


def filled(key: Any, target: Any, parameters: Any, points: Any) -> Any:
    """Points with the hidden sites drawn given the visible ones: exactly where they do not interact, else one sweep."""
    if not target.hidden:
        return points
    f = lambda x: target.joint(parameters, x)  # noqa: E731
    names = {v.name for v in target.hidden}
    blocks = tuple(
        block._replace(sites=tuple(s for s in block.sites if s in names))
        for block in target.structure.blocks
        if set(block.sites) & names
    )
    keys = jax.random.split(key, len(next(iter(points.values()))))
    return jax.vmap(lambda k, x: energy.sweep(k, f, x, target.variables, blocks, {})[0])(keys, points)


def contrast(target: Any, parameters: Any, batch: Any, points: Any) -> tuple[Any, Any]:
    """The gradient of mean F over the model's points minus mean F over the batch, and their gap, in nats.

    Over the model's points F is summed over one block given the rest of each point.
    """
    points = jax.lax.stop_gradient(points)

    def loss(parameters: Any) -> Any:
        model = jnp.mean(jax.vmap(lambda x: summed(target, parameters, x))(points))
        return model - jnp.mean(free(target, parameters, batch))

    value, gradient = jax.value_and_grad(loss)(parameters)
    return gradient, -value
