"""Two maps between rows of two kinds that are no pairs, each the way back of the other (Zhu, Park, Isola and Efros 2017).

    g: a -> b is the program, h: b -> a its guide; a critic of each kind, with logits D
    critics minimise   E (D(b) - 1)^2 / 2 + E D(g(a))^2 / 2,  and the same of a and h(b)
    maps minimise      E (D(g(a)) - 1)^2 + E (D(h(b)) - 1)^2 + cycle (E |h(g(a)) - a| + E |g(h(b)) - b|)
                       + identity (E |g(b) - b| + E |h(a) - a|)

|.| is the mean over the numbers of a row. Rows of a and of b are drawn each in an order of their own. The source shows its critics
pictures of up to 50 steps ago as well, which is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from probgen.algorithm import Incompatible, positive
from probgen.inference.adversarial._draws import FromDraws, State, indices_of, rows_of
from probgen.programs.bridging import Bridging
from probgen.target import Implicit


class Rival(NamedTuple):
    """Both critics' parameters, by the keyword of what they see; their optimiser's state; the order of rows of a; the last look."""

    parameters: Any
    optimiser: Any
    order: Any
    cycle: Any


class Info(NamedTuple):
    """As of other learners from draws, of b; cycle: E |h(g(a)) - a| + E |g(h(b)) - b| under the average, at the last look."""

    loss: Any
    critic_loss: Any
    right: Any
    slope: Any
    distance: Any
    last: Any
    learning_rate: Any
    cycle: Any


class Ways(NamedTuple):
    """Both maps, rows -> rows, and what the critic of a keyword says of rows: say(keyword, rows)."""

    given: str
    made: str
    forth: Any
    back: Any
    say: Any


@dataclass(frozen=True, kw_only=True)
class CycleGAN(FromDraws):
    """A map without noise, its guide back, and a critic of each kind, by Adam.

    cycle: weight of the way there and back.
    identity: weight of what the maps do to rows that are already of their kind; half of `cycle` in the source's paintings.
    critic_rate: the critics' learning rate, in learning rates of the maps.
    """

    takes_guide: ClassVar[bool] = True
    ways: ClassVar[type[Ways]] = Ways
    engines: ClassVar[tuple[str, ...]] = ("numpyro", "pyro")

    num_steps: int = 5000
    batch_size: int = 32
    learning_rate: float = 0.0005
    beta1: float = 0.5
    beta2: float = 0.999
    ema: float = 0.99
    cycle: float = 10.0
    identity: float = 0.0
    critic_rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "critic_rate")
        for name in ("cycle", "identity"):
            if not getattr(self, name) >= 0:  # NaN as well
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")

    def on(self, engine: str) -> Any:
        if engine == "numpyro":
            return self
        from probgen.inference.adversarial._torch._cycle import Kernel

        return Kernel(self)

    def prepare(self, target: Any) -> Any:
        if target.engine == "pyro":
            from probgen.engine.pyro.games.unpaired import both_ways
        else:
            from probgen.engine.numpyro.targets.unpaired import both_ways

        if not isinstance(target, Implicit):
            raise Incompatible("cycle_gan learns a map, a program without a density: an observed Delta(f(a)), a given.")
        if isinstance(target, Bridging):
            target.drawable()  # says why not
        if target.hidden or len(target.inputs) != 1 or len(target.visible) != 1:
            told = (
                f"noise ({target.hidden[0].name})"
                if target.hidden
                else f"inputs ({', '.join(target.inputs) or 'none'})"
            )
            raise Incompatible(
                f"cycle_gan learns a map of rows of one kind to those of another, without noise; this has {told}."
            )
        if target.author_guide is None:
            raise Incompatible(
                "cycle_gan learns the way back as well: give a guide, which draws what the program is given."
            )
        if self.identity and tuple(target.data[target.inputs[0]].shape[1:]) != target.visible[0].shape:
            raise ValueError(
                f"identity is {self.identity:g}, for rows of both kinds of one shape; these differ: use 0."
            )
        return both_ways(target, target.author_guide, target.author_critic)

    # ---- the kernel

    def first_rival(self, key: Any, target: Any) -> Rival:
        import jax
        import jax.numpy as jnp

        k_net, k_order = jax.random.split(key)
        parameters = target.critics_initial(k_net)
        order = jax.random.permutation(k_order, target.num_given).astype(jnp.int32)
        return Rival(parameters, self.rule().init(parameters), order, jnp.zeros((), "float32"))

    def of_rival(self, rival: Rival) -> dict[str, Any]:
        return {f"{k} (critic of {side})": v for side, own in rival.parameters.items() for k, v in own.items()}

    def prepared(self, k_rows: Any, k_rival: Any, state: State, target: Any, rate: Any) -> Any:
        import jax

        k_made, k_given = jax.random.split(k_rows)
        order, batch = rows_of(k_made, state.order, state.step, self.batch_size, target)
        order_given, index = indices_of(k_given, state.rival.order, state.step, self.batch_size)
        batch = {**batch, **target.rows_given(index)}
        sides = _sides(target, batch)
        fakes = self.fakes(_ways(target, state.parameters), *sides)
        loss = lambda critics: self.critics_loss(_ways(target, state.parameters, critics), *sides, fakes)  # noqa: E731
        told, slope = jax.value_and_grad(loss)(state.rival.parameters)
        updates, optimiser = self.rule().update(slope, state.rival.optimiser)
        parameters = self.moved(state.rival.parameters, updates, rate * self.critic_rate)
        return order, batch, Rival(parameters, optimiser, order_given, state.rival.cycle), told

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Any]:
        import jax.numpy as jnp

        new, info = super().step(key, state, target)
        return new, Info._make((*info, jnp.where(state.step >= self.period, new.rival.cycle, jnp.nan)))

    def look(self, state: State, info: Any, target: Any) -> tuple[State, Any]:
        state, info = super().look(state, info, target)
        index = state.held if len(state.held) > 1 else state.order
        rows = target.rows(index[:512])
        found = self.around(_ways(target, state.average), *_sides(target, rows)).astype("float32")
        return state._replace(rival=state.rival._replace(cycle=found)), info._replace(cycle=found)

    def looked_at(self, key: Any, state: State, target: Any, rows: Any) -> Any:
        import jax
        import jax.numpy as jnp

        critic, (_, real) = state.rival.parameters[target.made], _sides(target, rows)
        say = lambda x: target.said(target.made, critic, x)  # noqa: E731
        fake = target.forth(state.parameters, rows[target.given])
        right = 0.5 * jnp.mean(say(real) > 0.5) + 0.5 * jnp.mean(say(fake) < 0.5)
        slope = jax.grad(lambda x: say(x).reshape(len(x), -1).mean(1).sum())(real)
        return right.astype("float32"), jnp.sqrt((slope**2).sum() / len(real)).astype("float32")

    def loss_of_draws(self, key: Any, target: Any, rival: Rival, parameters: Any, batch: Any) -> Any:
        return self.maps_loss(_ways(target, parameters, rival.parameters), *_sides(target, batch))

    # ---- the losses, of rows a and b, for the arrays of both engines

    def fakes(self, ways: Ways, a: Any, b: Any) -> dict[str, Any]:
        """What is made of rows, by the keyword of the kind that it should be."""
        return {ways.given: ways.back(b), ways.made: ways.forth(a)}

    def critics_loss(self, ways: Ways, a: Any, b: Any, fakes: dict[str, Any]) -> Any:
        """What the critics minimise: ()."""
        rows, say = {ways.given: a, ways.made: b}, ways.say
        return sum(((say(k, rows[k]) - 1) ** 2).mean() / 2 + (say(k, fakes[k]) ** 2).mean() / 2 for k in rows)

    def maps_loss(self, ways: Ways, a: Any, b: Any) -> Any:
        """What the maps minimise: ()."""
        fakes = self.fakes(ways, a, b)
        loss = sum(((ways.say(k, x) - 1) ** 2).mean() for k, x in fakes.items())
        loss = loss + self.cycle * self.around(ways, a, b, fakes)
        if self.identity:
            loss = loss + self.identity * (abs(ways.forth(b) - b).mean() + abs(ways.back(a) - a).mean())
        return loss

    def around(self, ways: Ways, a: Any, b: Any, fakes: dict[str, Any] | None = None) -> Any:
        """E |h(g(a)) - a| + E |g(h(b)) - b|: 0 where each map is the other's inverse."""
        made = fakes or self.fakes(ways, a, b)
        return abs(ways.back(made[ways.made]) - a).mean() + abs(ways.forth(made[ways.given]) - b).mean()


def _ways(target: Any, parameters: Any, critics: Any = None) -> Ways:
    """Of a target of NumPyro, by parameters."""
    return Ways(
        target.given, target.made, lambda x: target.forth(parameters, x), lambda x: target.back(parameters, x),
        lambda k, x: target.said(k, critics[k], x),
    )  # fmt: skip


def _sides(target: Any, rows: Any) -> tuple[Any, Any]:
    """Rows of a and of b."""
    return rows[target.given], rows[target.keywords[target.made]]
