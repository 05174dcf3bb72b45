"""Image quilting: blocks of the sample side by side, overlapping, cut along the path where they differ least.

    b_k     drawn from the blocks of the sample that match what is there already where they overlap it
    cut     the path of least squares of differences through the overlap, by dynamic programming

Blocks go in rows from the top, each row from the left. Efros and Freeman 2001 (doi:10.1145/383259.383296), but for `neighbours`:
with the nearest block alone, the block that follows in the sample matches exactly, and whole rows of it would be copied.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from probgen.algorithm import positive
from probgen.inference.texture._growing import Growing


class State(NamedTuple):
    """Of every picture, to the end of the last blocks: pixels (.., .., channel), whether they are known, sources, see `Answer`.

    laid: how many blocks are.
    """

    pixels: Any
    known: Any
    sources: Any
    laid: Any


class Info(NamedTuple):
    """loss: how far the block is from what it overlaps, in variances of the sample, the mean of the pictures; converged."""

    loss: Any
    converged: Any


class Layout(NamedTuple):
    """Side of a block and of an overlap in pixels; how many blocks are below each other and side by side."""

    block: int
    overlap: int
    down: int
    across: int

    @property
    def stride(self) -> int:
        return self.block - self.overlap


@dataclass(frozen=True, kw_only=True)
class Quilting(Growing):
    """Settings, beside those of both.

    block: side of a block in pixels; by default a third of the sample's shorter side. overlap: by default a sixth of that.
    neighbours: blocks that are drawn from at least, however much worse they fit than the best.
    """

    part: ClassVar[str] = "block"
    told: ClassVar[str] = "Blocks of the sample are copied whole: nothing within one is new."

    block: int | None = None
    overlap: int | None = None
    neighbours: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "neighbours", *(name for name in ("block", "overlap") if getattr(self, name) is not None))

    def side(self, law: Any) -> int:
        return self.layout(law).block

    def layout(self, law: Any) -> Layout:
        """Of the blocks of one picture; ValueError for blocks that the sample does not have."""
        shortest = min(law.picture.shape[:2])
        block = self.block or max(2, shortest // 3)
        overlap = self.overlap or max(1, block // 6)
        if block > shortest:
            raise ValueError(f"block is {block}; the sample has no more than {shortest} pixels along its shorter side.")
        if overlap >= block:
            raise ValueError(f"overlap is {overlap}; it must be below block, {block}")
        down, across = (max(1, -(-(n - overlap) // (block - overlap))) for n in (law.height, law.width))
        return Layout(block, overlap, down, across)

    def kernel(self) -> Quilting:
        return replace(self, num_steps=1)

    def init(self, key: Any, target: Any) -> State:
        import jax.numpy as jnp

        law = target.law
        layout, standard = self.layout(law), law.standard
        shape = tuple(n * layout.stride + layout.overlap for n in (layout.down, layout.across))
        pixels = jnp.zeros((self.num_pictures, *shape, standard.shape[2]), standard.dtype)
        known = jnp.zeros(pixels.shape[:3], bool)
        return State(pixels, known, jnp.full(known.shape, -1), jnp.int32(0))

    def step(self, key: Any, state: State, target: Any) -> tuple[State, Info]:
        import jax
        import jax.numpy as jnp

        law = target.law
        layout = self.layout(law)
        total, places = layout.down * layout.across, law.places(layout.block)
        keys = jax.random.split(key, self.num_pictures)

        def lay(state: State) -> tuple[State, Any]:
            one = lambda k, *canvas: _laid(law, places, layout, self.neighbours, state.laid, k, *canvas)  # noqa: E731
            pixels, known, sources, far = jax.vmap(one)(keys, state.pixels, state.known, state.sources)
            return State(pixels, known, sources, state.laid + 1), jnp.mean(far)

        nothing = jnp.zeros((), state.pixels.dtype)
        state, far = jax.lax.cond(state.laid < total, lay, lambda state: (state, nothing), state)
        return state, Info(far, state.laid >= total)


def _laid(
    law: Any, places: Any, layout: Layout, neighbours: int, laid: Any, key: Any, pixels: Any, known: Any, sources: Any
):
    """One block more: canvas, and how far the block is from what it overlaps."""
    import jax
    import jax.numpy as jnp

    from probgen.distributions.patches import drawn

    side = layout.block
    row, column = laid // layout.across, laid % layout.across
    corner = row * layout.stride, column * layout.stride
    start = lambda x: (*corner, *[jnp.zeros_like(row)] * (x.ndim - 2))  # noqa: E731
    cut = lambda x: jax.lax.dynamic_slice(x, start(x), (side, side, *x.shape[2:]))  # noqa: E731
    put = lambda x, new: jax.lax.dynamic_update_slice(x, new, start(x))  # noqa: E731
    old, there = cut(pixels), cut(known)
    distances = places.distances(old, there.astype(pixels.dtype))
    place = drawn(key, law.admitted(distances, neighbours))
    new = places.values(place)
    differ = jnp.where(there, jnp.sum((new - old) ** 2, axis=-1), 0.0)
    taken = (column == 0) | _beyond(differ, layout.overlap)
    taken = ~there | (taken & ((row == 0) | _beyond(differ.T, layout.overlap).T))
    index = places.indices(place, jnp.shape(law.picture)[1])
    pixels = put(pixels, jnp.where(taken[..., None], new, old))
    sources = put(sources, jnp.where(taken, index, cut(sources)))
    return pixels, put(known, jnp.ones_like(there)), sources, distances[place]


def _beyond(differ: Any, overlap: int) -> Any:
    """Which pixels of a block are to the right of the cheapest path down through its left overlap, or on it: (side, side).

    differ: what a path pays at every pixel, (side, side); it moves by at most one column a row.
    """
    import jax
    import jax.numpy as jnp

    cost = differ[:, :overlap]
    wall = jnp.full((1,), jnp.inf, cost.dtype)

    def down(best: Any, row: Any) -> tuple[Any, Any]:
        sides = jnp.concatenate([wall, best, wall])
        nearby = jnp.stack([sides[:-2], sides[1:-1], sides[2:]])
        return row + jnp.min(nearby, axis=0), jnp.argmin(nearby, axis=0) - 1

    last, moves = jax.lax.scan(down, cost[0], cost[1:])

    def up(column: Any, move: Any) -> tuple[Any, Any]:
        before = column + move[column]
        return before, before

    end = jnp.argmin(last)
    _, path = jax.lax.scan(up, end, moves, reverse=True)
    path = jnp.append(path, end)
    return jnp.arange(differ.shape[1]) >= path[:, None]
