"""Field: a picture that a program says by its conditionals alone; a kind of target beside those of `target`."""

from __future__ import annotations

from typing import Any

import numpy as np

from probgen.target import Target


class Field(Target):
    """A Markov random field written as its conditionals: what a pixel may be, given those around it. It has no joint density.

    dim: how many numbers a picture has.
    """

    offers = "Field"
    dim: int

    @property
    def law(self) -> Any:
        """The distribution of the picture, see `probgen.distributions.patches.Patches`; in the words of compiled code."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        """That of a picture: (height, width), or (height, width, 3)."""
        raise NotImplementedError

    @property
    def picture(self) -> np.ndarray:
        """The sample: (height, width), or (height, width, 3)."""
        raise NotImplementedError

    @property
    def window(self) -> int:
        """The side of the square around a pixel on which it depends."""
        raise NotImplementedError

    def constrain(self, draws: np.ndarray) -> dict[str, np.ndarray]:
        """The pictures of draws (chain, picture, dim): {site: (chain, picture, *event)}."""
        raise NotImplementedError
