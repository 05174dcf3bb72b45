"""Targets of a point of a diffusion model that is known in part: beside their own kind, completable by the denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probgen import runtime
from probgen.algorithm import Incompatible
from probgen.engine import measuring
from probgen.engine.combined import APART, shown, sites_of, told
from probgen.engine.measuring import CALIBRATED, EQUAL, ROUNDED
from probgen.engine.numpyro.noise.known import Found, look, site_of
from probgen.engine.numpyro.targets.base import NumpyroTarget
from probgen.engine.numpyro.targets.conditional import NumpyroMixed
from probgen.engine.numpyro.targets.continuous import NumpyroContinuous
from probgen.nets.diffusion.inverse import Coordinates, Gathered, Informed, Overlapping, Rotated, Seen
from probgen.nets.diffusion.twisted import Calibration, Twist
from probgen.programs.completable import DENSE, KNOWN, VALUE, Completable, PartlyKnown, Told
from probgen.target import Target, Variable

AT = " at value"  # ending of the indices of what is known: of two, so that no program is given them
CURVED = (
    "What is known of a point is not what the denoiser sees: the program transforms the point as a whole, or on a curve.\n"
    "Use inference='nuts', which needs the density alone."
)


class Alone(NumpyroTarget, PartlyKnown):
    """The point alone, (dim,), in the units in which the denoiser sees it."""

    @property
    def site(self) -> Variable:
        name = site_of(self.arrays)
        return next(v for v in self.structure.variables if v.name == name)

    @property
    def sites(self) -> Any:
        return tuple(site for site in self.structure.sites if site.name == self.site.name)

    @property
    def data(self) -> Mapping[str, Any]:
        return {k: v for k, v in super().data.items() if not k.endswith((AT, *measuring.OWN))}

    @property
    def dim(self) -> int:
        return self.site.size

    @property
    def linear(self) -> bool:
        return bool(sites_of(self.arrays))

    @property
    def num_seen(self) -> int:
        return len(self.arrays[self.site.name + (measuring.Y if self.linear else AT)])

    @property
    def whole(self) -> int:
        """The largest of whole numbers; 0 for reals."""
        return {"bits": 1, "levels": self.site.levels - 1}.get(self.site.kind, 0)

    def found(self, at: Any) -> Found:
        found = look(self.structure, self.arrays, jnp.asarray(at, self.precision))
        assert found is not None  # what made it completable
        return found

    @property
    def ends(self) -> tuple[Any, Any]:
        """What the points of zeros and of ones that the denoiser sees are in the program's units: (*event) each."""
        return self.found(jnp.zeros(self.site.shape)).point, self.found(jnp.ones(self.site.shape)).point

    def problem(self, noise: float | None, covariance: str) -> tuple[Informed | Twist, str, Any]:
        """The denoiser that knows what was seen, the variance of a chain's steps, and the log of how much larger y is in its units.

        noise: the standard deviation with which a part is known, in the program's units; None for what stands for none.
        covariance: see `Completing`; "rows" for a denoiser that rows have calibrated, where it was.
        """
        found = self.found(jnp.zeros(self.site.shape))
        seen, volume = self._seen(noise)
        calibration = _calibration_of(self.arrays, self.site.name)
        if covariance == "rows" and calibration is not None:
            return Twist(found.denoiser, seen, calibration), found.variance, volume
        kind: Any = covariance
        if covariance in ("auto", "rows"):
            kind = "jacobian" if len(seen.y) <= DENSE or isinstance(seen, Overlapping) else "variance"
        return Informed(found.denoiser, seen, kind, wary=True), found.variance, volume

    def _seen(self, noise: float | None) -> tuple[Any, Any]:
        """What was seen in the denoiser's units, and the log of how much larger it is there."""
        name = self.site.name
        if self.linear:
            seen = _seen_of(self.arrays, name, name + APART in self.arrays, self.site.size)
            return seen, self.arrays[name + measuring.VOLUME]
        low, high = self.ends
        span, at = (high - low).ravel(), self.arrays[name + AT]
        y = ((self.arrays[name + VALUE] - low).ravel() / span)[at]
        told = noise if noise is not None else ROUNDED if self.whole else None
        width = jnp.full_like(y, EQUAL) if told is None else told / jnp.abs(span[at])
        return Coordinates(y, width, at), -jnp.sum(jnp.log(jnp.abs(span[at])))

    def told(self) -> Told:
        return shown(self.arrays, self.site.name, self.site.shape)

    def calibrated(self) -> Alone:
        """The same with what rows say of the denoiser, where the fit is at hand that learned from them."""
        name = self.site.name
        with runtime.jax_scope(self.precision):
            seen = self._seen(None)[0]
            if isinstance(seen, Overlapping):
                raise Incompatible(measuring.OVERLAP.format(measuring.ROTATED, len(seen.y)))
            if self.calibration is None or _calibration_of(self.arrays, name) is not None:
                return self
            rows = self.calibration()
            missed = jnp.asarray(rows["missed"], self.precision)
            along = np.asarray(seen.among(missed.reshape(*missed.shape[:2], -1)), float)
            found = measuring.calibrated(rows, along)
            found = {f"{name}{k}": jnp.asarray(v, self.precision) for k, v in found.items()}
        other = Alone(self.structure, {**self.arrays, **found})
        other.notes = self.notes
        return other

    def settled(self, x: Any, noise: float | None) -> Any:
        """Points (particle, *event) that are what is known, where that is known without noise."""
        if noise is not None or self.linear:
            return x
        low, high = self.ends
        name = self.site.name
        return jnp.where(self.arrays[name + KNOWN], (self.arrays[name + VALUE] - low) / (high - low), x)

    def constrain(self, draws: Any) -> dict[str, np.ndarray]:
        """The site at draws (chain, draw, dim): (chain, draw, *event)."""
        with runtime.jax_scope(self.precision):
            return {self.site.name: np.asarray(_constrained(self, jnp.asarray(draws, self.precision)))}

    def lowered(self) -> str:
        def said(arrays: Any, z: Any, t: Any) -> Any:
            target = type(self)(self.structure, arrays)
            return target.problem(None, "auto")[0].likelihood(z, t), target.ends

        with runtime.jax_scope(self.precision):
            z = jnp.zeros(self.site.shape, self.precision)
            text = jax.jit(said).lower(self.arrays, z, jnp.ones((), self.precision) / 2).as_text()
        return f"{super().lowered()} {text}"


def _seen_of(arrays: Mapping[str, Any], site: str, apart: bool, size: int) -> Seen:
    """What the denoiser is told, of combinations."""
    y, width, rows = (arrays[site + k] for k in (measuring.Y, measuring.WIDTH, measuring.ROWS))
    if site + measuring.GATHERED not in arrays:
        return Rotated(y, width, rows)
    at = arrays[site + measuring.GATHERED]
    return Gathered(y, width, at, rows) if apart else Overlapping(y, width, at, rows, size)


def _calibration_of(arrays: Mapping[str, Any], site: str) -> Calibration | None:
    """What rows say of the denoiser, among a target's arrays."""
    if site + CALIBRATED.format("spread") not in arrays:
        return None
    return Calibration(*(arrays.get(site + CALIBRATED.format(k)) for k in Calibration._fields))


@jax.jit
def _constrained(target: Any, draws: Any) -> Any:
    low, high = target.ends
    x = low + (high - low) * draws.reshape(*draws.shape[:2], *target.site.shape)
    return jnp.clip(jnp.round(x), 0, target.whole) if target.whole else x


class _Both(Completable):
    """What a target has that is completable beside its own kind."""

    structure: Any
    arrays: Any

    def alone(self) -> Alone:
        name = site_of(self.arrays)
        at = np.flatnonzero(np.asarray(self.arrays[f"{name}{KNOWN}"]))
        if not len(at):
            raise ValueError(f"Nothing of {name} is known: fit.sample(64) draws from the model itself.")
        return _checked(self, {f"{name}{AT}": jnp.asarray(at)})


class CompletableContinuous(NumpyroContinuous, _Both):
    """Unknowns in R^n, completable by the denoiser."""


class CompletableAlone(NumpyroTarget, _Both):
    """A point of which combinations were seen: of no other kind, as its own density knows nothing of them."""

    def alone(self) -> Alone:
        return _checked(self, {})


class CompletableMixed(NumpyroMixed, _Both):
    """Whole numbers and the levels of a chain, completable by the denoiser."""


KINDS: dict[type, type] = {NumpyroContinuous: CompletableContinuous, NumpyroMixed: CompletableMixed}


def completable(target: Target) -> Any:
    """The target as one that a denoiser can complete, where its program has one of what is known in part; else as it is."""
    own: Any = target
    if seen := sites_of(getattr(own, "arrays", {})):
        return _alone(own, seen[0])
    if type(target) not in KINDS or site_of(own.arrays) is None or not _has_denoiser(own):
        return target
    found = KINDS[type(target)](own.structure, own.arrays)
    found.notes = target.notes
    return found


def _alone(target: Any, site: str) -> CompletableAlone:
    if not _has_denoiser(target):
        raise Incompatible(f"The program has no denoiser of {site!r}: pg.Linear is for what a diffusion model draws.")
    found = CompletableAlone(target.structure, target.arrays)
    found.notes = target.notes
    return found


def _has_denoiser(target: Any) -> bool:
    name = site_of(target.arrays)
    shape = next((v.shape for v in target.structure.variables if v.name == name), ())
    seen: list[bool] = []

    def see() -> None:
        seen.append(look(target.structure, target.arrays, jnp.zeros(shape, target.precision)) is not None)

    with runtime.jax_scope(target.precision):
        try:
            jax.eval_shape(see)
        except Exception:  # what is wrong is told where it is used
            return False
    return seen[0]


def _checked(target: Any, own: dict[str, Any]) -> Alone:
    """The point alone; Incompatible where the denoiser does not see its coordinates one by one, on a line."""
    found = Alone(target.structure, {**target.arrays, **own})
    found.notes, found.calibration = target.notes, target.calibration
    with runtime.jax_scope(target.precision):
        at = np.random.default_rng(0).normal(size=found.site.shape)
        low, high, point = (np.asarray(v, float) for v in _units(found, jnp.asarray(at, target.precision)))
        if not np.allclose(low + (high - low) * at, point, rtol=1e-3, atol=1e-4 * np.abs(high - low).max()):
            raise Incompatible(CURVED)
        if found.linear:
            name, size = found.site.name, found.site.size
            low, high = (np.broadcast_to(v, found.site.shape).reshape(size) for v in (low, high))
            seen = measuring.measured(told(found.arrays, name), low, high - low, bool(found.whole))
            kinds = {k: None if np.asarray(v).dtype.kind == "i" else target.precision for k, v in seen.items()}
            found.arrays = {**found.arrays, **{f"{name}{k}": jnp.asarray(v, kinds[k]) for k, v in seen.items()}}
    return found


@jax.jit
def _units(target: Any, at: Any) -> Any:
    return *target.ends, target.found(at).point
