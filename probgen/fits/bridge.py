"""BridgeFit: a learned diffusion between rows of two kinds. Rows of each are translated to the other, along paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.data import whole_numbers
from probgen.data.inputs import read
from probgen.data.scales import check_units
from probgen.data.whole_numbers import generator
from probgen.engine import bridging
from probgen.fits.implicit import ImplicitFit
from probgen.fitted import FittedBridge, LogProb
from probgen.programs.bridging import Bridging
from probgen.target import Target


@dataclass(frozen=True, repr=False)
class BridgeFit(ImplicitFit, FittedBridge):
    """A learned diffusion from rows of one kind, a, to those of another, b, and back."""

    target: Bridging

    def sample(self, num_samples: int = 1, seed: int | None = None, **inputs: Any) -> dict[str, np.ndarray]:
        """New pairs, {a, b}: rows of a by chance, and what becomes of each; or b alone for rows that are given, `a=x`."""
        return super().sample(num_samples, seed, **inputs) if inputs else self.simulate(num_samples, seed)

    def translate(self, *, seed: int | None = None, **rows: Any) -> dict[str, np.ndarray]:
        """What becomes of rows, one draw for each: `fit.translate(a=x)["b"]`, and back, `fit.translate(b=y)["a"]`: (row, *event).

        Noise is drawn by the seed: the same row has many ends. Their law given a row is the bridge's.
        """
        keyword, array = self._row("translate", rows)
        found = bridging.ends(self.target, self.answer, keyword, array, self._seed(seed))
        return {self.target.made if keyword == self.target.given else self.target.given: found}

    def trajectory(self, num_samples: int = 8, seed: int | None = None, **rows: Any) -> Mapping[str, np.ndarray]:
        """Paths: `times` (time,), and `z` (row, time, *event), from rows `a=x`, or back from `b=y`, when times fall from 1 to 0.

        num_samples: how many, from rows of a by chance, where no rows are given.
        """
        if not rows:
            count = whole_numbers.whole("num_samples", num_samples)
            if count < 1:
                raise ValueError(f"num_samples is {count}; it must be at least 1")
            own = np.asarray(self.target.data[self.target.given])
            picked = generator(self._seed(seed), 2).integers(len(own), size=count)
            rows = {self.target.given: own[picked]}
        keyword, array = self._row("trajectory", rows)
        times, z = bridging.paths(self.target, self.answer, keyword, array, self._seed(seed))
        return {"times": times if keyword == self.target.given else 1 - times, "z": z}

    @property
    def held_out(self) -> Mapping[str, np.ndarray]:
        """Rows of both kinds that were not learned from, by keyword: (row, *event)."""
        learner: Any = self.inference
        target = self.target
        rows = {k: np.asarray(target.data[k]) for k in (target.given, target.made)}
        index = {
            target.given: learner.held_given(self.state, len(rows[target.given])),
            target.made: learner.held(self.state, len(rows[target.made])),
        }
        return {k: v[np.asarray(index[k], int)] for k, v in rows.items()}

    def condition(self, x: Any = None, /, **given: Any) -> Target:
        """Incompatible: what becomes of a row has no density; `translate` draws given a row, each way."""
        raise Incompatible(
            f"A diffusion has no density to condition on: fit.translate({self.target.given}=rows) draws {self.target.made} given "
            f"{self.target.given}, fit.translate({self.target.made}=rows) the way back."
        )

    def decode(self, *, seed: int | None = None, **noise: Any) -> dict[str, np.ndarray]:
        """Incompatible: noise comes at every step of a path."""
        raise Incompatible(
            "The noise of a diffusion comes at every step: fit.translate(..., seed=1) draws it by a seed."
        )

    def interpolate(self, *args: Any, **settings: Any) -> dict[str, np.ndarray]:
        """Incompatible: a diffusion has no latent space."""
        raise Incompatible(
            "A diffusion has no latent space to interpolate in: fit.trajectory(a=rows) is what lies between both kinds of rows."
        )

    def _without(self, what: str) -> Exception:
        target = self.target
        return Incompatible(
            f"{what.capitalize()}: the law of {target.made} given {target.given}, the end of a diffusion by a network's drift, "
            f"has no density that is known.\nMeasure draws with pg.evaluate, or fit a density to them: "
            f"pg.fit('velocity', data=fit.sample(5000)[{target.made!r}])."
        )

    def log_prob(self, *args: Any, **given: Any) -> LogProb:
        """Incompatible: there is no density that is known."""
        raise self._without("there is no log probability")

    def _row(self, verb: str, rows: Mapping[str, Any]) -> tuple[str, np.ndarray]:
        """The keyword of rows of one kind, and the rows: (row, *event)."""
        known = (self.target.given, self.target.made)
        if len(rows) != 1 or next(iter(rows)) not in known:
            got = ", ".join(rows) or "nothing"
            raise TypeError(f"{verb} takes rows of {known[0]}, or of {known[1]} for the way back; got {got}.")
        self._check_seen()
        ((name, value),) = rows.items()
        array, shape = read(name, value).astype(float), self._shapes[name][1]
        if array.shape[1:] != shape or array.ndim != len(shape) + 1 or not len(array):
            raise ValueError(f"{name} has shape {array.shape}; expected rows of shape {shape}: (row, *{shape}).")
        check_units(name, array, np.asarray(self.target.data[name]))
        return name, array
