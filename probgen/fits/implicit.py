"""ImplicitFit: a learned program without a density, such as a generator of pictures. What it offers are its draws."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from probgen.algorithm import Incompatible
from probgen.data import whole_numbers
from probgen.data.inputs import read
from probgen.data.whole_numbers import generator
from probgen.engine import drawing
from probgen.evaluate.attribute import Latents
from probgen.fits import latents
from probgen.fits.learned import LearnedFit
from probgen.fitted import FittedImplicit, LogProb
from probgen.target import Target

NORMAL = "standard normal"


@dataclass(frozen=True, repr=False)
class ImplicitFit(LearnedFit, FittedImplicit):
    """A learned program that says how a point arises from noise, and has no density.

    The noise of its draws is among them: `z = fit.sample(2)["z"]`, `fit.interpolate(*z)`, `fit.decode(z=z)`.
    """

    def sample(
        self, num_samples: int = 1, seed: int | None = None, *, truncation: float | None = None, **inputs: Any
    ) -> dict[str, np.ndarray]:
        """New points, with their noise: arrays (num_samples, *event).

        truncation: tau, by which coordinates of standard normal noise are drawn again until |z| <= tau (Brock et al. 2019; some
            code draws tau times a normal cut at 2 in its place, which is narrower). Fewer outliers, and less variety.
        inputs: of a conditional program, by their names, one for all points, or (num_samples, *shape): `fit.sample(64, label=7)`.
        """
        seed, num_samples = self._seed(seed), whole_numbers.whole("num_samples", num_samples)
        rows = self._inputs(inputs, num_samples)
        given = {} if truncation is None else self._truncated(truncation, rows, num_samples, seed)
        return self._forward(rows, num_samples, seed, given)

    def decode(self, *, seed: int | None = None, **noise: Any) -> dict[str, np.ndarray]:
        """Points of given noise, and of the inputs of a conditional program: all sites, (row, *event).

        noise: sites of noise by name, (row, *event); noise that is not given is drawn. Inputs: one for all, or (row, *shape).
        """
        inputs = {k: v for k, v in noise.items() if k in self.target.inputs}
        given = {k: read(k, v).astype(float) for k, v in noise.items() if k not in inputs}
        known = self.noise
        if unknown := [k for k in given if k not in known]:
            raise TypeError(f"Unknown {unknown[0]!r}; the noise of this program is {', '.join(known)}.")
        if not given:
            raise TypeError(f"decode takes noise: {', '.join(known)}, in rows. fit.sample(64) draws it.")
        for k, v in given.items():
            if v.ndim != len(known[k][0]) + 1 or v.shape[1:] != known[k][0]:
                raise ValueError(
                    f"{k} has shape {v.shape}; expected rows of shape {known[k][0]}: (row, *{known[k][0]})."
                )
        count = len(next(iter(given.values())))
        if any(len(v) != count for v in given.values()):
            raise ValueError(f"Different numbers of rows: {', '.join(f'{k}: {len(v)}' for k, v in given.items())}.")
        return self._forward(self._inputs(inputs, count), count, self._seed(seed), given)

    def translate(self, *, seed: int | None = None, **rows: Any) -> dict[str, np.ndarray]:
        """What is made of rows: `fit.translate(a=x)["b"]` of a program from a to b, one draw for each row.

        Of a map that "cycle_gan" learned in both directions, also back: `fit.translate(b=y)["a"]`. Arrays (row, *event).
        Incompatible for rows of a site where no way back was learned.
        """
        target, keywords = self.target, list(self.target.keywords)
        if not target.inputs:
            raise Incompatible("This program makes nothing of rows: it has no inputs. fit.sample(64) draws.")
        if set(rows) == set(target.inputs):
            count = len(np.atleast_1d(read(*next(iter(rows.items())))))
            return self._forward(self._inputs(rows, count), count, self._seed(seed))
        if len(rows) != 1 or next(iter(rows)) not in keywords:
            known = " and ".join(target.inputs)
            raise TypeError(
                f"translate takes rows of {known}, or of {keywords[0]} for the way back; got {', '.join(rows)}."
            )
        self._check_seen()
        (name, value), (_, shape) = next(iter(rows.items())), self._shapes[next(iter(rows))]
        array = read(name, value).astype(float)
        if array.shape[1:] != shape or array.ndim != len(shape) + 1:
            raise ValueError(f"{name} has shape {array.shape}; expected rows of shape {shape}: (row, *{shape}).")
        return drawing.returned(target, self.answer, {name: self._whole(name, array)})

    def interpolate(
        self,
        z0: Any,
        z1: Any,
        num_points: int = 8,
        *,
        path: Literal["sphere", "line"] = "sphere",
        seed: int | None = None,
        **inputs: Any,
    ) -> dict[str, np.ndarray]:
        """Points along a path of noise between two ends: all sites, (num_points, *event).

        z0, z1: noise of one point each, `fit.interpolate(*fit.sample(2)["z"])`: an array of the only site of noise, or a mapping.
            Sites that are not given are drawn once, for all points. inputs: of a conditional program, one for all points.
        path: "sphere", the great circle, whose points are as far from 0 as normal noise is; "line", the straight one, which passes
            through noise near 0 that is hardly ever drawn.
        """
        num_points = whole_numbers.whole("num_points", num_points)
        if num_points < 2:
            raise ValueError(f"num_points is {num_points}; it must be at least 2")
        if path not in ("sphere", "line"):
            raise ValueError(f"path is {path!r}; known: sphere, line")
        known, ends = self.noise, [self._end(name, z) for name, z in (("z0", z0), ("z1", z1))]
        if set(ends[0]) != set(ends[1]):
            raise TypeError(f"z0 gives {', '.join(ends[0])}, z1 {', '.join(ends[1])}; expected the same sites.")
        if path == "sphere" and (other := [k for k in ends[0] if known[k][1] != NORMAL]):
            raise ValueError(
                f"path='sphere' is for standard normal noise; {other[0]!r} is {known[other[0]][1]}: say path='line'."
            )
        at, between = np.linspace(0, 1, num_points), _sphere if path == "sphere" else _line
        given = {k: between(k, ends[0][k], ends[1][k], at) for k in ends[0]}
        rows, seed = self._inputs(inputs, num_points), self._seed(seed)
        if rest := [k for k in known if k not in given]:
            one = self._forward({k: v[:1] for k, v in rows.items()}, 1, seed, {k: v[:1] for k, v in given.items()})
            given |= {k: np.repeat(one[k], num_points, 0) for k in rest}
        return self._forward(rows, num_points, seed, given)

    def condition(self, x: Any = None, /, **given: Any) -> Target:
        """The target with the noise as unknowns, given inputs.

        Incompatible for points: no density says which noise they are from.
        """
        if x is not None or any(k in self.target.keywords for k in given):
            raise self._without("no noise can be drawn given a point")
        return super().condition(**given)

    def log_prob(self, *args: Any, **given: Any) -> LogProb:
        """Incompatible: there is no density."""
        raise self._without("there is no log probability")

    def energy(self, *args: Any, **given: Any) -> np.ndarray:
        """Incompatible: there is no density."""
        raise self._without("there is no energy")

    def log_z(self, *args: Any, **settings: Any) -> LogProb:
        """Incompatible: there is no density."""
        raise self._without("there is no constant")

    @functools.cached_property
    def noise(self) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """The sites of noise: their shapes, and "standard normal", or what their distribution is called."""
        inputs = {k: np.asarray(self.target.data[k])[:8] for k in self.target.inputs}
        return drawing.noise(self.target, self.answer, inputs)

    def _latents(self, inputs: Mapping[str, Any]) -> Latents:
        return latents.of_generator(self, inputs)

    # ---- parts

    def _whole(self, keyword: str, array: np.ndarray) -> np.ndarray:
        """The values of rows, on the scale of those that were learned from."""
        array, (low, high) = super()._whole(keyword, array), self._ranges[keyword]
        if len(self._shapes[keyword][1]) > 1 and (array.min() < 2 * low - high or array.max() > 2 * high - low):
            raise ValueError(
                f"{keyword} is from {low:g} to {high:g} where it was learned from; here from {array.min():g} to {array.max():g}, "
                "which is another scale: bring it to that one."
            )
        return array

    @functools.cached_property
    def _ranges(self) -> dict[str, tuple[float, float]]:
        """The least and the largest value of every keyword of rows and inputs."""
        arrays = {k: np.asarray(self.target.data[k]) for k in self._shapes}
        return {k: (float(v.min()), float(v.max())) for k, v in arrays.items()}

    def _without(self, what: str) -> Exception:
        name = self.target.visible[0].name
        return Incompatible(
            f"{what.capitalize()}: the program has no density, {name!r} is Delta(f(noise)).\n"
            "Measure its draws with pg.evaluate, or fit a density to them: "
            f"pg.fit('kernel_density', data=fit.sample(2000)[{name!r}]).\n"
            "With Normal(f(noise), sd) in place of Delta, inference='svi' and fit.log_prob(method='ais') estimate it."
        )

    def _truncated(self, tau: float, rows: Mapping[str, Any], count: int, seed: int) -> dict[str, np.ndarray]:
        """Standard normal noise given |z| <= tau, by its quantiles: {site: (count, *event)}."""
        from scipy.special import ndtr, ndtri

        if isinstance(tau, str | bool) or np.ndim(tau) or not tau > 0:
            raise ValueError(f"truncation is {tau}; it must be a number above 0")
        known = self.noise
        sites = {k: shape for k, (shape, kind) in known.items() if kind == NORMAL}
        if not sites:
            kinds = ", ".join(f"{k!r} is {kind}" for k, (_, kind) in known.items())
            raise ValueError(f"truncation is of standard normal noise, and there is none: {kinds}.")
        rng = generator(seed, 1)
        low = ndtr(-float(tau))
        quantiles = {k: low + (1 - 2 * low) * rng.random((count, *shape)) for k, shape in sites.items()}
        return {k: np.clip(ndtri(u), -tau, tau) for k, u in quantiles.items()}

    def _end(self, name: str, z: Any) -> dict[str, np.ndarray]:
        """Noise of one point: {site: array}."""
        known = self.noise
        if not isinstance(z, Mapping):
            if len(known) > 1:
                raise TypeError(f"This program has noise {', '.join(known)}: give {name} as {{site: array}}.")
            z = {next(iter(known)): z}
        if unknown := [k for k in z if k not in known]:
            raise TypeError(f"Unknown {unknown[0]!r} in {name}; the noise of this program is {', '.join(known)}.")
        found = {k: read(k, v).astype(float) for k, v in z.items()}
        for k, v in found.items():
            if v.shape != known[k][0]:
                raise ValueError(
                    f"{name} has {k!r} of shape {v.shape}; expected noise of one point, {known[k][0]}, as fit.sample(2)[{k!r}][0]."
                )
        return found

    def __repr__(self) -> str:
        return self._counted()


def _line(name: str, a: np.ndarray, b: np.ndarray, at: np.ndarray) -> np.ndarray:
    del name
    return np.multiply.outer(1 - at, a) + np.multiply.outer(at, b)


def _sphere(name: str, a: np.ndarray, b: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The great circle from a to b: (point, *shape)."""
    apart = drawing.angle(a, b)
    if np.isnan(apart):
        raise ValueError(f"{name!r} is 0 at an end, which has no direction: say path='line'.")
    if np.pi - apart < drawing.SAME:
        raise ValueError(f"The ends of {name!r} are opposite, with many great circles between them: say path='line'.")
    return drawing.great_circle(a, b, at)
