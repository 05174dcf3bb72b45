"""What the searches for a mode of a finite energy share: restarts, the best points so far, the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from probgen.algorithm import Learner, positive
from probgen.engine.numpyro.sums import energy
from probgen.target import Conditional


class State(NamedTuple):
    """Of every restart: values of the sites, their log density, and the best point so far with its own; steps done."""

    values: Any
    log_density: Any
    best: Any
    best_density: Any
    step: Any


class Answer(NamedTuple):
    """The best point of every restart, the best of all first: z (restart, 1, dim), log_p (restart, 1) in nats."""

    z: Any
    log_p: Any


@dataclass(frozen=True, kw_only=True)
class Search(Learner[Conditional]):
    """Settings of the searches.

    num_restarts: independent searches from random points, all at once; `fit.draws` has the best of each, sorted.
    conditionals: as for inference="gibbs".
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    bias: ClassVar[str | None] = "a point estimate, of a mode that need not be the highest: no uncertainty"

    num_restarts: int = 20
    conditionals: Literal["gradient", "evaluation"] = "gradient"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_restarts")
        if self.conditionals not in ("gradient", "evaluation"):
            raise ValueError(f"conditionals is {self.conditionals!r}; known: gradient, evaluation")

    def prepare(self, target: Any) -> Any:
        return target.blocked((), self.conditionals == "evaluation")

    def init(self, key: Any, target: Any) -> State:
        values = jax.vmap(target.start)(jax.random.split(key, self.num_restarts))
        log_density = jax.vmap(target.joint)(values)
        return State(values, log_density, values, log_density, jnp.int32(0))

    def answer(self, key: Any, state: State, target: Any) -> Answer:
        order = jnp.argsort(-state.best_density)
        best = jax.vmap(target.flat)(state.best)
        return Answer(best[order, None], state.best_density[order, None])


def moved(state: State, values: Any, log_density: Any) -> State:
    """The state at new points."""
    higher = log_density > state.best_density
    best = {k: jnp.where(higher.reshape(-1, *[1] * (v.ndim - 1)), v, state.best[k]) for k, v in values.items()}
    return State(values, log_density, best, jnp.maximum(log_density, state.best_density), state.step + 1)


# ---- conditional modes -------------------------------------------------------------------------------------------


def ascend(target: Any, values: Any) -> dict[str, Any]:
    """Every unknown at its conditional mode given the rest, block after block; what is known stays."""
    variables, values = {v.name: v for v in target.variables}, dict(values)
    for block in target.structure.blocks:
        chosen = [variables[name] for name in block.sites]
        if block.colours is None:
            new = _modes(target.joint, values, chosen)
        else:
            new = _coloured(target, values, chosen[0], block.colours)
        values = target.held({**values, **new})
    return values


def changed(new: Any, old: Any, tolerance: float) -> Any:
    """How many units differ by more than a tolerance, relative to their size or 1."""
    return sum(jnp.sum(jnp.abs(new[k] - old[k]) > tolerance * (1 + jnp.abs(old[k]))) for k in new)


def settled(target: Any, values: Any, limit: int = 1000, tolerance: float = 1e-6) -> Any:
    """Where `ascend` from the values comes to rest."""

    def on(carry: Any) -> Any:
        i, values, _ = carry
        new = ascend(target, values)
        return i + 1, new, changed(new, values, tolerance) > 0

    first = (jnp.int32(0), values, jnp.bool_(True))
    return jax.lax.while_loop(lambda c: (c[0] < limit) & c[2], on, first)[1]


def _modes(f: energy.Density, values: Any, variables: list[energy.Variable], mask: Any = None) -> dict[str, Any]:
    """Conditional modes of bits and reals that do not interact; a bit without a preference stays."""
    slope = energy.slopes(f, values, [v.name for v in variables])
    reals = [v.name for v in variables if v.kind == "reals"]
    curvature = energy.curvatures(f, values, reals, mask) if reals else {}
    new = {}
    for v in variables:
        x, g = values[v.name], slope[v.name]
        if v.kind == "bits":
            new[v.name] = jnp.where(g > 0, 1.0, jnp.where(g < 0, 0.0, x)).astype(x.dtype)
        else:
            precision = -curvature[v.name] if mask is None else jnp.where(mask, -curvature[v.name], 1.0)
            new[v.name] = x + g / precision
    return new


def _coloured(target: Any, values: Any, variable: energy.Variable, colours: tuple[int, ...]) -> dict[str, Any]:
    """Conditional modes of one site's units, colour after colour; what is known stays, for the next colour to see."""
    name = variable.name

    def new(i: Any, mask: Any, x: Any) -> Any:
        now = {**values, name: x}
        if mask is None:
            best = _best_level(target.joint, now, variable, i)
        else:
            best = _modes(target.joint, now, [variable], mask)[name]
        return target.held({name: best})[name]

    return {name: energy.by_colour(variable, colours, new, values[name])}


def _best_level(f: energy.Density, values: Any, variable: energy.Variable, index: Any) -> Any:
    """A site with one unit at its best level, by evaluating f at all of them; among equals the unit's own."""
    flat = values[variable.name].reshape(-1)
    every = jnp.append(flat[index], jnp.arange(variable.levels).astype(flat.dtype))
    tried = jax.vmap(lambda level: flat.at[index].set(level).reshape(variable.shape))(every)
    return tried[jnp.argmax(jax.vmap(lambda x: f({**values, variable.name: x}))(tried))]
