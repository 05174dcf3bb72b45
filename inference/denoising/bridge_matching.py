"""Schroedinger bridges by iterated Markovian fitting: two diffusions, there and back, each learned from pairs that the other makes.

    pairs (a, b):   Brownian bridges X_t between them;   v learns E[X_1 - X_t | X_t] / (1 - t), there and back
    pairs anew:     rows of a and where their paths end, for the way back; rows of b and the ends of their paths, for the way there

A diffusion makes a Markov process of pairs, pairs with Brownian bridges between them have the paths of Brownian motion: only the
Schroedinger bridge is both, and each turn comes nearer to it, from any pairs; of normal data nine tenths of the way.
Shi et al. 2023 (arXiv:2303.16852); Peluchetti 2023 (arXiv:2304.00917); pairs made as learning goes: De Bortoli et al. 2024
(arXiv:2409.09347).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.algorithm import Incompatible, positive
from probgen.inference._learner import Guard, RowLearner, State
from probgen.programs.bridging import Bridging

HELD = 2000  # rows of each kind that are held out, at most
AFTER = len(Guard._fields) - 3  # numbers of a guard that come after what it keeps of the pairs


class Pairs(NamedTuple):
    """Pairs (pair, *event) that the diffusions made, `there` from rows of a and `back` from rows of b, each (a, b).

    key: of those to come; rows, held: indices of rows of a to learn from, and of both kinds held out.
    """

    key: Any
    there: tuple[Any, Any]
    back: tuple[Any, Any]
    rows: Any
    held_given: Any
    held: Any


class Info(NamedTuple):
    """loss: the mean square of what the networks say amiss, in units in which it is about one at first: no nats, and no bound."""

    loss: Any
    learning_rate: Any
    rollbacks: Any


@dataclass(frozen=True, kw_only=True)
class BridgeMatching(RowLearner[Bridging]):
    """Two diffusions by Adam, from pairs of rows by chance at first, then from pairs that the diffusions make.

    first: share of the steps on pairs by chance.
    num_pairs: kept of each way; num_fresh: of them made anew every 50 steps, the oldest first.
    held_out: share of the rows of each kind, at most 2000, that are held out of learning for the verdict.
    """

    takes_guide: ClassVar[bool] = True
    precision: ClassVar[str] = "float32"
    loss_of: ClassVar[str] = "bridge"

    num_steps: int = 8000
    batch_size: int = 256
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 0.002
    decay: Literal["linear", "cosine", "constant"] = "cosine"
    ema: float = 0.995
    start: Literal["data", "program"] = "program"
    first: float = 0.25
    num_pairs: int = 4096
    num_fresh: int = 1024
    held_out: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_pairs", "num_fresh")
        if self.num_fresh > self.num_pairs:
            raise ValueError(f"num_fresh is {self.num_fresh}; it must be at most num_pairs, {self.num_pairs}")
        for name in ("held_out", "first"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")

    def prepare(self, target: Any) -> Any:
        from probgen.engine.numpyro.noise.bridged import both_ways

        if not isinstance(target, Bridging):
            raise Incompatible(
                "bridge_matching learns a diffusion between two kinds of rows: a site Driven(drift, row), given rows of the other."
            )
        return both_ways(target, target.author_guide)

    @property
    def settles(self) -> int:
        """The step from which the loss is of one thing: pairs that the diffusions make."""
        return int(self.first * self.num_steps)

    def held_rows(self, num_rows: int) -> int:
        """How many of so many rows are held out."""
        return min(int(self.held_out * num_rows), HELD)

    def held(self, state: Mapping[str, Any], num_rows: int) -> Any:
        """Indices of the rows of what is drawn that were held out, of a checkpoint: (row,)."""
        return self._kept(state, num_rows, 1)

    def held_given(self, state: Mapping[str, Any], num_rows: int) -> Any:
        """The same of what is given."""
        return self._kept(state, num_rows, 2)

    def _kept(self, state: Mapping[str, Any], num_rows: int, place: int) -> Any:
        found = state[sorted(state)[-place - AFTER]]
        if found.shape != (self.held_rows(num_rows),) or found.dtype.kind != "i":
            raise ValueError(f"The checkpoint has no indices of {self.held_rows(num_rows)} rows held out.")
        return found

    # ---- the kernel

    def init(self, key: Any, target: Any) -> State:
        import jax
        import jax.numpy as jnp

        state = super().init(key, target)
        k_given, k_pairs, k_loss = jax.random.split(jax.random.fold_in(key, 9), 3)
        order, count = jax.random.permutation(k_given, target.num_given).astype(jnp.int32), target.num_rows
        here, there = self.held_rows(target.num_given), self.held_rows(count)
        pairs = Pairs(jax.random.key_data(k_pairs), ((), ()), ((), ()), order[here:], order[:here], state.order[:there])
        state = state._replace(order=state.order[there:])
        made = self._by_chance(k_pairs, target, pairs, state.order, self.num_pairs)
        state = state._replace(chains=pairs._replace(there=made, back=made))
        batch = (self._by_chance(k_loss, target, state.chains, state.order, self.batch_size),) * 2
        loss = self._loss(k_loss, target, state.parameters, batch)
        guard = state.guard._replace(chains=state.chains, best=loss, last=loss, worst=loss)
        return state._replace(loss=loss, guard=guard)

    def first_loss(self, key: Any, target: Any, state: State, batch: Any) -> Any:
        import jax.numpy as jnp

        return jnp.zeros(())

    def gradient(self, key: Any, target: Any, parameters: Any, batch: Any, chains: Any) -> tuple[Any, Any, Any]:
        import jax

        loss, gradient = jax.value_and_grad(lambda p: self._loss(key, target, p, batch))(parameters)
        return gradient, -loss, chains

    def monitor(self, key: Any, target: Any, state: Any, batch: Any, gap: Any) -> Any:
        return -gap

    def told(self, state: State, info: Any) -> Info:
        return Info(info.loss, info.learning_rate, info.rollbacks)

    def looked(self, state: State, target: Any) -> State:
        """Some pairs made anew: by chance at first, later by the diffusions under the average of the parameters."""
        import jax

        key = jax.random.fold_in(jax.random.wrap_key_data(state.chains.key), state.step)
        k_rows, k_there, k_back = jax.random.split(key, 3)
        a, b = self._by_chance(k_rows, target, state.chains, state.order, self.num_fresh)
        parameters = self.averaged(state)

        def paths() -> Any:
            there, back = (
                target.paths(k_there, parameters, target.given, a),
                target.paths(k_back, parameters, target.made, b),
            )
            return (a, there[:, -1]), (back[:, -1], b)

        there, back = jax.lax.cond(self._alone(state.step), lambda: ((a, b), (a, b)), paths)
        put = lambda old, new: jax.tree.map(self._put(state.step), old, new)  # noqa: E731
        return state._replace(
            chains=state.chains._replace(there=put(state.chains.there, there), back=put(state.chains.back, back))
        )

    # ---- parts

    def _alone(self, step: Any) -> Any:
        """Whether pairs are still by chance."""
        return step < self.settles

    def _put(self, step: Any) -> Any:
        """New pairs in place of the oldest."""
        import jax.numpy as jnp

        at = (step // self.period * self.num_fresh + jnp.arange(self.num_fresh)) % self.num_pairs
        return lambda old, new: old.at[at].set(new)

    def _batch(self, key: Any, state: State, target: Any) -> tuple[Any, Any]:
        """Pairs to learn the way there from, those made on the way back, and to learn the way back from."""
        import jax

        k_chance, k_there, k_back = jax.random.split(key, 3)

        def kept() -> Any:
            pick = lambda key, pairs: jax.tree.map(  # noqa: E731
                lambda x: x[jax.random.randint(key, (self.batch_size,), 0, self.num_pairs)], pairs
            )
            return pick(k_there, state.chains.back), pick(k_back, state.chains.there)

        chance = lambda: (self._by_chance(k_chance, target, state.chains, state.order, self.batch_size),) * 2  # noqa: E731
        return state.order, jax.lax.cond(self._alone(state.step), chance, kept)

    def _by_chance(self, key: Any, target: Any, pairs: Pairs, order: Any, count: int) -> tuple[Any, Any]:
        """Rows of both kinds, drawn with replacement: (pair, *event) each."""
        import jax

        one, two = jax.random.split(key)
        a = target.rows_given(pairs.rows[jax.random.randint(one, (count,), 0, len(pairs.rows))])[target.given]
        b = order[jax.random.randint(two, (count,), 0, len(order))]
        return a, target.arrays[target.made][b].astype(target.precision)

    def _loss(self, key: Any, target: Any, parameters: Any, batch: Any) -> Any:
        """The mean of both ways': ()."""
        import jax

        one, two = jax.random.split(key)
        (a, b), (c, d) = batch
        there = self._of_way(one, target, parameters, target.given, a, b)
        return 0.5 * (there + self._of_way(two, target, parameters, target.made, d, c))

    def _of_way(self, key: Any, target: Any, parameters: Any, keyword: str, begin: Any, end: Any) -> Any:
        """The loss of a diffusion from rows of one kind, by pairs (pair, *event): ()."""
        import jax
        import jax.numpy as jnp

        from probgen.inference._times import spread_out
        from probgen.nets.bridges.drift import LAST, time

        k_time, k_noise = jax.random.split(key)
        times = jnp.minimum(time(spread_out(k_time, (len(begin),))), 1 - LAST)
        noise = jax.random.normal(k_noise, begin.shape, begin.dtype)

        def one(x: Any, y: Any, t: Any, e: Any) -> Any:
            drift = target.driven(parameters, keyword, x).drift
            return jnp.mean((drift.said(drift.bridged(x, y, e, t), t) - drift.wanted(x, y, e, t)) ** 2)

        return jnp.mean(jax.vmap(one)(begin, end, times, noise))
