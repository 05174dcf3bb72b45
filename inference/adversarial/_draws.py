"""What learners from draws share: a batch of rows against as many draws of the program, Adam, an average, and rows held out.

The rows that are held out are never learned from: the verdict's tests of the draws are against them. How far draws are from them is
looked at as learning goes: the sliced Wasserstein distance, of the average of the parameters and of the last ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from probgen.algorithm import Learner, positive
from probgen.inference.adversarial._distance import LINES, SHOWN, Words, sliced
from probgen.target import Generative

HELD = 2000  # rows that are held out, at most


class State(NamedTuple):
    """Parameters, their moving average, the optimiser's state; the opponent's; rows to learn from and rows held out."""

    step: Any
    parameters: Any
    average: Any
    optimiser: Any
    rival: Any
    order: Any
    held: Any
    looked: Any


class Looked(NamedTuple):
    """What the last look found; see `Info`."""

    right: Any
    slope: Any
    distance: Any
    last: Any


class Info(NamedTuple):
    """loss: what the program minimises on its batch; critic_loss: what the critic minimises, 0 without one.

    Of the last look, NaN before the first: right, the share of points that the critic tells right, rows and draws each counting one
    half; slope, the root mean square of its gradient at rows; distance, of draws under the average from rows held out, sliced
    Wasserstein-2, in the unit of the data; last, the same under the last parameters.
    """

    loss: Any
    critic_loss: Any
    right: Any
    slope: Any
    distance: Any
    last: Any
    learning_rate: Any


@dataclass(frozen=True, kw_only=True)
class FromDraws(Learner[Generative]):
    """Settings of all learners that see a program by its draws alone.

    num_steps: steps of the program, each on one batch.
    batch_size: rows, and draws, a step.
    optimizer: "adam", with `beta1` and `beta2`, or "sgd".
    learning_rate: the first one.
    decay: of the learning rate: "linear" or "cosine" to zero at the last step, or "constant".
    ema: the answer is the exponential moving average of the program's parameters, with this decay a step; 0 for the last ones.
    held_out: share of the rows, at most 2000, that are held out of learning for the verdict.
    """

    precision: ClassVar[str] = "float32"
    period: ClassVar[int] = 100
    loss_of: ClassVar[str] = "game"
    engines: ClassVar[tuple[str, ...]] = ("numpyro",)

    num_steps: int = 20_000
    batch_size: int = 256
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 0.001
    beta1: float = 0.0
    beta2: float = 0.99
    decay: Literal["linear", "cosine", "constant"] = "linear"
    ema: float = 0.999
    held_out: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "batch_size", "learning_rate")
        for name, known in {"optimizer": ("adam", "sgd"), "decay": ("linear", "cosine", "constant")}.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; known: {', '.join(known)}")
        for name in ("ema", "beta1", "beta2", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1")

    def held_rows(self, num_rows: int) -> int:
        """How many rows are held out."""
        return min(int(self.held_out * num_rows), HELD)

    def prepare(self, target: Any) -> Any:
        """The target as learners from draws take it: without a guide; Incompatible where its draws have no gradient."""
        critic, guided = target.author_critic, hasattr(target, "plain")
        target = target.plain if guided else target
        notes = (
            *target.drawable(),
            *((f"{self.name} does not use the program's guide.",) if guided else ()),
            *_bits(target),
        )
        rows = target.num_rows - self.held_rows(target.num_rows)
        default = type(self).__dataclass_fields__["batch_size"].default
        if self.batch_size > rows and self.batch_size != default:
            raise ValueError(
                f"batch_size is {self.batch_size}; {rows} of {target.num_rows} rows are learned from: use at most that."
            )
        found = self.against(target, critic, min(self.batch_size, rows))
        found.notes = tuple(dict.fromkeys((*target.notes, *notes)))
        return found

    # ---- the kernel

    def init(self, key: Any, target: Any) -> State:
        import jax
        import jax.numpy as jnp

        k_model, k_rival, k_order = jax.random.split(key, 3)
        parameters = target.started(self.first(k_model, target.initial(k_model)))  # where they begin elsewhere, they do
        order = jax.random.permutation(k_order, target.num_rows).astype(jnp.int32)
        count, zero = self.held_rows(target.num_rows), jnp.zeros((), "float32")
        rival = self.first_rival(k_rival, target)
        state = (parameters, parameters, self.rule().init(parameters), rival, order[count:], order[:count])
        return State(jnp.int32(0), *state, Looked(zero, zero, zero, zero))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax
        import jax.numpy as jnp

        k_rows, k_rival, k_model = jax.random.split(key, 3)
        rate = self.rate(state.step)
        order, batch, rival, told = self.prepared(k_rows, k_rival, state, target, rate)
        opponent = self.faced(state.rival, rival)
        loss, slope = jax.value_and_grad(lambda p: self.loss_of_draws(k_model, target, opponent, p, batch))(
            state.parameters
        )
        updates, optimiser = self.rule().update(self.regularised(slope, state.parameters), state.optimiser)
        parameters = self.moved(state.parameters, updates, rate)
        weight = jnp.maximum(1 - self.ema, 1 / (state.step + 1.0)) if self.ema else 1.0
        average = jax.tree.map(lambda a, p: a + jnp.asarray(weight, p.dtype) * (p - a), state.average, parameters)
        new = State(state.step + 1, parameters, average, optimiser, rival, order, state.held, state.looked)
        seen = state.step >= self.period
        return new, Info._make((loss, told, *(jnp.where(seen, x, jnp.nan) for x in state.looked), rate))

    def look(self, state: State, info: Any, target: Any) -> tuple[State, Any]:
        import jax

        key = jax.random.fold_in(jax.random.key(1), state.step)
        known, held = (target.rows(r[: min(SHOWN, len(r))]) for r in (state.order, state.held))
        held = held if len(state.held) > 1 else known
        distances = (_distance(key, target, p, held) for p in (state.average, state.parameters))
        looked = Looked(*self.looked_at(key, state, target, known), *distances)
        return state._replace(looked=looked), info._replace(**looked._asdict())

    def answer(self, key: Any, state: State, target: Any) -> dict[str, Any]:
        del key, target
        return {**dict(state.average), **self.of_rival(state.rival)}

    def held(self, state: Mapping[str, Any], num_rows: int) -> Any:
        """Indices of the rows that were held out, of a checkpoint: (row,)."""
        named = [
            k for k in state if k.partition("|")[0].endswith(".held")
        ]  # of Pyro; JAX numbers leaves in their order
        found = state[named[0] if named else sorted(state)[-1 - len(Looked._fields)]]
        if found.shape != (self.held_rows(num_rows),) or found.dtype.kind != "i":
            raise ValueError(f"The checkpoint has no indices of {self.held_rows(num_rows)} rows held out.")
        return found

    # ---- what learners say

    def against(self, target: Any, critic: Any, count: int) -> Any:
        """The target with what it is learned against; count: rows of a batch."""
        del critic, count
        return target.learned_by_draws()

    def first(self, key: Any, parameters: Mapping[str, Any]) -> Any:
        """The program's parameters before the first step."""
        del key
        return dict(parameters)

    def first_rival(self, key: Any, target: Any) -> Any:
        """The opponent's state before the first step: a tree of arrays."""
        return ()

    def faced(self, before: Any, after: Any) -> Any:
        """The opponent that the program moves against: as it was before its own move, or after."""
        del before
        return after

    def of_rival(self, rival: Any) -> dict[str, Any]:
        """The opponent's part of the answer."""
        return {}

    def prepared(self, k_rows: Any, k_rival: Any, state: State, target: Any, rate: Any) -> Any:
        """The order of rows, the batch that the program learns from, the opponent's new state, and its loss."""
        import jax.numpy as jnp

        order, batch = rows_of(k_rows, state.order, state.step, self.batch_size, target)
        return order, batch, (), jnp.zeros((), "float32")

    def looked_at(self, key: Any, state: State, target: Any, rows: Any) -> Any:
        """The share of rows and draws that the opponent tells right, and the root mean square of its slope at rows."""
        import jax.numpy as jnp

        return jnp.zeros((), "float32"), jnp.zeros((), "float32")

    def loss_of_draws(self, key: Any, target: Any, rival: Any, parameters: Any, batch: Any) -> Any:
        """What the program minimises on a batch: ()."""
        raise NotImplementedError

    def regularised(self, gradient: Any, parameters: Any) -> Any:
        """The gradient with that of a penalty on the program's parameters."""
        del parameters
        return gradient

    # ---- parts

    def rule(self) -> Any:
        """Directions at a learning rate of one, to be subtracted."""
        import optax

        return optax.scale_by_adam(self.beta1, self.beta2) if self.optimizer == "adam" else optax.identity()

    def moved(self, parameters: Any, updates: Any, rate: Any) -> Any:
        import jax

        return jax.tree.map(lambda p, u: p - (rate * u).astype(p.dtype), parameters, updates)

    def rate(self, step: Any, xp: Any = None) -> Any:
        """The learning rate of a step; xp: NumPy in place of JAX's."""
        if xp is None:
            import jax.numpy as xp

        done = step / self.num_steps
        left = {"linear": 1.0 - done, "cosine": 0.5 + 0.5 * xp.cos(xp.pi * done), "constant": 1.0 + 0.0 * done}
        return self.learning_rate * left[self.decay]


@dataclass(frozen=True, kw_only=True)
class ByDistance(FromDraws):
    """Settings of learners without a critic: Adam on a distance of draws from rows."""

    engines: ClassVar[tuple[str, ...]] = ("numpyro", "pyro")

    beta1: float = 0.9
    beta2: float = 0.999

    def on(self, engine: str) -> Any:
        if engine == "numpyro":
            return self
        from probgen.inference.adversarial._torch._draws import Kernel

        return Kernel(self)

    def loss_of_draws(self, key: Any, target: Any, rival: Any, parameters: Any, batch: Any) -> Any:
        import jax

        from probgen.engine.numpyro.targets.draws import of_rows

        x, y = flat(target, batch), flat(target, of_rows(target, key, parameters, batch))
        return self.distance(Words(jax.random.fold_in(key, 1)), x, y)

    def distance(self, words: Any, x: Any, y: Any) -> Any:
        """That of draws y from as many rows x, (row, number), smooth in y: ()."""
        raise NotImplementedError


def _bits(target: Any) -> tuple[str, ...]:
    """A note on pictures that are black and white alone, which draws will be as well."""
    pictures = {
        k: target.data[k]
        for k, site in target.keywords.items()
        for v in target.visible
        if v.name == site and len(v.shape) > 1
    }
    black = [k for k, x in pictures.items() if ((x == 0) | (x == 1)).all()]
    grey = "grey levels are in other data, as in 'digits_grey' beside 'digits'"
    return tuple(f"{k} holds black and white alone, and so will its draws: {grey}." for k in black)


def rows_of(key: Any, order: Any, turn: Any, size: int, target: Any) -> tuple[Any, Any]:
    """The rows of a turn, in an order that is drawn anew after each pass."""
    import jax

    order, index = indices_of(key, order, turn, size)
    return order, target.rows(index, jax.random.fold_in(key, 1))


def indices_of(key: Any, order: Any, turn: Any, size: int) -> tuple[Any, Any]:
    """The indices of a turn, at most so many, and the order, drawn anew after each pass."""
    import jax
    import jax.numpy as jnp

    size = min(size, len(order))
    at = turn % (len(order) // size)
    anew = jnp.logical_and(at == 0, turn > 0)
    order = jax.lax.cond(anew, lambda: jax.random.permutation(key, order), lambda: order)
    return order, jax.lax.dynamic_slice_in_dim(order, at * size, size)


def flat(target: Any, points: Any) -> Any:
    """Visible sites side by side: (row, number)."""
    import jax.numpy as jnp

    return jnp.concatenate([points[v.name].reshape(len(points[v.name]), -1) for v in target.visible], 1)


def _distance(key: Any, target: Any, parameters: Any, rows: Any) -> Any:
    """The sliced Wasserstein-2 distance of as many draws from rows, by random directions."""
    import jax
    import jax.numpy as jnp

    from probgen.engine.numpyro.targets.draws import of_rows

    real, drawn = flat(target, rows), flat(target, of_rows(target, key, parameters, rows))
    return jnp.sqrt(sliced(Words(jax.random.fold_in(key, 1)), real, drawn, LINES)).astype("float32")
