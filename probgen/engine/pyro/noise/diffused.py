"""Targets of Pyro programs that take noise from rows by a denoiser: a chain of latents with a fixed guide, or a flow by an ODE.

def program(x):                                                  def guide(x):
    chain = Backward(denoiser, x.shape[1:], times)                   with pyro.plate("row", len(x)):
    with pyro.plate("row", len(x)):                                      pyro.sample("z", Noised(x, schedule, times))
        z = pyro.sample("z", chain)
        pyro.sample("x", observed(*chain.last(z[:, 0])), obs=x)

def program(x):
    with pyro.plate("row", len(x)):
        pyro.sample("x", diffused(denoiser, x.shape[1:]), obs=x)

As in `probgen.engine.numpyro.noise.diffused`, but a batch of rows at a time: each row's bound is estimated at its first level
and one other. A program may look at the first level of a chain alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import torch

from probgen.algorithm import Incompatible
from probgen.engine.denoising import CHAINS, NO_LINE, RISES, SCALED, rough
from probgen.engine.pyro.bounded import PyroBounded, Terms
from probgen.engine.pyro.learnable import PyroLearnable
from probgen.engine.pyro.noise import completing
from probgen.engine.pyro.noise.chains import Finding, Forward, Lazy
from probgen.engine.pyro.programs.data import Unobserved, extremes, in_words, innermost
from probgen.engine.pyro.programs.density import Given
from probgen.engine.pyro.programs.looks import FEW, log_prob
from probgen.target import Diffused, Target

Rows = Mapping[str, Any]
ASKED = 200  # times that an equation asks the network, or so
LEAST, MOST, CELLS = 200, 2000, 50_000_000  # draws that are judged: at least, at most, and their numbers at all levels
LOOKS_FURTHER = """The program looks at levels of its chain beyond the first: its bound is estimated at the first and one other.
Let what is observed depend on z[:, 0] alone."""


class Diffusing(PyroLearnable, Diffused):
    """What both kinds share: a denoiser, and the rows that it is about."""

    # ---- inside `running`

    def denoised(self, rows: Rows, key: Any = None) -> tuple[Any, torch.Tensor]:
        """The denoiser of rows, and the rows as it sees them: (row, *event)."""
        raise NotImplementedError

    def measured(self, rows: Rows) -> tuple[Any, torch.Tensor, torch.Tensor]:
        """The same, and the log of how much larger what it sees is than a row: ()."""
        raise NotImplementedError

    def unmeasured(self, rows: Rows, seen: torch.Tensor) -> dict[str, torch.Tensor]:
        """The visible site of what a denoiser sees, (row, *event), whole numbers where it holds them."""
        raise NotImplementedError

    def check_line(self, rows: Rows) -> None:
        """Raise Incompatible where a chain's rows are not measured one by one on a line."""

    def of_ends(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """What rows of zeros and of ones that the denoiser sees are in the program's units: (row, *event) each."""
        raise NotImplementedError

    def probed(self, rows: Rows) -> dict[str, float]:
        """Numbers that tell the program from another one, without a whole chain or an equation."""
        raise NotImplementedError

    def found(self, rows: Rows, *handlers: Any) -> Any:
        """The distribution of the program's site with a denoiser; what comes after it is not run."""
        finding = Finding()
        with finding, ExitStack() as stack:
            for handler in handlers:
                stack.enter_context(handler)
            self.structure.program(**{**self.structure.static, **self._named(rows)})
        return finding.found

    def forward(self, rows: Rows) -> dict[str, torch.Tensor]:
        """The visible sites drawn by the program's own law for the inputs of rows."""
        nodes = self.told(rows, Forward(), Unobserved())
        return {v.name: nodes[v.name]["value"] for v in self.visible}

    # ----

    def learned(self, answer: Mapping[str, np.ndarray], given: Mapping[str, Any] | None = None) -> Target:
        """The target of a new point, given learned parameters; of one that is known in part, what the denoiser completes."""
        given = dict(given or {})
        known = {k: v for k, v in given.items() if k in self.keywords}
        if len(self.keywords) > 1 or not completing.seen_in_part(known):
            return super().learned(answer, given)
        self.check_inputs(answer, given)
        return completing.of_point(self, answer, given)

    def ends(self, answer: Mapping[str, np.ndarray], inputs: Rows) -> np.ndarray:
        """What points of zeros and of ones that the denoiser sees are in the program's units, of one row: (2, *event)."""
        with self.running(self.as_tensors(answer), 0), torch.no_grad():
            self.check_line(self.few())
            found = self.of_ends({**self.stand_ins(1), **inputs})
        return torch.cat(found).cpu().numpy().astype(float)

    def check_indices(self, rows: Rows, answer: Any = None) -> None:
        """As for all programs of rows; and by a run of the network, which a program with a flow does not run by itself."""
        super().check_indices(rows, answer)
        held = {
            k: np.asarray(v.cpu() if isinstance(v, torch.Tensor) else v) for k, v in rows.items() if k in self.inputs
        }
        if not held:
            return
        few = extremes(held, list(held))
        part = self.stand_ins(len(few)) | self.from_host({k: v[few] for k, v in held.items()})
        values = self.initial(0) if answer is None else self.as_tensors(answer)
        with suppress(Incompatible), in_words(held), torch.no_grad(), self.running(values, 0):  # of several chains
            denoiser, seen = self.denoised(part)
            if denoiser is not None:
                denoiser(seen, torch.full((len(seen),), 0.5).to(seen))

    @property
    def chained(self) -> bool:
        """Whether the program is a chain of latents."""
        return isinstance(self, PyroChained)

    def label_that_wraps(self) -> str:
        """The first of `labels` of which -1 is what its largest value is, and not what another is; empty where there is none."""
        begun, draw = self.initial(0), torch.Generator().manual_seed(0)
        moved = {
            k: v + 0.1 * torch.randn(v.shape, generator=draw).to(v) for k, v in begun.items()
        }  # layers that begin at 0 say nothing
        with self.running(moved, 0), torch.no_grad():
            rows = self.few()
            for name in self.labels:
                low, high = int(self.tensors[name].min()), int(self.tensors[name].max())
                try:
                    hidden, last, first = (self._said(rows, name, value) for value in (-1, high, low))
                except (IndexError, RuntimeError):  # one that does not take -1 at all is refused in words of its own
                    continue
                if low >= 0 and torch.equal(hidden, last) and not torch.equal(first, last):
                    return name
        return ""

    def _said(self, rows: Rows, name: str, value: int) -> torch.Tensor:
        """What the denoiser says of a few rows of one label."""
        denoiser, seen = self.denoised({**rows, name: torch.full_like(rows[name], value)})
        return denoiser(seen, torch.full((len(seen),), 0.5).to(seen)).mean

    def log_ratios(self) -> tuple[float, float]:
        """log sigma / alpha where the noise begins and where it ends, before learning."""
        with self.running(self.initial(0), 0), torch.no_grad():
            schedule = self.denoised(self.few())[0].schedule
            low, high = (-0.5 * float(schedule.log_snr(torch.tensor(t))) for t in (max(schedule.first, 1e-5), 1.0))
        return low, high

    @property
    def labels(self) -> tuple[str, ...]:
        """Inputs that are whole numbers, which -1 hides."""
        return tuple(k for k in self.inputs if not self.tensors[k].is_floating_point())

    def cannot_denoise(self) -> str:
        """Why there is nothing to learn by noise that is put on rows; empty where there is."""
        try:
            with self.running(self.initial(0), 0), torch.no_grad():
                denoiser, seen = self.denoised(self.few())
        except Incompatible as error:
            return str(error)
        if denoiser is None:
            return "The chain has no denoiser of reals: learn its bound by inference='svi'."
        return "" if seen.dim() > 1 else "The denoiser is of a point without a shape."

    @property
    def most_draws(self) -> int:
        """How many draws of the program's own law, by all its levels or an equation, are made to judge it."""
        levels = max((v.shape[0] for v in self.hidden if len(v.shape) > 1), default=ASKED)
        size = sum(v.size for v in self.visible)
        return min(MOST, max(LEAST, CELLS // (levels * size)))

    @property
    def most(self) -> int | None:
        """The largest whole number that a row may hold, the least being 0; None for rows of reals."""
        (site,) = self.row_sites
        return int(site.bounds.high) if site.bounds is not None and site.bounds.whole else None

    def few(self) -> dict[str, torch.Tensor]:
        """A few rows, and their inputs."""
        return self.batch(torch.arange(FEW) % self.num_rows)


class PyroFlowing(Diffusing):
    """Rows, and a program whose visible site is a flow by an ODE with a denoiser."""

    def denoised(self, rows: Rows, key: Any = None) -> tuple[Any, torch.Tensor]:
        fn, (site,) = self.found(rows), self.visible
        return fn.denoiser, fn.measured(rows[site.name])

    def measured(self, rows: Rows) -> tuple[Any, torch.Tensor, torch.Tensor]:
        fn, (site,) = self.found(rows), self.visible
        return fn.denoiser, fn.measured(rows[site.name]), -fn.log_spread

    def unmeasured(self, rows: Rows, seen: torch.Tensor) -> dict[str, torch.Tensor]:
        (site,) = self.visible
        return {site.name: self.found(rows).unmeasured(seen)}

    def of_ends(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        fn, (site,) = self.found(rows), self.visible
        at = lambda value: fn.unmeasured(torch.full_like(rows[site.name], value))  # noqa: E731
        return at(0.0), at(1.0)

    def probed(self, rows: Rows) -> dict[str, float]:
        fn, (site,) = self.found(rows), self.visible
        y, t = fn.measured(rows[site.name]), torch.linspace(0.2, 0.8, len(rows[site.name]))
        z = fn.denoiser.schedule.noised(y, torch.randn(y.shape), t)
        said = {"velocity": fn.denoiser.velocity(z, t).sum(), "row": y.sum(), "spread": fn.log_spread}
        return {k: float(v) for k, v in (said | vars(fn.solver) | {"probes": fn.num_probes}).items()}

    def rough_solver(self) -> str:
        """The program's own solver, where it holds its error loosely; else empty."""
        with self.running(self.initial(0), 0), torch.no_grad():
            return rough(self.found(self.few()).solver)


class PyroChained(PyroBounded, Diffusing):
    """Rows, a program with a chain of latents, and the fixed guide of the chain."""

    def terms(self, rows: Rows, time: torch.Tensor | None = None) -> Terms:
        """By one draw of the guide, and one level of the chain a row; time: which, (row,) in [0, 1), by default drawn."""
        lazy, q = self._begun(rows, time)
        p = self.told(rows, Given({k: n["value"] for k, n in q.items()}))
        likelihood: Any = sum(log_prob(n) for k, n in p.items() if k not in q)
        kl = {}
        for k, node in q.items():
            if k in lazy.levels:
                own, other = innermost(node["fn"]), innermost(p[k]["fn"])
                kl[k] = other.end_gap(own) + other.gap(own, lazy.levels[k])
            else:
                kl[k] = log_prob(node) - log_prob(p[k])
        return Terms(likelihood, kl, likelihood - sum(kl.values()), torch.zeros_like(likelihood))

    def _begun(self, rows: Rows, time: Any = None, whole: bool = False) -> tuple[Lazy, dict[str, Any]]:
        """The guide's hidden sites, of a chain the first level and one other."""
        lazy = Lazy(time, whole)
        return lazy, {k: n for k, n in self.guided(rows, lazy).items() if not n["is_observed"]}

    def probed(self, rows: Rows) -> dict[str, float]:
        terms = self.terms(rows, torch.linspace(0.2, 0.8, len(next(iter(rows.values())))))
        return {"likelihood": float(terms.likelihood.sum()), "bound": float(terms.log_ratio.sum())}

    def draw(self, rows: Rows, centre: bool = False) -> dict[str, torch.Tensor]:
        """Hidden sites drawn from the guide, of a chain the first level and NaN."""
        return {k: n["value"] for k, n in self._begun(rows, whole=True)[1].items()}

    def denoised(self, rows: Rows, key: Any = None) -> tuple[Any, torch.Tensor]:
        lazy, q = self._begun(rows)
        if len(lazy.levels) > 1:
            raise Incompatible(CHAINS.format(len(lazy.levels), ", ".join(lazy.levels)))
        fn = self.found(rows, Given({k: n["value"] for k, n in q.items()}))
        (name,) = lazy.levels
        return getattr(fn, "denoiser", None), innermost(q[name]["fn"]).x

    def measured(self, rows: Rows) -> tuple[Any, torch.Tensor, torch.Tensor]:
        denoiser, seen = self.denoised(rows)
        low, high = self._ends(rows)
        return denoiser, seen, (high - low).abs().log().flatten(1).sum(1)[0]

    def check_line(self, rows: Rows) -> None:
        (site,) = self.visible
        (low, high), seen, x = self._ends(rows), self.denoised(rows)[1], rows[site.name]
        if seen.shape == x.shape:
            apart = (low + (high - low) * x - seen).abs()
            if bool((apart <= 1e-2 * (1 + seen.abs()) + 1e-5 * low.abs()).all()):
                return
        raise Incompatible(NO_LINE.format(site.name))

    def _ends(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """What the denoiser sees of rows of zeros and of ones: coordinates are measured one by one, on a line."""
        (site,) = self.visible
        at = lambda value: self.denoised({**rows, site.name: torch.full_like(rows[site.name], value)})[1]  # noqa: E731
        return at(0), at(1)

    def of_ends(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = self._ends(rows)
        return -low / (high - low), (1 - low) / (high - low)

    def unmeasured(self, rows: Rows, seen: torch.Tensor) -> dict[str, torch.Tensor]:
        (site,) = self.visible
        low, high = self._ends(rows)
        x = (seen - low) / (high - low)
        return {site.name: x if self.most is None else x.round().clamp(0, self.most)}


def diffused(target: Any) -> Any:
    """The target as one with a denoiser, where its program has one; else as it is."""
    if not isinstance(target, PyroLearnable) or isinstance(target, Diffusing):
        return target
    if isinstance(target, PyroBounded):
        found: Any = PyroChained(target.structure, target.tensors, target.data, target.guide)
    elif target.normalised and len(target.visible) == 1:
        found = PyroFlowing(target.structure, target.tensors, target.data)
    else:
        return target
    if not _fits(found):
        return target
    _check_falls(found)
    found.check_indices({k: v for k, v in found.tensors.items() if k in found.inputs})
    found.notes, found.author_critic, found.author_guide = target.notes, target.author_critic, target.author_guide
    return found


def _fits(target: Any) -> bool:
    """Whether a program has the site that makes it one of these; Incompatible for one that looks further along its chain."""
    rows = target.few()
    with target.running(target.initial(0), 0), torch.no_grad():
        if not target.chained:
            return hasattr(innermost(target.told(rows)[target.visible[0].name]["fn"]), "unmeasured")
        lazy, q = target._begun(rows, whole=True)
        if not lazy.levels:
            return False
        told = target.told(rows, Given({k: n["value"] for k, n in q.items()}))
        chains = {k: (innermost(told[k]["fn"]), innermost(q[k]["fn"])) for k in lazy.levels}
        if not all(hasattr(p, "end_gap") for p, _ in chains.values()):
            return False
        for k, (p, own) in chains.items():
            p.end_gap(own)  # which raises where they are of two schedules
            if any(_weighed(node) for node in (told[k], q[k])):
                raise Incompatible(SCALED.format(k))
        seen = sum(log_prob(n) for k, n in told.items() if k not in lazy.levels)
    if not bool(torch.as_tensor(seen).isfinite().all()):
        raise Incompatible(LOOKS_FURTHER)
    return True


def _weighed(node: Any) -> bool:
    """Whether a site counts for more or less than it says: by a scale, or a mask."""
    fn, scale = node["fn"], node["scale"]
    while hasattr(fn, "base_dist"):
        if hasattr(fn, "_mask"):
            return True
        fn = fn.base_dist
    return node["mask"] is not None or not bool((torch.as_tensor(scale) == 1).all())


def _check_falls(target: Any) -> None:
    """Raise ValueError for a schedule by which a row does not get noisier with time."""
    try:
        with target.running(target.initial(0), 0), torch.no_grad():
            denoiser = target.denoised(target.few())[0]
            if denoiser is None:
                return
            times = torch.linspace(float(denoiser.schedule.first), 1.0, 65)
            log_snr = denoiser.schedule.log_snr(times)
    except Incompatible:  # several chains
        return
    falls = log_snr.clamp(-80, 80).diff()
    if log_snr.isnan().any() or (falls > 0).any() or not log_snr[0] > log_snr[-1]:
        raise ValueError(RISES.format(float(times[int(falls.nan_to_num(torch.inf).argmax())])))
