"""Targets of a point of a learned Pyro program with a denoiser, of which something was seen: completable by the denoiser alone.

The twin of `probgen.engine.numpyro.noise.completing`. The program is asked for its denoiser alone; in which units that sees a
point, the target of rows has written among the data.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from probgen import engine
from probgen.algorithm import Incompatible
from probgen.data.checks import taken
from probgen.engine import combined
from probgen.engine.measuring import (
    CALIBRATED,
    GATHERED,
    OVERLAP,
    ROTATED,
    ROWS,
    VOLUME,
    WIDTH,
    Y,
    calibrated,
    measured,
)
from probgen.engine.pyro.executor import OPS
from probgen.engine.pyro.graph import SMALL
from probgen.engine.pyro.noise.chains import Finding
from probgen.engine.pyro.programs.density import scoped
from probgen.engine.pyro.programs.parameters import given as put
from probgen.engine.pyro.targets import as_tensor, is_array, plain
from probgen.nets.torch_diffusion.denoiser import Denoiser, Posterior
from probgen.nets.torch_diffusion.inverse import Gathered, Informed, Overlapping, Rotated, Seen
from probgen.nets.torch_diffusion.twisted import Calibration, Twist
from probgen.programs.completable import DENSE, KNOWN, VALUE, Completable, PartlyKnown, Told
from probgen.programs.linear import Combined
from probgen.programs.pinned import check_pins
from probgen.target import Arrays, Site, Target

# Endings: what zeros and ones of the denoiser are; the largest whole number, 0 for reals; which arrays are of one row.
ENDS, WHOLE, ROW = " ends value", " whole value", " row value"
BESIDE = (
    "{0!r} has other unknowns beside its chain: {1}. Of Pyro programs points are completed whose noise alone is unknown.\n"
    "Write the program for NumPyro, such as 'ddpm'."
)
DRAWN = (
    "Of {0!r} something was seen, of which draws forward know nothing.\n"
    "Draw by the denoiser: pg.fit(..., inference='guided') or 'twisted_smc'."
)


def seen_in_part(given: Mapping[str, Any]) -> bool:
    """Whether of a point a part is not known, or combinations were seen."""
    return any(isinstance(v, Combined) or bool(np.isnan(v).any()) for v in given.values())


def of_point(target: Any, answer: Arrays, given: Mapping[str, Any]) -> Target:
    """The target of a new point, of a learned program of rows: see `Generative.learned`."""
    if why := target.cannot_denoise():
        raise Incompatible(why)
    ((keyword, site),), value = target.keywords.items(), given[next(iter(target.keywords))]
    if len(target.hidden) > 1:
        names = ", ".join(repr(v.name) for v in target.hidden)
        raise Incompatible(BESIDE.format(site, names))
    inputs = target.from_host({k: np.asarray(given[k])[None] for k in target.inputs})
    rows = {keyword: target.stand_ins(1)[site], **inputs}
    data = {p.name: answer[p.name] for p in target.parameters} | dict(target.structure.static)
    data |= {k: v.cpu().numpy() for k, v in rows.items()} | {f"{k}{ROW}": np.array(True) for k in rows}
    data |= {f"{site}{ENDS}": target.ends(answer, inputs), f"{site}{WHOLE}": np.array(target.most or 0)}
    if isinstance(value, Combined):
        data |= combined.data_of(site, value)
    else:
        known = ~np.isnan(value)
        data |= {f"{site}{KNOWN}": known, f"{site}{VALUE}": np.where(known, value, 0.0)}
    return engine.load("pyro").prepare(target.structure.learned, data, "float64")


def is_point(data: Mapping[str, Any]) -> bool:
    """Whether data are those of such a target."""
    return any(k.endswith(ENDS) for k in data)


def point(program: Any, data: Mapping[str, Any], precision: str) -> PyroCompletable:
    """The target of what was seen, of a learned program."""
    arrays = {k: np.asarray(v.cpu() if isinstance(v, torch.Tensor) else v) for k, v in data.items() if is_array(v)}
    static = {k: plain(v) for k, v in data.items() if k not in arrays}
    found = PyroCompletable(Structure(program, static, precision), arrays)
    with found.running() as denoiser, torch.no_grad():
        denoiser(torch.zeros(2, *found.site.shape), torch.tensor(0.5))
    return found


class Structure(NamedTuple):
    """program: with its parameters as data; static: settings."""

    program: Any
    static: Mapping[str, Any]
    precision: str


class PyroPoint(Target):
    """What both kinds share: a program, and arrays, among which those of what was seen end in " known" or " value"."""

    engine, ops, dim = "pyro", OPS, 0
    largest = SMALL + 1  # numbers of the largest array of a network, which is not known

    def __init__(self, structure: Structure, arrays: Arrays) -> None:
        self.structure, self.arrays, self.precision = structure, dict(arrays), structure.precision

    @property
    def data(self) -> Mapping[str, Any]:
        return {**self.structure.static, **self.arrays}

    @property
    def site(self) -> Site:
        name = next(k.removesuffix(ENDS) for k in self.arrays if k.endswith(ENDS))
        whole = bool(self.arrays[f"{name}{WHOLE}"] > 0)
        return Site(name, "latent", self.arrays[f"{name}{ENDS}"].shape[1:], discrete=whole)

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self.site,)

    @contextmanager
    def running(self) -> Iterator[Asked]:
        """A scope in which the denoiser of the program may be asked, of any number of rows."""
        check_pins(self)
        learned = self.structure.program
        own = {k: as_tensor(v, self.precision) for k, v in self.arrays.items() if not k.endswith((KNOWN, VALUE))}
        values = {k: own.pop(k) for k in learned.parameters}
        rows = {k for k in own if f"{k}{ROW}" in self.arrays}
        with scoped(self.precision), put(learned.sites, values, learned.roots):
            yield Asked(learned.program, {**self.structure.static, **own}, rows)

    def sample(self, num_samples: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
        raise Incompatible(DRAWN.format(self.site.name))

    def probed(self, seed: int) -> dict[str, float]:
        """What the denoiser says of random points."""
        with self.running() as denoiser, torch.no_grad():
            z = torch.randn(2, *self.site.shape, generator=torch.Generator().manual_seed(seed))
            return {self.site.name: float(denoiser(z, torch.tensor(0.5)).mean.double().sum())}


class Asked(Denoiser):
    """A program's denoiser, of as many rows as it is asked about, all with the inputs of one point; rows: keywords of these."""

    def __init__(self, program: Any, data: Mapping[str, Any], rows: Collection[str]) -> None:
        self.program, self.data, self.rows = program, data, rows
        self.kept: dict[int, Any] = {}
        self.schedule = self.site(1).denoiser.schedule

    def site(self, count: int) -> Any:
        """The distribution of the site with the denoiser, of so many rows."""
        if count not in self.kept:
            data = {k: v.expand(count, *v.shape[1:]) if k in self.rows else v for k, v in self.data.items()}
            with Finding() as finding:
                self.program(**taken(self.program, data))
            self.kept[count] = finding.found
        return self.kept[count]

    @property
    def variance(self) -> str:
        """Of the chain's steps, see `Ancestral`; of a flow "posterior"."""
        return getattr(self.site(1), "kind", "posterior")

    def __call__(self, z: torch.Tensor, t: torch.Tensor) -> Posterior:
        return self.site(len(z)).denoiser(z, t)


class PyroAlone(PyroPoint, PartlyKnown):
    """The point alone, (dim,), in the units in which the denoiser sees it."""

    @property
    def dim(self) -> int:
        return math.prod(self.site.shape)

    @property
    def linear(self) -> bool:
        return bool(combined.sites_of(self.arrays))

    @property
    def num_seen(self) -> int:
        return len(self.seen(None)[0].y)

    @property
    def ends(self) -> np.ndarray:
        """What points of zeros and of ones that the denoiser sees are in the program's units: (2, *event)."""
        return self.arrays[f"{self.site.name}{ENDS}"]

    def problem(self, denoiser: Denoiser, noise: float | None, covariance: str) -> tuple[Informed | Twist, float]:
        """The denoiser, of `running`, that knows what was seen, and the log of how much larger y is in its units.

        noise: the standard deviation with which a part is known, in the program's units; None for what stands for none.
        covariance: see `Completing`; "rows" for a denoiser that rows have calibrated, where it was.
        """
        seen, volume = self.seen(noise)
        if covariance == "rows" and self._calibrated:
            held = (self.arrays.get(self.site.name + CALIBRATED.format(k)) for k in Calibration._fields)
            found: Any = (None if v is None else torch.as_tensor(v).to(seen.y) for v in held)
            return Twist(denoiser, seen, Calibration(*found)), volume
        kind: Any = covariance
        if covariance in ("auto", "rows"):
            kind = "jacobian" if len(seen.y) <= DENSE or isinstance(seen, Overlapping) else "variance"
        return Informed(denoiser, seen, kind, wary=True), volume

    @property
    def _calibrated(self) -> bool:
        return self.site.name + CALIBRATED.format("spread") in self.arrays

    def calibrated(self) -> PyroAlone:
        """The same with what rows say of the denoiser, where the fit is at hand that learned from them."""
        seen = self.seen(None)[0]
        if isinstance(seen, Overlapping):
            raise Incompatible(OVERLAP.format(ROTATED, len(seen.y)))
        if self.calibration is None or self._calibrated:
            return self
        rows = self.calibration()
        missed = torch.as_tensor(np.asarray(rows["missed"])).to(seen.y)
        along = seen.among(missed.flatten(2)).double().numpy()
        found = {f"{self.site.name}{k}": np.asarray(v, self.precision) for k, v in calibrated(rows, along).items()}
        other = PyroAlone(self.structure, {**self.arrays, **found})
        other.notes = self.notes
        return other

    def seen(self, noise: float | None) -> tuple[Seen, float]:
        """What was seen in the denoiser's units, and the log of how much larger it is there."""
        name, (low, high) = self.site.name, self.ends.reshape(2, -1)
        told = combined.told(self.arrays, name) if self.linear else self._part(noise)
        found = measured(told, low, high - low, self.site.discrete)
        y, width, rows = (torch.as_tensor(found[k]).to(getattr(torch, self.precision)) for k in (Y, WIDTH, ROWS))
        if GATHERED not in found:
            return Rotated(y, width, rows), float(found[VOLUME])
        at = torch.as_tensor(found[GATHERED]).long()
        seen = Gathered(y, width, at, rows) if told.apart else Overlapping(y, width, at, rows, self.dim)
        return seen, float(found[VOLUME])

    def _part(self, noise: float | None) -> combined.Told:
        """A point that is known in part, as combinations of one number each."""
        name = self.site.name
        at = np.flatnonzero(self.arrays[f"{name}{KNOWN}"])[:, None]
        y = self.arrays[f"{name}{VALUE}"].ravel()[at[:, 0]]
        return combined.Told(y, np.ones(at.shape), at, None if noise is None else np.full(len(y), noise), True)

    def told(self) -> Told:
        return combined.shown(self.arrays, self.site.name, self.site.shape)

    def settled(self, x: torch.Tensor, noise: float | None) -> torch.Tensor:
        """Points (..., *event) that are what is known, where that is known without noise."""
        if noise is not None or self.linear:
            return x
        name, (low, high) = self.site.name, self.ends
        known = torch.as_tensor(self.arrays[f"{name}{KNOWN}"] > 0)
        return torch.where(known, torch.as_tensor((self.arrays[f"{name}{VALUE}"] - low) / (high - low)).to(x), x)

    def constrain(self, draws: Any) -> dict[str, np.ndarray]:
        """The site at draws (chain, draw, dim): (chain, draw, *event)."""
        low, high = self.ends
        x = low + (high - low) * np.asarray(draws, float).reshape(*np.shape(draws)[:2], *self.site.shape)
        whole = int(self.arrays[f"{self.site.name}{WHOLE}"])
        return {self.site.name: np.clip(np.round(x), 0, whole) if whole else x}


class PyroCompletable(PyroPoint, Completable):
    """A point of which something was seen; it has no density here that other algorithms could see."""

    def alone(self) -> PyroAlone:
        name = self.site.name
        if f"{name}{KNOWN}" in self.arrays and not self.arrays[f"{name}{KNOWN}"].any():
            raise ValueError(f"Nothing of {name} is known: fit.sample(64) draws from the model itself.")
        found = PyroAlone(self.structure, self.arrays)
        found.notes, found.calibration = self.notes, self.calibration
        return found
