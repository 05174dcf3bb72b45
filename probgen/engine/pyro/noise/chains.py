"""Handlers of sites with a denoiser in Pyro programs: chains of latents that are never drawn whole, and flows.

They know such distributions by what they offer: a chain that noise makes has `level`, one that a program goes back by `end_gap`,
and whatever says what is believed of a noisy row `denoiser`.
"""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine.messenger import Messenger

from probgen.engine.pyro.programs.data import innermost


class Short(Messenger):
    """Chains are not drawn: random numbers of the right shape stand for them, in runs that look at a program alone."""

    def _pyro_sample(self, msg: Any) -> None:
        fn = innermost(msg["fn"])
        if msg["value"] is None and hasattr(fn, "filled"):
            msg["value"], msg["done"] = shown(fn, torch.randn(*fn.batch_shape, *fn.event_shape[1:])), True


class Lazy(Messenger):
    """Of chains that noise makes, the first level is drawn, and one random level a row by itself, kept in `levels`.

    time: which, (row,) in [0, 1), by default drawn; whole: whether the levels that nobody drew are NaN.
    """

    def __init__(self, time: torch.Tensor | None = None, whole: bool = False) -> None:
        super().__init__()
        self.time, self.whole = time, whole
        self.levels: dict[str, Any] = {}

    def _pyro_sample(self, msg: Any) -> None:
        fn = innermost(msg["fn"])
        if msg["value"] is None and hasattr(fn, "level"):
            first = fn.first()
            self.levels[msg["name"]] = fn.level(self.time)
            msg["value"], msg["done"] = fn.filled(first) if self.whole else shown(fn, first), True


class Forward(Messenger):
    """Of chains that are run forward the first level alone is kept."""

    def _pyro_sample(self, msg: Any) -> None:
        fn = innermost(msg["fn"])
        if msg["value"] is None and hasattr(fn, "end_gap"):
            msg["value"], msg["done"] = shown(fn, fn.first()), True


class Finding(Messenger):
    """Ends a run at the first site with a denoiser: what comes after is not computed. `found` is its distribution."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Any = None

    def _pyro_sample(self, msg: Any) -> None:
        fn = innermost(msg["fn"])
        if hasattr(fn, "denoiser"):
            self.found = fn
            raise Ended

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> Any:
        super().__exit__(kind, error, traceback)
        return kind is Ended


class Ended(Exception):
    """A run has told what was asked of it."""


def shown(fn: Any, first: torch.Tensor) -> torch.Tensor:
    """Chains as a program sees them that looks at the first level alone: (row, level, *event), without memory of their own."""
    return first[:, None].expand(-1, fn.event_shape[0], *first.shape[1:])
