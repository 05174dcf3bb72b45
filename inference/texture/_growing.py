"""What both ways to grow a picture share: the canvas, the pieces of the sample on it, the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from probgen.algorithm import Learner, positive
from probgen.programs.fields import Field

MOST_BYTES = 2**31  # of the table of a sample's squares


class Answer(NamedTuple):
    """z (1, picture, dim), NaN where nothing has grown; sources (1, picture, h, w): which pixel of the sample each is, or -1."""

    z: Any
    sources: Any


@dataclass(frozen=True, kw_only=True)
class Growing(Learner[Field]):
    """Settings of both.

    num_steps: at most so many; growing ends when the picture is full.
    num_pictures: pictures that are grown, independently.
    """

    engines: ClassVar[tuple[str, ...]] = ("numpyro",)
    loss_of: ClassVar[str] = "loss"
    part: ClassVar[str]  # the setting by which `side` is said
    told: ClassVar[str]  # what a reader of its pictures should know

    num_steps: int = 100_000
    num_pictures: int = 1

    def prepare(self, target: Any) -> Any:
        check_size(target.law.picture.shape, self.side(target.law), target.precision, self.part)
        target.notes = (*target.notes, *([self.told] if self.told not in target.notes else []))
        return target

    def side(self, law: Any) -> int:
        """Of the squares of the sample that are compared, in pixels."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "num_pictures")

    def answer(self, key: Any, state: Any, target: Any) -> Answer:
        """The pixels of the sample at their sources."""
        height, width = target.shape[:2]
        sources = state.sources[:, :height, :width]
        values = jnp.reshape(target.law.picture, (-1, *target.shape[2:]))
        grown = values[jnp.maximum(sources, 0)]
        there = sources.reshape(*sources.shape, *[1] * (grown.ndim - sources.ndim)) >= 0
        return Answer(jnp.where(there, grown, jnp.nan).reshape(1, len(sources), -1), sources[None])


def check_size(shape: tuple[int, ...], side: int, precision: str, what: str) -> None:
    """ValueError where the table of all squares of a sample does not fit in memory."""
    height, width, *channels = shape
    size = 2 * side * side * (height - side + 1) * (width - side + 1) * (channels or [1])[0]
    size *= 8 if precision == "float64" else 4
    if size > MOST_BYTES:
        raise ValueError(
            f"The squares of {side} pixels a side in a sample of {height} by {width} take {size / 2**30:.1f} GiB; at most "
            f"{MOST_BYTES / 2**30:.0f}.\nPass a part of the sample, sample[:128, :128], or a smaller {what}."
        )
