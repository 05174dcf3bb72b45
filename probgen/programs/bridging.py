"""Bridging: a diffusion between rows of two kinds; a kind of target beside those of `target`."""

from __future__ import annotations

from probgen.target import Implicit


class Bridging(Implicit):
    """Rows of two kinds that are no pairs, and a diffusion from one to the other.

    given, made: the keywords of rows that it begins at, and that it ends at.
    """

    offers = "Bridging"
    given: str
    made: str
