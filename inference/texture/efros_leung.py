"""Efros and Leung's sampler: a picture grown pixel by pixel, each drawn from the sample's best matches of what is around it.

    next    the pixel with most known pixels in its window
    x_i     drawn from p(x_i | the known part of its window), see the model

It begins with a small square of the sample in the middle. Each pixel is one product of the sample's squares and the window. Where
the known pixels were copied from one place, that place matches them exactly and is copied on, up to the sample's edge; with
`neighbours` above 1 other places are drawn as often. Efros and Leung 1999 (doi:10.1109/ICCV.1999.790383).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from probgen.algorithm import positive
from probgen.inference.texture._growing import Growing

AT_ONCE = 64  # pixels of a step


class State(NamedTuple):
    """Of every picture, with a margin of half a window: pixels (.., .., channel), whether they are known, how soon each is next.

    sources: see `Answer`; filled: how many pixels are.
    """

    pixels: Any
    known: Any
    turn: Any
    sources: Any
    filled: Any


class Info(NamedTuple):
    """loss: distance of the drawn places, in variances of the sample, the mean over the step's pixels; converged: all are grown."""

    loss: Any
    converged: Any


@dataclass(frozen=True, kw_only=True)
class EfrosLeung(Growing):
    """Settings, beside those of both.

    neighbours: places that are drawn from at least, however much farther they are than the nearest.
    start: side of the square of the sample with which a picture begins, in pixels.
    """

    part: ClassVar[str] = "window"
    told: ClassVar[str] = (
        "Pixels are drawn once, each given those before it: not a draw of a field that is the same everywhere."
    )

    neighbours: int = 1
    start: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "neighbours", "start")

    def side(self, law: Any) -> int:
        return law.window

    def kernel(self) -> EfrosLeung:
        return replace(self, num_steps=1)

    def init(self, key: Any, target: Any) -> State:
        import jax

        law = target.law
        side = min(self.start, *law.picture.shape[:2], law.height, law.width)
        return jax.vmap(lambda k: _begun(law, side, k))(jax.random.split(key, self.num_pictures))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax
        import jax.numpy as jnp

        law = target.law
        places, total = law.places(law.window), law.height * law.width
        count = jnp.minimum(AT_ONCE, total - state.filled[0])

        def on(i: Any, carry: Any) -> Any:
            state, far = carry
            keys = jax.random.split(jax.random.fold_in(key, i), self.num_pictures)
            state, found = jax.vmap(lambda k, one: _grown(law, places, self.neighbours, k, one))(keys, state)
            return state, far + jnp.mean(found)

        state, far = jax.lax.fori_loop(0, count, on, (state, jnp.zeros((), state.pixels.dtype)))
        return state, Info(far / jnp.maximum(count, 1), state.filled[0] >= total)


def _begun(law: Any, side: int, key: Any) -> State:
    """A square of the sample in the middle of an empty canvas."""
    import jax
    import jax.numpy as jnp

    standard, margin = law.standard, law.window // 2
    k_place, k_turn = jax.random.split(key)
    down, across, channels = standard.shape
    last = jnp.array([down - side, across - side]) + 1
    top, left = jax.random.randint(k_place, (2,), 0, last)
    square = jax.lax.dynamic_slice(standard, (top, left, 0), (side, side, channels))
    at = (law.height - side) // 2, (law.width - side) // 2
    padded = at[0] + margin, at[1] + margin
    shape = law.height + 2 * margin, law.width + 2 * margin
    pixels = jnp.zeros((*shape, channels), standard.dtype)
    pixels = jax.lax.dynamic_update_slice(pixels, square, (*padded, 0))
    inside = slice(padded[0], padded[0] + side), slice(padded[1], padded[1] + side)
    known = jnp.zeros(shape, bool).at[inside].set(True)
    seen = [
        jnp.convolve(jnp.zeros(n).at[i].set(1.0), jnp.ones(law.window), "same")
        for n, i in zip(shape, inside, strict=True)
    ]
    turn = jax.random.uniform(k_turn, (law.height, law.width), standard.dtype)
    turn = jnp.pad(turn, margin, constant_values=-jnp.inf) + seen[0][:, None] * seen[1]
    index = (top + jnp.arange(side))[:, None] * across + left + jnp.arange(side)
    sources = jnp.full((law.height, law.width), -1).at[at[0] : at[0] + side, at[1] : at[1] + side].set(index)
    return State(pixels, known, jnp.where(known, -jnp.inf, turn), sources, jnp.int32(side * side))


def _grown(law: Any, places: Any, neighbours: int, key: Any, state: State) -> tuple[State, Any]:
    """One pixel more, and how far its place was."""
    import jax
    import jax.numpy as jnp

    from probgen.distributions.patches import drawn

    side, margin, width = law.window, law.window // 2, jnp.shape(law.picture)[1]
    at = jnp.argmax(state.turn)
    row, column = at // state.turn.shape[1], at % state.turn.shape[1]
    corner = row - margin, column - margin
    around = jax.lax.dynamic_slice(state.pixels, (*corner, 0), (side, side, state.pixels.shape[2]))
    known = jax.lax.dynamic_slice(state.known, corner, (side, side))
    distances = places.distances(around, law.weights * known)
    place = drawn(key, law.admitted(distances, neighbours))
    turn = jax.lax.dynamic_slice(state.turn, corner, (side, side)) + 1
    turn = jax.lax.dynamic_update_slice(state.turn, turn, corner)
    source = places.indices(place, width)[margin, margin]
    state = State(
        state.pixels.at[row, column].set(places.values(place)[margin, margin]),
        state.known.at[row, column].set(True),
        turn.at[row, column].set(-jnp.inf),
        state.sources.at[corner].set(source),
        state.filled + 1,
    )
    return state, distances[place]
