"""Completable: a point of a diffusion model, known in part; a kind of target beside those of `target`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from probgen.target import Target


class PartlyKnown(Target):
    """The point alone, in the units that the denoiser sees, without the levels of a chain: what the denoiser's algorithms take.

    dim: its size; linear: whether combinations of it were seen, `pg.Linear`, with their own noise.
    """

    offers = "PartlyKnown"
    dim: int
    linear: bool
    calibration: Callable[[], Mapping[str, Any]] | None = None

    def calibrated(self) -> PartlyKnown:
        """The same with what rows say of the denoiser."""
        raise NotImplementedError

    def constrain(self, draws: Any) -> Any:
        """The site at draws (chain, draw, dim): {site: (chain, draw, *event)}."""
        raise NotImplementedError


class Completable(Target):
    """A point known in part, of a program that takes noise from points: what is not known is drawn by the denoiser.

    Other algorithms see the density of the same program, where it has one: such a target is of two kinds.
    """

    offers = "Completable"
    calibration: Callable[[], Mapping[str, Any]] | None = None  # what rows say of the denoiser, by the fit that learned from them

    def alone(self) -> PartlyKnown:
        """The target as the denoiser's algorithms take it; raises Incompatible where its units are not the program's."""
        raise NotImplementedError
