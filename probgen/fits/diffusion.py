"""DiffusionFit: a learned denoiser. Samples by any sampler, bounds and densities that say which law they are of."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from probgen.algorithm import Incompatible
from probgen.data import whole_numbers
from probgen.data.inputs import first, read
from probgen.data.scales import check_units
from probgen.engine import denoising
from probgen.engine.denoising import Draw
from probgen.evaluate.attribute import Latents
from probgen.fits import latents
from probgen.fits.learned import LearnedFit
from probgen.fitted import FittedDenoiser, LogProb
from probgen.programs.completable import OUTSIDE, outside
from probgen.programs.linear import Combined, Linear
from probgen.target import Diffused, Target

OWN = "own"
SAMPLERS = (OWN, "ancestral", "ddim", "euler", "heun", "dpm++", "sde")
TIMES = ("even", "log_snr", "rho")
SCORED = ("ancestral", "sde")  # samplers that put noise back, which takes a score
METHODS = ("auto", "bound", "ode")
NO_SCORE = (
    "{0} needs a score; this fit has none, since {1} paired noise with points.\n"
    "Use sampler='own', 'ddim', 'heun' or 'dpm++' and method='ode', or flow_matching with coupling='independent'."
)
ROWS = 500  # to which what was seen is compared
JUMPS = (
    "{0} is of a denoiser; {1} has learned jumps, which have no score, velocity or density.\n"
    "Ask the fit that it was learned from, or one of the program by 'denoising' or 'flow_matching'."
)
HIDDEN = "{0} is for a fit that hid its labels at times: learn with inference='denoising' or 'flow_matching', unlabelled=0.1."


@dataclass(frozen=True, repr=False)
class DiffusionFit(LearnedFit, FittedDenoiser):
    """A learned diffusion model: a chain of latents with a fixed guide, or a flow by an ODE with a denoiser."""

    target: Diffused

    def sample(
        self,
        num_samples: int = 1,
        seed: int | None = None,
        *,
        sampler: str = OWN,
        num_steps: int | None = None,
        guidance: float | None = None,
        start: Any = None,
        level: float | None = None,
        times: str | None = None,
        **inputs: Any,
    ) -> dict[str, np.ndarray]:
        """New points: {site: (num_samples, *event)}.

        sampler: "own", the program run forward, the law of which `log_prob` is: a chain's levels one after the other, or the ODE.
            Else "ancestral", "ddim", "euler", "heun", "dpm++" or "sde", by which the network is asked `num_steps` times, by
            default 50. A chain of tokens has its own alone, of which `num_steps` levels are another law.
        guidance: of a program whose inputs were hidden in learning: 1 is the conditional model, 0 the unconditional one, above 1
            what tells them apart is exaggerated; no sampler then draws from a density that is known.
        start: a point, in the units of the data, or (num_samples, *event): noise is put on it up to `level`, the share of the
            variance that is noise, in (0, 1], and points are drawn from there (SDEdit, arXiv:2108.01073), by "sde" unless said.
        times: where a sampler asks the network: "even" in time, in "log_snr", or by "rho", Karras et al.'s; unless told, as the
            sampler is known. "rho" asks less often near the clean end, where a network that errs there leaves specks.
        inputs: of a conditional program, one for all points, or (num_samples, *shape).
        After "consistency" and "mean_flow" there is "own" alone: `num_steps` jumps, by default the learner's setting `jumps`.
        Raises ValueError for a sampler that is not known, a level out of range, guidance where nothing was hidden.
        """
        seed, count = self._seed(seed), whole_numbers.whole("num_samples", num_samples)
        self._check_seen()
        rows = self._inputs(inputs, count)
        guidance = None if guidance is None else _number("guidance", guidance)
        level = None if level is None else _number("level", level)
        if not isinstance(sampler, str) or sampler not in SAMPLERS:
            raise ValueError(f"Unknown sampler {sampler!r}. Known: {', '.join([OWN] if self._jumps else SAMPLERS)}.")
        if times is not None and (not isinstance(times, str) or times not in TIMES or self._jumps):
            raise ValueError(f"times is {times!r}; known: {', '.join(TIMES)}, of a sampler's steps; jumps have none.")
        if self._jumps:
            self._check_jumps(sampler, guidance, start, level)
            return self.drawn(rows, count, seed, num_steps)
        if start is None and level is not None:
            raise ValueError("level is of a start: say start=point, level=0.5.")
        if start is not None and sampler == OWN:
            sampler = "sde"
        if start is not None or sampler in SCORED:
            self._check_score("fit.sample(start=...)" if start is not None else f"sampler={sampler!r}")
        if sampler == OWN and guidance not in (None, 1.0):
            sampler = "ddim"
        if sampler == OWN and times is not None:
            raise ValueError("times are of a sampler: say which, such as sampler='dpm++'.")
        if sampler == OWN:
            own = None if num_steps is None else whole_numbers.whole("num_steps", num_steps)
            if own is not None and not self.target.cannot_denoise():
                raise ValueError("num_steps is of a sampler: say which, such as sampler='ddim'.")
            return self.drawn(rows, count, seed, own)
        if guidance is not None:
            self._check_guidance(guidance)
        steps = whole_numbers.whole("num_steps", 50 if num_steps is None else num_steps)
        draw = Draw(sampler, steps, 1.0 if guidance is None else guidance, self._level(start, level), times)
        begun = None if start is None else self._start(start, count)
        return denoising.draws(self.target, self.answer, rows, count, seed, draw, begun)

    def log_prob(
        self, x: Any = None, /, *, method: str = "auto", num_draws: int = 100, seed: int | None = None, **rows: Any
    ) -> LogProb:
        """log p(x) of rows in nats, (row,), with its standard error; by default of the rows that were learned from.

        method: "bound": below the log probability of the points that a chain draws, or the reverse SDE; each row at `num_draws`
            levels of noise, spread out. "ode": the density of the probability flow; its error is the difference that half the
            tolerance makes, and the noise of the divergence's probes above 32 coordinates. They are of two laws, which are one
            where the network is exact. "auto": the program's own, the bound of a chain, else "ode".
        """
        if method not in METHODS:
            raise ValueError(f"method is {method!r}; known: {', '.join(METHODS)}")
        flow = self._jumps and getattr(self.inference, "keeps_flow", False)
        if not (flow and method == "ode"):
            self._check_no_jumps(
                "fit.log_prob" if not flow else f"method={method!r}, unlike 'ode' of the velocity beside,"
            )
        method = ("bound" if self.target.chained else "ode") if method == "auto" else method
        given, seed = self._rows(self._named(x, rows)), self.seed + 3 if seed is None else whole_numbers.seed(seed)
        if method == "bound":
            self._check_score("method='bound'")
            count = whole_numbers.whole("num_draws", num_draws)
            return denoising.bound(self.target, self.answer, given, count, seed)
        found = denoising.density(self.target, self.answer, given, seed)
        return found._replace(kind=f"{found.kind} of the velocity beside, no law of jumps") if flow else found

    def condition(self, x: Any = None, /, **given: Any) -> Target:
        """The target of a new point, of which something was seen: "twisted_smc" and "guided" draw the rest.

        x, given: the point itself, NaN where it is not known; or `pg.Linear`: averages, grey, a point under noise, any A x + noise.
        """
        self._check_no_jumps("fit.condition")
        found: Any = self._seen(self._named(x, given))
        found.calibration = lambda: self._calibration
        if getattr(self.inference, "coupled", False):
            found.no_score = NO_SCORE.format("A completion by the denoiser", self.inference.name)
        return found

    @functools.cached_property
    def _calibration(self) -> Mapping[str, np.ndarray]:
        """What rows say of the network's means."""
        return denoising.calibration(self.target, self.answer)

    def _seen(self, named: Mapping[str, Any]) -> Target:
        """The target of what was seen, with a word on numbers that are outside of what rows hold."""
        self._check_seen()
        combined = {k: self._combined(k, v) for k, v in named.items() if isinstance(v, Linear) and k in self._shapes}
        point = self._one({k: v for k, v in named.items() if k not in combined}, unknown=True)
        found: Any = self.target.learned(self.answer, {**point, **combined})
        for keyword, site in self.target.keywords.items():
            y, rows = {**point, **combined}.get(keyword), np.asarray(self.target.all_rows()[site], float)[:ROWS]
            if isinstance(y, Combined):
                told = outside(y.y, y.of(rows), y.noise)
            elif y is not None and np.isnan(y).any() and not np.isnan(y).all():
                told = outside(y[~np.isnan(y)], rows[:, ~np.isnan(y)], None)
            else:
                continue
            if told is not None and hasattr(found, "arrays"):
                found.arrays = {**found.arrays, f"{site}{OUTSIDE}": told}
        return found

    def _combined(self, keyword: str, seen: Linear) -> Combined:
        if keyword not in self.target.keywords:
            raise ValueError(f"{keyword} is an input of the program, which is given itself, and no pg.Linear.")
        if why := self.target.cannot_denoise():
            raise Incompatible(f"pg.Linear is for models with a denoiser of reals. {why}")
        site, shape = self._shapes[keyword]
        return seen.combined(site, shape, functools.partial(denoising.columns, self.target))

    def energy(self, x: Any = None, /, **rows: Any) -> np.ndarray:
        """Minus the log density of rows; see `LearnedFit.energy`."""
        self._check_no_jumps("fit.energy")
        return super().energy(x, **rows)

    def log_z(self, method: str = "auto", **settings: Any) -> LogProb:
        """Zero, the log of a density's constant; see `LearnedFit.log_z`."""
        self._check_no_jumps("fit.log_z")
        return super().log_z(method, **settings)

    def interpolate(self, a: Any, b: Any, num_points: int = 8, **inputs: Any) -> dict[str, np.ndarray]:
        """Points between two, {site: (num_points, *event)}: the flow takes both to noise, and the great circle between back.

        a, b: one point each; inputs: of a conditional program, one for all points.
        """
        self._check_no_jumps("fit.interpolate")
        num_points = whole_numbers.whole("num_points", num_points)
        if num_points < 2:
            raise ValueError(f"num_points is {num_points}; it must be at least 2")
        ends = [self._one(self._named(point, {})) for point in (a, b)]
        (keyword,) = ends[0]
        pair = np.stack([end[keyword] for end in ends])
        check_units("a point to interpolate", pair, np.asarray(self.target.all_rows()[self.target.keywords[keyword]]))
        rows = self._inputs(inputs, num_points)
        return denoising.between(self.target, self.answer, rows, pair, num_points)

    def losses(self, num_levels: int = 10, seed: int | None = None) -> Mapping[str, np.ndarray]:
        """The error of the network by level of noise, on rows held out where there are some.

        log_ratio: log sigma / alpha, the middle of each level; error, stderr: the mean square of x less what the network believes,
        in units of that of the best linear denoiser of independent coordinates; nats: what the level adds to -log p(x), a
        coordinate; lost, lost_stderr: by how many of these more than by that linear denoiser. All (level,).
        """
        self._check_no_jumps("fit.losses")
        self._check_score("fit.losses")
        held, num_levels = self.held_out, whole_numbers.counted("num_levels", num_levels)
        return denoising.losses(self.target, self.answer, held, num_levels, self._seed(seed))

    def schedule(self, num_times: int = 200) -> Mapping[str, np.ndarray]:
        """What is left of a point, `alpha`, the noise, `sigma`, and log alpha^2 / sigma^2, `log_snr`, at `times`, all (time,)."""
        return denoising.schedule(self.target, self.answer, num_times)

    def trajectory(
        self,
        num_samples: int = 8,
        seed: int | None = None,
        *,
        sampler: str = "ddim",
        num_steps: int = 50,
        times: str | None = None,
        **inputs: Any,
    ) -> Mapping[str, np.ndarray]:
        """How points come out of noise, as the denoiser sees them: times (step,) and z (num_samples, step, *event).

        sampler, num_steps, times: as of `sample`.
        """
        self._check_no_jumps("fit.trajectory")
        if times is not None and (not isinstance(times, str) or times not in TIMES):
            raise ValueError(f"times is {times!r}; known: {', '.join(TIMES)}.")
        if sampler in SCORED:
            self._check_score(f"sampler={sampler!r}")
        counts = (("num_samples", num_samples), ("num_steps", num_steps))
        count, steps = (whole_numbers.counted(k, v) for k, v in counts)
        rows, draw = self._inputs(inputs, count), Draw(sampler, steps, times=times)
        return denoising.paths(self.target, self.answer, rows, count, self._seed(seed), draw)

    @property
    def held_out(self) -> Mapping[str, np.ndarray]:
        """Rows that were not learned from, sites and inputs by name, (row, *event); without such, at most 2000 of the others."""
        rows = self.target.all_rows()
        held = getattr(self.inference, "held", None)
        index = np.asarray(held(self.state, self.target.num_rows), int) if held and self.state else np.zeros(0, int)
        index = index if index.size else np.arange(min(2000, self.target.num_rows))
        return {k: np.asarray(v)[index] for k, v in rows.items()}

    def _forward(self, inputs: Any, count: int, seed: int, given: Any = None) -> dict[str, np.ndarray]:
        """The program run forward for the inputs of so many rows, without the levels of a chain."""
        if given:
            raise TypeError(
                "Noise is not given to a diffusion model: fit.sample(start=..., level=...), or fit.condition."
            )
        self._check_seen()
        return self.drawn(inputs, count, seed)

    def drawn(
        self, inputs: Mapping[str, np.ndarray], count: int, seed: int, num_steps: int | None = None
    ) -> dict[str, np.ndarray]:
        """Points by the law that is the fit's own, for inputs (count, *shape): {site: (count, *event)}.

        num_steps: jumps, where those were learned; levels of a chain of tokens.
        """
        if not self._jumps:
            return denoising.own_draws(self.target, self.answer, inputs, count, seed, num_steps)
        steps = whole_numbers.whole("num_steps", self._jumps if num_steps is None else num_steps)
        most = getattr(self.inference, "most_jumps", None)
        if steps < 1 or (most is not None and steps > most):
            upto = "or more" if most is None else f"to {most}, as many levels as it learned"
            raise ValueError(f"num_steps is {steps}; expected 1 {upto}: evaluations of the network.")
        return denoising.jumped(self.target, self.answer, inputs, count, seed, self.inference.name, steps)

    def _latents(self, inputs: Mapping[str, Any]) -> Latents:
        self._check_no_jumps("fit.attribute")
        return latents.of_denoiser(self, inputs)

    # ---- parts

    @property
    def _jumps(self) -> int:
        """Evaluations by which draws are made of a network that has learned to jump; 0 for another."""
        return getattr(self.inference, "jumps", 0)

    def _check_jumps(self, sampler: str, guidance: Any, start: Any, level: Any) -> None:
        """Raise Incompatible for what jumps cannot be asked for."""
        if sampler != OWN:
            raise Incompatible(JUMPS.format(f"sampler={sampler!r}", self.inference.name))
        if guidance not in (None, 1.0):
            raise Incompatible(JUMPS.format("guidance", self.inference.name))
        if start is not None or level is not None:
            raise Incompatible(JUMPS.format("fit.sample(start=...)", self.inference.name))

    def _check_no_jumps(self, what: str) -> None:
        """Raise Incompatible where the network has learned jumps alone."""
        if self._jumps:
            raise Incompatible(JUMPS.format(what, self.inference.name))

    def _check_score(self, what: str) -> None:
        """Raise Incompatible where the network's velocity gives no score: noise was chosen for its points."""
        if getattr(self.inference, "coupled", False):
            raise Incompatible(NO_SCORE.format(what, self.inference.name))

    def _level(self, start: Any, level: float | None) -> float | None:
        if start is None:
            return None
        level = 0.5 if level is None else level
        if not 0 < level <= 1:
            raise ValueError(
                f"level is {level:g}; expected the share of the variance that is noise, above 0 and at most 1."
            )
        return level

    def _whole(self, keyword: str, array: np.ndarray) -> np.ndarray:
        """The values of an input, labels among those that were learned from, or -1, which hides one, where learning hid some."""
        if keyword not in self.target.labels:
            return super()._whole(keyword, array)
        super()._whole(keyword, np.where(array == -1, 0, array))
        known = np.asarray(self.target.data[keyword])
        top, hid = known.max(), known.min() < 0 or getattr(self.inference, "unlabelled", 0.0)
        if (bad := (array < -1) | (array > top)).any():
            told = f"{keyword}{first(bad)} is {array[bad][0]:g}; it is from 0 to {top:g} where it was learned from"
            raise ValueError(f"{told}, or -1 for any.")
        if (array < 0).any() and not hid:
            raise ValueError(HIDDEN.format(f"{keyword}=-1"))
        return array

    def _check_guidance(self, guidance: float) -> None:
        if not np.isfinite(guidance):
            raise ValueError(f"guidance is {guidance}; expected a number.")
        if not self.target.labels:
            raise ValueError("guidance is for a program with labels: this one has no inputs of whole numbers.")
        if guidance != 1 and not getattr(self.inference, "unlabelled", 0.0):
            raise ValueError(HIDDEN.format("guidance"))

    def _start(self, start: Any, count: int) -> np.ndarray:
        """Points to begin at, (count, *event), within the range of the data where that has one."""
        ((site, shape),) = [v for k, v in self._shapes.items() if k in self.target.keywords]
        array = read("start", start).astype(float)
        if array.shape not in (shape, (count, *shape)):
            raise ValueError(f"start has shape {array.shape}; expected {shape}, or ({count}, *{shape}).")
        check_units("start", array, np.asarray(self.target.all_rows()[site]))
        return np.broadcast_to(array, (count, *shape))

    def __repr__(self) -> str:
        return self._counted()


def _number(name: str, value: Any) -> float:
    """The value as a float, NaN among them; ValueError for what is none, such as one for each point."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {value!r}; expected one number.") from None
